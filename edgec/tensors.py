"""What a tensor is at the borders of the system: element type, shape, quantization, name.

real = (q − zero_point) · scale, per tensor, or per slice along `axis`.
"""

from __future__ import annotations

import importlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


class DType(StrEnum):
    """Element types that cross the borders; values are numpy's names."""

    FLOAT64 = "float64"
    FLOAT32 = "float32"
    FLOAT16 = "float16"
    INT64 = "int64"
    INT32 = "int32"
    INT16 = "int16"
    INT8 = "int8"
    UINT64 = "uint64"
    UINT32 = "uint32"
    UINT16 = "uint16"
    UINT8 = "uint8"
    BOOL = "bool"
    COMPLEX64 = "complex64"
    STRING = "str"
    # Only at the borders: wider types carry these inside.
    BFLOAT16 = "bfloat16"
    FLOAT8E4M3FN = "float8_e4m3fn"
    FLOAT8E4M3FNUZ = "float8_e4m3fnuz"
    FLOAT8E5M2 = "float8_e5m2"
    FLOAT8E5M2FNUZ = "float8_e5m2fnuz"
    FLOAT8E8M0 = "float8_e8m0fnu"
    FLOAT4E2M1 = "float4_e2m1fn"
    INT4 = "int4"
    UINT4 = "uint4"
    INT2 = "int2"
    UINT2 = "uint2"

    @property
    def numpy(self) -> np.dtype[Any]:
        """The numpy dtype of the same name; those that only cross the borders come from the package ml_dtypes."""
        if self in CARRIED:
            kind: np.dtype[Any] = np.dtype(getattr(importlib.import_module("ml_dtypes"), self.value))
            return kind
        return np.dtype(self.value)

    @property
    def is_float(self) -> bool:
        """True for the real floating types."""
        return self.value.startswith(("float", "bfloat"))

    @property
    def limits(self) -> tuple[int, int]:
        """Smallest and largest integer; raises ValueError for types that are not integers."""
        info = np.iinfo(self.numpy)
        return int(info.min), int(info.max)

    @classmethod
    def of(cls, array: Array) -> DType:
        """The element type of an array; raises ValueError for a type that is not listed."""
        return cls(array.dtype.name)


#: Types that no runtime here computes in.
CARRIED = frozenset(
    {
        DType.BFLOAT16,
        DType.FLOAT8E4M3FN,
        DType.FLOAT8E4M3FNUZ,
        DType.FLOAT8E5M2,
        DType.FLOAT8E5M2FNUZ,
        DType.FLOAT8E8M0,
        DType.FLOAT4E2M1,
        DType.INT4,
        DType.UINT4,
        DType.INT2,
        DType.UINT2,
    }
)


@dataclass(frozen=True, kw_only=True, slots=True)
class QParams:
    """Affine quantization. `axis` is None for per-tensor, else the axis that `scale` runs along."""

    scale: tuple[float, ...]
    zero_point: tuple[int, ...]
    axis: int | None = None

    def __post_init__(self) -> None:
        if len(self.scale) != len(self.zero_point) or not self.scale:
            raise ValueError("scale and zero_point must have the same length, at least 1")
        if self.axis is None and len(self.scale) != 1:
            raise ValueError("per-tensor quantization has exactly one scale")
        if not (min(self.scale) > 0 and math.isfinite(sum(self.scale))):  # a NaN stays one in the sum
            raise ValueError(f"scales must be positive and finite, got {self.scale[:4]}")

    @classmethod
    def per_tensor(cls, scale: float, zero_point: int) -> QParams:
        """One scale and zero point for the whole tensor."""
        return cls(scale=(float(scale),), zero_point=(int(zero_point),))

    def _broadcast(self, rank: int) -> tuple[Array, Array]:
        scale = np.asarray(self.scale, np.float32)
        zero = np.asarray(self.zero_point, np.int64)
        if self.axis is None:
            return scale.reshape(()), zero.reshape(())
        shape = [1] * rank
        shape[self.axis] = -1
        return scale.reshape(shape), zero.reshape(shape)

    def quantize(self, real: Array, dtype: DType) -> Array:
        """Round half to even, add the zero point, saturate to `dtype` (ONNX QuantizeLinear)."""
        scale, zero = self._broadcast(real.ndim)
        low, high = dtype.limits
        with np.errstate(over="ignore"):  # what is beyond float32 in steps (the padding of a maximum) saturates too
            steps = np.rint(real.astype(np.float32, copy=False) / scale)
        # Up to 16 bits float32 is exact: what it is too short for is far beyond the limits.
        q = np.add(steps, zero, dtype=np.float32 if dtype.numpy.itemsize <= 2 else np.float64)
        return np.clip(q, low, high).astype(dtype.numpy)

    def dequantize(self, q: Array) -> Array:
        """float32 values of quantized ones (ONNX DequantizeLinear)."""
        scale, zero = self._broadcast(q.ndim)
        return ((q.astype(np.int64) - zero).astype(np.float32) * scale).astype(np.float32)


#: A block of an array: one slice an axis. And blocks of one kind of values, as the boxes in a detector's output.
Block = tuple[slice, ...]
Kind = tuple[Block, ...]

_SHOWN = 3


def of_kind(value: Array, kind: Kind) -> Array:
    """The values of one kind, in a row."""
    return np.concatenate([value[block].ravel() for block in kind])


def written(kind: Kind, shape: Sequence[int]) -> str:
    """A kind as indices of an array of that shape, as they are written in Python: `[:,0:4,:]`; the first few."""
    shown = []
    for block in kind[:_SHOWN]:
        axes = (":" if p == slice(0, n) else f"{p.start}:{p.stop}" for p, n in zip(block, shape, strict=True))
        shown.append(f"[{','.join(axes)}]")
    return " ".join(shown) + (f" and {len(kind) - _SHOWN} more" if len(kind) > _SHOWN else "")


@dataclass(frozen=True, kw_only=True, slots=True)
class TensorSpec:
    """An input or output: name, shape, element type and, where quantized, how.

    A dimension of -1 is free at run time.
    """

    name: str
    shape: tuple[int, ...]
    dtype: DType
    qparams: QParams | None = None

    @property
    def nbytes(self) -> int:
        """Size in bytes; free dimensions count as 1."""
        return self.dtype.numpy.itemsize * math.prod(max(d, 1) for d in self.shape)
