"""Reductions: MEAN, SUM, REDUCE_*, and what is built from them; ARG_MAX and ARG_MIN."""

from __future__ import annotations

import onnx_ir as ir

from edgec.backends.tflite.context import Context, Lowering, Refusal, normalize_axis
from edgec.backends.tflite.tir import Tensor
from edgec.graph.model import attr
from edgec.tensors import DType

_KINDS = {
    "ReduceMean": "MEAN",
    "ReduceSum": "SUM",
    "ReduceMax": "REDUCE_MAX",
    "ReduceMin": "REDUCE_MIN",
    "ReduceProd": "REDUCE_PROD",
}


def reduce_axes(ctx: Context, node: ir.Node, rank: int) -> list[int]:
    """The axes a reduction runs over; empty when it runs over none."""
    axes = attr(node, "axes")
    if axes is None and len(node.inputs) > 1 and node.inputs[1] is not None:
        axes = [int(a) for a in ctx.const(ctx.tensor(node.inputs[1]), "axes")]
    if not axes:
        return [] if attr(node, "noop_with_empty_axes", 0) else list(range(rank))
    return sorted({normalize_axis(int(a), rank) for a in axes})


def reduce(ctx: Context, kind: str, x: Tensor, axes: list[int], keep: bool) -> Tensor:
    """One reduction operator."""
    if not axes:
        return x
    shape = [1 if i in axes else d for i, d in enumerate(x.shape) if keep or i not in axes]
    return ctx.emit(kind, [x, ctx.int32(axes)], shape, x.dtype, keepDims=keep)


def _reduce(ctx: Context, node: ir.Node) -> Tensor:
    x = ctx.tensor(node.inputs[0])
    if x.dtype not in (DType.FLOAT32, DType.INT32, DType.INT64):
        raise Refusal("dtype", f"{node.op_type} on {x.dtype} has no TFLite kernel", "insert a Cast")
    axes = reduce_axes(ctx, node, x.rank)
    return reduce(ctx, _KINDS[node.op_type], x, axes, bool(attr(node, "keepdims", 1)))


def _compound(before: str | None, after: str | None, kind: str = "SUM") -> Lowering:
    def lower(ctx: Context, node: ir.Node) -> Tensor:
        x = ctx.tensor(node.inputs[0])
        if x.dtype != DType.FLOAT32:
            raise Refusal("dtype", f"{node.op_type} on {x.dtype} has no TFLite kernel", "insert a Cast")
        axes = reduce_axes(ctx, node, x.rank)
        y = x if before is None else ctx.unary(before, x)
        y = reduce(ctx, kind, y, axes, bool(attr(node, "keepdims", 1)))
        return y if after is None else ctx.unary(after, y)

    return lower


def _arg(kind: str) -> Lowering:
    def lower(ctx: Context, node: ir.Node) -> Tensor:
        x = ctx.tensor(node.inputs[0])
        axis = normalize_axis(attr(node, "axis", 0), x.rank)
        if attr(node, "select_last_index", 0):
            raise Refusal("select-last-index", f"{node.op_type} with select_last_index")
        shape = [d for i, d in enumerate(x.shape) if i != axis]
        y = ctx.emit(kind, [x, ctx.int32(axis)], shape, DType.INT64, outputType=DType.INT64)
        if not attr(node, "keepdims", 1):
            return y
        return ctx.reshape(y, [1 if i == axis else d for i, d in enumerate(x.shape)])

    return lower


LOWERINGS: dict[str, Lowering] = {
    **dict.fromkeys(_KINDS, _reduce),
    "ReduceSumSquare": _compound("SQUARE", None),
    "ReduceL1": _compound("ABS", None),
    "ReduceL2": _compound("SQUARE", "SQRT"),
    "ReduceLogSum": _compound(None, "LOG"),
    "ArgMax": _arg("ARG_MAX"),
    "ArgMin": _arg("ARG_MIN"),
}
