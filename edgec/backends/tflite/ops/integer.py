"""Division, remainder and powers: ONNX's rules for integers, which are C's, from the kernels that there are."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from edgec.backends.tflite.context import Context, Lowering, Refusal
from edgec.backends.tflite.ops.dtypes import FLOAT, FLOATS, bitcast, computed, convert
from edgec.backends.tflite.ops.elementwise import absolute, arithmetic, compare, select
from edgec.backends.tflite.tir import Tensor
from edgec.graph.model import attr
from edgec.tensors import DType

_DIVISIBLE = {DType.FLOAT32, DType.INT32}
_WHOLE = {DType.INT32, DType.INT64}


def divide_exactly(ctx: Context, a: Tensor, b: Tensor) -> Tensor:
    """The quotient of int64 values of which one divides the other.

    DIV has no int64. A float32 quotient is right to 22 bits, and so is that of what it leaves over:
    three rounds make 63 bits, the last one rounded to the whole number that it must be.
    """
    divisor = ctx.cast(b, DType.FLOAT32)
    total, rest = None, a
    for last in (False, False, True):
        step = arithmetic(ctx, "DIV", ctx.cast(rest, DType.FLOAT32), divisor)
        whole = ctx.cast(ctx.unary("ROUND", step) if last else step, DType.INT64)
        total = whole if total is None else arithmetic(ctx, "ADD", total, whole)
        if not last:
            rest = arithmetic(ctx, "SUB", rest, arithmetic(ctx, "MUL", whole, b))
    assert total is not None
    return total


def remainder(ctx: Context, a: Tensor, b: Tensor) -> Tensor:
    """C's a % b of int32 or int64: the sign is the dividend's."""
    left = ctx.binary("FLOOR_MOD", absolute(ctx, a), absolute(ctx, b))
    return select(ctx, compare(ctx, "LESS", a, ctx.scalar(0, a)), ctx.unary("NEG", left), left)


def quotient(ctx: Context, a: Tensor, b: Tensor) -> Tensor:
    """C's a / b of int32 or int64: truncated towards zero."""
    if a.dtype == DType.INT32:
        return arithmetic(ctx, "DIV", a, b)
    return divide_exactly(ctx, arithmetic(ctx, "SUB", a, remainder(ctx, a, b)), b)


def _unsigned_less(ctx: Context, a: Tensor, b: Tensor) -> Tensor:
    """a < b of uint64 values held in int64."""
    top = ctx.scalar(-(2**63), a)
    return compare(ctx, "LESS", arithmetic(ctx, "ADD", a, top), arithmetic(ctx, "ADD", b, top))


def unsigned_quotient(ctx: Context, a: Tensor, b: Tensor) -> Tensor:
    """a / b of uint64 values, held in int64: halve the dividend, divide, double, and correct by at most one."""
    zero, two = ctx.scalar(0, a), ctx.scalar(2, a)
    low = arithmetic(ctx, "ADD", a, ctx.scalar(-(2**63), a))
    low = select(ctx, compare(ctx, "LESS", a, zero), low, a)  # without the top bit
    half = divide_exactly(ctx, arithmetic(ctx, "SUB", low, ctx.binary("FLOOR_MOD", low, two)), two)
    carried = arithmetic(ctx, "ADD", half, ctx.scalar(2**62, a))
    half = select(ctx, compare(ctx, "LESS", a, zero), carried, half)
    large = compare(ctx, "LESS", b, zero)  # 2⁶³ or more: the quotient is 0 or 1
    divisor = select(ctx, large, ctx.scalar(1, b), b)
    doubled = arithmetic(ctx, "MUL", quotient(ctx, half, divisor), two)
    rest = arithmetic(ctx, "SUB", a, arithmetic(ctx, "MUL", doubled, divisor))
    one_more = ctx.unary("LOGICAL_NOT", _unsigned_less(ctx, rest, divisor))
    regular = arithmetic(ctx, "ADD", doubled, ctx.cast(one_more, DType.INT64))
    single = ctx.cast(ctx.unary("LOGICAL_NOT", _unsigned_less(ctx, a, b)), DType.INT64)
    return select(ctx, large, single, regular)


def _div(ctx: Context, node: ir.Node) -> Tensor:
    """DIV; int64 by refined float32 quotients until it is exact."""
    a, b = (ctx.tensor(v) for v in node.inputs)
    if a.dtype == DType.UINT64:
        return bitcast(ctx, unsigned_quotient(ctx, *(bitcast(ctx, t, DType.INT64) for t in (a, b))), a.dtype)
    if a.dtype in FLOATS:
        return computed(ctx, "Div", [a, b], FLOAT, lambda x, y: arithmetic(ctx, "DIV", x, y))
    return computed(ctx, "Div", [a, b], _WHOLE, lambda x, y: quotient(ctx, x, y))


def _mod(ctx: Context, node: ir.Node) -> Tensor:
    """fmod=0: the sign is the divisor's, as FLOOR_MOD's is; fmod=1: the dividend's."""
    a, b = (ctx.tensor(v) for v in node.inputs)
    if a.dtype == DType.UINT64:
        x, y = (bitcast(ctx, t, DType.INT64) for t in (a, b))
        product = arithmetic(ctx, "MUL", unsigned_quotient(ctx, x, y), y)
        return bitcast(ctx, arithmetic(ctx, "SUB", x, product), a.dtype)
    allowed = FLOAT if a.dtype in FLOATS else _WHOLE
    if attr(node, "fmod", 0):
        return computed(ctx, "Mod", [a, b], allowed, lambda x, y: remainder(ctx, x, y))
    return computed(ctx, "Mod", [a, b], allowed, lambda x, y: ctx.binary("FLOOR_MOD", x, y))


# --- powers -------------------------------------------------------------------------------------------


def _pow(ctx: Context, node: ir.Node) -> Tensor:
    """The result has the base's type, whatever the exponent's."""
    a, b = (ctx.tensor(v) for v in node.inputs)
    if a.dtype in FLOATS:
        exponent = convert(ctx, b, DType.FLOAT32)
        return computed(ctx, "Pow", [a], FLOAT, lambda x: float_power(ctx, x, exponent))
    base = convert(ctx, a, DType.INT64)
    if b.dtype not in FLOATS:
        return convert(ctx, integer_power(ctx, base, convert(ctx, b, DType.INT64)), a.dtype)
    exponent = ctx.cast(b, DType.FLOAT32)
    whole = integer_power(ctx, base, ctx.cast(exponent, DType.INT64))
    broken = ctx.cast(ctx.binary("POW", convert(ctx, a, DType.FLOAT32), exponent), DType.INT64)
    is_whole = compare(ctx, "EQUAL", exponent, ctx.unary("FLOOR", exponent))
    return convert(ctx, select(ctx, is_whole, whole, broken), a.dtype)


def float_power(ctx: Context, a: Tensor, b: Tensor) -> Tensor:
    """Squares and roots stay in the delegate, where POW does not run."""
    exponent = float(b.real().flat[0]) if b.data is not None and b.size == 1 else None
    if b.rank <= a.rank:
        if exponent == 1.0:
            return a
        if exponent == 2.0:
            return ctx.unary("SQUARE", a)
        if exponent == 3.0:
            return arithmetic(ctx, "MUL", ctx.unary("SQUARE", a), a)
    return ctx.binary("POW", a, b)


def integer_power(ctx: Context, base: Tensor, exponent: Tensor) -> Tensor:
    """base ** exponent of int64 modulo 2⁶⁴, by squaring; as C's pow, 0 for a negative exponent of a larger base."""
    if exponent.data is not None:
        largest = int(np.max(exponent.data, initial=0))
        bits = min(max(largest, 1).bit_length(), 6)
        signed = bool(np.any(exponent.data < 0))
        if largest >= 64:
            raise Refusal("exponent", f"an integer to the power of {largest} overflows")
    else:
        bits, signed = 6, True
    one, two = ctx.scalar(1, base), ctx.scalar(2, base)
    odd_all = ctx.binary("FLOOR_MOD", exponent, two)
    result, power = one, base
    for bit in range(bits):
        # digit `bit` of the exponent: (e mod 2^(bit+1)) ≥ 2^bit
        left = ctx.binary("FLOOR_MOD", exponent, ctx.scalar(2 ** (bit + 1), exponent))
        taken = compare(ctx, "GREATER_EQUAL", left, ctx.scalar(2**bit, exponent))
        result = arithmetic(ctx, "MUL", result, select(ctx, taken, power, one))
        if bit + 1 < bits:
            power = arithmetic(ctx, "MUL", power, power)
    if not signed:
        return result
    # a negative exponent: 1 and −1 stay what they are, up to sign; anything larger rounds to 0
    unit = compare(ctx, "EQUAL", absolute(ctx, base), one)
    parity = select(ctx, compare(ctx, "EQUAL", odd_all, one), base, one)
    inverse = select(ctx, unit, parity, ctx.scalar(0, base))
    return select(ctx, compare(ctx, "LESS", exponent, ctx.scalar(0, exponent)), inverse, result)


LOWERINGS: dict[str, Lowering] = {"Div": _div, "Mod": _mod, "Pow": _pow}
