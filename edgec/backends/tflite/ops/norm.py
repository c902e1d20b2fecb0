"""Normalisations, from operators that XNNPACK runs: y = (x − μ) · rsqrt(σ² + ε) · γ + β."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from edgec.backends.tflite.context import Context, Lowering, Refusal, normalize_axis
from edgec.backends.tflite.ops.dtypes import FLOAT, computed, convert
from edgec.backends.tflite.ops.linear import fully_connected
from edgec.backends.tflite.ops.reduce import reduce
from edgec.backends.tflite.tir import Tensor, constant
from edgec.graph.model import attr
from edgec.tensors import DType

_NONE = {"fusedActivationFunction": "NONE"}


def normalize(ctx: Context, x: Tensor, axes: list[int], epsilon: float) -> Tensor:
    """Zero mean and unit variance over the axes. What is left of the mean is computed once and squared."""
    centred = ctx.binary("SUB", x, reduce(ctx, "MEAN", x, axes, keep=True), **_NONE)
    variance = reduce(ctx, "MEAN", ctx.unary("SQUARE", centred), axes, keep=True)
    inverse = ctx.unary("RSQRT", ctx.binary("ADD", variance, ctx.scalar(epsilon, x), **_NONE))
    return ctx.binary("MUL", centred, inverse, **_NONE)


def affine(ctx: Context, x: Tensor, scale: Tensor | None, bias: Tensor | None) -> Tensor:
    """x · scale + bias, leaving out what is absent or changes nothing."""
    if scale is not None and not _all(scale, 1.0):
        x = ctx.binary("MUL", x, scale, **_NONE)
    return x if bias is None or _all(bias, 0.0) else ctx.binary("ADD", x, bias, **_NONE)


def _all(t: Tensor, value: float) -> bool:
    """Whether a constant, one that is not kept as integers, holds this value everywhere."""
    return t.data is not None and t.storage is None and bool(np.all(t.data == value))


def _layer_norm(ctx: Context, node: ir.Node) -> Tensor:
    """Over the last axes. Where its mean or deviation is read too, ONNX's own body says how."""
    x, scale, *rest = ctx.inputs(node)
    assert x is not None and scale is not None
    axis = normalize_axis(attr(node, "axis", -1), x.rank)
    if x.dtype != DType.FLOAT32 or any(v.uses() or v.is_graph_output() for v in node.outputs[1:]):
        raise Refusal("outputs", f"LayerNormalization on {x.dtype} with {len(node.outputs)} outputs")
    y = normalize(ctx, x, list(range(axis, x.rank)), attr(node, "epsilon", 1e-5))
    return affine(ctx, y, scale, rest[0] if rest else None)


def _instance_norm(ctx: Context, node: ir.Node) -> Tensor:
    """(x − μ) · rsqrt(σ² + ε) · γ + β over the spatial axes."""
    x, scale, bias = (ctx.tensor(v) for v in node.inputs)

    def run(t: Tensor, s: Tensor, b: Tensor) -> Tensor:
        y = normalize(ctx, t, list(range(2, t.rank)), attr(node, "epsilon", 1e-5))
        return affine(ctx, y, _per_channel(ctx, s, t.rank), _per_channel(ctx, b, t.rank))

    return computed(ctx, "InstanceNormalization", [x, scale, bias], FLOAT, run)


def _per_channel(ctx: Context, t: Tensor, rank: int) -> Tensor:
    return ctx.reshape(t, (1, t.size, *(1,) * (rank - 2)) if rank > 1 else (t.size,))


def _batch_norm(ctx: Context, node: ir.Node) -> Tensor | list[Tensor]:
    """Where no convolution took it in: one MUL and one ADD with folded constants."""
    x, *params = (ctx.tensor(v) for v in node.inputs)
    if attr(node, "training_mode", 0):
        return _training(ctx, node, x, params)
    dtype = x.dtype
    x = convert(ctx, x, DType.FLOAT32)
    epsilon = attr(node, "epsilon", 1e-5)
    if all(p.data is not None for p in params):
        gamma, beta, mean, var = (ctx.const(p, "statistics").astype(np.float64) for p in params)
        scale = gamma / np.sqrt(var + epsilon)
        factor = ctx.constant(scale.astype(np.float32), x.dtype)
        offset = ctx.constant((beta - mean * scale).astype(np.float32), x.dtype)
    else:
        g, b, m, v = (convert(ctx, p, DType.FLOAT32) for p in params)
        deviation = ctx.unary("SQRT", ctx.binary("ADD", v, ctx.scalar(epsilon, v), **_NONE))
        factor = ctx.binary("DIV", g, deviation, **_NONE)
        offset = ctx.binary("SUB", b, ctx.binary("MUL", m, factor, **_NONE), **_NONE)
    y = affine(ctx, x, _per_channel(ctx, factor, x.rank), _per_channel(ctx, offset, x.rank))
    return convert(ctx, y, dtype)


def _training(ctx: Context, node: ir.Node, x: Tensor, params: list[Tensor]) -> list[Tensor]:
    """The batch's own statistics; the running ones move towards them by 1 − momentum."""
    if any(t.dtype != DType.FLOAT32 for t in (x, *params)):
        raise Refusal("dtype", f"BatchNormalization in training mode on {x.dtype}")
    gamma, beta, *running = params
    axes = [i for i in range(x.rank) if i != 1]
    y = normalize(ctx, x, axes, attr(node, "epsilon", 1e-5))
    y = affine(ctx, y, _per_channel(ctx, gamma, x.rank), _per_channel(ctx, beta, x.rank))
    mean = reduce(ctx, "MEAN", x, axes, keep=True)
    variance = reduce(ctx, "MEAN", ctx.binary("SQUARED_DIFFERENCE", x, mean), axes, keep=True)
    momentum = attr(node, "momentum", 0.9)
    moved = [
        ctx.binary(
            "ADD",
            ctx.binary("MUL", old, ctx.scalar(momentum, old), **_NONE),
            ctx.binary("MUL", ctx.reshape(new, old.shape), ctx.scalar(1 - momentum, old), **_NONE),
            **_NONE,
        )
        for old, new in zip(running, (mean, variance), strict=True)
    ]
    return [y, *moved][: len(node.outputs)]


def _lp_norm(ctx: Context, node: ir.Node) -> Tensor:
    """x / ‖x‖ along an axis; a vector of zeros stays one."""
    x = ctx.tensor(node.inputs[0])
    axis = normalize_axis(attr(node, "axis", -1), x.rank)

    def run(t: Tensor) -> Tensor:
        if attr(node, "p", 2) == 2:
            length = ctx.unary("SQRT", reduce(ctx, "SUM", ctx.unary("SQUARE", t), [axis], keep=True))
        else:
            length = reduce(ctx, "SUM", ctx.unary("ABS", t), [axis], keep=True)
        zero = ctx.emit("EQUAL", [length, ctx.scalar(0.0, length)], length.shape, DType.BOOL)
        safe = ctx.emit("SELECT_V2", [zero, ctx.scalar(1.0, length), length], length.shape, length.dtype)
        return ctx.binary("DIV", t, safe, **_NONE)

    return computed(ctx, "LpNormalization", [x], FLOAT, run)


def _lrn(ctx: Context, node: ir.Node) -> Tensor:
    """x / (bias + alpha/size · Σ x² over neighbouring channels)^beta, the sum as a product with a band matrix."""
    x = ctx.tensor(node.inputs[0])
    size, alpha = attr(node, "size"), attr(node, "alpha", 1e-4)
    beta, bias = attr(node, "beta", 0.75), attr(node, "bias", 1.0)
    before, after = (size - 1) // 2, size // 2

    def run(t: Tensor) -> Tensor:
        offset = np.arange(t.shape[1])[None, :] - np.arange(t.shape[1])[:, None]
        band = ((offset >= -before) & (offset <= after)).astype(np.float32) * np.float32(alpha / size)
        last = [0, *range(2, t.rank), 1]
        squares = ctx.transpose(ctx.unary("SQUARE", t), last)
        edge = constant(ctx.name("bias"), np.full(t.shape[1], bias, np.float32))
        total = fully_connected(ctx, squares, constant(ctx.name("band"), band), edge)
        scale = ctx.binary("POW", total, ctx.scalar(-beta, total))
        return ctx.binary("MUL", t, ctx.transpose(scale, [0, t.rank - 1, *range(1, t.rank - 1)]), **_NONE)

    return computed(ctx, "LRN", [x], FLOAT, run)


LOWERINGS: dict[str, Lowering] = {
    "LayerNormalization": _layer_norm,
    "InstanceNormalization": _instance_norm,
    "BatchNormalization": _batch_norm,
    "LpNormalization": _lp_norm,
    "LRN": _lrn,
}
