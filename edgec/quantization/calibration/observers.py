"""Histograms with power-of-two bins: any two of them merge exactly, so order and batches change nothing.

With m = max|x| over all values of a tensor, its bins are 2^k wide with the smallest k that keeps m within
`BINS_PER_SIDE` bins of zero. k depends on m alone, and joining bins i and i+1 (i even) gives exactly the histogram
of width 2^(k+1). So observe(A ∪ B) = merge(observe(A), observe(B)), bit for bit.

Beside them the most extreme of the runs' own minima and maxima are kept: they tell how far the ends still move.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from edgec.quantization.types import TensorStats
from edgec.tensors import Array

#: Bins on each side of zero; between half and all of them are in use. A power of two.
BINS_PER_SIDE = 2048

#: Runs whose own minimum, and maximum, is kept. The n-th counts for 2⁻ⁿ of what they are kept for.
EXTREMES = 16

_BINS = 2 * BINS_PER_SIDE
_SIDE_BITS = BINS_PER_SIDE.bit_length() - 1

#: Bins never get narrower than this, which keeps all-zero tensors and denormals in range.
_MIN_EXPONENT = -100


def bin_exponent(max_abs: Array) -> Array:
    """k of the bin width 2^k for each largest magnitude."""
    magnitude = np.asarray(max_abs, np.float64)
    _, exponent = np.frexp(magnitude)
    wanted = np.maximum(exponent.astype(np.int64) - _SIDE_BITS, _MIN_EXPONENT)
    return np.where(magnitude > 0, wanted, _MIN_EXPONENT)


@dataclass(frozen=True, slots=True)
class Segments:
    """How flat arrays divide into tensors: where each one's channels and sampled values start, and the ends."""

    channels: Array
    values: Array

    @classmethod
    def of(cls, channel_counts: Sequence[int], value_counts: Sequence[int]) -> Segments:
        """Segments from the number of channels and of sampled values of each tensor; none may be 0."""
        return cls(*(np.cumsum([0, *counts]) for counts in (channel_counts, value_counts)))

    def __len__(self) -> int:
        return len(self.values) - 1


class Observers:
    """Streaming statistics of many tensors at once, in memory that depends on the tensors alone.

    A run gives, for all tensors one after the other, the minimum and maximum of each channel (over all values)
    and the sampled values.
    """

    def __init__(self, segments: Segments) -> None:
        self._segments = segments
        count = len(segments)
        channels = int(segments.channels[-1])
        self._min = np.full(channels, np.inf, np.float32)
        self._max = np.full(channels, -np.inf, np.float32)
        self._runs = 0
        self._lows = np.full((EXTREMES, count), np.inf, np.float32)
        self._highs = np.full((EXTREMES, count), -np.inf, np.float32)
        self._exponent = np.full(count, _MIN_EXPONENT, np.int64)
        self._counts = np.zeros((count, _BINS), np.int64)

    def add(self, minimum: Array, maximum: Array, values: Array | Sequence[Array]) -> None:
        """Take in one run, or several along a first axis; the values may be one array a run. All must be finite.

        Raises ValueError for a sampled value outside its tensor's minimum and maximum so far.
        """
        lows, highs = np.atleast_2d(minimum), np.atleast_2d(maximum)
        self._min = np.minimum(self._min, lows.min(axis=0))
        self._max = np.maximum(self._max, highs.max(axis=0))
        self._runs += len(lows)
        starts = self._segments.channels[:-1]
        self._lows = _smallest(self._lows, np.minimum.reduceat(lows, starts, axis=1))
        self._highs = -_smallest(-self._highs, -np.maximum.reduceat(highs, starts, axis=1))
        low, high = self._ranges()
        self._widen(bin_exponent(np.maximum(-low, high)))
        rows = np.atleast_2d(values) if isinstance(values, np.ndarray) else values
        inverse = np.ldexp(1.0, -self._exponent)
        # One tensor after the other, so that what is worked on stays in the processor's nearest memory.
        for i, (start, end) in enumerate(itertools.pairwise(self._segments.values.tolist())):
            taken = np.concatenate([row[start:end] for row in rows])
            # float64 holds float32 · 2^−k without underflow, which exact merging needs.
            scaled = np.multiply(taken, inverse[i], dtype=np.float64)
            np.floor(scaled, out=scaled)
            scaled += BINS_PER_SIDE
            self._counts[i] += _counted(scaled.astype(np.int64))

    def stats(self) -> list[TensorStats]:
        """Statistics of each tensor so far. At least one run must have been added."""
        low, high = self._ranges()
        return [
            _trimmed(
                self._counts[i],
                exponent=int(self._exponent[i]),
                low=float(low[i]),
                high=float(high[i]),
                channels=(self._min[a:b].copy(), self._max[a:b].copy()),
                runs=(self._runs, _finite(self._lows[:, i]), _finite(self._highs[:, i])),
            )
            for i, (a, b) in enumerate(zip(self._segments.channels[:-1], self._segments.channels[1:], strict=True))
        ]

    def _ranges(self) -> tuple[Array, Array]:
        starts = self._segments.channels[:-1]
        return np.minimum.reduceat(self._min, starts), np.maximum.reduceat(self._max, starts)

    def _widen(self, wanted: Array) -> None:
        """Join bins of the tensors whose range has outgrown them."""
        grown = np.flatnonzero(wanted > self._exponent)
        for i in grown:
            self._counts[i] = _coarsen(self._counts[i], -BINS_PER_SIDE, int(wanted[i] - self._exponent[i]))
        self._exponent = np.maximum(self._exponent, wanted)


def _counted(index: Array) -> Array:
    """How often each bin's number occurs; ValueError for a number that is none."""
    try:
        counts = np.bincount(index, minlength=_BINS)
    except ValueError:  # a negative number
        counts = np.zeros(0, np.int64)
    if len(counts) != _BINS:
        raise ValueError("a sampled value lies outside its tensor's minimum and maximum")
    return counts


def _coarsen(counts: Array, first_bin: int, doublings: int) -> Array:
    """All `_BINS` counts after the bin width has doubled some times; `counts` start at `first_bin`."""
    used = np.flatnonzero(counts)
    bins = (used + first_bin) >> min(doublings, 62)
    joined = np.zeros(_BINS, np.int64)
    np.add.at(joined, bins + BINS_PER_SIDE, counts[used])
    return joined


def _smallest(kept: Array, found: Array) -> Array:
    """The smallest `EXTREMES` of each column, in order."""
    return np.sort(np.concatenate([kept, found.astype(np.float32, copy=False)]), axis=0)[:EXTREMES]


def _finite(column: Array) -> Array:
    """What a column holds of runs: with few, the rest of it is empty."""
    return np.asarray(column[np.isfinite(column)])


def _trimmed(
    counts: Array,
    *,
    exponent: int,
    low: float,
    high: float,
    channels: tuple[Array | None, Array | None],
    runs: tuple[int, Array, Array],
) -> TensorStats:
    """Statistics without the empty bins at the ends."""
    used = np.flatnonzero(counts)
    first, last = (int(used[0]), int(used[-1])) if len(used) else (BINS_PER_SIDE, BINS_PER_SIDE - 1)
    return TensorStats(
        minimum=low,
        maximum=high,
        bin_width=float(np.ldexp(1.0, exponent)),
        first_bin=first - BINS_PER_SIDE,
        counts=counts[first : last + 1].copy(),
        channel_min=channels[0],
        channel_max=channels[1],
        runs=runs[0],
        lows=runs[1],
        highs=runs[2],
    )


def observe(values: Array, *, sampled: Array | None = None, channel_axis: int | None = None) -> TensorStats:
    """Statistics of one run's array (at least one value, all finite); `sampled` are the values for the histogram."""
    moved = values.reshape(1, -1) if channel_axis is None else np.moveaxis(values, channel_axis, 0)
    rows = moved.reshape(moved.shape[0], -1).astype(np.float32, copy=False)
    chosen = rows.ravel() if sampled is None else sampled.ravel()
    observers = Observers(Segments.of([len(rows)], [chosen.size]))
    observers.add(rows.min(axis=1), rows.max(axis=1), chosen)
    stats = observers.stats()[0]
    if channel_axis is not None:
        return stats
    return _trimmed(
        _coarsen(stats.counts, stats.first_bin, 0),
        exponent=int(np.log2(stats.bin_width)),
        low=stats.minimum,
        high=stats.maximum,
        channels=(None, None),
        runs=(stats.runs, stats.lows, stats.highs),
    )


def merge(a: TensorStats, b: TensorStats) -> TensorStats:
    """Statistics of both sets of values together; exact, commutative and associative."""
    exponents = [int(np.log2(s.bin_width)) for s in (a, b)]
    exponent = max(exponents)
    counts = sum(
        (_coarsen(s.counts, s.first_bin, exponent - own) for s, own in zip((a, b), exponents, strict=True)),
        start=np.zeros(_BINS, np.int64),
    )
    return _trimmed(
        counts,
        exponent=exponent,
        low=min(a.minimum, b.minimum),
        high=max(a.maximum, b.maximum),
        channels=(_both(np.minimum, a.channel_min, b.channel_min), _both(np.maximum, a.channel_max, b.channel_max)),
        runs=(a.runs + b.runs, _smallest(a.lows, b.lows), -_smallest(-a.highs, -b.highs)),
    )


def _both(join: np.ufunc, a: Array | None, b: Array | None) -> Array | None:
    return None if a is None or b is None else np.asarray(join(a, b))
