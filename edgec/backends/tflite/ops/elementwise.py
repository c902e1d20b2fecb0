"""Elementwise operators that have a TFLite operator of the same meaning: tables, not code."""

from __future__ import annotations

from functools import reduce
from typing import Any

import numpy as np
import onnx_ir as ir

from edgec.backends.tflite.context import Context, Lowering, Refusal, broadcast_shapes
from edgec.backends.tflite.ops.double import double_arithmetic
from edgec.backends.tflite.ops.dtypes import ARITHMETIC, FLOAT, bitcast, computed, convert
from edgec.backends.tflite.tir import Tensor
from edgec.tensors import DType

NONE: dict[str, Any] = {"fusedActivationFunction": "NONE"}

#: Add, Sub, Mul: the low bits of the result depend on the operands' low bits only.
_MODULAR = {"Add": "ADD", "Sub": "SUB", "Mul": "MUL"}
_EXTREMES = {"Max": "MAXIMUM", "Min": "MINIMUM"}
_COMPARE = {
    "Equal": "EQUAL",
    "Greater": "GREATER",
    "GreaterOrEqual": "GREATER_EQUAL",
    "Less": "LESS",
    "LessOrEqual": "LESS_EQUAL",
}
_LOGICAL = {"And": "LOGICAL_AND", "Or": "LOGICAL_OR", "Xor": "NOT_EQUAL"}
_SIGNED = {DType.FLOAT32, DType.INT32}
UNARY: dict[str, tuple[str, frozenset[DType] | set[DType]]] = {
    "Ceil": ("CEIL", FLOAT),
    "Cos": ("COS", FLOAT),
    "Exp": ("EXP", FLOAT),
    "Floor": ("FLOOR", FLOAT),
    "Log": ("LOG", FLOAT),
    "Neg": ("NEG", ARITHMETIC),
    "Round": ("ROUND", FLOAT),
    "Sin": ("SIN", FLOAT),
    "Sqrt": ("SQRT", FLOAT),
}


def arithmetic(ctx: Context, kind: str, a: Tensor, b: Tensor) -> Tensor:
    """ADD, SUB, MUL or DIV without a fused activation."""
    if a.dtype == DType.FLOAT64:
        return double_arithmetic(ctx, kind, a, b)
    return ctx.binary(kind, a, b, **NONE)


def _summable(ctx: Context) -> frozenset[DType]:
    """The types that ADD, SUB and MUL compute in."""
    return ARITHMETIC | {DType.FLOAT64} if ctx.double else ARITHMETIC


def compare(ctx: Context, kind: str, a: Tensor, b: Tensor) -> Tensor:
    """A comparison of any two tensors of one type; bool of the broadcast shape."""
    if a.dtype == DType.STRING:  # the one kernel that takes them
        return ctx.emit(kind, [a, b], broadcast_shapes(a.shape, b.shape), DType.BOOL)
    allowed = ARITHMETIC | {DType.BOOL} if kind in ("EQUAL", "NOT_EQUAL") else ARITHMETIC
    a, b = ordered(ctx, a), ordered(ctx, b)
    shape = broadcast_shapes(a.shape, b.shape)
    return computed(
        ctx, kind.lower(), [a, b], allowed, lambda x, y: ctx.emit(kind, [x, y], shape, DType.BOOL), result=DType.BOOL
    )


def select(ctx: Context, condition: Tensor, a: Tensor, b: Tensor) -> Tensor:
    """a where the condition holds, else b; SELECT_V2 takes every element type."""
    shape = broadcast_shapes(condition.shape, a.shape, b.shape)
    return ctx.emit("SELECT_V2", [condition, a, b], shape, a.dtype)


def ordered(ctx: Context, t: Tensor) -> Tensor:
    """uint64 as the int64 of the same order: its top bit flipped. Other types as they are."""
    if t.dtype != DType.UINT64:
        return t
    signed = bitcast(ctx, t, DType.INT64)
    return arithmetic(ctx, "ADD", signed, ctx.scalar(-(2**63), signed))


def unordered(ctx: Context, t: Tensor, dtype: DType) -> Tensor:
    """The inverse of `ordered`."""
    if dtype != DType.UINT64:
        return t
    return bitcast(ctx, arithmetic(ctx, "ADD", t, ctx.scalar(-(2**63), t)), dtype)


def _modular(ctx: Context, node: ir.Node) -> Tensor:
    """The operator of the same name; the types it lacks are computed in wider ones and wrap around."""
    kind = _MODULAR[node.op_type]
    operands = [ctx.tensor(v) for v in node.inputs]
    return computed(ctx, node.op_type, operands, _summable(ctx), lambda a, b: arithmetic(ctx, kind, a, b), modular=True)


def _extreme(ctx: Context, node: ir.Node) -> Tensor:
    """MAXIMUM or MINIMUM of all operands."""
    kind = _EXTREMES[node.op_type]
    tensors = [ctx.tensor(v) for v in node.inputs]
    dtype = tensors[0].dtype
    out = computed(
        ctx,
        node.op_type,
        [ordered(ctx, t) for t in tensors],
        ARITHMETIC,
        lambda *parts: reduce(lambda a, b: ctx.binary(kind, a, b), parts),
    )
    return unordered(ctx, out, dtype)


def _sum(ctx: Context, node: ir.Node) -> Tensor:
    """ADD after ADD."""
    tensors = [ctx.tensor(v) for v in node.inputs]
    return computed(
        ctx, "Sum", tensors, _summable(ctx), lambda *parts: reduce(lambda a, b: arithmetic(ctx, "ADD", a, b), parts)
    )


def _mean(ctx: Context, node: ir.Node) -> Tensor:
    """ADD after ADD, and one MUL."""

    def mean(*parts: Tensor) -> Tensor:
        total = reduce(lambda a, b: arithmetic(ctx, "ADD", a, b), parts)
        return arithmetic(ctx, "MUL", total, ctx.scalar(1 / len(parts), total)) if len(parts) > 1 else total

    allowed = _summable(ctx) - {DType.INT32, DType.INT64}
    return computed(ctx, "Mean", [ctx.tensor(v) for v in node.inputs], allowed, mean)


def _compare(ctx: Context, node: ir.Node) -> Tensor:
    """The operator of the same name; types it lacks are compared in wider ones."""
    return compare(ctx, _COMPARE[node.op_type], ctx.tensor(node.inputs[0]), ctx.tensor(node.inputs[1]))


def _logical(ctx: Context, node: ir.Node) -> Tensor:
    """LOGICAL_AND, LOGICAL_OR; NOT_EQUAL where either but not both must hold."""
    return ctx.binary(_LOGICAL[node.op_type], ctx.tensor(node.inputs[0]), ctx.tensor(node.inputs[1]))


def _not(ctx: Context, node: ir.Node) -> Tensor:
    """LOGICAL_NOT"""
    return ctx.unary("LOGICAL_NOT", ctx.tensor(node.inputs[0]))


def _unary(ctx: Context, node: ir.Node) -> Tensor:
    """The operator of the same name, in float32."""
    kind, allowed = UNARY[node.op_type]
    x = ctx.tensor(node.inputs[0])
    if kind == "NEG" and ctx.double and x.dtype == DType.FLOAT64:
        return arithmetic(ctx, "MUL", x, ctx.scalar(-1.0, x))
    return computed(ctx, node.op_type, [x], allowed, lambda t: ctx.unary(kind, t))


def absolute(ctx: Context, x: Tensor) -> Tensor:
    """|x| of a type that ARITHMETIC lists."""
    return ctx.binary("MAXIMUM", x, ctx.unary("NEG", x)) if x.dtype == DType.INT64 else ctx.unary("ABS", x)


def _abs(ctx: Context, node: ir.Node) -> Tensor:
    """ABS; the larger of x and −x for int64."""
    x = ctx.tensor(node.inputs[0])
    if x.dtype in (DType.UINT64, DType.UINT32, DType.BOOL):
        return x
    return computed(ctx, "Abs", [x], ARITHMETIC, lambda t: absolute(ctx, t))


def _sign(ctx: Context, node: ir.Node) -> Tensor:
    """Of int64 and unsigned types, by two comparisons."""
    x = ctx.tensor(node.inputs[0])
    if x.dtype in (DType.INT64, DType.UINT64, DType.UINT32):
        zero = ctx.scalar(0, x)
        positive = convert(ctx, compare(ctx, "GREATER", x, zero), x.dtype)
        if x.dtype != DType.INT64:
            return positive
        return arithmetic(ctx, "SUB", positive, convert(ctx, compare(ctx, "LESS", x, zero), x.dtype))
    return computed(ctx, "Sign", [x], _SIGNED, lambda t: ctx.unary("SIGN", t))


def _reciprocal(ctx: Context, node: ir.Node) -> Tensor:
    """1 / x"""
    x = ctx.tensor(node.inputs[0])
    return computed(ctx, "Reciprocal", [x], FLOAT, lambda t: arithmetic(ctx, "DIV", ctx.scalar(1.0, t), t))


def _where(ctx: Context, node: ir.Node) -> Tensor:
    """A condition that is known and the same everywhere chooses now."""
    condition, a, b = (ctx.tensor(v) for v in node.inputs)
    if a.dtype == DType.STRING:
        raise Refusal("dtype", "strings have no TFLite kernels")
    shape = broadcast_shapes(condition.shape, a.shape, b.shape)
    if condition.data is not None and condition.size:
        chosen = a if np.all(condition.data) else b
        if chosen.shape == shape and np.all(condition.data == condition.data.flat[0]):
            return chosen
    if a in ctx.wider or b in ctx.wider:
        return computed(ctx, "Where", [a, b], FLOAT, lambda x, y: select(ctx, condition, x, y))
    return select(ctx, condition, a, b)


LOWERINGS: dict[str, Lowering] = {
    **dict.fromkeys(_MODULAR, _modular),
    **dict.fromkeys(_EXTREMES, _extreme),
    **dict.fromkeys(_COMPARE, _compare),
    **dict.fromkeys(_LOGICAL, _logical),
    **dict.fromkeys(UNARY, _unary),
    "Abs": _abs,
    "Mean": _mean,
    "Not": _not,
    "Reciprocal": _reciprocal,
    "Sign": _sign,
    "Sum": _sum,
    "Where": _where,
}
