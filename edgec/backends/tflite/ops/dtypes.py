"""An element type that a kernel lacks is computed in one that it has, between casts.

1. Small integers and bool are computed in a wider integer: cast back, the result wraps around as ONNX's does.
2. float16 and float64 are computed in float32 (but see `double`). For float64 that rounds to seven digits.
   What the next operator reads is the float32 value, not rounded in between: fewer casts, and nearer the truth.
3. uint64 has no CAST: it is taken for int64 by its bits, which is all that moving, adding and multiplying need.
4. A moved value keeps its bits: it may be taken for any type of the same width.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence

import numpy as np

from edgec.backends.tflite.context import Context, Refusal
from edgec.backends.tflite.tir import Tensor, constant
from edgec.tensors import DType

FLOAT = frozenset({DType.FLOAT32})
#: What kernels of ADD, SUB, MUL, MAXIMUM, comparisons and the like take.
ARITHMETIC = frozenset({DType.FLOAT32, DType.INT32, DType.INT64})
FLOATS = frozenset({DType.FLOAT16, DType.FLOAT32, DType.FLOAT64})
SIGNED = frozenset({DType.INT8, DType.INT16, DType.INT32, DType.INT64})
UNSIGNED = frozenset({DType.UINT8, DType.UINT16, DType.UINT32, DType.UINT64})
INTEGERS = SIGNED | UNSIGNED

#: Rules 1 and 2: types that hold every value of a type, best first.
_SMALL = (DType.INT32, DType.INT64)
WIDER: dict[DType, tuple[DType, ...]] = {
    DType.FLOAT16: (DType.FLOAT32,),
    DType.FLOAT64: (DType.FLOAT32,),
    **dict.fromkeys((DType.BOOL, DType.INT8, DType.UINT8, DType.INT16, DType.UINT16), _SMALL),
    DType.INT32: (DType.INT64,),
    DType.UINT32: (DType.INT64,),
}
#: Rules 3 and 4: types of the same width.
SAME_BITS: dict[DType, tuple[DType, ...]] = {
    DType.UINT64: (DType.INT64,),
    DType.FLOAT64: (DType.INT64,),
    DType.UINT32: (DType.INT32,),
    DType.FLOAT16: (DType.INT16,),
    DType.UINT16: (DType.INT16,),
    DType.INT8: (DType.UINT8,),
    DType.UINT8: (DType.INT8,),
    DType.BOOL: (DType.INT8, DType.UINT8),
}


def compute_type(
    dtype: DType, allowed: Collection[DType], op_type: str, *, modular: bool = False, moves: bool = False
) -> DType:
    """The type of `allowed` to compute in. Raises Refusal where none is exact.

    `modular`: the result's low bits depend on the operands' low bits only. `moves`: values are only moved.
    """
    if dtype in allowed:
        return dtype
    candidates: tuple[DType, ...] = SAME_BITS.get(dtype, ()) if moves else ()
    candidates += WIDER.get(dtype, ())
    if modular and dtype == DType.UINT64:
        candidates += (DType.INT64,)
    if modular and dtype == DType.UINT32:
        candidates = (DType.INT32, *candidates)
    for candidate in candidates:
        if candidate in allowed:
            return candidate
    names = ", ".join(sorted(allowed))
    raise Refusal("dtype", f"{op_type} on {dtype} has no TFLite kernel (it has {names})", "insert a Cast")


def convert(ctx: Context, t: Tensor, dtype: DType, *, moves: bool = False) -> Tensor:
    """`t` in another type, with C's rules; by its bits where values are only moved."""
    if t.dtype == dtype:
        return t
    if dtype == DType.FLOAT32 and t in ctx.wider and not moves:
        return ctx.wider[t]
    same_width = t.dtype.numpy.itemsize == dtype.numpy.itemsize
    if {t.dtype, dtype} == {DType.UINT64, DType.INT64} or (moves and same_width):
        return bitcast(ctx, t, dtype)
    if t.dtype == DType.UINT64:
        return _from_uint64(ctx, t, dtype)
    if dtype == DType.UINT64:
        return _to_uint64(ctx, t)
    return ctx.cast(t, dtype)


def _from_uint64(ctx: Context, t: Tensor, dtype: DType) -> Tensor:
    """Rule 3: as int64; for floats, what came out negative is 2⁶⁴ too low."""
    signed = bitcast(ctx, t, DType.INT64)
    if dtype not in FLOATS:
        return ctx.cast(signed, dtype)
    value = ctx.cast(signed, DType.FLOAT32)
    high = ctx.binary("ADD", value, ctx.scalar(2.0**64, value), fusedActivationFunction="NONE")
    negative = ctx.emit("LESS", [signed, ctx.scalar(0, signed)], t.shape, DType.BOOL)
    return ctx.cast(ctx.emit("SELECT_V2", [negative, high, value], t.shape, DType.FLOAT32), dtype)


def _to_uint64(ctx: Context, t: Tensor) -> Tensor:
    if t.dtype not in FLOATS:
        return bitcast(ctx, ctx.cast(t, DType.INT64), DType.UINT64)
    value = ctx.cast(t, DType.FLOAT32)
    half = ctx.scalar(2.0**63, value)
    large = ctx.emit("GREATER_EQUAL", [value, half], t.shape, DType.BOOL)
    shifted = ctx.cast(ctx.binary("SUB", value, half, fusedActivationFunction="NONE"), DType.INT64)
    top = ctx.scalar(-(2**63), shifted)
    shifted = ctx.binary("ADD", shifted, top, fusedActivationFunction="NONE")
    small = ctx.cast(value, DType.INT64)
    return bitcast(ctx, ctx.emit("SELECT_V2", [large, shifted, small], t.shape, DType.INT64), DType.UINT64)


def bitcast(ctx: Context, t: Tensor, dtype: DType) -> Tensor:
    """The same bits read as another type of the same width."""
    if t.dtype == dtype:
        return t
    if t.data is not None and t.storage is None:
        return constant(ctx.name("bits"), np.ascontiguousarray(t.data).view(dtype.numpy).reshape(t.shape))
    return ctx.emit("BITCAST", [t], t.shape, dtype)


def computed(
    ctx: Context,
    op_type: str,
    tensors: Sequence[Tensor],
    allowed: Collection[DType],
    function: Callable[..., Tensor],
    *,
    modular: bool = False,
    moves: bool = False,
    result: DType | None = None,
) -> Tensor:
    """`function` of the tensors in a type of `allowed`, and its result in their own type (or in `result`).

    All tensors must have the first one's type. Raises Refusal where no allowed type is exact.
    """
    dtype = tensors[0].dtype
    inner = compute_type(dtype, allowed, op_type, modular=modular, moves=moves)
    out = function(*(convert(ctx, t, inner, moves=moves) for t in tensors))
    wanted = dtype if result is None else result
    if out.dtype == wanted:
        return out
    narrow = convert(ctx, out, wanted, moves=moves)
    if wanted in FLOATS and out.dtype == DType.FLOAT32 and out.data is None:
        ctx.wider[narrow] = out
    return narrow


__all__ = [
    "ARITHMETIC", "FLOAT", "FLOATS", "INTEGERS", "SIGNED", "UNSIGNED", "bitcast", "compute_type", "computed",
    "convert",
]  # fmt: skip
