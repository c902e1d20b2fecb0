"""Random numbers, from TFLite's own generators: the distribution is ONNX's, the numbers are not.

No two runtimes agree on them; a model whose outputs depend on them cannot be validated against its source.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from edgec.backends.tflite.context import Context, Lowering, Refusal
from edgec.backends.tflite.ops.casting import cast_to
from edgec.backends.tflite.ops.dtypes import FLOATS, convert
from edgec.backends.tflite.ops.elementwise import arithmetic
from edgec.backends.tflite.tir import Tensor
from edgec.graph.model import attr
from edgec.tensors import DType


def _seeds(node: ir.Node) -> dict[str, int]:
    """A seed's bits; two zeros let the runtime choose."""
    seed = attr(node, "seed")
    if seed is None:
        return {"seed": 0, "seed2": 0}
    return {"seed": int(np.float32(seed).view(np.int32)) & 0x7FFFFFFF, "seed2": 1}


def _draw(ctx: Context, node: ir.Node, kind: str, shape: tuple[int, ...]) -> Tensor:
    return ctx.emit(kind, [ctx.int32(list(shape))], shape, DType.FLOAT32, **_seeds(node))


def _scaled(ctx: Context, t: Tensor, factor: float, offset: float) -> Tensor:
    if factor != 1.0:
        t = arithmetic(ctx, "MUL", t, ctx.scalar(factor, t))
    return t if offset == 0.0 else arithmetic(ctx, "ADD", t, ctx.scalar(offset, t))


def _uniform(ctx: Context, node: ir.Node) -> Tensor:
    """Evenly between low and high."""
    _, shape, dtype = ctx.out_spec(node)
    low, high = attr(node, "low", 0.0), attr(node, "high", 1.0)
    return cast_to(ctx, _scaled(ctx, _draw(ctx, node, "RANDOM_UNIFORM", shape), high - low, low), dtype)


def _normal(ctx: Context, node: ir.Node) -> Tensor:
    """Normal with the given mean and scale."""
    _, shape, dtype = ctx.out_spec(node)
    drawn = _draw(ctx, node, "RANDOM_STANDARD_NORMAL", shape)
    return cast_to(ctx, _scaled(ctx, drawn, attr(node, "scale", 1.0), attr(node, "mean", 0.0)), dtype)


def _bernoulli(ctx: Context, node: ir.Node) -> Tensor:
    """1 with the probability that the input holds."""
    x = ctx.tensor(node.inputs[0])
    if x.dtype not in FLOATS:
        raise Refusal("dtype", f"Bernoulli on {x.dtype}")
    _, shape, dtype = ctx.out_spec(node)
    drawn = _draw(ctx, node, "RANDOM_UNIFORM", shape)
    hit = ctx.emit("LESS", [drawn, convert(ctx, x, DType.FLOAT32)], shape, DType.BOOL)
    return cast_to(ctx, hit, dtype)


def _multinomial(ctx: Context, node: ir.Node) -> Tensor:
    """Class numbers, drawn from unnormalised log-probabilities."""
    x = convert(ctx, ctx.tensor(node.inputs[0]), DType.FLOAT32)
    _, shape, dtype = ctx.out_spec(node)
    count = ctx.int32(attr(node, "sample_size", 1))
    drawn = ctx.emit("MULTINOMIAL", [x, count], shape, DType.INT64, **_seeds(node))
    return convert(ctx, drawn, dtype)


LOWERINGS: dict[str, Lowering] = {
    "Bernoulli": _bernoulli,
    "Multinomial": _multinomial,
    "RandomNormal": _normal,
    "RandomNormalLike": _normal,
    "RandomUniform": _uniform,
    "RandomUniformLike": _uniform,
}
