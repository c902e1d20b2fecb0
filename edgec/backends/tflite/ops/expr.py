"""Arithmetic on tensors written as arithmetic: what is constant is computed at once, the rest becomes operators.

Lowerings whose parameters may be constants or run-time inputs (indices, scales, positions) are written once with it.
Element types: float32, int32, int64 and bool; comparisons give bool.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from edgec.backends.tflite.context import Context, Refusal, broadcast_shapes
from edgec.backends.tflite.tir import Tensor
from edgec.tensors import Array, DType

Operand = "Expr | Array | float | int | bool"
_FUSED = {"fusedActivationFunction": "NONE"}


class Expr:
    """A tensor under a context. Numbers and arrays as second operands take its element type."""

    __slots__ = ("ctx", "t")

    def __init__(self, ctx: Context, t: Tensor) -> None:
        self.ctx = ctx
        self.t = t

    # --- facts ------------------------------------------------------------------------------------

    @property
    def shape(self) -> tuple[int, ...]:
        """The tensor's shape."""
        return self.t.shape

    @property
    def dtype(self) -> DType:
        """The tensor's element type."""
        return self.t.dtype

    @property
    def value(self) -> Array | None:
        """The values where they are known now."""
        return self.t.data if self.t.storage is None else None

    # --- arithmetic -------------------------------------------------------------------------------

    def __add__(self, other: Any) -> Expr:
        return self._binary("ADD", np.add, other, **_FUSED)

    def __radd__(self, other: Any) -> Expr:
        return self._lift(other) + self

    def __sub__(self, other: Any) -> Expr:
        return self._binary("SUB", np.subtract, other, **_FUSED)

    def __rsub__(self, other: Any) -> Expr:
        return self._lift(other) - self

    def __mul__(self, other: Any) -> Expr:
        return self._binary("MUL", np.multiply, other, **_FUSED)

    def __rmul__(self, other: Any) -> Expr:
        return self._lift(other) * self

    def __truediv__(self, other: Any) -> Expr:
        return self._binary("DIV", np.divide, other, **_FUSED)

    def __rtruediv__(self, other: Any) -> Expr:
        return self._lift(other) / self

    def __floordiv__(self, other: Any) -> Expr:
        return self._binary("FLOOR_DIV", np.floor_divide, other)

    def __mod__(self, other: Any) -> Expr:
        return self._binary("FLOOR_MOD", np.mod, other)

    def minimum(self, other: Any) -> Expr:
        """Elementwise minimum."""
        return self._binary("MINIMUM", np.minimum, other)

    def maximum(self, other: Any) -> Expr:
        """Elementwise maximum."""
        return self._binary("MAXIMUM", np.maximum, other)

    def clip(self, low: Any, high: Any) -> Expr:
        """Between two bounds."""
        return self.maximum(low).minimum(high)

    def floor(self) -> Expr:
        """⌊x⌋"""
        return self._unary("FLOOR", np.floor)

    def ceil(self) -> Expr:
        """⌈x⌉"""
        return self._unary("CEIL", np.ceil)

    def round_even(self) -> Expr:
        """The nearest integer, halves to the even one."""
        return self._unary("ROUND", np.rint)

    def abs(self) -> Expr:
        """|x|"""
        return self._unary("ABS", np.abs)

    def log(self) -> Expr:
        """ln x"""
        return self._unary("LOG", np.log)

    def exp(self) -> Expr:
        """eˣ"""
        return self._unary("EXP", np.exp)

    def cos(self) -> Expr:
        """cos x"""
        return self._unary("COS", np.cos)

    def sin(self) -> Expr:
        """sin x"""
        return self._unary("SIN", np.sin)

    # --- comparisons ------------------------------------------------------------------------------

    def __lt__(self, other: Any) -> Expr:
        return self._binary("LESS", np.less, other)

    def __le__(self, other: Any) -> Expr:
        return self._binary("LESS_EQUAL", np.less_equal, other)

    def __gt__(self, other: Any) -> Expr:
        return self._binary("GREATER", np.greater, other)

    def __ge__(self, other: Any) -> Expr:
        return self._binary("GREATER_EQUAL", np.greater_equal, other)

    def equals(self, other: Any) -> Expr:
        """x = y"""
        return self._binary("EQUAL", np.equal, other)

    def __and__(self, other: Any) -> Expr:
        return self._binary("LOGICAL_AND", np.logical_and, other)

    def __or__(self, other: Any) -> Expr:
        return self._binary("LOGICAL_OR", np.logical_or, other)

    def __invert__(self) -> Expr:
        return self._unary("LOGICAL_NOT", np.logical_not)

    def where(self, yes: Any, no: Any) -> Expr:
        """`yes` where this condition holds, else `no`. At least one of them is an `Expr`."""
        if not isinstance(yes, Expr):
            yes = no._lift(yes)
        no = yes._lift(no)
        if self.value is not None and yes.value is not None and no.value is not None:
            return self._const(np.where(self.value, yes.value, no.value))
        shape = broadcast_shapes(self.shape, yes.shape, no.shape)
        return self._wrap(self.ctx.emit("SELECT_V2", [self.t, yes.t, no.t], shape, yes.dtype))

    # --- types and shapes -------------------------------------------------------------------------

    def cast(self, dtype: DType) -> Expr:
        """Another element type."""
        return self._wrap(self.ctx.cast(self.t, dtype))

    def to_int(self) -> Expr:
        """As int32, rounded towards zero."""
        return self.cast(DType.INT32)

    def to_float(self) -> Expr:
        """As float32."""
        return self.cast(DType.FLOAT32)

    def reshape(self, *shape: int) -> Expr:
        """Another shape; one dimension may be -1."""
        dims = list(shape)
        if -1 in dims:
            rest = int(np.prod([d for d in dims if d != -1]))
            dims[dims.index(-1)] = self.t.size // max(rest, 1)
        return self._wrap(self.ctx.reshape(self.t, dims))

    def transpose(self, *perm: int) -> Expr:
        """Permuted axes."""
        return self._wrap(self.ctx.transpose(self.t, perm))

    def expand(self, *shape: int) -> Expr:
        """Broadcast to a shape."""
        if self.shape == shape:
            return self
        if self.value is not None:
            return self._const(np.broadcast_to(self.value, shape))
        return self._wrap(self.ctx.emit("BROADCAST_TO", [self.t, self.ctx.int32(list(shape))], shape, self.dtype))

    def slice(self, axis: int, start: int, length: int) -> Expr:
        """`length` elements along an axis."""
        axis %= len(self.shape)
        if self.value is not None:
            return self._const(np.take(self.value, np.arange(start, start + length), axis))
        begin, shape = [0] * len(self.shape), list(self.shape)
        begin[axis], shape[axis] = start, length
        if tuple(shape) == self.shape:
            return self
        inputs = [self.t, self.ctx.int32(begin), self.ctx.int32(shape)]
        return self._wrap(self.ctx.emit("SLICE", inputs, shape, self.dtype))

    def item(self, axis: int, index: int) -> Expr:
        """One element along an axis, the axis dropped."""
        axis %= len(self.shape)
        part = self.slice(axis, index, 1)
        return part.reshape(*self.shape[:axis], *self.shape[axis + 1 :])

    def take(self, index: Expr, axis: int = 0, *, batch_dims: int = 0) -> Expr:
        """GATHER: elements at int32 indices along an axis."""
        if self.value is not None and index.value is not None and not batch_dims:
            return self._const(np.take(self.value, index.value, axis))
        shape = (*self.shape[:axis], *index.shape[batch_dims:], *self.shape[axis + 1 :])
        out = self.ctx.emit("GATHER", [self.t, index.t], shape, self.dtype, axis=axis, batchDims=batch_dims)
        return self._wrap(out)

    # --- reductions -------------------------------------------------------------------------------

    def sum(self, axis: int, *, keep: bool = False) -> Expr:
        """The sum along an axis."""
        return self._reduce("SUM", np.sum, axis, keep)

    def max(self, axis: int, *, keep: bool = False) -> Expr:
        """The largest element along an axis."""
        return self._reduce("REDUCE_MAX", np.max, axis, keep)

    def min(self, axis: int, *, keep: bool = False) -> Expr:
        """The smallest element along an axis."""
        return self._reduce("REDUCE_MIN", np.min, axis, keep)

    def prod(self, axis: int, *, keep: bool = False) -> Expr:
        """The product along an axis."""
        return self._reduce("REDUCE_PROD", np.prod, axis, keep)

    def all(self, axis: int, *, keep: bool = False) -> Expr:
        """Whether all hold along an axis."""
        return self._reduce("REDUCE_ALL", np.all, axis, keep)

    # --- how --------------------------------------------------------------------------------------

    def _wrap(self, t: Tensor) -> Expr:
        return Expr(self.ctx, t)

    def _const(self, data: Array) -> Expr:
        return Expr(self.ctx, self.ctx.constant(np.asarray(data, order="C"), DType.of(data)))

    def _lift(self, other: Any) -> Expr:
        if isinstance(other, Expr):
            return other
        return self._const(np.asarray(other, self.dtype.numpy))

    def _unary(self, kind: str, function: Callable[..., Array]) -> Expr:
        if self.value is not None:
            return self._const(function(self.value).astype(self.dtype.numpy))
        return self._wrap(self.ctx.emit(kind, [self.t], self.shape, self.dtype))

    def _binary(self, kind: str, function: Callable[..., Array], other: Any, **options: Any) -> Expr:
        right = self._lift(other)
        if right.dtype != self.dtype:
            raise ValueError(f"{kind} of {self.dtype} and {right.dtype}")
        compares = kind in ("LESS", "LESS_EQUAL", "GREATER", "GREATER_EQUAL", "EQUAL")
        dtype = DType.BOOL if compares else self.dtype
        if self.value is not None and right.value is not None:
            with np.errstate(all="ignore"):
                return self._const(np.asarray(function(self.value, right.value)).astype(dtype.numpy))
        shape = broadcast_shapes(self.shape, right.shape)
        return self._wrap(self.ctx.emit(kind, [self.t, right.t], shape, dtype, **options))

    def _reduce(self, kind: str, function: Callable[..., Array], axis: int, keep: bool) -> Expr:
        axis %= len(self.shape)
        if self.value is not None:
            return self._const(np.asarray(function(self.value, axis=axis, keepdims=keep)).astype(self.dtype.numpy))
        shape = list(self.shape)
        shape[axis : axis + 1] = [1] if keep else []
        inputs = [self.t, self.ctx.int32([axis])]
        return self._wrap(self.ctx.emit(kind, inputs, shape, self.dtype, keepDims=keep))


def expr(ctx: Context, t: Tensor | None, dtype: DType | None = None) -> Expr:
    """A tensor as an `Expr`, in `dtype` where one is given. Raises Refusal for an absent one."""
    if t is None:
        raise Refusal("inputs", "an input is missing")
    result = Expr(ctx, t)
    return result if dtype is None else result.cast(dtype)


def number(ctx: Context, value: Any, dtype: DType) -> Expr:
    """A constant."""
    return Expr(ctx, ctx.constant(np.asarray(value, dtype.numpy), dtype))


def iota(ctx: Context, count: int) -> Expr:
    """0 … count − 1, int32."""
    return number(ctx, np.arange(count), DType.INT32)


def index(ctx: Context, t: Tensor | None) -> Expr:
    """An index tensor as int32. Constants outside int32's range are brought to its ends, as for open slices."""
    if t is None:
        raise Refusal("inputs", "an index input is missing")
    limits = np.iinfo(np.int32)
    if t.data is not None:
        return number(ctx, np.clip(t.data.astype(np.int64), limits.min, limits.max), DType.INT32)
    return Expr(ctx, t).cast(DType.INT32)


def stack(parts: Sequence[Expr], axis: int) -> Expr:
    """Tensors of one shape along a new axis."""
    shape = list(parts[0].shape)
    shape.insert(axis, 1)
    return concat([p.reshape(*shape) for p in parts], axis)


def concat(parts: Sequence[Expr], axis: int) -> Expr:
    """Tensors joined along an axis."""
    first = parts[0]
    if len(parts) == 1:
        return first
    values = [p.value for p in parts]
    if all(v is not None for v in values):
        return first._const(np.concatenate([v for v in values if v is not None], axis))
    shape = list(first.shape)
    shape[axis] = sum(p.shape[axis] for p in parts)
    out = first.ctx.emit("CONCATENATION", [p.t for p in parts], shape, first.dtype, axis=axis, **_FUSED)
    return Expr(first.ctx, out)


def scatter_sum(positions: Expr, updates: Expr, size: int) -> Expr:
    """A tensor [size, …] of zeros to which rows of `updates` [K, …] are added at `positions` [K]."""
    ctx, count = positions.ctx, positions.shape[0]
    shape = (size, *updates.shape[1:])
    inputs = [positions.reshape(count, 1).t, updates.t, ctx.int32(list(shape))]
    return Expr(ctx, ctx.emit("SCATTER_ND", inputs, shape, updates.dtype))


def matmul(a: Expr, b: Expr) -> Expr:
    """numpy.matmul of float32 tensors of rank 2 to 5, at least one of them computed."""
    batch = broadcast_shapes(a.shape[:-2], b.shape[:-2])
    shape = (*batch, a.shape[-2], b.shape[-1])
    return Expr(a.ctx, a.ctx.emit("BATCH_MATMUL", [a.t, b.t], shape, a.dtype, adjX=False, adjY=False))


__all__ = ["Expr", "concat", "expr", "index", "iota", "matmul", "number", "scatter_sum", "stack"]
