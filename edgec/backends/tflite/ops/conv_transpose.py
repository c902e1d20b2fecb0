"""ConvTranspose as TRANSPOSE_CONV: SAME where its padding is the node's, else VALID and a crop.

out = (in − 1)·stride + span + output_padding − before − after.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from edgec.backends.tflite.context import Context, Lowering, Refusal
from edgec.backends.tflite.ops.conv import channels_first, channels_last
from edgec.backends.tflite.tir import Tensor, constant
from edgec.graph.model import attr, shape_of
from edgec.tensors import Array, DType


def conv_transpose(ctx: Context, node: ir.Node) -> Tensor:
    """ConvTranspose in one or two dimensions."""
    x, w, *rest = ctx.inputs(node)
    assert x is not None and w is not None
    bias = rest[0] if rest else None
    if x.dtype != DType.FLOAT32 or w.data is None:
        raise Refusal("dtype", "ConvTranspose needs a float32 input and constant weights")
    spatial = x.rank - 2
    if spatial not in (1, 2):
        raise Refusal("rank", f"ConvTranspose over {spatial} spatial axes has no TFLite kernel")
    out = shape_of(node.outputs[0])[2:]
    strides = list(attr(node, "strides", (1,) * spatial))
    dilations = list(attr(node, "dilations", (1,) * spatial))
    w = _dilate(w, dilations)
    before = _pads_before(node, x.shape[2:], w.shape[2:], strides, out)
    if spatial == 1:
        x = ctx.reshape(x, (*x.shape[:2], 1, x.shape[2]))
        w = _with_data(w, w.data.reshape(*w.shape[:2], 1, w.shape[2]))  # type: ignore[union-attr]
        strides, before, out = [1, *strides], [0, *before], (1, *out)
    group = attr(node, "group", 1)
    y = _grouped(ctx, x, w, bias, strides, before, tuple(out), group)
    return y if spatial == 2 else ctx.reshape(y, (*y.shape[:2], y.shape[3]))


def _pads_before(
    node: ir.Node, sizes: tuple[int, ...], kernel: tuple[int, ...], strides: list[int], out: tuple[int, ...]
) -> list[int]:
    rank = len(sizes)
    auto = attr(node, "auto_pad", "NOTSET")
    extra = attr(node, "output_padding", (0,) * rank)
    explicit = attr(node, "output_shape") is not None or auto.startswith("SAME")
    if not explicit:
        return list(attr(node, "pads", (0,) * 2 * rank)[:rank])
    result = []
    for i, size in enumerate(sizes):
        total = strides[i] * (size - 1) + extra[i] + kernel[i] - out[i]
        result.append(total - total // 2 if auto != "SAME_UPPER" else total // 2)
    return result


def _with_data(w: Tensor, data: Array) -> Tensor:
    return Tensor(name=w.name, shape=tuple(data.shape), dtype=w.dtype, data=data, storage=w.storage)


def _dilate(w: Tensor, dilations: list[int]) -> Tensor:
    """Weights with zeros between their taps: TRANSPOSE_CONV has no dilation."""
    if all(d == 1 for d in dilations) or w.data is None:
        return w
    spatial = [(k - 1) * d + 1 for k, d in zip(w.shape[2:], dilations, strict=True)]
    data = np.zeros((*w.shape[:2], *spatial), w.data.dtype)
    data[(slice(None), slice(None), *(slice(None, None, d) for d in dilations))] = w.data
    return _with_data(w, data)


def _grouped(
    ctx: Context,
    x: Tensor,
    w: Tensor,
    bias: Tensor | None,
    strides: list[int],
    before: list[int],
    out: tuple[int, ...],
    group: int,
) -> Tensor:
    if group == 1:
        return _conv2d_transpose(ctx, x, w, bias, strides, before, out)
    if group <= 4:
        return _by_group(ctx, x, w, bias, strides, before, out, group)
    # many groups: one dense kernel with zeros across groups is a single operator
    data = w.real()
    per_in, per_out = x.shape[1] // group, w.shape[1]
    dense = np.zeros((x.shape[1], per_out * group, *w.shape[2:]), np.float32)
    for g in range(group):
        rows = slice(g * per_in, (g + 1) * per_in)
        dense[rows, g * per_out : (g + 1) * per_out] = data[rows]
    return _conv2d_transpose(ctx, x, constant(ctx.name("w"), dense), bias, strides, before, out)


def _by_group(
    ctx: Context,
    x: Tensor,
    w: Tensor,
    bias: Tensor | None,
    strides: list[int],
    before: list[int],
    out: tuple[int, ...],
    group: int,
) -> Tensor:
    per_in, per_out, data = x.shape[1] // group, w.shape[1], w.real()
    parts = []
    for g in range(group):
        shape = [x.shape[0], per_in, *x.shape[2:]]
        part = ctx.emit("SLICE", [x, ctx.int32([0, g * per_in, 0, 0]), ctx.int32(shape)], shape, x.dtype)
        kernel = constant(ctx.name("w"), data[g * per_in : (g + 1) * per_in])
        own = bias and constant(ctx.name("b"), ctx.const(bias, "bias")[g * per_out : (g + 1) * per_out])
        parts.append(_conv2d_transpose(ctx, part, kernel, own, strides, before, out))
    shape = [x.shape[0], per_out * group, *out]
    return ctx.emit("CONCATENATION", parts, shape, x.dtype, axis=1, fusedActivationFunction="NONE")


def _conv2d_transpose(
    ctx: Context,
    x: Tensor,
    w: Tensor,
    bias: Tensor | None,
    strides: list[int],
    before: list[int],
    out: tuple[int, ...],
) -> Tensor:
    """`w` is [C, M, kH, kW]; TRANSPOSE_CONV wants [M, kH, kW, C]."""
    filters = w.shape[1]
    nhwc = ctx.transpose(x, channels_last(4))
    full = [(n - 1) * s + k for n, s, k in zip(x.shape[2:], strides, w.shape[2:], strict=True)]
    same = all(
        n * s == o and max(f - o, 0) // 2 == b
        for n, s, o, f, b in zip(x.shape[2:], strides, out, full, before, strict=True)
    )
    # VALID may write further than the last window reaches: that part holds the bias alone
    produced = (
        list(out) if same else [max(f, o + b) for f, o, b in zip(full, out, before, strict=True)]
    )
    if any(p - f >= s for p, f, s in zip(produced, full, strides, strict=True)) and not same:
        raise Refusal("output-padding", "ConvTranspose with an output padding of a stride or more")
    kernel = ctx.transpose(w, (1, 2, 3, 0))
    shape = (x.shape[0], *produced, filters)
    if bias is None:
        bias = constant(ctx.name("bias"), np.zeros(filters, np.float32))
    y = ctx.emit(
        "TRANSPOSE_CONV",
        [ctx.int32(list(shape)), kernel, nhwc, bias],
        shape,
        x.dtype,
        padding="SAME" if same else "VALID",
        strideH=strides[0],
        strideW=strides[1],
        fusedActivationFunction="NONE",
    )
    if list(out) != produced:
        shape = (x.shape[0], *out, filters)
        y = ctx.emit("SLICE", [y, ctx.int32([0, *before, 0]), ctx.int32(list(shape))], shape, x.dtype)
    return ctx.transpose(y, channels_first(4))


LOWERINGS: dict[str, Lowering] = {"ConvTranspose": conv_transpose}
