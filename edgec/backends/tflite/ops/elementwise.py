"""Elementwise operators that have a TFLite operator of the same meaning: tables, not code."""

from __future__ import annotations

from functools import reduce
from typing import Any

import onnx_ir as ir

from edgec.backends.tflite.context import Context, Lowering, Refusal
from edgec.backends.tflite.tir import Tensor
from edgec.graph.model import attr
from edgec.tensors import DType

_ARITHMETIC = {DType.FLOAT32, DType.INT32, DType.INT64}

#: ONNX type → TFLite operator, element types its kernel takes, options.
BINARY: dict[str, tuple[str, set[DType], dict[str, Any]]] = {
    "Add": ("ADD", _ARITHMETIC, {"fusedActivationFunction": "NONE"}),
    "Sub": ("SUB", _ARITHMETIC, {"fusedActivationFunction": "NONE"}),
    "Mul": ("MUL", _ARITHMETIC, {"fusedActivationFunction": "NONE"}),
    "Div": ("DIV", {DType.FLOAT32, DType.INT32}, {"fusedActivationFunction": "NONE"}),
    "Pow": ("POW", {DType.FLOAT32, DType.INT32}, {}),
}
_VARIADIC = {"Max": "MAXIMUM", "Min": "MINIMUM", "Sum": "ADD"}
_COMPARE = {
    "Equal": "EQUAL",
    "Greater": "GREATER",
    "GreaterOrEqual": "GREATER_EQUAL",
    "Less": "LESS",
    "LessOrEqual": "LESS_EQUAL",
}
_LOGICAL = {"And": "LOGICAL_AND", "Or": "LOGICAL_OR"}
_FLOAT = {DType.FLOAT32}
UNARY: dict[str, tuple[str, set[DType]]] = {
    "Abs": ("ABS", _FLOAT | {DType.INT32}),
    "Ceil": ("CEIL", _FLOAT),
    "Cos": ("COS", _FLOAT),
    "Exp": ("EXP", _FLOAT),
    "Floor": ("FLOOR", _FLOAT),
    "Log": ("LOG", _FLOAT),
    "Neg": ("NEG", _FLOAT | {DType.INT32, DType.INT64}),
    "Not": ("LOGICAL_NOT", {DType.BOOL}),
    "Round": ("ROUND", _FLOAT),
    "Sign": ("SIGN", _FLOAT | {DType.INT32}),
    "Sin": ("SIN", _FLOAT),
    "Sqrt": ("SQRT", _FLOAT),
}


def require(t: Tensor, allowed: set[DType], op_type: str) -> None:
    """Refuse an element type that the kernel lacks."""
    if t.dtype not in allowed:
        names = ", ".join(sorted(allowed))
        raise Refusal("dtype", f"{op_type} on {t.dtype} has no TFLite kernel (it has {names})", "insert a Cast")


def _binary(ctx: Context, node: ir.Node) -> Tensor:
    kind, allowed, options = BINARY[node.op_type]
    a, b = ctx.tensor(node.inputs[0]), ctx.tensor(node.inputs[1])
    require(a, allowed, node.op_type)
    if node.op_type == "Pow":
        return _pow(ctx, a, ctx.cast(b, a.dtype))
    return ctx.binary(kind, a, b, **options)


def _pow(ctx: Context, a: Tensor, b: Tensor) -> Tensor:
    """Squares and roots stay in the delegate, where POW does not run."""
    exponent = float(b.real().flat[0]) if b.data is not None and b.size == 1 else None
    if a.dtype == DType.FLOAT32 and b.rank <= a.rank:
        if exponent == 2.0:
            return ctx.unary("SQUARE", a)
        if exponent == 0.5:
            return ctx.unary("SQRT", a)
        if exponent == -0.5:
            return ctx.unary("RSQRT", a)
    return ctx.binary("POW", a, b)


def _variadic(ctx: Context, node: ir.Node) -> Tensor:
    kind = _VARIADIC[node.op_type]
    options = {"fusedActivationFunction": "NONE"} if kind == "ADD" else {}
    tensors = [ctx.tensor(v) for v in node.inputs]
    require(tensors[0], _ARITHMETIC, node.op_type)
    return reduce(lambda a, b: ctx.binary(kind, a, b, **options), tensors)


def _mean(ctx: Context, node: ir.Node) -> Tensor:
    total = reduce(
        lambda a, b: ctx.binary("ADD", a, b, fusedActivationFunction="NONE"), map(ctx.tensor, node.inputs)
    )
    return ctx.binary("MUL", total, ctx.scalar(1 / len(node.inputs), total), fusedActivationFunction="NONE")


def _compare(ctx: Context, node: ir.Node) -> Tensor:
    a, b = ctx.tensor(node.inputs[0]), ctx.tensor(node.inputs[1])
    out = ctx.binary(_COMPARE[node.op_type], a, b)
    out.dtype = DType.BOOL
    return out


def _logical(ctx: Context, node: ir.Node) -> Tensor:
    return ctx.binary(_LOGICAL[node.op_type], ctx.tensor(node.inputs[0]), ctx.tensor(node.inputs[1]))


def _unary(ctx: Context, node: ir.Node) -> Tensor:
    kind, allowed = UNARY[node.op_type]
    x = ctx.tensor(node.inputs[0])
    require(x, allowed, node.op_type)
    return ctx.unary(kind, x)


def _reciprocal(ctx: Context, node: ir.Node) -> Tensor:
    x = ctx.tensor(node.inputs[0])
    require(x, _FLOAT, node.op_type)
    return ctx.binary("DIV", ctx.scalar(1.0, x), x, fusedActivationFunction="NONE")


def _where(ctx: Context, node: ir.Node) -> Tensor:
    condition, a, b = (ctx.tensor(v) for v in node.inputs)
    _, shape, dtype = ctx.out_spec(node)
    return ctx.emit("SELECT_V2", [condition, a, b], shape, dtype)


def _cast(ctx: Context, node: ir.Node) -> Tensor:
    x = ctx.tensor(node.inputs[0])
    target = DType(ir.DataType(attr(node, "to")).numpy().name)
    return ctx.cast(x, target)


LOWERINGS: dict[str, Lowering] = {
    **dict.fromkeys(BINARY, _binary),
    **dict.fromkeys(_VARIADIC, _variadic),
    **dict.fromkeys(_COMPARE, _compare),
    **dict.fromkeys(_LOGICAL, _logical),
    **dict.fromkeys(UNARY, _unary),
    "Mean": _mean,
    "Reciprocal": _reciprocal,
    "Where": _where,
    "Cast": _cast,
}
