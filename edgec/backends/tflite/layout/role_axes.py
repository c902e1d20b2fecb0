"""Roles of operators with numbered axes and per-axis lists, which follow the order of their data."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np

from edgec.backends.tflite.layout.perms import Perm, identity, inverse
from edgec.backends.tflite.layout.role import Ports, Role, permute_operand
from edgec.backends.tflite.tir import Op, Tensor, int32


@dataclass
class AxisOp(Role):
    """All data tensors share one order; numbered axes and per-axis lists follow it.

    `vectors`: constant inputs with one row an axis; `axis_inputs`: constants that hold axis numbers;
    `axis_options`: options that hold one. `drops`: the output lacks the named axes (unless keepDims).
    """

    vectors: tuple[int, ...] = ()
    axis_inputs: tuple[int, ...] = ()
    axis_options: tuple[str, ...] = ()
    data: int = 0
    drops: bool = False

    def anchor(self, op: Op) -> Tensor:
        x = op.inputs[self.data]
        assert x is not None
        return x

    def legal(self, op: Op, choice: Perm) -> bool:
        return True

    def _dropped(self, op: Op) -> list[int]:
        if not self.drops or op.options.get("keepDims"):
            return []
        axes = op.inputs[1]
        assert axes is not None and axes.data is not None
        rank = self.anchor(op).rank
        return [int(a) % rank for a in np.atleast_1d(axes.data)]

    def _out(self, op: Op, choice: Perm) -> Perm:
        dropped = self._dropped(op)
        return tuple(a - sum(d < a for d in dropped) for a in choice if a not in dropped)

    def ports(self, op: Op, choice: Perm) -> Ports:
        inputs: list[Perm | None] = []
        for i, t in enumerate(op.inputs):
            special = i in self.vectors or i in self.axis_inputs
            inputs.append(None if t is None or t.is_const or special else choice)
        return inputs, [self._out(op, choice) for _ in op.outputs]

    def choices(self, op: Op, side: str, index: int, perm: Perm) -> list[Perm]:
        if side == "in":
            return [perm]
        dropped = self._dropped(op)
        if not dropped:
            return [perm]
        kept = [a for a in range(self.anchor(op).rank) if a not in dropped]
        order = [kept[p] for p in perm]
        # the dropped axes may stand anywhere: offer the front, the back, and channels-last's place
        options = {(*dropped, *order), (*order, *dropped), (*order[:1], *dropped, *order[1:])}
        return sorted(options)

    def rewrite(self, op: Op, choice: Perm) -> None:
        place = inverse(choice)
        for i in self.vectors:
            t = op.inputs[i]
            if t is not None and t.data is not None:
                op.inputs[i] = int32(t.name, t.data[list(choice)])
        for i in self.axis_inputs:
            t = op.inputs[i]
            if t is not None and t.data is not None:
                axes = [place[int(a) % len(choice)] for a in np.atleast_1d(t.data)]
                op.inputs[i] = int32(t.name, np.asarray(axes).reshape(t.shape))
        for name in self.axis_options:
            op.options[name] = place[op.options[name] % len(choice)]
        for i, t in enumerate(op.inputs):
            plain = i not in self.vectors and i not in self.axis_inputs
            if plain and t is not None and t.is_const and t.rank == len(choice):
                op.inputs[i] = permute_operand(t, choice)


class Gather(AxisOp):
    """GATHER: the indices' axes stand where the gathered axis stood."""

    def legal(self, op: Op, choice: Perm) -> bool:
        return not op.options.get("batchDims") or choice == self.default(op)

    def _axis(self, op: Op) -> int:
        return int(op.options["axis"]) % self.anchor(op).rank

    def _out(self, op: Op, choice: Perm) -> Perm:
        index = op.inputs[1]
        assert index is not None
        axis, extra = self._axis(op), index.rank - 1
        result: list[int] = []
        for a in choice:
            if a == axis:
                result.extend(range(axis, axis + index.rank))
            else:
                result.append(a if a < axis else a + extra)
        return tuple(result)

    def ports(self, op: Op, choice: Perm) -> Ports:
        x, index = op.inputs[0], op.inputs[1]
        assert x is not None and index is not None
        return [
            None if x.is_const else choice,
            None if index.is_const else identity(index.rank),
        ], [self._out(op, choice)]

    def choices(self, op: Op, side: str, index: int, perm: Perm) -> list[Perm]:
        if side == "in":
            if index == 1:
                return [self.default(op)] if perm == identity(len(perm)) else []
            return [perm] if self.legal(op, perm) else []
        rank = self.anchor(op).rank
        candidates = itertools.permutations(range(rank)) if rank <= 4 else iter([self.default(op)])
        return [c for c in candidates if self._out(op, c) == perm and self.legal(op, c)]

    def rewrite(self, op: Op, choice: Perm) -> None:
        op.options["axis"] = inverse(choice)[self._axis(op)]
        x = op.inputs[0]
        if x is not None and x.is_const:
            op.inputs[0] = permute_operand(x, choice)


class Pack(Role):
    """PACK adds an axis to tensors of one order."""

    def anchor(self, op: Op) -> Tensor:
        return op.outputs[0]

    def legal(self, op: Op, choice: Perm) -> bool:
        return True

    def ports(self, op: Op, choice: Perm) -> Ports:
        axis = op.options["axis"] % len(choice)
        part = tuple(a - (a > axis) for a in choice if a != axis)
        return [None if t is None or t.is_const else part for t in op.inputs], [choice]

    def choices(self, op: Op, side: str, index: int, perm: Perm) -> list[Perm]:
        if side == "out":
            return [perm]
        axis = op.options["axis"] % op.outputs[0].rank
        lifted = [a + (a >= axis) for a in perm]
        return [(*lifted[:i], axis, *lifted[i:]) for i in range(len(lifted) + 1)]

    def rewrite(self, op: Op, choice: Perm) -> None:
        axis = op.options["axis"] % len(choice)
        part = tuple(a - (a > axis) for a in choice if a != axis)
        op.options["axis"] = inverse(choice)[axis]
        for i, t in enumerate(op.inputs):
            if t is not None and t.is_const:
                op.inputs[i] = permute_operand(t, part)
