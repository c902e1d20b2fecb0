"""Activations: one TFLite operator where the runtime has it, else the few that stay in its delegate."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from edgec.backends.tflite.context import Context, Lowering, Refusal, normalize_axis
from edgec.backends.tflite.tir import Tensor
from edgec.graph.model import attr
from edgec.tensors import DType

_NONE = {"fusedActivationFunction": "NONE"}
_CLAMPS = {(0.0, np.inf): "RELU", (0.0, 6.0): "RELU6", (-1.0, 1.0): "RELU_N1_TO_1"}


def _float_input(ctx: Context, node: ir.Node) -> Tensor:
    x = ctx.tensor(node.inputs[0])
    if x.dtype != DType.FLOAT32:
        raise Refusal("dtype", f"{node.op_type} on {x.dtype} has no TFLite kernel", "insert a Cast")
    return x


def _direct(kind: str) -> Lowering:
    return lambda ctx, node: ctx.unary(kind, _float_input(ctx, node))


def clamp(ctx: Context, x: Tensor, low: float, high: float) -> Tensor:
    """min(max(x, low), high) with the single operator where there is one."""
    if (low, high) in _CLAMPS and x.dtype == DType.FLOAT32:
        return ctx.unary(_CLAMPS[low, high], x)
    y = x
    if low == 0.0 and x.dtype == DType.FLOAT32:
        y = ctx.unary("RELU", y)
    elif low > -np.inf:
        y = ctx.binary("MAXIMUM", y, ctx.scalar(low, x))
    return ctx.binary("MINIMUM", y, ctx.scalar(high, x)) if high < np.inf else y


def _clip(ctx: Context, node: ir.Node) -> Tensor:
    x, *bounds = ctx.inputs(node)
    assert x is not None
    low, high = (*bounds, None, None)[:2]
    if all(b is None or b.data is not None for b in (low, high)):
        floor = -np.inf if low is None else float(low.real())
        ceiling = np.inf if high is None else float(high.real())
        return clamp(ctx, x, floor, ceiling)
    y = x
    if low is not None:
        y = ctx.binary("MAXIMUM", y, low)
    return y if high is None else ctx.binary("MINIMUM", y, high)


def _leaky(ctx: Context, node: ir.Node) -> Tensor:
    return ctx.unary("LEAKY_RELU", _float_input(ctx, node), alpha=attr(node, "alpha", 0.01))


def _prelu(ctx: Context, node: ir.Node) -> Tensor:
    x, slope = _float_input(ctx, node), ctx.tensor(node.inputs[1])
    if slope.data is not None and slope.size == 1:
        return ctx.unary("LEAKY_RELU", x, alpha=float(slope.real().flat[0]))
    return ctx.binary("PRELU", x, slope)


def _elu(ctx: Context, node: ir.Node) -> Tensor:
    """TFLite's ELU has alpha 1; another alpha is max(x, 0) + alpha·(exp(min(x, 0)) − 1)."""
    x, alpha = _float_input(ctx, node), attr(node, "alpha", 1.0)
    return ctx.unary("ELU", x) if alpha == 1.0 else _scaled_elu(ctx, x, alpha, 1.0)


def _selu(ctx: Context, node: ir.Node) -> Tensor:
    x = _float_input(ctx, node)
    return _scaled_elu(ctx, x, attr(node, "alpha", 1.6732632), attr(node, "gamma", 1.0507010))


def _scaled_elu(ctx: Context, x: Tensor, alpha: float, gamma: float) -> Tensor:
    negative = ctx.unary("ELU", ctx.binary("MINIMUM", x, ctx.scalar(0.0, x)))
    negative = ctx.binary("MUL", negative, ctx.scalar(alpha * gamma, x), **_NONE)
    positive = ctx.unary("RELU", x)
    if gamma != 1.0:
        positive = ctx.binary("MUL", positive, ctx.scalar(gamma, x), **_NONE)
    return ctx.binary("ADD", positive, negative, **_NONE)


def _hard_sigmoid(ctx: Context, node: ir.Node) -> Tensor:
    """clip(αx + β, 0, 1) = relu6(6αx + 6β) / 6: RELU6 fuses and stays in the delegate, a clamp to 1 does not."""
    x = _float_input(ctx, node)
    alpha, beta = attr(node, "alpha", 0.2), attr(node, "beta", 0.5)
    y = x
    if abs(6 * alpha - 1) > 1e-6:
        y = ctx.binary("MUL", y, ctx.scalar(6 * alpha, x), **_NONE)
    y = ctx.unary("RELU6", ctx.binary("ADD", y, ctx.scalar(6 * beta, x), **_NONE))
    return ctx.binary("MUL", y, ctx.scalar(1 / 6, x), **_NONE)


def _gelu(ctx: Context, node: ir.Node) -> Tensor:
    return ctx.unary("GELU", _float_input(ctx, node), approximate=attr(node, "approximate", "none") == "tanh")


def _softmax(kind: str) -> Lowering:
    def lower(ctx: Context, node: ir.Node) -> Tensor:
        x = _float_input(ctx, node)
        axis = normalize_axis(attr(node, "axis", -1), x.rank)
        perm = [i for i in range(x.rank) if i != axis] + [axis]
        options = {"beta": 1.0} if kind == "SOFTMAX" else {}
        if x.rank == 0:
            raise Refusal("rank", f"{node.op_type} of a scalar")
        y = ctx.unary(kind, ctx.transpose(x, perm), **options)
        return ctx.transpose(y, [int(i) for i in np.argsort(perm)])

    return lower


LOWERINGS: dict[str, Lowering] = {
    "Relu": _direct("RELU"),
    "Sigmoid": _direct("LOGISTIC"),
    "Tanh": _direct("TANH"),
    "HardSwish": _direct("HARD_SWISH"),
    "Clip": _clip,
    "LeakyRelu": _leaky,
    "PRelu": _prelu,
    "Elu": _elu,
    "Selu": _selu,
    "HardSigmoid": _hard_sigmoid,
    "Gelu": _gelu,
    "Softmax": _softmax("SOFTMAX"),
    "LogSoftmax": _softmax("LOG_SOFTMAX"),
}
