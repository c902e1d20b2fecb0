"""Running products, discrete Fourier transforms and caches, along an axis that may come at run time.

An axis that is not constant is one of a few: each candidate is computed and the right one selected.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx_ir as ir

from edgec.graph.build import Builder
from edgec.graph.edit import Editor
from edgec.graph.model import attr, const_of, static_shape
from edgec.tensors import Array

#: Candidate axes whose results are computed side by side.
_CANDIDATES = 3


def _along(
    b: Builder, axis: ir.Value | None, fixed: int, rank: int, fits: list[int], run: Callable[[int], ir.Value]
) -> ir.Value | None:
    """`run` for the axis in question; None where there are too many candidates."""
    known = const_of(axis) if axis is not None else np.asarray(fixed)
    if known is not None:
        return run(int(known.reshape(-1)[0]) % rank)
    if not fits or len(fits) > _CANDIDATES:
        return None
    result = run(fits[0])
    if len(fits) == 1:
        return result
    number = b("Reshape", b("Cast", axis, to=int(ir.DataType.INT64)), b.ints())
    for candidate in fits[1:]:
        hit = b("Equal", number, np.asarray(candidate, np.int64))
        hit = b("Or", hit, b("Equal", number, np.asarray(candidate - rank, np.int64)))
        result = b("Where", hit, run(candidate), result)
    return result


def cumulative_product(node: ir.Node, editor: Editor) -> bool:
    """y·shift(y) with shifts of 1, 2, 4 …: log₂ n products of whole tensors."""
    x, shape = node.inputs[0], static_shape(node.inputs[0])
    if x is None or not shape or 0 in shape or x.dtype is None:
        return False
    b = Builder(editor, node)
    kind, back = x.dtype.numpy(), bool(attr(node, "reverse", 0))

    def shifted(value: ir.Value, axis: int, by: int) -> ir.Value:
        ones = np.ones([by if a == axis else d for a, d in enumerate(shape)], kind)
        start, end = (by, shape[axis]) if back else (0, shape[axis] - by)
        rest = b("Slice", value, b.ints(start), b.ints(end), b.ints(axis))
        return b("Concat", rest, ones, axis=axis) if back else b("Concat", ones, rest, axis=axis)

    def run(axis: int) -> ir.Value:
        y, by = x, 1
        if attr(node, "exclusive", 0):
            y = shifted(x, axis, 1)
        while by < shape[axis]:
            y, by = b("Mul", y, shifted(y, axis, by)), 2 * by
        return y

    result = _along(b, node.inputs[1], 0, len(shape), list(range(len(shape))), run)
    if result is None:
        return False
    b.done(result if b.nodes else b("Identity", result))
    return True


def fourier(node: ir.Node, editor: Editor) -> bool:
    """DFT as products with the matrices of its cosines and sines."""
    x, shape, target = node.inputs[0], static_shape(node.inputs[0]), static_shape(node.outputs[0])
    if x is None or x.dtype != ir.DataType.FLOAT or shape is None or target is None or len(shape) != len(target):
        return False
    b = Builder(editor, node)
    rank, inverse, half = len(shape), bool(attr(node, "inverse", 0)), bool(attr(node, "onesided", 0))
    lengths = node.inputs[1] if len(node.inputs) > 1 else None
    known = const_of(lengths) if lengths is not None else None
    if lengths is not None and known is None and half and not inverse:
        return False

    def length_of(axis: int) -> int:
        if known is not None:
            return int(known.reshape(-1)[0])
        if half:
            return target[axis] if inverse else shape[axis]
        return target[axis]

    def bins(axis: int) -> tuple[int, int]:
        """Sizes of the axis before and after."""
        n = length_of(axis)
        return (n // 2 + 1 if half and inverse else n), (n // 2 + 1 if half and not inverse else n)

    def fitting(axis: int) -> bool:
        others = all(shape[a] == target[a] for a in range(rank - 1) if a != axis)
        whole = lengths is not None or shape[axis] == bins(axis)[0]
        return others and whole and target[axis] == bins(axis)[1]

    def run(axis: int) -> ir.Value:
        before, after = bins(axis)
        parts = [_part(b, x, shape, axis, before, i) for i in range(shape[-1])]
        angle = np.outer(np.arange(before), np.arange(after)) * (2 * np.pi / length_of(axis))
        cos, sin = np.cos(angle), np.sin(angle) * (1 if inverse else -1)
        if inverse:
            weights = np.full((before, 1), 1 / length_of(axis))
            if half:  # the bins that are left out mirror those that are there
                weights[1 : (length_of(axis) + 1) // 2] *= 2
            cos, sin = cos * weights, sin * weights
        real = b("MatMul", parts[0], cos.astype(np.float32))
        imaginary = b("MatMul", parts[0], sin.astype(np.float32))
        if len(parts) > 1:
            real = b("Sub", real, b("MatMul", parts[1], sin.astype(np.float32)))
            imaginary = b("Add", imaginary, b("MatMul", parts[1], cos.astype(np.float32)))
        ends = [real] if target[-1] == 1 else [real, imaginary]
        ends = [b("Unsqueeze", end, b.ints(-1)) for end in ends]
        joined = ends[0] if len(ends) == 1 else b("Concat", *ends, axis=-1)
        order = [a for a in range(rank - 1) if a != axis] + [axis, rank - 1]
        return b("Transpose", joined, perm=tuple(int(i) for i in np.argsort(order)))

    axis = node.inputs[2] if len(node.inputs) > 2 else None
    fixed = int(attr(node, "axis", 1 if "axis" in node.attributes else -2))
    result = _along(b, axis, fixed, rank, [a for a in range(rank - 1) if fitting(a)], run)
    if result is None:
        return False
    b.done(result)
    return True


def _part(b: Builder, x: ir.Value, shape: tuple[int, ...], axis: int, wanted: int, index: int) -> ir.Value:
    """Real (0) or imaginary (1) numbers with the axis last, cut or filled with zeros to the wanted size."""
    part = b("Gather", x, np.asarray(index, np.int64), axis=len(shape) - 1)
    order = (*(a for a in range(len(shape) - 1) if a != axis), axis)
    part = b("Transpose", part, perm=order)
    if shape[axis] > wanted:
        return b("Slice", part, b.ints(0), b.ints(wanted), b.ints(-1))
    if shape[axis] < wanted:
        zeros = np.zeros([*[shape[a] for a in order[:-1]], wanted - shape[axis]], np.float32)
        return b("Concat", part, zeros, axis=-1)
    return part


def tensor_scatter(node: ir.Node, editor: Editor) -> bool:
    """past where the position lies before or behind the update, the update's element where it lies inside."""
    past, update, where = node.inputs[0], node.inputs[1], node.inputs[2] if len(node.inputs) > 2 else None
    shape, new = static_shape(past), static_shape(update)
    if shape is None or new is None:
        return False
    b, rank = Builder(editor, node), len(shape)
    axis = int(attr(node, "axis", -2)) % rank
    along = [-1 if a == axis else 1 for a in range(rank)]
    position = np.arange(shape[axis], dtype=np.int64).reshape(along)
    offset: ir.Value | Array = position
    if where is not None:
        start = b("Reshape", b("Cast", where, to=int(ir.DataType.INT64)), b.ints(-1, *[1] * (rank - 1)))
        offset = b("Sub", position, start)
        if attr(node, "mode", "linear") == "circular":
            size = np.asarray(shape[axis], np.int64)
            offset = b("Where", b("Less", offset, np.asarray(0, np.int64)), b("Add", offset, size), offset)
    last = np.asarray(new[axis] - 1, np.int64)
    kept = b("Min", b("Max", offset, np.asarray(0, np.int64)), last)
    hit = b("Equal", kept, offset)
    taken = b("GatherElements", update, b("Expand", kept, b.ints(*shape)), axis=axis)
    b.done(b("Where", hit, taken, past))
    return True
