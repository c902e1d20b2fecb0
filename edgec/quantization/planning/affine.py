"""From a range to a scale and a zero point: real = (q − zero_point) · scale.

Scales are kept as float32 values, because that is what every runtime stores.

1. A range always includes 0, which then is exact.
2. Symmetric: zero point in the middle, scale from the larger end.
3. Weights are symmetric and, where the scheme says so, narrow (−127 … 127), so that a product with the
   lowest activation cannot overflow 16 bits.
4. A channel without weights gets the scale of the largest channel: any scale represents it.
5. Where kernels shift instead of multiplying, a scale is the next power of two, so that the range is covered.
6. A range as wide below 0 as above has its zero point half way between two integers; so the values of a picture in
   8 bits, scaled to −1 … 1, would each lie half way between two steps. With one step less they lie anywhere.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from edgec.targets.scheme import Scheme
from edgec.tensors import Array, DType, QParams

#: How near to half way between two integers a zero point comes for rule 6.
_HALF_WAY = 0.02

#: Smallest scale: products of two such scales are still normal float32 numbers.
MIN_SCALE = 2.0**-60

Extent = tuple[float, float]


def single(value: float) -> float:
    """The float32 number nearest to `value`, as a Python float."""
    return float(np.float32(value))


def union(*extents: Extent) -> Extent:
    """The smallest range that holds all of them and 0 (rule 1)."""
    return min([0.0, *(e[0] for e in extents)]), max([0.0, *(e[1] for e in extents)])


def power_of_two(scales: ArrayLike) -> NDArray[np.float64]:
    """The smallest powers of two that are no less than `scales`, which are positive (rule 5)."""
    mantissa, exponent = np.frexp(np.asarray(scales, np.float64))
    return np.asarray(np.ldexp(1.0, exponent - (mantissa == 0.5)), np.float64)


def activation_params(
    extent: Extent, dtype: DType, *, symmetric: bool = False, centred: bool = False, powers: bool = False
) -> QParams:
    """Per-tensor parameters that cover `extent`, with a `power_of_two` for a scale if `powers`. Of an unsigned type,
    `symmetric` gives what has no negative values the zero point 0, and `centred` the middle all the same."""

    def at_least(scale: float) -> float:
        scale = max(scale, MIN_SCALE)
        return float(power_of_two(scale)) if powers else single(scale)

    low, high = union(extent)
    qmin, qmax = dtype.limits
    if low == high:
        return QParams.per_tensor(1.0, 0 if qmin < 0 or not (symmetric or centred) else (qmax + 1) // 2)
    if symmetric or centred:  # rule 2
        if qmin == 0 and (low < 0 or centred):
            half = (qmax + 1) // 2
            scale = max(-low / half, high / (half - 1))
            return QParams.per_tensor(at_least(scale), half)
        return QParams.per_tensor(at_least(max(-low, high) / qmax), 0)
    scale = at_least((high - low) / (qmax - qmin))
    if not powers and abs((low / scale) % 1.0 - 0.5) < _HALF_WAY:  # rule 6
        scale = at_least((high - low) / (qmax - qmin - 1))
    zero_point = round(qmin - low / scale)
    return QParams.per_tensor(scale, min(max(zero_point, qmin), qmax))


def channel_params(extents: Sequence[Extent], dtype: DType, *, symmetric: bool = False) -> QParams:
    """Parameters of an activation that has a range for each of its channels, which lie along axis 1."""
    each = [activation_params(extent, dtype, symmetric=symmetric) for extent in extents]
    return QParams(scale=tuple(q.scale[0] for q in each), zero_point=tuple(q.zero_point[0] for q in each), axis=1)


def weight_scales(weight: Array, axis: int | None, scheme: Scheme) -> NDArray[np.float64]:
    """Symmetric scales of a weight: one a slice along `axis`, or a single one (rules 3, 4)."""
    steps = 2 ** (scheme.weight_bits - 1) - (1 if scheme.weight_narrow else 0)
    one = axis is None or scheme.weight_granularity == "tensor"
    others = None if one else tuple(i for i in range(weight.ndim) if i != axis)
    ends = weight.max(axis=others, initial=0), weight.min(axis=others, initial=0)  # no copy of a large weight
    peaks = np.atleast_1d(np.maximum(ends[0], -ends[1])).astype(np.float64)
    largest = float(peaks.max(initial=0.0)) or float(steps)
    peaks = np.where(peaks > 0, peaks, largest)  # rule 4
    return np.asarray(np.maximum(peaks / steps, MIN_SCALE), np.float64)


def per_axis(scales: NDArray[np.float64], axis: int | None) -> QParams:
    """Symmetric parameters from an array of scales; a single scale is per tensor."""
    rounded = tuple(scales.astype(np.float32).tolist())
    if axis is None or (len(rounded) == 1):
        return QParams.per_tensor(rounded[0], 0)
    return QParams(scale=rounded, zero_point=(0,) * len(rounded), axis=axis)


def is_usable(extent: Extent, limit: float) -> bool:
    """True for a finite range no wider than `limit`."""
    return all(math.isfinite(end) for end in extent) and extent[1] - extent[0] <= limit
