"""What each operator allows: under which storage orders its inputs and outputs may be kept.

A role answers three questions for an operator and a *choice* (a permutation of its main tensor's axes):
`ports`: the order of every input and output; `choices`: which choices give one port a wanted order;
`rewrite`: the operator's axes, paddings and constants under that choice.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, replace

import numpy as np

from edgec.backends.tflite.layout.perms import (
    Perm,
    identity,
    inverse,
    stored_shape,
    through_reshape,
)
from edgec.backends.tflite.tir import Op, Storage, Tensor, int32

Ports = tuple[list[Perm | None], list[Perm]]
#: What TRANSPOSE takes: of more axes nothing may change, or no conversion would be possible.
_MOVABLE_RANK = 6


class Role:
    """The opaque role: every tensor in its own order. Others override what they can do better."""

    def default(self, op: Op) -> Perm:
        """The choice under which nothing changes."""
        return identity(self.anchor(op).rank)

    def anchor(self, op: Op) -> Tensor:
        """The tensor whose order the choice is."""
        return op.outputs[0] if op.outputs else next(t for t in op.inputs if t is not None)

    def legal(self, op: Op, choice: Perm) -> bool:
        """Whether the operator works under a choice."""
        return choice == self.default(op)

    def ports(self, op: Op, choice: Perm) -> Ports:
        """Orders of all inputs (None for constants and absent ones) and outputs."""
        inputs = [None if t is None or t.is_const else identity(t.rank) for t in op.inputs]
        return inputs, [identity(t.rank) for t in op.outputs]

    def choices(self, op: Op, side: str, index: int, perm: Perm) -> list[Perm]:
        """Legal choices under which one port has the order `perm`."""
        default = self.default(op)
        inputs, outputs = self.ports(op, default)
        port = inputs[index] if side == "in" else outputs[index]
        return [default] if port == perm else []

    def rewrite(self, op: Op, choice: Perm) -> None:
        """Adapt constants and options; the data inputs and outputs are permuted by the caller."""


class Elementwise(Role):
    """Operands broadcast to the output; constants are permuted, lower ranks get leading unit axes."""

    def legal(self, op: Op, choice: Perm) -> bool:
        return True

    def ports(self, op: Op, choice: Perm) -> Ports:
        rank = op.outputs[0].rank
        inputs: list[Perm | None] = []
        for t in op.inputs:
            if t is None or t.is_const:
                inputs.append(None)
            elif t.size == 1:
                inputs.append(identity(t.rank))
            else:
                offset = rank - t.rank
                inputs.append(tuple(a - offset for a in choice if a >= offset))
        return inputs, [choice for _ in op.outputs]

    def choices(self, op: Op, side: str, index: int, perm: Perm) -> list[Perm]:
        rank = op.outputs[0].rank
        if len(perm) == rank:
            return [perm]
        # a lower rank says nothing of the leading axes: keep them in front
        offset = rank - len(perm)
        return [(*range(offset), *(a + offset for a in perm))]

    def rewrite(self, op: Op, choice: Perm) -> None:
        for i, t in enumerate(op.inputs):
            if t is not None and t.is_const and t.size > 1:
                op.inputs[i] = permute_operand(t, choice)


class BroadcastTo(Elementwise):
    """Elementwise, with the target shape as a constant."""

    def rewrite(self, op: Op, choice: Perm) -> None:
        op.inputs[1] = int32("shape", stored_shape(op.outputs[0].shape, choice))


@dataclass
class LastAxis(Role):
    """The last axis stays last; the others may move (`leading` False: nothing may)."""

    leading: bool = True

    def legal(self, op: Op, choice: Perm) -> bool:
        movable = self.leading and (op.kind != "FULLY_CONNECTED" or bool(op.options.get("keepNumDims")))
        if not movable:
            return choice == self.default(op)
        return not choice or choice[-1] == len(choice) - 1

    def ports(self, op: Op, choice: Perm) -> Ports:
        inputs: list[Perm | None] = [None] * len(op.inputs)
        inputs[0] = choice
        for i, t in enumerate(op.inputs[1:], 1):
            inputs[i] = None if t is None or t.is_const else identity(t.rank)
        return inputs, [choice for _ in op.outputs]

    def choices(self, op: Op, side: str, index: int, perm: Perm) -> list[Perm]:
        if side == "in" and index != 0:
            return [self.default(op)] if perm == identity(len(perm)) else []
        return [perm] if self.legal(op, perm) else []


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


class Transpose(Role):
    """A TRANSPOSE never has to happen: its output is its input under another order."""

    def anchor(self, op: Op) -> Tensor:
        x = op.inputs[0]
        assert x is not None
        return x

    def _perm(self, op: Op) -> Perm:
        perm = op.inputs[1]
        assert perm is not None and perm.data is not None
        return tuple(int(p) for p in perm.data)

    def legal(self, op: Op, choice: Perm) -> bool:
        return True

    def ports(self, op: Op, choice: Perm) -> Ports:
        back = inverse(self._perm(op))
        return [choice, None], [tuple(back[p] for p in choice)]

    def choices(self, op: Op, side: str, index: int, perm: Perm) -> list[Perm]:
        if side == "in":
            return [perm]
        forward = self._perm(op)
        return [tuple(forward[p] for p in perm)]


class Reshape(Role):
    """Allowed under every order that keeps merged and split axes together."""

    def anchor(self, op: Op) -> Tensor:
        x = op.inputs[0]
        assert x is not None
        return x

    def legal(self, op: Op, choice: Perm) -> bool:
        return self._through(op, choice) is not None

    def _through(self, op: Op, choice: Perm) -> Perm | None:
        if choice == self.default(op):
            return identity(op.outputs[0].rank)  # also where axes of size 0 leave nothing to group
        if max(self.anchor(op).rank, op.outputs[0].rank) > _MOVABLE_RANK:
            return None
        return through_reshape(self.anchor(op).shape, op.outputs[0].shape, choice)

    def ports(self, op: Op, choice: Perm) -> Ports:
        out = self._through(op, choice)
        if out is None:
            raise ValueError("illegal choice for RESHAPE")
        return [choice, None], [out]

    def choices(self, op: Op, side: str, index: int, perm: Perm) -> list[Perm]:
        if side == "in":
            return [perm] if self.legal(op, perm) else []
        source = through_reshape(op.outputs[0].shape, self.anchor(op).shape, perm)
        return [source] if source is not None and self.legal(op, source) else []


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


def permute_operand(t: Tensor, perm: Perm) -> Tensor:
    """A constant in a new order; a lower rank is first given leading unit axes."""
    assert t.data is not None
    if perm == identity(len(perm)):
        return t
    lead = len(perm) - t.rank
    data = t.data.reshape((1,) * lead + t.shape).transpose(perm)
    storage = t.storage
    if storage is not None and storage.qparams.axis is not None:
        axis = perm.index(storage.qparams.axis + lead)
        storage = Storage(storage.dtype, replace(storage.qparams, axis=axis))
    return Tensor(name=t.name, shape=tuple(data.shape), dtype=t.dtype, data=np.ascontiguousarray(data), storage=storage)


_OPAQUE = Role()
_ELEMENTWISE = [
    "ADD",
    "SUB",
    "MUL",
    "DIV",
    "MAXIMUM",
    "MINIMUM",
    "POW",
    "SQUARED_DIFFERENCE",
    "FLOOR_DIV",
    "FLOOR_MOD",
    "ATAN2",
    "EQUAL",
    "NOT_EQUAL",
    "LESS",
    "LESS_EQUAL",
    "GREATER",
    "GREATER_EQUAL",
    "LOGICAL_AND",
    "LOGICAL_OR",
    "LOGICAL_NOT",
    "SELECT_V2",
    "PRELU",
    "RELU",
    "RELU6",
    "RELU_N1_TO_1",
    "RELU_0_TO_1",
    "LOGISTIC",
    "TANH",
    "ELU",
    "LEAKY_RELU",
    "HARD_SWISH",
    "GELU",
    "ABS",
    "CEIL",
    "FLOOR",
    "ROUND",
    "NEG",
    "EXP",
    "LOG",
    "SQRT",
    "RSQRT",
    "SQUARE",
    "SIN",
    "COS",
    "SIGN",
    "CAST",
    "QUANTIZE",
    "DEQUANTIZE",
    "BITWISE_XOR",
    "RIGHT_SHIFT",
    "ZEROS_LIKE",
]
_REDUCERS = ["MEAN", "SUM", "REDUCE_MAX", "REDUCE_MIN", "REDUCE_PROD", "REDUCE_ANY", "REDUCE_ALL", "ARG_MAX", "ARG_MIN"]

ROLES: dict[str, Role] = {
    **dict.fromkeys(_ELEMENTWISE, Elementwise()),
    **dict.fromkeys(_REDUCERS, AxisOp(axis_inputs=(1,), drops=True)),
    "BROADCAST_TO": BroadcastTo(),
    "SOFTMAX": LastAxis(),
    "LOG_SOFTMAX": LastAxis(),
    "FULLY_CONNECTED": LastAxis(),
    "TRANSPOSE": Transpose(),
    "RESHAPE": Reshape(),
    "CONCATENATION": AxisOp(axis_options=("axis",)),
    "SPLIT": AxisOp(axis_inputs=(0,), data=1),
    "SPLIT_V": AxisOp(axis_inputs=(2,), vectors=()),
    "PAD": AxisOp(vectors=(1,)),
    "PADV2": AxisOp(vectors=(1,)),
    "MIRROR_PAD": AxisOp(vectors=(1,)),
    "SLICE": AxisOp(vectors=(1, 2)),
    "STRIDED_SLICE": AxisOp(vectors=(1, 2, 3)),
    "TILE": AxisOp(vectors=(1,)),
    "REVERSE_V2": AxisOp(axis_inputs=(1,)),
    "CUMSUM": AxisOp(axis_inputs=(1,)),
    "GATHER": Gather(),
    "PACK": Pack(),
    "BATCH_MATMUL": BatchMatmul(),
}
_FLATTEN = FlattenFullyConnected()


def role_of(op: Op) -> Role:
    """The role of an operator; opaque where the table has none."""
    if op.kind == "FULLY_CONNECTED" and not op.options.get("keepNumDims"):
        x = op.inputs[0]
        w = op.inputs[1]
        if x is not None and x.rank != 2 and w is not None and w.is_const and not x.is_const:
            return _FLATTEN
    if op.kind == "GATHER" and op.options.get("batchDims"):
        return _OPAQUE
    if op.kind != "TRANSPOSE" and any(min(t.shape, default=0) < 0 for t in (*op.inputs, *op.outputs) if t is not None):
        return _OPAQUE  # sizes that only the data tell
    role = ROLES.get(op.kind, _OPAQUE)
    return role if _static(op, role) else _OPAQUE


def _static(op: Op, role: Role) -> bool:
    """Whether the parameters that a role would rewrite are constants."""
    if isinstance(role, AxisOp):
        return all(op.inputs[i] is not None and op.inputs[i].is_const for i in (*role.vectors, *role.axis_inputs))  # type: ignore[union-attr]
    if isinstance(role, (Transpose, Reshape, BroadcastTo)):
        x = op.inputs[1] if len(op.inputs) > 1 else None
        return x is not None and x.is_const
    if isinstance(role, BatchMatmul):
        return not op.options.get("adjX") and not op.options.get("adjY")
    return True
