"""Parts of one tensor: many SLICEs as one SPLIT, and reshapes of the parts as one reshape of the whole.

1. SLICEs that cut one axis into 2 to 4 equal parts, none left out, are a SPLIT (the delegate takes up to 4).
2. RESHAPE of every part of a SPLIT to the same shape is one RESHAPE before it: with s the shape of a part and k such
   that s[:k] holds as many elements as the axes before the split one, the whole is s with s[k] times the parts.
3. RESHAPE after TRANSPOSE goes before it where no byte would move, and becomes one with a RESHAPE that is there.

Before layout is assigned: these say nothing of how tensors are kept.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from edgec.backends.tflite.layout.perms import Perm, inverse, stored_shape, through_reshape
from edgec.backends.tflite.tir import Graph, Op, Tensor, int32
from edgec.tensors import DType

MAX_PARTS = 4
_SPLIT_TYPES = (DType.FLOAT32, DType.INT32)


def regroup(graph: Graph) -> None:
    """Rules 1 to 3, in place."""
    _split_slices(graph)
    _reshape_whole(graph)
    _reshape_first(graph)
    graph.prune()


# --- rule 1 -------------------------------------------------------------------------------------------


def _split_slices(graph: Graph) -> None:
    replaced: dict[Op, Op | None] = {}
    for x, readers in graph.consumers().items():
        cuts: dict[int, list[tuple[int, Op]]] = {}
        for op in dict.fromkeys(readers):
            cut = _cut(op, x)
            if cut is not None:
                cuts.setdefault(cut[0], []).append((cut[1], op))
        for axis, found in cuts.items():
            parts = [op for _, op in sorted(found, key=lambda item: item[0])]
            if _covers(x, axis, [begin for begin, _ in found], parts):
                outputs = [op.outputs[0] for op in parts]
                split = Op("SPLIT", [int32("axis", axis), x], outputs, {"numSplits": len(parts)}, parts[0].origin)
                # the first of them in execution order makes way; all parts are ready then
                first = next(op for op in graph.ops if op in parts)
                replaced.update(dict.fromkeys(parts))
                replaced[first] = split
    graph.ops = [new for op in graph.ops if (new := replaced.get(op, op)) is not None]


def _cut(op: Op, x: Tensor) -> tuple[int, int] | None:
    """Axis and begin of a SLICE that cuts along one axis only."""
    if op.kind != "SLICE" or op.inputs[0] is not x or op.inputs[1] is None or op.inputs[1].data is None:
        return None
    shape = op.outputs[0].shape
    axes = [i for i, (a, b) in enumerate(zip(shape, x.shape, strict=True)) if a != b]
    return (axes[0], int(op.inputs[1].data[axes[0]])) if len(axes) == 1 else None


def _covers(x: Tensor, axis: int, begins: Sequence[int], parts: Sequence[Op]) -> bool:
    size = parts[0].outputs[0].shape[axis]
    whole = sorted(begins) == list(range(0, x.shape[axis], size)) and size * len(parts) == x.shape[axis]
    alike = len({(op.outputs[0].shape, op.outputs[0].storage) for op in parts}) == 1
    return 2 <= len(parts) <= MAX_PARTS and whole and alike and x.dtype in _SPLIT_TYPES


# --- rule 2 -------------------------------------------------------------------------------------------


def _reshape_whole(graph: Graph) -> None:
    consumers = graph.consumers()
    ops: list[Op] = []
    gone: set[Op] = set()
    for op in graph.ops:
        found = _parts_reshaped(graph, consumers, op)
        if found is None:
            ops.append(op)
            continue
        (whole, k), reshapes = found
        x = op.inputs[1]
        assert x is not None
        view = Tensor(f"{x.name}/whole", whole, x.dtype, storage=x.storage)
        ops.append(reshape(x, view, op.origin))
        ops.append(Op("SPLIT", [int32("axis", k), view], [r.outputs[0] for r in reshapes], op.options, op.origin))
        gone.update(reshapes)
    graph.ops = [op for op in ops if op not in gone]


def _parts_reshaped(
    graph: Graph, consumers: dict[Tensor, list[Op]], op: Op
) -> tuple[tuple[tuple[int, ...], int], list[Op]] | None:
    """The shape of the whole with the axis to split, and the RESHAPEs of the parts; None where they differ."""
    axis = op.inputs[0] if op.kind == "SPLIT" else None
    if axis is None or axis.data is None or any(t in graph.outputs for t in op.outputs):
        return None
    readers = [consumers.get(t, []) for t in op.outputs]
    if any(len(r) != 1 or r[0].kind != "RESHAPE" for r in readers):
        return None
    reshapes = [r[0] for r in readers]
    x = op.inputs[1]
    assert x is not None
    stores = {t.storage for r in reshapes for t in (*r.outputs, *op.outputs)}
    shapes = {r.outputs[0].shape for r in reshapes}
    if len(shapes) != 1 or stores - {x.storage}:
        return None
    whole = whole_shape(x.shape, int(axis.data.reshape(())), len(reshapes), shapes.pop())
    return None if whole is None else (whole, reshapes)


def whole_shape(
    before: Sequence[int], axis: int, parts: int, part: tuple[int, ...]
) -> tuple[tuple[int, ...], int] | None:
    """Rule 2: the shape whose equal parts along the returned axis have shape `part`."""
    leading = math.prod(before[:axis])
    for k in range(len(part)):
        # behind all unit axes that could come first, so that what moves together stays together
        if math.prod(part[:k]) == leading and (part[k] != 1 or k == len(part) - 1):
            return (*part[:k], part[k] * parts, *part[k + 1 :]), k
    return None


# --- rule 3 -------------------------------------------------------------------------------------------


def _reshape_first(graph: Graph) -> None:
    producers, consumers = graph.producers(), graph.consumers()
    for op in graph.ops:
        y = op.inputs[0] if op.kind == "RESHAPE" else None
        move = producers.get(y) if y is not None else None
        if y is None or move is None or move.kind != "TRANSPOSE" or len(consumers[y]) != 1 or y in graph.outputs:
            continue
        x, perm = move.inputs
        above = producers.get(x) if x is not None else None
        if above is None or above.kind != "RESHAPE" or perm is None or perm.data is None or x is None:
            continue
        order = through_reshape(y.shape, op.outputs[0].shape, inverse(tuple(int(p) for p in perm.data)))
        if order is None or {x.storage, y.storage, op.outputs[0].storage} - {x.storage}:
            continue
        _swap(op, move, x, order)
    graph.prune()
    graph.sort()


def _swap(op: Op, move: Op, x: Tensor, order: Perm) -> None:
    """RESHAPE `op` after TRANSPOSE `move` becomes `move` reading x reshaped, `op` becoming the transpose."""
    out = op.outputs[0]
    shape = stored_shape(out.shape, order)
    view = Tensor(f"{x.name}/regrouped", shape, x.dtype, storage=x.storage)
    move.kind, move.inputs, move.outputs = "RESHAPE", [x, int32("shape", shape)], [view]
    move.options = {"newShape": np.asarray(shape, np.int32)}
    op.kind, op.inputs, op.options = "TRANSPOSE", [view, int32("perm", inverse(order))], {}


def reshape(x: Tensor, out: Tensor, origin: str) -> Op:
    """RESHAPE of x to the shape of `out`."""
    return Op("RESHAPE", [x, int32("shape", out.shape)], [out], {"newShape": np.asarray(out.shape, np.int32)}, origin)
