"""Functions that TFLite has no operator for, by formulas that keep float32's relative accuracy.

Near zero a difference such as eˣ − e⁻ˣ loses its digits; each formula says how it keeps them.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import onnx_ir as ir

from edgec.backends.tflite.context import Context, Lowering
from edgec.backends.tflite.ops.dtypes import FLOAT, FLOATS, bitcast, computed
from edgec.backends.tflite.ops.elementwise import compare
from edgec.backends.tflite.ops.expr import Expr, expr
from edgec.backends.tflite.tir import Tensor
from edgec.graph.model import attr
from edgec.tensors import DType

#: erf(x)/x as a ratio of polynomials in x², fitted on |x| ≤ 3.92, where erf is 1 within half a digit of float32;
#: relative error 2e-8 before rounding, 4e-7 with it.
_ERF_EDGE = 3.92
_ERF_OVER = (1.12837915, 0.190407298, 0.0527488066, 0.00376564016, 0.000284880999, 2.05005404e-06)
_ERF_UNDER = (1.0, 0.502076816, 0.114109429, 0.0149692721, 0.00116253654, 3.80912752e-05)
#: 2·atanh(z)/z as a series in z², for z² ≤ 1/25; the next term is 1e-8 of the first.
_ATANH = (2.0, 2 / 3, 2 / 5, 2 / 7, 2 / 9, 2 / 11)
_LARGE = 1e9


def _polynomial(x: Expr, coefficients: tuple[float, ...]) -> Expr:
    """Horner's scheme, lowest coefficient first."""
    result = x * coefficients[-1] + coefficients[-2]
    for c in coefficients[-3::-1]:
        result = result * x + c
    return result


def _op(x: Expr, kind: str) -> Expr:
    return Expr(x.ctx, x.ctx.unary(kind, x.t))


def erf(x: Expr) -> Expr:
    """The error function."""
    x = x.clip(-_ERF_EDGE, _ERF_EDGE)
    square = x * x
    return x * _polynomial(square, _ERF_OVER) / _polynomial(square, _ERF_UNDER)


def log1p(x: Expr) -> Expr:
    """log(1 + x) for x ≥ 0: up to ½ as 2·atanh(z), z = x/(2 + x), by its series, as LOG is not exact near 1."""
    near = x.minimum(0.5)
    z = near / (near + 2.0)
    series = z * _polynomial(z * z, _ATANH)
    return (x < 0.5).where(series, (x + 1.0).log())


def _expm1_of_negative(x: Expr) -> Expr:
    """eˣ − 1 for x ≤ 0: that is what ELU computes."""
    return _op(x, "ELU")


def _sinh(x: Expr) -> Expr:
    """Below 1 from t = e^(−|x|) − 1, as −(t + t/(1 + t))/2; above from e^(±x), halved before it overflows."""
    t = _expm1_of_negative(-1.0 * x.abs())
    small = (t + t / (t + 1.0)) * -0.5
    small = (x < 0.0).where(-1.0 * small, small)
    large = (x - math.log(2)).exp() - (x * -1.0 - math.log(2)).exp()
    return (x.abs() < 1.0).where(small, large)


def _cosh(x: Expr) -> Expr:
    """e^(x − log 2) + e^(−x − log 2): halved before it overflows."""
    return (x - math.log(2)).exp() + (x * -1.0 - math.log(2)).exp()


def _asinh(x: Expr) -> Expr:
    """±log1p(|x| + x²/(1 + √(x² + 1))); log |x| + log 2 where x² would overflow."""
    size = x.abs()
    inner = size.minimum(_LARGE)
    square = inner * inner
    value = log1p(inner + square / (_op(square + 1.0, "SQRT") + 1.0))
    value = (size > _LARGE).where(size.maximum(1.0).log() + math.log(2), value)
    return (x < 0.0).where(-1.0 * value, value)


def _acosh(x: Expr) -> Expr:
    """log1p(t + √(2t + t²)) with t = x − 1; log x + log 2 where t² would overflow."""
    t = x.minimum(_LARGE) - 1.0
    value = log1p(t + _op(t * (t + 2.0), "SQRT"))
    return (x > _LARGE).where(x.log() + math.log(2), value)


def _atanh(x: Expr) -> Expr:
    """±½·log1p(2a/(1 − a)) with a = |x|; from ½ on ±½·log((1 + a)/(1 − a)), which is infinite at 1."""
    a = x.abs()
    below = a.minimum(0.5)
    value = (a < 0.5).where(log1p(below * 2.0 / (1.0 - below)), ((a + 1.0) / (1.0 - a)).log()) * 0.5
    return (x < 0.0).where(-1.0 * value, value)


def _tan(x: Expr) -> Expr:
    """sin x / cos x"""
    return x.sin() / x.cos()


def _atan2(y: Expr, x: Expr) -> Expr:
    return Expr(y.ctx, y.ctx.emit("ATAN2", [y.t, x.t], y.shape, y.dtype))


def _atan(x: Expr) -> Expr:
    """ATAN2(x, 1); the kernel does not broadcast, so the 1 is made as large as x."""
    return _atan2(x, _op(x, "ZEROS_LIKE") + 1.0)


def _beside(x: Expr) -> Expr:
    """√(1 − x²), as √((1 − x)(1 + x)) so that nothing cancels."""
    return _op((1.0 - x) * (x + 1.0), "SQRT")


def _asin(x: Expr) -> Expr:
    """ATAN2(x, √(1 − x²))"""
    return _atan2(x, _beside(x))


def _acos(x: Expr) -> Expr:
    """ATAN2(√(1 − x²), x)"""
    return _atan2(_beside(x), x)


def _function(formula: Callable[[Expr], Expr]) -> Lowering:
    def lower(ctx: Context, node: ir.Node) -> Tensor:
        x = ctx.tensor(node.inputs[0])
        return computed(ctx, node.op_type, [x], FLOAT, lambda t: formula(expr(ctx, t)).t)

    lower.__doc__ = formula.__doc__
    return lower


# --- what a float is ----------------------------------------------------------------------------------


def _is_nan(ctx: Context, node: ir.Node) -> Tensor:
    """Only NaN differs from itself."""
    x = ctx.tensor(node.inputs[0])
    if x.dtype not in FLOATS:
        return compare(ctx, "NOT_EQUAL", x, x)
    return computed(
        ctx, "IsNaN", [x], FLOAT, lambda t: ctx.emit("NOT_EQUAL", [t, t], x.shape, DType.BOOL), result=DType.BOOL
    )


def _is_inf(ctx: Context, node: ir.Node) -> Tensor:
    """float64 by its bits: a large one would become infinite in float32."""
    x = ctx.tensor(node.inputs[0])
    signs = [s for s, name in ((np.inf, "detect_positive"), (-np.inf, "detect_negative")) if attr(node, name, 1)]
    if x.dtype == DType.FLOAT64:
        bits = bitcast(ctx, x, DType.INT64)
        limits = [ctx.constant(np.asarray(s, np.float64).view(np.int64), DType.INT64) for s in signs]
        hits = [compare(ctx, "EQUAL", bits, limit) for limit in limits]
    else:
        value = ctx.cast(x, DType.FLOAT32)
        hits = [compare(ctx, "EQUAL", value, ctx.scalar(s, value)) for s in signs]
    if not hits:
        return ctx.constant(np.zeros(x.shape, np.bool_), DType.BOOL)
    return hits[0] if len(hits) == 1 else ctx.binary("LOGICAL_OR", hits[0], hits[1])


LOWERINGS: dict[str, Lowering] = {
    "Acos": _function(_acos),
    "Acosh": _function(_acosh),
    "Asin": _function(_asin),
    "Asinh": _function(_asinh),
    "Atan": _function(_atan),
    "Atanh": _function(_atanh),
    "Cosh": _function(_cosh),
    "Erf": _function(erf),
    "IsInf": _is_inf,
    "IsNaN": _is_nan,
    "Sinh": _function(_sinh),
    "Tan": _function(_tan),
}
