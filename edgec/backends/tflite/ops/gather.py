"""Gathering: Gather, GatherElements and GatherND as GATHER, indices counted from the end mended."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from edgec.backends.tflite.context import Context, Lowering, Refusal, normalize_axis
from edgec.backends.tflite.ops.expr import Expr, expr, index, iota, number
from edgec.backends.tflite.ops.moves import gather
from edgec.backends.tflite.ops.slicing import take_slices
from edgec.backends.tflite.tir import Tensor
from edgec.graph.model import attr
from edgec.tensors import Array, DType


def non_negative_index(ctx: Context, t: Tensor, size: int) -> Tensor:
    """ONNX counts negative indices from the end, TFLite does not: constants are mended, others computed."""
    if t.data is not None:
        data = t.real()
        return ctx.int32(np.where(data < 0, data + size, data))
    return wrapped(index(ctx, t), size).t


def wrapped(e: Expr, size: int) -> Expr:
    """Indices with the negative ones counted from the end."""
    return (e < 0).where(e + size, e)


def _gather(ctx: Context, node: ir.Node) -> Tensor:
    """Gather along one axis; a single constant index is a slice."""
    x, where = ctx.tensor(node.inputs[0]), ctx.tensor(node.inputs[1])
    axis = normalize_axis(attr(node, "axis", 0), x.rank)
    if x.shape[axis] < 0:
        raise Refusal("static-shape", "Gather along an axis of unknown size")
    where = non_negative_index(ctx, where, x.shape[axis])
    if where.data is not None and where.size == 1 and x.data is None:
        # one constant index is a slice, which every delegate runs
        spans = [slice(0, d, 1) for d in x.shape]
        position = int(where.data.reshape(()))
        spans[axis] = slice(position, position + 1, 1)
        return ctx.reshape(take_slices(ctx, x, spans), [*x.shape[:axis], *where.shape, *x.shape[axis + 1 :]])
    return gather(ctx, x, where, axis)


def flat_grid(shape: tuple[int, ...], sizes: tuple[int, ...], skip: int) -> Array:
    """For every place of `shape`: its flat position in a tensor of `sizes`, the axis `skip` not counted."""
    total = np.zeros(shape, np.int64)
    for axis, count in enumerate(shape):
        if axis != skip:
            stride = int(np.prod(sizes[axis + 1 :], dtype=np.int64))
            view = [1] * len(shape)
            view[axis] = count
            total = total + (np.arange(count) * stride).reshape(view)
    return total


def flat_elements(ctx: Context, where: Tensor, sizes: tuple[int, ...], axis: int) -> Expr:
    """GatherElements' and ScatterElements' indices as flat positions in a tensor of `sizes`."""
    stride = int(np.prod(sizes[axis + 1 :], dtype=np.int64))
    along = expr(ctx, non_negative_index(ctx, where, sizes[axis]))
    return along * stride + number(ctx, flat_grid(where.shape, sizes, axis), DType.INT32)


def _gather_elements(ctx: Context, node: ir.Node) -> Tensor:
    """GatherElements: a GATHER from the flat tensor."""
    x, where = ctx.tensor(node.inputs[0]), ctx.tensor(node.inputs[1])
    axis = normalize_axis(attr(node, "axis", 0), x.rank)
    flat = flat_elements(ctx, where, x.shape, axis)
    return gather(ctx, ctx.reshape(x, (x.size,)), flat.t, 0)


def flat_tuples(ctx: Context, where: Tensor, sizes: tuple[int, ...]) -> Expr:
    """Index tuples (last axis) into axes of `sizes` as flat positions."""
    dims = np.asarray(sizes, np.int32)
    strides = np.asarray([int(np.prod(sizes[i + 1 :])) for i in range(len(sizes))], np.int32)
    e = index(ctx, where)
    e = (e < 0).where(e + dims, e)
    return (e * strides).sum(-1)


def _gather_nd(ctx: Context, node: ir.Node) -> Tensor:
    """GatherND: a GATHER of rows, whose flat positions are computed from the tuples."""
    x, where = ctx.tensor(node.inputs[0]), ctx.tensor(node.inputs[1])
    batch, depth = attr(node, "batch_dims", 0), where.shape[-1]
    if min(x.shape, default=0) < 0 or depth < 0 or (batch and min(where.shape) < 0):
        raise Refusal("static-shape", "GatherND with unknown sizes")
    lead, inner, rest = x.shape[:batch], x.shape[batch : batch + depth], x.shape[batch + depth :]
    flat = flat_tuples(ctx, where, inner)
    if batch:
        count = int(np.prod(lead))
        tail = (1,) * (where.rank - 1 - batch)
        base = (iota(ctx, count) * int(np.prod(inner))).reshape(*where.shape[:batch], *tail)
        flat = flat + base
    rows = ctx.reshape(x, (int(np.prod((*lead, *inner), dtype=np.int64)), *rest))
    return gather(ctx, rows, flat.t, 0)


LOWERINGS: dict[str, Lowering] = {"Gather": _gather, "GatherElements": _gather_elements, "GatherND": _gather_nd}
