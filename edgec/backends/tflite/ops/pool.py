"""Pooling: MAX_POOL_2D and AVERAGE_POOL_2D, and global pooling as reductions (MEAN stays in the delegate)."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from edgec.backends.tflite.context import Context, Lowering, Refusal
from edgec.backends.tflite.ops.conv import channels_first, channels_last, pad_spatial
from edgec.backends.tflite.ops.windows import Window, windows
from edgec.backends.tflite.tir import Tensor
from edgec.graph.model import attr, const_of
from edgec.tensors import Array, DType

_NON_NEGATIVE = {"Relu", "Sigmoid", "Softmax", "HardSigmoid", "Abs", "Exp", "Softplus", "ReduceL2", "Sqrt"}
_TRANSPARENT = {"QuantizeLinear", "DequantizeLinear", "Identity", "Reshape", "Transpose", "MaxPool"}


def is_non_negative(value: ir.Value | None) -> bool:
    """Whether a value can be proven ≥ 0 from what computes it."""
    while value is not None and (node := value.producer()) is not None:
        if node.op_type in _NON_NEGATIVE:
            return True
        if node.op_type == "Clip" and len(node.inputs) > 1:
            low = const_of(node.inputs[1])
            return low is not None and float(low) >= 0
        if node.op_type not in _TRANSPARENT:
            return False
        value = node.inputs[0]
    return False


def _as_2d(ctx: Context, node: ir.Node) -> tuple[Tensor, list[Window]]:
    """The input as NCHW with its windows; one-dimensional pooling gets a height of 1."""
    x = ctx.tensor(node.inputs[0])
    if x.dtype != DType.FLOAT32:
        raise Refusal("dtype", f"{node.op_type} on {x.dtype} has no TFLite kernel", "cast to float32")
    kernel = attr(node, "kernel_shape")
    spans = windows(node, x.shape[2:], kernel)
    if x.rank == 3:
        return ctx.reshape(x, (*x.shape[:2], 1, x.shape[2])), [Window(1, 1, 1, 1, 0, 0), *spans]
    if x.rank != 4:
        raise Refusal("rank", f"{node.op_type} over {x.rank - 2} spatial axes has no TFLite kernel")
    return x, spans


def _from_2d(ctx: Context, node: ir.Node, y: Tensor) -> Tensor:
    y = ctx.transpose(y, channels_first(4))
    return ctx.reshape(y, (*y.shape[:2], y.shape[3])) if ctx.tensor(node.inputs[0]).rank == 3 else y


def _pool(ctx: Context, kind: str, x: Tensor, spans: list[Window], padding: str) -> Tensor:
    return ctx.emit(
        kind,
        [x],
        (x.shape[0], *(s.out for s in spans), x.shape[3]),
        x.dtype,
        padding=padding,
        strideH=spans[0].stride,
        strideW=spans[1].stride,
        filterHeight=spans[0].kernel,
        filterWidth=spans[1].kernel,
        fusedActivationFunction="NONE",
    )


def max_pool(ctx: Context, node: ir.Node) -> Tensor:
    """MaxPool without the indices output."""
    if len(node.outputs) > 1 and node.outputs[1].uses():
        raise Refusal("indices", "MaxPool's indices output has no TFLite kernel")
    x, spans = _as_2d(ctx, node)
    if any(s.dilation > 1 for s in spans):
        raise Refusal("dilation", "dilated MaxPool has no TFLite kernel")
    nhwc = ctx.transpose(x, channels_last(4))
    if all(s.valid for s in spans):
        padding = "VALID"
    elif all(s.same for s in spans):
        padding = "SAME"
    else:
        padding = "VALID"
        pads = [(s.before, max((s.out - 1) * s.stride + s.span - s.size - s.before, 0)) for s in spans]
        # zero is neutral among non-negative values, and PAD stays in the delegate where PADV2 does not
        value = None if is_non_negative(node.inputs[0]) else float(np.finfo(np.float32).min)
        nhwc = pad_spatial(ctx, nhwc, pads, value)
    return _from_2d(ctx, node, _pool(ctx, "MAX_POOL_2D", nhwc, spans, padding))


def _counts(window: Window, include_pad: bool, declared_after: int) -> Array:
    """How many elements each window averages over."""
    start = np.arange(window.out) * window.stride - window.before
    low, high = (-window.before, window.size + declared_after) if include_pad else (0, window.size)
    taps = start[:, None] + np.arange(window.kernel) * window.dilation
    return ((taps >= low) & (taps < high)).sum(1)


def average_pool(ctx: Context, node: ir.Node) -> Tensor:
    """AveragePool; where windows average over different counts, a constant mask corrects the sum."""
    x, spans = _as_2d(ctx, node)
    if any(s.dilation > 1 for s in spans):
        raise Refusal("dilation", "dilated AveragePool has no TFLite kernel")
    include = bool(attr(node, "count_include_pad", 0))
    nhwc = ctx.transpose(x, channels_last(4))
    if all(s.valid for s in spans):
        return _from_2d(ctx, node, _pool(ctx, "AVERAGE_POOL_2D", nhwc, spans, "VALID"))
    if not include and all(s.same for s in spans):
        return _from_2d(ctx, node, _pool(ctx, "AVERAGE_POOL_2D", nhwc, spans, "SAME"))
    declared = attr(node, "pads", (0,) * 2 * (ctx.tensor(node.inputs[0]).rank - 2))
    after = [0, declared[-1]] if len(declared) == 2 else list(declared[2:])
    if attr(node, "auto_pad", "NOTSET") != "NOTSET":
        after = [s.after for s in spans]
    pads = [(s.before, max((s.out - 1) * s.stride + s.span - s.size - s.before, 0)) for s in spans]
    y = _pool(ctx, "AVERAGE_POOL_2D", pad_spatial(ctx, nhwc, pads), spans, "VALID")
    rows, cols = (_counts(s, include, a) for s, a in zip(spans, after, strict=True))
    full = spans[0].kernel * spans[1].kernel
    mask = (full / np.outer(rows, cols)).astype(np.float32)
    if not np.all(mask == 1):
        scale = ctx.constant(mask[None, :, :, None], DType.FLOAT32)
        y = ctx.binary("MUL", y, scale, fusedActivationFunction="NONE")
    return _from_2d(ctx, node, y)


def _global(kind: str) -> Lowering:
    def lower(ctx: Context, node: ir.Node) -> Tensor:
        x = ctx.tensor(node.inputs[0])
        axes = list(range(2, x.rank))
        shape = (*x.shape[:2], *(1 for _ in axes))
        return ctx.emit(kind, [x, ctx.int32(axes)], shape, x.dtype, keepDims=True)

    return lower


LOWERINGS: dict[str, Lowering] = {
    "MaxPool": max_pool,
    "AveragePool": average_pool,
    "GlobalAveragePool": _global("MEAN"),
    "GlobalMaxPool": _global("REDUCE_MAX"),
}
