"""GridSample, MaxUnpool and Col2Im in any number of dimensions, and small determinants, as plain operators."""

from __future__ import annotations

import itertools
import math

import numpy as np
import onnx_ir as ir

from edgec.graph.build import Builder
from edgec.graph.edit import Editor
from edgec.graph.model import attr, const_of, static_shape

_INT64 = int(ir.DataType.INT64)


def grid_sample(node: ir.Node, editor: Editor) -> bool:
    """Nearest and linear modes: for each corner around a point, its element times its weight.

    A corner outside counts as 0 (`zeros`), or the point is moved onto the border first (`border`).
    """
    x, grid = node.inputs[0], node.inputs[1]
    shape, target = static_shape(x), static_shape(node.outputs[0])
    mode, padding = attr(node, "mode", "linear"), attr(node, "padding_mode", "zeros")
    if x is None or x.dtype != ir.DataType.FLOAT or shape is None or target is None or 0 in (*shape, *target):
        return False
    if mode not in ("linear", "bilinear", "nearest") or padding not in ("zeros", "border"):
        return False
    b = Builder(editor, node)
    sizes, points = shape[2:], math.prod(target[2:])
    flat = b("Reshape", x, b.ints(shape[0], shape[1], -1))
    rows = b("Reshape", grid, b.ints(shape[0], points, len(sizes)))
    at = []
    for axis, size in enumerate(sizes):
        # a grid point names the last axis first: x, y, z
        p = b("Gather", rows, np.asarray(len(sizes) - 1 - axis, np.int64), axis=2)
        if attr(node, "align_corners", 0):
            p = b("Mul", b("Add", p, 1.0), (size - 1) / 2)
        else:
            p = b("Sub", b("Mul", b("Add", p, 1.0), size / 2), 0.5)
        if padding == "border":
            p = b("Min", b("Max", p, 0.0), float(size - 1))
        at.append(p)
    low = [b("Round" if mode == "nearest" else "Floor", p) for p in at]
    parts = [b("Sub", p, corner) for p, corner in zip(at, low, strict=True)]
    result: ir.Value | None = None
    for corner in itertools.product((0, 1), repeat=0 if mode == "nearest" else len(sizes)):
        offsets = corner or (0,) * len(sizes)
        weight = None
        place: ir.Value | None = None
        for axis, offset in enumerate(offsets):
            p = b("Add", low[axis], float(offset)) if offset else low[axis]
            kept = b("Min", b("Max", p, 0.0), float(sizes[axis] - 1))
            inside = b("Cast", b("Equal", p, kept), to=int(ir.DataType.FLOAT))
            factor = inside
            if mode != "nearest":
                share = parts[axis] if offset else b("Sub", 1.0, parts[axis])
                factor = b("Mul", share, inside)
            weight = factor if weight is None else b("Mul", weight, factor)
            index = b("Cast", kept, to=_INT64)
            if place is not None:
                index = b("Add", b("Mul", place, np.asarray(sizes[axis], np.int64)), index)
            place = index
        where = b("Expand", b("Unsqueeze", place, b.ints(1)), b.ints(shape[0], shape[1], points))
        term = b("Mul", b("GatherElements", flat, where, axis=2), b("Unsqueeze", weight, b.ints(1)))
        result = term if result is None else b("Add", result, term)
    assert result is not None
    b.done(b("Reshape", result, b.ints(*target)))
    return True


def max_unpool(node: ir.Node, editor: Editor) -> bool:
    """Zeros with the elements at their indices, which count in the tensor before pooling; a larger output is padded."""
    x, shape, target = node.inputs[0], static_shape(node.inputs[0]), static_shape(node.outputs[0])
    if x is None or x.dtype is None or shape is None or target is None:
        return False
    kernel = attr(node, "kernel_shape")
    count = len(kernel)
    strides, pads = attr(node, "strides", (1,) * count), attr(node, "pads", (0,) * (2 * count))
    pooled = [(shape[2 + i] - 1) * strides[i] - pads[i] - pads[count + i] + kernel[i] for i in range(count)]
    missing = [target[2 + i] - pooled[i] for i in range(count)]
    if any(m < 0 for m in missing):
        return False
    b = Builder(editor, node)
    zeros = np.zeros(math.prod(shape[:2]) * math.prod(pooled), x.dtype.numpy())
    indices = b("Reshape", node.inputs[1], b.ints(-1))
    filled = b("ScatterElements", zeros, indices, b("Reshape", x, b.ints(-1)), axis=0)
    result = b("Reshape", filled, b.ints(*shape[:2], *pooled))
    if any(missing):
        result = b("Pad", result, b.ints(*[0] * (2 + count), 0, 0, *missing))
    b.done(result)
    return True


#: Larger determinants would cost n! products.
_LARGEST_MATRIX = 4


def determinant(node: ir.Node, editor: Editor) -> bool:
    """Of small matrices, by expansion along the first row."""
    shape = static_shape(node.inputs[0])
    if shape is None or not 1 <= shape[-1] <= _LARGEST_MATRIX:
        return False
    b, n = Builder(editor, node), shape[-1]
    rows = [b("Gather", node.inputs[0], np.asarray(i, np.int64), axis=-2) for i in range(n)]
    cells = [[b("Gather", row, np.asarray(j, np.int64), axis=-1) for j in range(n)] for row in rows]

    def expand(first: int, columns: tuple[int, ...]) -> ir.Value:
        if len(columns) == 1:
            return cells[first][columns[0]]
        total: ir.Value | None = None
        for place, column in enumerate(columns):
            rest = tuple(c for c in columns if c != column)
            term = b("Mul", cells[first][column], expand(first + 1, rest))
            total = term if total is None else b("Sub" if place % 2 else "Add", total, term)
        assert total is not None
        return total

    b.done(expand(0, tuple(range(n))))
    return True


#: Block shapes that are computed side by side when the real one comes at run time.
_MOST_BLOCKS = 6


def col2im(node: ir.Node, editor: Editor) -> bool:
    """A transposed convolution whose kernels have a single 1 each puts every column back in its place.

    Where the block's shape comes at run time, every shape that the sizes admit is computed and the right one selected.
    """
    x, target = node.inputs[0], static_shape(node.outputs[0])
    shape, block = static_shape(x), const_of(node.inputs[2])
    if x is None or x.dtype != ir.DataType.FLOAT or shape is None or target is None:
        return False
    image, size = target[2:], shape[1] // target[1]
    if block is not None:
        blocks = [tuple(int(k) for k in block)]
    else:
        blocks = [k for k in _factors(size, len(image)) if math.prod(_steps(node, image, k)) == shape[2]]
    if not blocks or len(blocks) > _MOST_BLOCKS:
        return False
    b = Builder(editor, node)
    result: ir.Value | None = None
    for kernel in blocks:
        steps = _steps(node, image, kernel)
        columns = b("Reshape", x, b.ints(target[0] * target[1], size, *steps))
        weights = np.eye(size, dtype=np.float32).reshape(size, 1, *kernel)
        full = [p - e for p, e in zip(image, _reached(node, steps, kernel), strict=True)]
        y = b(
            "ConvTranspose",
            columns,
            weights,
            strides=_per_axis(node, "strides", len(image)),
            dilations=_per_axis(node, "dilations", len(image)),
            pads=attr(node, "pads", (0,) * (2 * len(image))),
            output_padding=tuple(full),
        )
        y = b("Reshape", y, b.ints(*target))
        if result is not None:
            same = b("Equal", node.inputs[2], np.asarray(kernel, np.int64))
            every = b("ReduceMin", b("Cast", same, to=int(ir.DataType.INT32)), b.ints(0), keepdims=0)
            y = b("Where", b("Cast", every, to=int(ir.DataType.BOOL)), y, result)
        result = y
    assert result is not None
    b.done(result)
    return True


def _per_axis(node: ir.Node, name: str, count: int) -> tuple[int, ...]:
    return tuple(attr(node, name, (1,) * count))


def _factors(size: int, count: int) -> list[tuple[int, ...]]:
    """All ways to write `size` as a product of so many factors."""
    if count == 1:
        return [(size,)]
    return [(k, *rest) for k in range(1, size + 1) if size % k == 0 for rest in _factors(size // k, count - 1)]


def _steps(node: ir.Node, image: tuple[int, ...], kernel: tuple[int, ...]) -> list[int]:
    """How many blocks lie along each axis."""
    count = len(image)
    strides, dilations = _per_axis(node, "strides", count), _per_axis(node, "dilations", count)
    pads = attr(node, "pads", (0,) * (2 * count))
    return [
        max(0, (image[i] + pads[i] + pads[count + i] - dilations[i] * (kernel[i] - 1) - 1) // strides[i] + 1)
        for i in range(count)
    ]


def _reached(node: ir.Node, steps: list[int], kernel: tuple[int, ...]) -> list[int]:
    """How much of the image the blocks cover."""
    count = len(kernel)
    strides, dilations = _per_axis(node, "strides", count), _per_axis(node, "dilations", count)
    pads = attr(node, "pads", (0,) * (2 * count))
    return [
        (steps[i] - 1) * strides[i] + dilations[i] * (kernel[i] - 1) + 1 - pads[i] - pads[count + i]
        for i in range(count)
    ]
