"""Bits of integers: BITWISE_XOR and RIGHT_SHIFT are kernels, the rest follows from them exactly.

1. 64-bit values are pairs of int32 along a last axis, which is how BITCAST reads them.
2. a & b = (a≫1) + (b≫1) − ((a≫1) ^ (b≫1)) + the product of the lowest bits; nothing overflows.
3. a | b = (a ^ b) + (a & b): no bit is in both.
4. A shift to the left is a multiplication by a power of two from a table, 0 beyond the width.
"""

from __future__ import annotations

import math

import numpy as np
import onnx_ir as ir

from edgec.backends.tflite.context import Context, Lowering
from edgec.backends.tflite.ops.dtypes import UNSIGNED, bitcast, convert
from edgec.backends.tflite.ops.elementwise import arithmetic, compare, select
from edgec.backends.tflite.ops.linear import expand
from edgec.backends.tflite.tir import Tensor, constant
from edgec.graph.model import attr
from edgec.tensors import DType


def _words(ctx: Context, t: Tensor) -> Tensor:
    """An integer tensor as int32: widened, or its bits (rule 1)."""
    if t.dtype in (DType.INT64, DType.UINT64):
        if t.data is not None:
            data = np.ascontiguousarray(t.data).reshape(*t.shape, 1).view(np.int32)
            return constant(ctx.name("words"), data)
        return ctx.emit("BITCAST", [t], (*t.shape, 2), DType.INT32)
    if t.dtype == DType.UINT32:
        return bitcast(ctx, t, DType.INT32)
    return ctx.cast(t, DType.INT32)


def _joined(ctx: Context, t: Tensor, dtype: DType) -> Tensor:
    if dtype in (DType.INT64, DType.UINT64):
        return ctx.emit("BITCAST", [t], t.shape[:-1], dtype)
    return bitcast(ctx, t, dtype) if dtype == DType.UINT32 else ctx.cast(t, dtype)


def _shift(ctx: Context, t: Tensor, bits: int) -> Tensor:
    return ctx.binary("RIGHT_SHIFT", t, ctx.scalar(bits, t))


def xor(ctx: Context, a: Tensor, b: Tensor) -> Tensor:
    """a ^ b of int32."""
    return ctx.binary("BITWISE_XOR", a, b)


def both(ctx: Context, a: Tensor, b: Tensor) -> Tensor:
    """a & b of int32 (rule 2)."""
    half_a, half_b = _shift(ctx, a, 1), _shift(ctx, b, 1)
    two = ctx.scalar(2, a)
    low_a = arithmetic(ctx, "SUB", a, arithmetic(ctx, "MUL", half_a, two))
    low_b = arithmetic(ctx, "SUB", b, arithmetic(ctx, "MUL", half_b, two))
    total = arithmetic(ctx, "SUB", arithmetic(ctx, "ADD", half_a, half_b), xor(ctx, half_a, half_b))
    return arithmetic(ctx, "ADD", total, arithmetic(ctx, "MUL", low_a, low_b))


def either(ctx: Context, a: Tensor, b: Tensor) -> Tensor:
    """a | b of int32 (rule 3)."""
    return arithmetic(ctx, "ADD", xor(ctx, a, b), both(ctx, a, b))


_BINARY = {"BitwiseAnd": both, "BitwiseOr": either, "BitwiseXor": xor}


def _binary(ctx: Context, node: ir.Node) -> Tensor:
    """From BITWISE_XOR, RIGHT_SHIFT, ADD and MUL, exactly."""
    a, b = (ctx.tensor(v) for v in node.inputs)
    dtype, shape = a.dtype, np.broadcast_shapes(a.shape, b.shape)
    wide = dtype in (DType.INT64, DType.UINT64)
    if wide and len(shape) >= 6:  # one axis more would be too many
        a, b = (ctx.reshape(expand(ctx, t, shape), (math.prod(shape),)) for t in (a, b))
    elif wide:  # the words' axis stays last when the ranks differ
        a, b = (ctx.reshape(t, (*(1,) * (len(shape) - t.rank), *t.shape)) for t in (a, b))
    result = _joined(ctx, _BINARY[node.op_type](ctx, _words(ctx, a), _words(ctx, b)), dtype)
    return ctx.reshape(result, shape)


def _not(ctx: Context, node: ir.Node) -> Tensor:
    """BITWISE_XOR with all ones."""
    x = ctx.tensor(node.inputs[0])
    full = x.rank >= 6 and x.dtype in (DType.INT64, DType.UINT64)
    words = _words(ctx, ctx.reshape(x, (x.size,)) if full else x)
    return ctx.reshape(_joined(ctx, xor(ctx, words, ctx.scalar(-1, words)), x.dtype), x.shape)


def _bit_shift(ctx: Context, node: ir.Node) -> Tensor:
    """To the right, signed values keep their sign. A count that is negative or too large shifts everything out."""
    x, count = (ctx.tensor(v) for v in node.inputs)
    if attr(node, "direction") == "LEFT":
        return _left(ctx, x, count)
    if x.dtype == DType.UINT64:
        return _right64(ctx, x, count)
    zero = ctx.scalar(0, x)
    if x.dtype == DType.INT64:  # ~(~x ≫ s) where x is negative
        negative = compare(ctx, "LESS", x, zero)
        minus = ctx.scalar(-1, x)
        plain = select(ctx, negative, arithmetic(ctx, "SUB", minus, x), x)
        shifted = convert(ctx, _right64(ctx, bitcast(ctx, plain, DType.UINT64), count), x.dtype)
        return select(ctx, negative, arithmetic(ctx, "SUB", minus, shifted), shifted)
    width = 8 * x.dtype.numpy.itemsize
    beyond = compare(ctx, "GREATER_EQUAL", count, ctx.scalar(width, count))
    if x.dtype in UNSIGNED:
        return select(ctx, beyond, zero, ctx.binary("RIGHT_SHIFT", x, count))
    below = compare(ctx, "LESS", count, ctx.scalar(0, count))
    count = select(ctx, ctx.binary("LOGICAL_OR", beyond, below), ctx.scalar(width - 1, count), count)
    return ctx.binary("RIGHT_SHIFT", x, count)


def _powers(ctx: Context, count: Tensor, top: int, dtype: DType) -> Tensor:
    """2 ** count of a type, 0 from `top` on: a table."""
    table = np.zeros(top + 1, np.uint64)
    table[:top] = np.uint64(1) << np.arange(top, dtype=np.uint64)
    values = constant(ctx.name("powers"), table.view(np.int64) if dtype == DType.INT64 else table.astype(dtype.numpy))
    index = convert(ctx, count, DType.INT64)
    negative = compare(ctx, "LESS", index, ctx.scalar(0, index))  # a uint64 beyond int64
    index = ctx.binary("MINIMUM", select(ctx, negative, ctx.scalar(top, index), index), ctx.scalar(top, index))
    return ctx.emit("GATHER", [values, ctx.cast(index, DType.INT32)], count.shape, dtype, axis=0, batchDims=0)


def _left(ctx: Context, x: Tensor, count: Tensor) -> Tensor:
    power = _powers(ctx, count, 8 * x.dtype.numpy.itemsize, DType.INT64)
    return convert(ctx, arithmetic(ctx, "MUL", convert(ctx, x, DType.INT64), power), x.dtype)


def _right64(ctx: Context, x: Tensor, count: Tensor) -> Tensor:
    """x ≫ s: below 32, (low ≫ s) + high · 2^(32 − s) and high ≫ s; from 32 on, high ≫ (s − 32) and 0."""
    shape = np.broadcast_shapes(x.shape, count.shape)
    rank = len(shape)
    x = ctx.reshape(x, (*(1,) * (rank - x.rank), *x.shape))
    words = ctx.emit("BITCAST", [x], (*x.shape, 2), DType.UINT32)
    low, high = (_word(ctx, words, i) for i in (0, 1))
    s = convert(ctx, count, DType.INT64)
    far = compare(ctx, "GREATER_EQUAL", s, ctx.scalar(32, s))
    over = compare(ctx, "GREATER_EQUAL", s, ctx.scalar(64, s))
    near = ctx.cast(select(ctx, far, arithmetic(ctx, "SUB", s, ctx.scalar(32, s)), s), DType.UINT32)
    back = arithmetic(ctx, "SUB", ctx.constant(32, DType.INT64), convert(ctx, near, DType.INT64))
    carry = arithmetic(ctx, "MUL", high, ctx.cast(_powers(ctx, back, 32, DType.INT64), DType.UINT32))
    down = ctx.binary("RIGHT_SHIFT", high, near)
    lower = ctx.binary("RIGHT_SHIFT", low, near)
    total = ctx.cast(arithmetic(ctx, "ADD", ctx.cast(lower, DType.INT64), ctx.cast(carry, DType.INT64)), DType.UINT32)
    zero = ctx.constant(0, DType.UINT32)
    new_low = select(ctx, over, zero, select(ctx, far, down, total))
    new_high = select(ctx, far, zero, down)
    parts = [ctx.reshape(ctx.cast(t, DType.INT64), (*shape, 1)) for t in (new_low, new_high)]
    pair = ctx.emit("CONCATENATION", parts, (*shape, 2), DType.INT64, axis=rank, fusedActivationFunction="NONE")
    return ctx.emit("BITCAST", [ctx.cast(pair, DType.UINT32)], shape, DType.UINT64)


def _word(ctx: Context, words: Tensor, which: int) -> Tensor:
    shape = (*words.shape[:-1], 1)
    begin = [0] * (words.rank - 1) + [which]
    part = ctx.emit("SLICE", [words, ctx.int32(begin), ctx.int32(list(shape))], shape, words.dtype)
    return ctx.reshape(part, words.shape[:-1])


LOWERINGS: dict[str, Lowering] = {**dict.fromkeys(_BINARY, _binary), "BitwiseNot": _not, "BitShift": _bit_shift}
