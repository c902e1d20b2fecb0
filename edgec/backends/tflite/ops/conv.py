"""Convolutions: CONV_2D, DEPTHWISE_CONV_2D and CONV_3D, channels last, bias always there."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from edgec.backends.tflite.context import Context, Lowering, Refusal
from edgec.backends.tflite.ops.dtypes import FLOAT, computed
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


def needed_pads(spans: list[Window]) -> list[tuple[int, int]]:
    """Padding before and after each axis, only what the windows reach: the rest of `after` would be dead."""
    return [(w.before, max((w.out - 1) * w.stride + w.span - w.size - w.before, 0)) for w in spans]


def resolve_padding(ctx: Context, x: Tensor, spans: list[Window]) -> tuple[Tensor, str]:
    """Padding as TFLite can say it: SAME, VALID, or an explicit PAD in front of VALID."""
    if all(w.valid for w in spans):
        return x, "VALID"
    if all(w.same for w in spans):
        return x, "SAME"
    return pad_spatial(ctx, x, needed_pads(spans)), "VALID"


@dataclass(frozen=True, slots=True)
class Convolution:
    """A convolution's operands in ONNX's layout ([N, C, …], [M, C/group, …]), its windows and groups."""

    x: Tensor
    w: Tensor
    bias: Tensor | None
    spans: list[Window]
    group: int


def conv(ctx: Context, node: ir.Node) -> Tensor:
    """Conv in one, two or three dimensions; half and double precision are computed in float32."""
    x, w, *rest = ctx.inputs(node)
    assert x is not None and w is not None
    bias = [rest[0]] if rest and rest[0] is not None else []
    spans = windows(node, x.shape[2:], w.shape[2:])
    group = attr(node, "group", 1)

    def run(x: Tensor, w: Tensor, *bias: Tensor) -> Tensor:
        return convolve(ctx, Convolution(x, w, bias[0] if bias else None, spans, group))

    return computed(ctx, "Conv", [x, w, *bias], FLOAT, run)


def convolve(ctx: Context, c: Convolution) -> Tensor:
    """A convolution of float32 tensors, N…C inside, [N, M, …] outside."""
    if not 1 <= len(c.spans) <= 3:
        raise Refusal("rank", f"Conv over {len(c.spans)} spatial axes has no TFLite kernel")
    if min(w.out for w in c.spans) < 1:
        raise Refusal("window", "a window is larger than what it slides over")
    if len(c.spans) == 3:
        return _split_groups(ctx, c) if c.group > 1 else _conv3d(ctx, c)
    if len(c.spans) == 2:
        return _conv2d(ctx, c)
    # one-dimensional windows run as two-dimensional ones of height 1
    x4 = ctx.reshape(c.x, (c.x.shape[0], c.x.shape[1], 1, c.x.shape[2]))
    flat = Convolution(x4, _insert_height(ctx, c.w), c.bias, [Window(1, 1, 1, 1, 0, 0), *c.spans], c.group)
    out = _conv2d(ctx, flat)
    return ctx.reshape(out, (out.shape[0], out.shape[1], out.shape[3]))


def _bias(ctx: Context, bias: Tensor | None, channels: int) -> Tensor:
    return bias if bias is not None else constant(ctx.name("bias"), np.zeros(channels, np.float32))


def _real(ctx: Context, w: Tensor) -> Tensor:
    """int8 weights in float: the kernel that quantizes float data on the way is wrong for groups (LiteRT 2.3)."""
    if w.data is None or w.storage is None or w.storage.dtype is not DType.INT8:
        return w
    return constant(ctx.name("weights"), w.storage.qparams.dequantize(w.data).astype(np.float32))


def _insert_height(ctx: Context, w: Tensor) -> Tensor:
    shape = (w.shape[0], w.shape[1], 1, w.shape[2])
    if w.data is None:
        return ctx.reshape(w, shape)
    # a per-channel axis (0 or 1) stays where it is
    return Tensor(name=w.name, shape=shape, dtype=w.dtype, data=w.data.reshape(shape), storage=w.storage)


def _conv2d(ctx: Context, c: Convolution) -> Tensor:
    x, w, spans = c.x, c.w, c.spans
    filters, channels = w.shape[0], x.shape[1]
    if c.group not in (1, channels) and (any(s.dilation > 1 for s in spans) or w.data is None):
        return _split_groups(ctx, c)
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
    bias = _bias(ctx, c.bias, filters)
    if c.group > 1 and x.storage is None:
        w = _real(ctx, w)
    if (c.group == channels and channels > 1) or c.group == channels == filters == 1:
        kernel = ctx.transpose(w, (1, 2, 3, 0))
        inputs = [nhwc, kernel, bias]
        out = ctx.emit("DEPTHWISE_CONV_2D", inputs, shape, x.dtype, depthMultiplier=filters // channels, **options)
    else:
        kernel = ctx.transpose(w, (0, 2, 3, 1))
        out = ctx.emit("CONV_2D", [nhwc, kernel, bias], shape, x.dtype, **options)
    return ctx.transpose(out, channels_first(4))


def part(ctx: Context, t: Tensor, axis: int, start: int, length: int) -> Tensor:
    """`length` slices of t along an axis; constants at once."""
    if t.data is not None and t.storage is None:
        return constant(ctx.name("part"), np.take(t.data, np.arange(start, start + length), axis))
    begin, shape = [0] * t.rank, list(t.shape)
    begin[axis], shape[axis] = start, length
    return ctx.emit("SLICE", [t, ctx.int32(begin), ctx.int32(shape)], shape, t.dtype)


def real_part(ctx: Context, t: Tensor, axis: int, start: int, length: int) -> Tensor:
    """As `part`, of the real values of a constant kept as integers."""
    if t.data is not None and t.storage is not None:
        t = constant(t.name, t.real())
    return part(ctx, t, axis, start, length)


def _split_groups(ctx: Context, c: Convolution) -> Tensor:
    """Grouped and dilated at once, or in three dimensions, has no kernel: one convolution a group."""
    channels, filters = c.x.shape[1] // c.group, c.w.shape[0] // c.group
    parts = []
    for g in range(c.group):
        own = Convolution(
            part(ctx, c.x, 1, g * channels, channels),
            real_part(ctx, c.w, 0, g * filters, filters),
            None if c.bias is None else real_part(ctx, c.bias, 0, g * filters, filters),
            c.spans,
            1,
        )
        parts.append(_conv3d(ctx, own) if len(c.spans) == 3 else _conv2d(ctx, own))
    shape = [parts[0].shape[0], c.w.shape[0], *parts[0].shape[2:]]
    return ctx.emit("CONCATENATION", parts, shape, c.x.dtype, axis=1, fusedActivationFunction="NONE")


def _conv3d(ctx: Context, c: Convolution) -> Tensor:
    ndhwc, padding = resolve_padding(ctx, ctx.transpose(c.x, channels_last(5)), c.spans)
    out = ctx.emit(
        "CONV_3D",
        [ndhwc, ctx.transpose(c.w, (2, 3, 4, 1, 0)), _bias(ctx, c.bias, c.w.shape[0])],
        (c.x.shape[0], *(s.out for s in c.spans), c.w.shape[0]),
        c.x.dtype,
        padding=padding,
        fusedActivationFunction="NONE",
        **{f"stride{a}": s.stride for a, s in zip("DHW", c.spans, strict=True)},
        **{f"dilation{a}Factor": s.dilation for a, s in zip("DHW", c.spans, strict=True)},
    )
    return ctx.transpose(out, channels_first(5))


LOWERINGS: dict[str, Lowering] = {"Conv": conv}
