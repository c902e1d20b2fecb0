"""Activations: one TFLite operator where the runtime has it, else the few that stay in its delegate."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx_ir as ir

from edgec.backends.tflite.context import Context, Lowering, normalize_axis
from edgec.backends.tflite.ops.dtypes import ARITHMETIC, FLOAT, compute_type, computed, convert
from edgec.backends.tflite.ops.elementwise import ordered, select, unordered
from edgec.backends.tflite.tir import Tensor
from edgec.graph.model import attr
from edgec.tensors import DType

_NONE = {"fusedActivationFunction": "NONE"}
_CLAMPS = {(0.0, np.inf): "RELU", (0.0, 6.0): "RELU6", (-1.0, 1.0): "RELU_N1_TO_1"}


def in_float(function: Callable[[Context, ir.Node, Tensor], Tensor]) -> Lowering:
    """A lowering that computes in float32 and gives its result in the input's type."""

    def lower(ctx: Context, node: ir.Node) -> Tensor:
        x = ctx.tensor(node.inputs[0])
        return computed(ctx, node.op_type, [x], FLOAT, lambda t: function(ctx, node, t))

    lower.__doc__ = function.__doc__
    return lower


def _direct(kind: str) -> Lowering:
    lower = in_float(lambda ctx, _, x: ctx.unary(kind, x))
    lower.__doc__ = kind
    return lower


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


def _relu(ctx: Context, node: ir.Node) -> Tensor:
    """RELU; MAXIMUM with 0 for integers."""
    x = ctx.tensor(node.inputs[0])
    allowed = {DType.FLOAT32, DType.INT32, DType.INT64}

    def relu(t: Tensor) -> Tensor:
        return ctx.unary("RELU", t) if t.dtype == DType.FLOAT32 else ctx.binary("MAXIMUM", t, ctx.scalar(0, t))

    return computed(ctx, "Relu", [x], allowed, relu)


def _clip(ctx: Context, node: ir.Node) -> Tensor:
    """Bounds may be absent, constant or computed; also those of opset 6, which are attributes."""
    x, *bounds = ctx.inputs(node)
    assert x is not None
    low, high = (*bounds, None, None)[:2]
    fixed = all(b is None or b.data is not None for b in (low, high))
    if x.dtype == DType.FLOAT32 and fixed:
        floor = attr(node, "min", -np.inf) if low is None else float(low.real().reshape(()))
        ceiling = attr(node, "max", np.inf) if high is None else float(high.real().reshape(()))
        return clamp(ctx, x, floor, ceiling)
    inner = compute_type(ordered_type(x.dtype), ARITHMETIC, "Clip")
    y = convert(ctx, ordered(ctx, x), inner)
    for kind, bound in (("MAXIMUM", low), ("MINIMUM", high)):
        if bound is not None:
            limit = convert(ctx, ordered(ctx, ctx.reshape(bound, ())), inner)
            y = ctx.binary(kind, y, limit)
    return unordered(ctx, y, x.dtype) if x.dtype == DType.UINT64 else convert(ctx, y, x.dtype)


def ordered_type(dtype: DType) -> DType:
    """The type that `ordered` gives."""
    return DType.INT64 if dtype == DType.UINT64 else dtype


def _leaky(ctx: Context, node: ir.Node, x: Tensor) -> Tensor:
    """LEAKY_RELU"""
    return ctx.unary("LEAKY_RELU", x, alpha=attr(node, "alpha", 0.01))


def _prelu(ctx: Context, node: ir.Node) -> Tensor:
    """The slope broadcasts to x; integers by comparison."""
    x, slope = ctx.tensor(node.inputs[0]), ctx.tensor(node.inputs[1])
    if x.dtype in (DType.FLOAT32, DType.FLOAT16, DType.FLOAT64):
        return computed(ctx, "PRelu", [x, slope], FLOAT, lambda a, s: prelu(ctx, a, s))

    def integers(a: Tensor, s: Tensor) -> Tensor:
        negative = ctx.emit("LESS", [a, ctx.scalar(0, a)], a.shape, DType.BOOL)
        return select(ctx, negative, ctx.binary("MUL", a, s, **_NONE), a)

    if x.dtype in (DType.UINT8, DType.UINT16, DType.UINT32, DType.UINT64):
        return x
    return computed(ctx, "PRelu", [x, slope], ARITHMETIC, integers)


def prelu(ctx: Context, x: Tensor, slope: Tensor) -> Tensor:
    """PRELU, or LEAKY_RELU for a single constant slope."""
    if slope.data is not None and slope.size == 1:
        return ctx.unary("LEAKY_RELU", x, alpha=float(slope.real().flat[0]))
    if slope.rank > x.rank:
        slope = ctx.reshape(slope, slope.shape[slope.rank - x.rank :])
    return ctx.emit("PRELU", [x, slope], x.shape, x.dtype)


def _elu(ctx: Context, node: ir.Node, x: Tensor) -> Tensor:
    """TFLite's ELU has alpha 1; another alpha is max(x, 0) + alpha·(exp(min(x, 0)) − 1)."""
    alpha = attr(node, "alpha", 1.0)
    return ctx.unary("ELU", x) if alpha == 1.0 else _scaled_elu(ctx, x, alpha, 1.0)


def _selu(ctx: Context, node: ir.Node, x: Tensor) -> Tensor:
    """gamma · ELU with alpha."""
    return _scaled_elu(ctx, x, attr(node, "alpha", 1.67326319217681884765625), attr(node, "gamma", 1.05070102214813232))


def _celu(ctx: Context, node: ir.Node, x: Tensor) -> Tensor:
    """max(x, 0) + alpha·(exp(min(x, 0)/alpha) − 1)"""
    return _scaled_elu(ctx, x, attr(node, "alpha", 1.0), 1.0, 1 / attr(node, "alpha", 1.0))


def _scaled_elu(ctx: Context, x: Tensor, alpha: float, gamma: float, inner: float = 1.0) -> Tensor:
    negative = ctx.binary("MINIMUM", x, ctx.scalar(0.0, x))
    if inner != 1.0:
        negative = ctx.binary("MUL", negative, ctx.scalar(inner, x), **_NONE)
    negative = ctx.binary("MUL", ctx.unary("ELU", negative), ctx.scalar(alpha * gamma, x), **_NONE)
    positive = ctx.unary("RELU", x)
    if gamma != 1.0:
        positive = ctx.binary("MUL", positive, ctx.scalar(gamma, x), **_NONE)
    return ctx.binary("ADD", positive, negative, **_NONE)


def _hard_sigmoid(ctx: Context, node: ir.Node, x: Tensor) -> Tensor:
    """clip(αx + β, 0, 1) = relu6(6αx + 6β) / 6: RELU6 fuses and stays in the delegate, a clamp to 1 does not."""
    alpha, beta = attr(node, "alpha", 0.2), attr(node, "beta", 0.5)
    y = x
    if abs(6 * alpha - 1) > 1e-6:
        y = ctx.binary("MUL", y, ctx.scalar(6 * alpha, x), **_NONE)
    y = ctx.unary("RELU6", ctx.binary("ADD", y, ctx.scalar(6 * beta, x), **_NONE))
    return ctx.binary("MUL", y, ctx.scalar(1 / 6, x), **_NONE)


def _gelu(ctx: Context, node: ir.Node, x: Tensor) -> Tensor:
    """GELU, exact or by tanh."""
    return ctx.unary("GELU", x, approximate=attr(node, "approximate", "none") == "tanh")


def _softplus(ctx: Context, _: ir.Node, x: Tensor) -> Tensor:
    """relu(x) − log(sigmoid(|x|)): never overflows."""
    tail = ctx.unary("LOG", ctx.unary("LOGISTIC", ctx.unary("ABS", x)))
    return ctx.binary("SUB", ctx.unary("RELU", x), tail, **_NONE)


def _softsign(ctx: Context, _: ir.Node, x: Tensor) -> Tensor:
    """x / (1 + |x|)"""
    return ctx.binary("DIV", x, ctx.binary("ADD", ctx.unary("ABS", x), ctx.scalar(1.0, x), **_NONE), **_NONE)


def _mish(ctx: Context, _: ir.Node, x: Tensor) -> Tensor:
    """x · tanh(log(1 + eˣ)) = x · n/(n + 2) with n = eˣ(eˣ + 2); beyond 20 the factor is 1."""
    e = ctx.unary("EXP", ctx.binary("MINIMUM", x, ctx.scalar(20.0, x)))
    n = ctx.binary("MUL", e, ctx.binary("ADD", e, ctx.scalar(2.0, x), **_NONE), **_NONE)
    factor = ctx.binary("DIV", n, ctx.binary("ADD", n, ctx.scalar(2.0, x), **_NONE), **_NONE)
    return ctx.binary("MUL", x, factor, **_NONE)


def _swish(ctx: Context, node: ir.Node, x: Tensor) -> Tensor:
    """x · sigmoid(αx)"""
    alpha = attr(node, "alpha", 1.0)
    inner = x if alpha == 1.0 else ctx.binary("MUL", x, ctx.scalar(alpha, x), **_NONE)
    return ctx.binary("MUL", x, ctx.unary("LOGISTIC", inner), **_NONE)


def _thresholded_relu(ctx: Context, node: ir.Node, x: Tensor) -> Tensor:
    """x above alpha, else 0."""
    above = ctx.emit("GREATER", [x, ctx.scalar(attr(node, "alpha", 1.0), x)], x.shape, DType.BOOL)
    return select(ctx, above, x, ctx.scalar(0.0, x))


def _shrink(ctx: Context, node: ir.Node) -> Tensor:
    """x + bias below −lambd, x − bias above lambd, 0 between; integers of up to 16 bits by way of float32."""
    x = ctx.tensor(node.inputs[0])
    small = x.dtype in (DType.INT8, DType.UINT8, DType.INT16, DType.UINT16)
    t = ctx.cast(x, DType.FLOAT32) if small else x
    bias, edge = attr(node, "bias", 0.0), attr(node, "lambd", 0.5)

    def shrink(v: Tensor) -> Tensor:
        low = ctx.emit("LESS", [v, ctx.scalar(-edge, v)], v.shape, DType.BOOL)
        high = ctx.emit("GREATER", [v, ctx.scalar(edge, v)], v.shape, DType.BOOL)
        down = ctx.binary("SUB", v, ctx.scalar(bias, v), **_NONE)
        up = ctx.binary("ADD", v, ctx.scalar(bias, v), **_NONE)
        return select(ctx, low, up, select(ctx, high, down, ctx.scalar(0.0, v)))

    y = computed(ctx, "Shrink", [t], FLOAT, shrink)
    return ctx.cast(ctx.cast(y, DType.INT32), x.dtype) if small else y


def _softmax(kind: str) -> Lowering:
    def lower(ctx: Context, node: ir.Node, x: Tensor) -> Tensor:
        if x.rank == 0:
            return ctx.constant(1.0 if kind == "SOFTMAX" else 0.0, DType.FLOAT32)
        axis = normalize_axis(attr(node, "axis", -1), x.rank)
        return softmax(ctx, x, axis, kind)

    lower.__doc__ = f"{kind} along the last axis, to which the node's axis is moved."
    return in_float(lower)


def softmax(ctx: Context, x: Tensor, axis: int, kind: str = "SOFTMAX") -> Tensor:
    """SOFTMAX or LOG_SOFTMAX along an axis; the kernels take the last one, of up to four."""
    perm = [i for i in range(x.rank) if i != axis] + [axis]
    y = ctx.transpose(x, perm)
    shape = y.shape
    if y.rank > 4:
        y = ctx.reshape(y, (y.size // max(shape[-1], 1), shape[-1]))
    y = ctx.unary(kind, y, **({"beta": 1.0} if kind == "SOFTMAX" else {}))
    return ctx.transpose(ctx.reshape(y, shape), [int(i) for i in np.argsort(perm)])


def _hardmax(ctx: Context, node: ir.Node, x: Tensor) -> Tensor:
    """1 at the first largest element along the axis, else 0."""
    axis = normalize_axis(attr(node, "axis", -1), x.rank)
    kept = [1 if i == axis else d for i, d in enumerate(x.shape)]
    place = ctx.emit(
        "ARG_MAX", [x, ctx.int32(axis)], [d for i, d in enumerate(x.shape) if i != axis], DType.INT32,
        outputType=DType.INT32,
    )  # fmt: skip
    count = [d if i == axis else 1 for i, d in enumerate(x.shape)]
    numbers = ctx.int32(np.arange(x.shape[axis]).reshape(count))
    hit = ctx.emit("EQUAL", [numbers, ctx.reshape(place, kept)], x.shape, DType.BOOL)
    return ctx.cast(hit, x.dtype)


LOWERINGS: dict[str, Lowering] = {
    "Relu": _relu,
    "Sigmoid": _direct("LOGISTIC"),
    "Tanh": _direct("TANH"),
    "HardSwish": _direct("HARD_SWISH"),
    "Clip": _clip,
    "LeakyRelu": in_float(_leaky),
    "PRelu": _prelu,
    "Elu": in_float(_elu),
    "Selu": in_float(_selu),
    "Celu": in_float(_celu),
    "HardSigmoid": in_float(_hard_sigmoid),
    "Gelu": in_float(_gelu),
    "Softplus": in_float(_softplus),
    "Softsign": in_float(_softsign),
    "Mish": in_float(_mish),
    "Swish": in_float(_swish),
    "ThresholdedRelu": in_float(_thresholded_relu),
    "Shrink": _shrink,
    "Hardmax": in_float(_hardmax),
    "Softmax": _softmax("SOFTMAX"),
    "LogSoftmax": _softmax("LOG_SOFTMAX"),
}
