"""Which element types each data-moving kernel takes; all others move as other types of the same width."""

from __future__ import annotations

from collections.abc import Callable

from edgec.backends.tflite.context import Context
from edgec.backends.tflite.ops.dtypes import compute_type, computed, convert
from edgec.backends.tflite.tir import Tensor
from edgec.tensors import DType

_BASIC = frozenset({DType.FLOAT32, DType.INT8, DType.UINT8, DType.INT32, DType.INT64})
_COMMON = _BASIC | {DType.INT16}
_HALF = _COMMON | {DType.FLOAT16}
_MOST = _HALF | {DType.BOOL}

#: As LiteRT 2.3's kernels check them. Kernels that are not listed move every type.
MOVES: dict[str, frozenset[DType]] = {
    "CONCATENATION": _MOST | {DType.UINT32},
    "DEPTH_TO_SPACE": _BASIC | {DType.FLOAT16},
    "GATHER": _MOST,
    "GATHER_ND": _MOST,
    "PACK": _COMMON | {DType.UINT32},
    "PAD": _MOST,
    "PADV2": _MOST,
    "REVERSE_SEQUENCE": _BASIC - {DType.INT8} | {DType.INT16},
    "REVERSE_V2": _MOST,
    "SCATTER_ND": _BASIC | {DType.BOOL},
    "SPACE_TO_DEPTH": _BASIC,
    "SPLIT": _HALF,
    "SPLIT_V": _COMMON,
    "UNPACK": _COMMON,
}
_ALL = frozenset(DType)


def moved(ctx: Context, kind: str, x: Tensor, function: Callable[[Tensor], Tensor]) -> Tensor:
    """`function` of x, which emits `kind`, in a type that the kernel takes."""
    return computed(ctx, kind, [x], MOVES.get(kind, _ALL), function, moves=True)


def moved_pair(ctx: Context, kind: str, a: Tensor, b: Tensor, function: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    """`function` of two tensors of one type, which emits `kind`, in a type that the kernel takes."""
    return computed(ctx, kind, [a, b], MOVES.get(kind, _ALL), function, moves=True)


def moved_many(
    ctx: Context, kind: str, tensors: list[Tensor], function: Callable[[list[Tensor]], list[Tensor]]
) -> list[Tensor]:
    """As `moved`, for any number of tensors and results of one type."""
    dtype = tensors[0].dtype
    inner = compute_type(dtype, MOVES.get(kind, _ALL), kind, moves=True)
    results = function([convert(ctx, t, inner, moves=True) for t in tensors])
    return [convert(ctx, t, dtype, moves=True) for t in results]


def gather(ctx: Context, x: Tensor, index: Tensor, axis: int, *, batch_dims: int = 0) -> Tensor:
    """GATHER of any element type with non-negative indices."""
    shape = (*x.shape[:axis], *index.shape[batch_dims:], *x.shape[axis + 1 :])
    return moved(
        ctx,
        "GATHER",
        x,
        lambda t: ctx.emit("GATHER", [t, index], shape, t.dtype, axis=axis, batchDims=batch_dims),
    )


__all__ = ["MOVES", "gather", "moved", "moved_many", "moved_pair"]
