"""Rearranging windows of an image: Col2Im and MaxUnpool, both as one scatter."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from edgec.backends.tflite.context import Context, Lowering, Refusal
from edgec.backends.tflite.ops.dtypes import ARITHMETIC, computed
from edgec.backends.tflite.ops.expr import Expr, expr, index, iota, number, scatter_sum
from edgec.backends.tflite.ops.moves import moved
from edgec.backends.tflite.ops.padding import constant_pad
from edgec.backends.tflite.ops.slicing import take_slices
from edgec.backends.tflite.tir import Tensor
from edgec.graph.model import attr, shape_of
from edgec.tensors import DType


def _col2im(ctx: Context, node: ir.Node) -> Tensor:
    """Col2Im: every column adds to the pixels it came from; what lies in the padding falls on a spare place."""
    x, block, out = ctx.tensor(node.inputs[0]), ctx.tensor(node.inputs[2]), shape_of(node.outputs[0])
    if min(out) < 0:
        raise Refusal("static-shape", "Col2Im needs its image's shape when compiling")
    batch, channels, sizes = out[0], out[1], out[2:]
    taps, columns = x.shape[1] // channels, x.shape[2]
    places, pixels = _column_places(node, index(ctx, block), sizes, taps, columns), int(np.prod(sizes))

    def run(t: Tensor) -> Tensor:
        e = expr(ctx, ctx.reshape(t, (batch * channels, taps * columns))).transpose(1, 0)
        image = scatter_sum(places, e, pixels + 1).slice(0, 0, pixels)
        return ctx.reshape(image.transpose(1, 0).t, out)

    return computed(ctx, "Col2Im", [x], ARITHMETIC, run, modular=True)


def _column_places(node: ir.Node, block: Expr, sizes: tuple[int, ...], taps: int, columns: int) -> Expr:
    """[taps · columns]: the flat pixel that each entry belongs to, or one past the last in the padding.

    The block's shape may come at run time: taps and columns are counted out from the last axis.
    """
    rank, ctx = len(sizes), block.ctx
    strides, dilations = attr(node, "strides", (1,) * rank), attr(node, "dilations", (1,) * rank)
    pads = attr(node, "pads", (0,) * 2 * rank)
    tap, column = iota(ctx, taps), iota(ctx, columns)
    total, inside, stride = number(ctx, [[0]], DType.INT32), number(ctx, [[True]], DType.BOOL), 1
    for axis in range(rank - 1, -1, -1):
        kernel = block.slice(0, axis, 1)
        reach = sizes[axis] + pads[axis] + pads[rank + axis] - 1
        windows = (reach - (kernel - 1) * dilations[axis]) // strides[axis] + 1
        along = (tap % kernel).reshape(taps, 1) * dilations[axis]
        along = along + (column % windows).reshape(1, columns) * strides[axis] - pads[axis]
        tap, column = tap // kernel, column // windows
        inside = inside & (along >= 0) & (along < sizes[axis])
        total = total + along * stride
        stride *= sizes[axis]
    return inside.where(total, stride).reshape(taps * columns)


def _max_unpool(ctx: Context, node: ir.Node) -> Tensor:
    """MaxUnpool: a scatter into the pooled tensor's shape, in the corner of a larger one where that is given."""
    x, places, out = ctx.tensor(node.inputs[0]), ctx.tensor(node.inputs[1]), shape_of(node.outputs[0])
    if min(out) < 0:
        raise Refusal("static-shape", "MaxUnpool needs its output's shape when compiling")
    kernel = attr(node, "kernel_shape")
    strides, pads = attr(node, "strides", (1,) * len(kernel)), attr(node, "pads", (0,) * 2 * len(kernel))
    pooled = [
        (d - 1) * strides[i] + k - pads[i] - pads[len(kernel) + i]
        for i, (d, k) in enumerate(zip(x.shape[2:], kernel, strict=True))
    ]
    shape = (*x.shape[:2], *pooled)
    size = int(np.prod(shape))

    def run(t: Tensor) -> Tensor:
        flat = scatter_sum(index(ctx, places).reshape(-1), expr(ctx, t).reshape(-1), size)
        image = take_slices(
            ctx, ctx.reshape(flat.t, shape), [slice(0, min(a, b), 1) for a, b in zip(shape, out, strict=True)]
        )
        grow = [(0, max(b - a, 0)) for a, b in zip(shape, out, strict=True)]
        return constant_pad(ctx, image, grow) if any(after for _, after in grow) else image

    return moved(ctx, "SCATTER_ND", x, run)


LOWERINGS: dict[str, Lowering] = {"Col2Im": _col2im, "MaxUnpool": _max_unpool}
