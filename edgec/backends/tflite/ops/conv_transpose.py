"""ConvTranspose as TRANSPOSE_CONV: SAME where its padding is the node's, else VALID and a crop.

out = (in − 1)·stride + span + output_padding − before − after.
What that kernel lacks (three dimensions, dilated weights computed at run time, wide output padding) is a plain
convolution of the input spread out by its strides with the mirrored weights.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import onnx_ir as ir

from edgec.backends.tflite.context import Context, Lowering, Refusal
from edgec.backends.tflite.ops.conv import (
    Convolution,
    channels_first,
    channels_last,
    convolve,
    part,
    real_part,
)
from edgec.backends.tflite.ops.dtypes import FLOAT, computed
from edgec.backends.tflite.ops.padding import constant_pad
from edgec.backends.tflite.ops.slicing import reverse, take_slices
from edgec.backends.tflite.ops.windows import Window
from edgec.backends.tflite.tir import Tensor, constant
from edgec.graph.model import attr, shape_of
from edgec.tensors import Array

#: Up to this many groups run one by one; more become one dense kernel with zeros across groups.
_FEW_GROUPS = 4


@dataclass(frozen=True, slots=True)
class _Transposed:
    """Operands ([N, C, …], [C, M/group, …]) and geometry: one entry a spatial axis."""

    x: Tensor
    w: Tensor
    bias: Tensor | None
    strides: tuple[int, ...]
    dilations: tuple[int, ...]
    before: tuple[int, ...]
    out: tuple[int, ...]
    group: int


def conv_transpose(ctx: Context, node: ir.Node) -> Tensor:
    """ConvTranspose in one, two or three dimensions."""
    x, w, *rest = ctx.inputs(node)
    assert x is not None and w is not None
    bias = [rest[0]] if rest and rest[0] is not None else []
    spatial = x.rank - 2
    if spatial not in (1, 2, 3):
        raise Refusal("rank", f"ConvTranspose over {spatial} spatial axes has no TFLite kernel")
    out = shape_of(node.outputs[0])[2:]
    if min(out) < 0:
        raise Refusal("static-shape", "ConvTranspose needs its output's shape when compiling")
    strides = tuple(attr(node, "strides", (1,) * spatial))
    dilations = tuple(attr(node, "dilations", (1,) * spatial))
    kernel = tuple((k - 1) * d + 1 for k, d in zip(w.shape[2:], dilations, strict=True))
    before = tuple(_pads_before(node, x.shape[2:], kernel, strides, out))

    def run(x: Tensor, w: Tensor, *bias: Tensor) -> Tensor:
        own = bias[0] if bias else None
        return _lower(ctx, _Transposed(x, w, own, strides, dilations, before, out, attr(node, "group", 1)))

    return computed(ctx, "ConvTranspose", [x, w, *bias], FLOAT, run)


def _lower(ctx: Context, c: _Transposed) -> Tensor:
    if c.w.data is not None:
        c = _dilated(c)
    if len(c.strides) == 1:
        c = _with_height(ctx, c)
        y = _lower(ctx, c)
        return ctx.reshape(y, (*y.shape[:2], y.shape[3]))
    if len(c.strides) == 3 or any(d > 1 for d in c.dilations) or _overhangs(c):
        return _spread(ctx, c)
    return _conv2d_transpose(ctx, c) if c.group == 1 else _grouped(ctx, c)


def _pads_before(
    node: ir.Node, sizes: tuple[int, ...], kernel: tuple[int, ...], strides: tuple[int, ...], out: tuple[int, ...]
) -> list[int]:
    rank = len(sizes)
    auto = attr(node, "auto_pad", "NOTSET")
    extra = attr(node, "output_padding", (0,) * rank)
    if auto == "VALID":
        return [0] * rank
    if attr(node, "output_shape") is None and not auto.startswith("SAME"):
        return list(attr(node, "pads", (0,) * 2 * rank)[:rank])
    result = []
    for i, size in enumerate(sizes):
        total = strides[i] * (size - 1) + extra[i] + kernel[i] - out[i]
        result.append(total - total // 2 if auto != "SAME_UPPER" else total // 2)
    return result


def _with_data(w: Tensor, data: Array) -> Tensor:
    return Tensor(name=w.name, shape=tuple(data.shape), dtype=w.dtype, data=data, storage=w.storage)


def _changed(c: _Transposed, **changes: object) -> _Transposed:
    return replace(c, **changes)  # type: ignore[arg-type]  # the fields' own types


def _dilated(c: _Transposed) -> _Transposed:
    """Constant weights with zeros between their taps: TRANSPOSE_CONV has no dilation."""
    w = c.w
    if all(d == 1 for d in c.dilations) or w.data is None:
        return c
    spatial = [(k - 1) * d + 1 for k, d in zip(w.shape[2:], c.dilations, strict=True)]
    data = np.zeros((*w.shape[:2], *spatial), w.data.dtype)
    data[(slice(None), slice(None), *(slice(None, None, d) for d in c.dilations))] = w.data
    return _changed(c, w=_with_data(w, data), dilations=(1,) * len(c.dilations))


def _with_height(ctx: Context, c: _Transposed) -> _Transposed:
    """One dimension as two of height 1."""
    shape = (*c.w.shape[:2], 1, c.w.shape[2])
    return _changed(
        c,
        x=ctx.reshape(c.x, (*c.x.shape[:2], 1, c.x.shape[2])),
        w=ctx.reshape(c.w, shape) if c.w.data is None else _with_data(c.w, c.w.data.reshape(shape)),
        strides=(1, *c.strides),
        dilations=(1, *c.dilations),
        before=(0, *c.before),
        out=(1, *c.out),
    )


def _full(c: _Transposed) -> list[int]:
    """What the windows write, before cropping."""
    return [(n - 1) * s + k for n, s, k in zip(c.x.shape[2:], c.strides, c.w.shape[2:], strict=True)]


def _is_same(c: _Transposed) -> bool:
    return all(
        n * s == o and max(f - o, 0) // 2 == b
        for n, s, o, f, b in zip(c.x.shape[2:], c.strides, c.out, _full(c), c.before, strict=True)
    )


def _overhangs(c: _Transposed) -> bool:
    """Whether the output reaches a stride or more beyond the last window, or begins before the first."""
    beyond = [max(o + b - f, 0) >= s for o, b, f, s in zip(c.out, c.before, _full(c), c.strides, strict=True)]
    return min(c.before) < 0 or (any(beyond) and not _is_same(c))


def _grouped(ctx: Context, c: _Transposed) -> Tensor:
    per_in, per_out = c.x.shape[1] // c.group, c.w.shape[1]
    if c.group > _FEW_GROUPS and c.w.data is not None:
        data = c.w.real()
        dense = np.zeros((c.x.shape[1], per_out * c.group, *c.w.shape[2:]), np.float32)
        for g in range(c.group):
            rows = slice(g * per_in, (g + 1) * per_in)
            dense[rows, g * per_out : (g + 1) * per_out] = data[rows]
        return _conv2d_transpose(ctx, _changed(c, w=constant(ctx.name("w"), dense), group=1))
    parts = []
    for g in range(c.group):
        own = _changed(
            c,
            x=part(ctx, c.x, 1, g * per_in, per_in),
            w=real_part(ctx, c.w, 0, g * per_in, per_in),
            bias=None if c.bias is None else real_part(ctx, c.bias, 0, g * per_out, per_out),
            group=1,
        )
        parts.append(_conv2d_transpose(ctx, own))
    shape = [c.x.shape[0], per_out * c.group, *c.out]
    return ctx.emit("CONCATENATION", parts, shape, c.x.dtype, axis=1, fusedActivationFunction="NONE")


def _conv2d_transpose(ctx: Context, c: _Transposed) -> Tensor:
    """`w` is [C, M, kH, kW]; TRANSPOSE_CONV wants [M, kH, kW, C]."""
    filters = c.w.shape[1]
    nhwc = ctx.transpose(c.x, channels_last(4))
    same = _is_same(c)
    # VALID may write further than the last window reaches: that part holds the bias alone
    far = [max(f, o + b) for f, o, b in zip(_full(c), c.out, c.before, strict=True)]
    produced = list(c.out) if same else far
    kernel = ctx.transpose(c.w, (1, 2, 3, 0))
    shape = (c.x.shape[0], *produced, filters)
    bias = c.bias if c.bias is not None else constant(ctx.name("bias"), np.zeros(filters, np.float32))
    y = ctx.emit(
        "TRANSPOSE_CONV",
        [ctx.int32(list(shape)), kernel, nhwc, bias],
        shape,
        c.x.dtype,
        padding="SAME" if same else "VALID",
        strideH=c.strides[0],
        strideW=c.strides[1],
        fusedActivationFunction="NONE",
    )
    if list(c.out) != produced:
        shape = (c.x.shape[0], *c.out, filters)
        y = ctx.emit("SLICE", [y, ctx.int32([0, *c.before, 0]), ctx.int32(list(shape))], shape, c.x.dtype)
    return ctx.transpose(y, channels_first(4))


def _spread(ctx: Context, c: _Transposed) -> Tensor:
    """The input with zeros between its elements, padded by span − 1 − before, convolved with mirrored weights."""
    x = c.x
    for axis, stride in enumerate(c.strides, 2):
        x = _insert_zeros(ctx, x, axis, stride)
    spans = [(k - 1) * d + 1 for k, d in zip(c.w.shape[2:], c.dilations, strict=True)]
    pads, crops = [(0, 0), (0, 0)], [slice(0, d, 1) for d in x.shape[:2]]
    for size, span, before, out in zip(x.shape[2:], spans, c.before, c.out, strict=True):
        first = span - 1 - before
        last = out + span - 1 - size - first
        pads.append((max(first, 0), max(last, 0)))
        crops.append(slice(max(-first, 0), size - max(-last, 0), 1))
    x = take_slices(ctx, x, crops)
    if any(b or a for b, a in pads):
        x = constant_pad(ctx, x, pads)
    windows = [Window(size, k, 1, d, 0, 0) for size, k, d in zip(x.shape[2:], c.w.shape[2:], c.dilations, strict=True)]
    kernel = _mirrored(ctx, c)
    return convolve(ctx, Convolution(x, kernel, c.bias, windows, c.group))


def _insert_zeros(ctx: Context, x: Tensor, axis: int, stride: int) -> Tensor:
    if stride == 1:
        return x
    lead, size, tail = int(np.prod(x.shape[:axis])), x.shape[axis], int(np.prod(x.shape[axis + 1 :]))
    rows = constant_pad(ctx, ctx.reshape(x, (lead, size, 1, tail)), [(0, 0), (0, 0), (0, stride - 1), (0, 0)])
    wide = ctx.reshape(rows, (*x.shape[:axis], size * stride, *x.shape[axis + 1 :]))
    spans = [slice(0, d, 1) for d in wide.shape]
    spans[axis] = slice(0, (size - 1) * stride + 1, 1)
    return take_slices(ctx, wide, spans)


def _mirrored(ctx: Context, c: _Transposed) -> Tensor:
    """[C, M/group, …] → [M, C/group, …], the taps in reverse."""
    per_in, per_out, taps = c.x.shape[1] // c.group, c.w.shape[1], c.w.shape[2:]
    order = (0, 2, 1, *range(3, 3 + len(taps)))
    if c.w.data is not None:
        data = c.w.real().reshape(c.group, per_in, per_out, *taps).transpose(order)
        data = np.flip(data, tuple(range(3, data.ndim))).reshape(c.group * per_out, per_in, *taps)
        return constant(ctx.name("w"), np.ascontiguousarray(data))
    w = reverse(ctx, c.w, range(2, c.w.rank))
    split = ctx.transpose(ctx.reshape(w, (c.group, per_in, per_out, *taps)), order)
    return ctx.reshape(split, (c.group * per_out, per_in, *taps))


LOWERINGS: dict[str, Lowering] = {"ConvTranspose": conv_transpose}
