"""Convolutions: CONV_2D, DEPTHWISE_CONV_2D, CONV_3D and TRANSPOSE_CONV, channels last, bias always there."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from edgec.backends.tflite.context import Context, Lowering, Refusal
from edgec.backends.tflite.ops.windows import Window, windows
from edgec.backends.tflite.tir import Tensor, constant
from edgec.graph.model import attr
from edgec.tensors import DType


def channels_last(rank: int) -> tuple[int, ...]:
    """NC… → N…C."""
    return (0, *range(2, rank), 1)


def channels_first(rank: int) -> tuple[int, ...]:
    """N…C → NC…."""
    return (0, rank - 1, *range(1, rank - 1))


def pad_spatial(ctx: Context, x: Tensor, pads: list[tuple[int, int]], value: float | None = None) -> Tensor:
    """Pad the spatial axes of an N…C tensor; `value` None means 0. Negative pads crop."""
    crop = [(max(-b, 0), max(-a, 0)) for b, a in pads]
    if any(b or a for b, a in crop):
        begin = [0, *(b for b, _ in crop), 0]
        shape = [x.shape[0], *(d - b - a for d, (b, a) in zip(x.shape[1:-1], crop, strict=True)), x.shape[-1]]
        x = ctx.emit("SLICE", [x, ctx.int32(begin), ctx.int32(shape)], shape, x.dtype)
    grow = [(0, 0), *((max(b, 0), max(a, 0)) for b, a in pads), (0, 0)]
    if not any(b or a for b, a in grow):
        return x
    shape = [d + b + a for d, (b, a) in zip(x.shape, grow, strict=True)]
    if value is None:
        return ctx.emit("PAD", [x, ctx.int32(np.asarray(grow))], shape, x.dtype)
    return ctx.emit("PADV2", [x, ctx.int32(np.asarray(grow)), ctx.scalar(value, x)], shape, x.dtype)


def resolve_padding(ctx: Context, x: Tensor, spans: list[Window]) -> tuple[Tensor, str]:
    """Padding as TFLite can say it: SAME, VALID, or an explicit PAD in front of VALID."""
    if all(w.valid for w in spans):
        return x, "VALID"
    if all(w.same for w in spans):
        return x, "SAME"
    # only what the windows reach; the rest of `after` would be dead
    pads = [(w.before, max((w.out - 1) * w.stride + w.span - w.size - w.before, 0)) for w in spans]
    return pad_spatial(ctx, x, pads), "VALID"


def _bias(ctx: Context, bias: Tensor | None, channels: int) -> Tensor:
    if bias is not None:
        return bias
    return constant(ctx.name("bias"), np.zeros(channels, np.float32))


def conv(ctx: Context, node: ir.Node) -> Tensor:
    """Conv in one, two or three dimensions."""
    x, w, *rest = ctx.inputs(node)
    assert x is not None and w is not None
    bias = rest[0] if rest else None
    if x.dtype != DType.FLOAT32:
        raise Refusal("dtype", f"Conv on {x.dtype} has no TFLite kernel", "cast the input to float32")
    if x.rank not in (3, 4, 5):
        raise Refusal("rank", f"Conv over {x.rank - 2} spatial axes has no TFLite kernel")
    if x.rank == 3:  # rule: one-dimensional windows run as two-dimensional ones of height 1
        x4 = ctx.reshape(x, (x.shape[0], x.shape[1], 1, x.shape[2]))
        w4 = _insert_height(ctx, w)
        spans = [Window(1, 1, 1, 1, 0, 0), *windows(node, x.shape[2:], w.shape[2:])]
        out = _conv2d(ctx, x4, w4, bias, spans, attr(node, "group", 1))
        return ctx.reshape(out, (out.shape[0], out.shape[1], out.shape[3]))
    spans = windows(node, x.shape[2:], w.shape[2:])
    if x.rank == 5:
        return _conv3d(ctx, x, w, bias, spans, attr(node, "group", 1))
    return _conv2d(ctx, x, w, bias, spans, attr(node, "group", 1))


def _insert_height(ctx: Context, w: Tensor) -> Tensor:
    shape = (w.shape[0], w.shape[1], 1, w.shape[2])
    if w.data is None:
        return ctx.reshape(w, shape)
    # a per-channel axis (0 or 1) stays where it is
    return Tensor(name=w.name, shape=shape, dtype=w.dtype, data=w.data.reshape(shape), storage=w.storage)


def _conv2d(
    ctx: Context, x: Tensor, w: Tensor, bias: Tensor | None, spans: list[Window], group: int
) -> Tensor:
    filters, channels = w.shape[0], x.shape[1]
    if group not in (1, channels) and any(s.dilation > 1 for s in spans):
        return _split_groups(ctx, x, w, bias, spans, group)
    nhwc, padding = resolve_padding(ctx, ctx.transpose(x, channels_last(4)), spans)
    options = {
        "padding": padding,
        "strideH": spans[0].stride,
        "strideW": spans[1].stride,
        "dilationHFactor": spans[0].dilation,
        "dilationWFactor": spans[1].dilation,
        "fusedActivationFunction": "NONE",
    }
    shape = (x.shape[0], spans[0].out, spans[1].out, filters)
    if group == channels and channels > 1 or group == channels == filters == 1:
        kernel = ctx.transpose(w, (1, 2, 3, 0))
        out = ctx.emit(
            "DEPTHWISE_CONV_2D",
            [nhwc, kernel, _bias(ctx, bias, filters)],
            shape,
            x.dtype,
            depthMultiplier=filters // channels,
            **options,
        )
    else:
        kernel = ctx.transpose(w, (0, 2, 3, 1))
        out = ctx.emit("CONV_2D", [nhwc, kernel, _bias(ctx, bias, filters)], shape, x.dtype, **options)
    return ctx.transpose(out, channels_first(4))


def _split_groups(
    ctx: Context, x: Tensor, w: Tensor, bias: Tensor | None, spans: list[Window], group: int
) -> Tensor:
    """Grouped and dilated at once has no kernel: one convolution a group, then concatenated."""
    channels, filters = x.shape[1] // group, w.shape[0] // group
    parts = []
    for g in range(group):
        begin = [0, g * channels, 0, 0]
        shape = [x.shape[0], channels, *x.shape[2:]]
        part = ctx.emit("SLICE", [x, ctx.int32(begin), ctx.int32(shape)], shape, x.dtype)
        rows = slice(g * filters, (g + 1) * filters)
        kernel = constant(ctx.name("w"), ctx.const(w, "weights")[rows])
        own = None if bias is None else constant(ctx.name("b"), ctx.const(bias, "bias")[rows])
        parts.append(_conv2d(ctx, part, kernel, own, spans, 1))
    shape = [parts[0].shape[0], w.shape[0], *parts[0].shape[2:]]
    return ctx.emit("CONCATENATION", parts, shape, x.dtype, axis=1, fusedActivationFunction="NONE")


def _conv3d(
    ctx: Context, x: Tensor, w: Tensor, bias: Tensor | None, spans: list[Window], group: int
) -> Tensor:
    if group != 1:
        raise Refusal("groups", "a grouped 3-D convolution has no TFLite kernel")
    ndhwc, padding = resolve_padding(ctx, ctx.transpose(x, channels_last(5)), spans)
    out = ctx.emit(
        "CONV_3D",
        [ndhwc, ctx.transpose(w, (2, 3, 4, 1, 0)), _bias(ctx, bias, w.shape[0])],
        (x.shape[0], *(s.out for s in spans), w.shape[0]),
        x.dtype,
        padding=padding,
        fusedActivationFunction="NONE",
        **{f"stride{a}": s.stride for a, s in zip("DHW", spans, strict=True)},
        **{f"dilation{a}Factor": s.dilation for a, s in zip("DHW", spans, strict=True)},
    )
    return ctx.transpose(out, channels_first(5))


LOWERINGS: dict[str, Lowering] = {"Conv": conv}
