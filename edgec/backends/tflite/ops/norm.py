"""Normalisations, from operators that XNNPACK runs: y = (x − μ) · rsqrt(σ² + ε) · γ + β."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from edgec.backends.tflite.context import Context, Lowering, normalize_axis
from edgec.backends.tflite.ops.reduce import reduce
from edgec.backends.tflite.tir import Tensor
from edgec.graph.model import attr

_NONE = {"fusedActivationFunction": "NONE"}


def normalize(ctx: Context, x: Tensor, axes: list[int], epsilon: float) -> Tensor:
    """Zero mean and unit variance over the axes."""
    mean = reduce(ctx, "MEAN", x, axes, keep=True)
    variance = reduce(ctx, "MEAN", ctx.binary("SQUARED_DIFFERENCE", x, mean), axes, keep=True)
    inverse = ctx.unary("RSQRT", ctx.binary("ADD", variance, ctx.scalar(epsilon, x), **_NONE))
    return ctx.binary("MUL", ctx.binary("SUB", x, mean, **_NONE), inverse, **_NONE)


def affine(ctx: Context, x: Tensor, scale: Tensor | None, bias: Tensor | None) -> Tensor:
    """x · scale + bias, leaving out what is absent."""
    if scale is not None:
        x = ctx.binary("MUL", x, scale, **_NONE)
    return x if bias is None else ctx.binary("ADD", x, bias, **_NONE)


def _layer_norm(ctx: Context, node: ir.Node) -> Tensor:
    x, scale, *rest = ctx.inputs(node)
    assert x is not None
    axis = normalize_axis(attr(node, "axis", -1), x.rank)
    y = normalize(ctx, x, list(range(axis, x.rank)), attr(node, "epsilon", 1e-5))
    return affine(ctx, y, scale, rest[0] if rest else None)


def _instance_norm(ctx: Context, node: ir.Node) -> Tensor:
    x, scale, bias = (ctx.tensor(v) for v in node.inputs)
    y = normalize(ctx, x, list(range(2, x.rank)), attr(node, "epsilon", 1e-5))
    return affine(ctx, y, _per_channel(ctx, scale, x.rank), _per_channel(ctx, bias, x.rank))


def _per_channel(ctx: Context, t: Tensor, rank: int) -> Tensor:
    return ctx.reshape(t, (1, t.size, *(1,) * (rank - 2)))


def _batch_norm(ctx: Context, node: ir.Node) -> Tensor:
    """Where no convolution took it in: one MUL and one ADD with folded constants."""
    x, *params = (ctx.tensor(v) for v in node.inputs)
    gamma, beta, mean, var = (ctx.const(p, "statistics") for p in params)
    scale = gamma / np.sqrt(var + attr(node, "epsilon", 1e-5))
    shape = (1, -1, *(1,) * (x.rank - 2))
    factor = ctx.constant(scale.astype(np.float32).reshape(shape), x.dtype)
    offset = ctx.constant((beta - mean * scale).astype(np.float32).reshape(shape), x.dtype)
    return affine(ctx, x, factor, offset)


def _lp_norm(ctx: Context, node: ir.Node) -> Tensor:
    x = ctx.tensor(node.inputs[0])
    axis = normalize_axis(attr(node, "axis", -1), x.rank)
    power = ctx.unary("SQUARE" if attr(node, "p", 2) == 2 else "ABS", x)
    total = reduce(ctx, "SUM", power, [axis], keep=True)
    length = ctx.unary("SQRT", total) if attr(node, "p", 2) == 2 else total
    return ctx.binary("DIV", x, length, **_NONE)


LOWERINGS: dict[str, Lowering] = {
    "LayerNormalization": _layer_norm,
    "InstanceNormalization": _instance_norm,
    "BatchNormalization": _batch_norm,
    "LpNormalization": _lp_norm,
}
