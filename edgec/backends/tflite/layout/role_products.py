"""Roles of matrix products: what their weights and operand flags can take in."""

from __future__ import annotations

import numpy as np

from edgec.backends.tflite.layout.perms import Perm, identity
from edgec.backends.tflite.layout.role import Ports, Role, permute_operand
from edgec.backends.tflite.tir import Op, Tensor


class FlattenFullyConnected(Role):
    """FULLY_CONNECTED that flattens its input itself: the weights' columns follow any order of the input."""

    def anchor(self, op: Op) -> Tensor:
        x = op.inputs[0]
        assert x is not None
        return x

    def _batch_axes(self, op: Op) -> int:
        """How many leading axes make up the batch: the first count whose product is the output's rows."""
        x, batch, count, axes = self.anchor(op), op.outputs[0].shape[0], 1, 0
        while count != batch:
            count *= x.shape[axes]
            axes += 1
        return axes

    def legal(self, op: Op, choice: Perm) -> bool:
        x, batch = self.anchor(op), self._batch_axes(op)
        lead = [a for a in choice if a < batch and x.shape[a] != 1]
        moving = [a for a in choice if x.shape[a] != 1]
        return moving[: len(lead)] == sorted(lead)

    def ports(self, op: Op, choice: Perm) -> Ports:
        return [choice, *(None for _ in op.inputs[1:])], [identity(2)]

    def choices(self, op: Op, side: str, index: int, perm: Perm) -> list[Perm]:
        if side == "out":
            return [self.default(op)] if perm == (0, 1) else []
        return [perm] if index == 0 and self.legal(op, perm) else []

    def rewrite(self, op: Op, choice: Perm) -> None:
        x, w = self.anchor(op), op.inputs[1]
        assert w is not None and w.data is not None
        batch = self._batch_axes(op)
        features = [a for a in choice if a >= batch]  # the batch axes come first, or have size 1
        cube = w.data.reshape(w.shape[0], *x.shape[batch:])
        data = cube.transpose(0, *(a - batch + 1 for a in features)).reshape(w.shape)
        op.inputs[1] = Tensor(
            name=w.name, shape=w.shape, dtype=w.dtype, data=np.ascontiguousarray(data), storage=w.storage
        )


class BatchMatmul(Role):
    """Batch axes may move together; the right operand may be kept transposed (adjY)."""

    def anchor(self, op: Op) -> Tensor:
        y = op.inputs[1]
        assert y is not None
        return y

    def legal(self, op: Op, choice: Perm) -> bool:
        rank = len(choice)
        batch_in_front = sorted(choice[: rank - 2]) == list(range(rank - 2))
        shapes = {t.shape[:-2] for t in op.inputs if t is not None}
        moves = choice[: rank - 2] != identity(rank - 2)
        return batch_in_front and (not moves or len(shapes) == 1)

    def ports(self, op: Op, choice: Perm) -> Ports:
        a, b = op.inputs[0], op.inputs[1]
        assert a is not None and b is not None
        out_rank = op.outputs[0].rank
        moved = choice[: len(choice) - 2]
        straight = (*moved, len(choice) - 2, len(choice) - 1)
        same = a.rank == b.rank == out_rank
        return [
            None if a.is_const else straight if same else identity(a.rank),
            None if b.is_const else choice,
        ], [straight if same else identity(out_rank)]

    def choices(self, op: Op, side: str, index: int, perm: Perm) -> list[Perm]:
        if side == "in" and index == 1:
            return [perm] if self.legal(op, perm) else []
        rank = self.anchor(op).rank
        straight = perm if len(perm) == rank else identity(rank)
        swapped = (*straight[:-2], straight[-1], straight[-2])
        return [c for c in (straight, swapped) if self.legal(op, c) and self._gives(op, side, index, c, perm)]

    def _gives(self, op: Op, side: str, index: int, choice: Perm, perm: Perm) -> bool:
        inputs, outputs = self.ports(op, choice)
        return (inputs[index] if side == "in" else outputs[index]) == perm

    def rewrite(self, op: Op, choice: Perm) -> None:
        rank = len(choice)
        swapped = choice[-1] != rank - 1
        straight = (*choice[: rank - 2], rank - 2, rank - 1)
        for i, t in enumerate(op.inputs[:2]):
            if t is not None and t.is_const and t.rank == rank:
                op.inputs[i] = permute_operand(t, choice if i == 1 else straight)
        if swapped:
            op.options["adjY"] = not op.options.get("adjY", False)
