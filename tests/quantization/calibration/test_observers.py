"""Histograms merge exactly: any order, any grouping, any magnitude."""

from __future__ import annotations

import functools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from edgec.quantization.calibration.observers import BINS_PER_SIDE, EXTREMES, Observers, Segments, merge, observe
from edgec.quantization.types import TensorStats
from edgec.tensors import Array

FINITE = st.floats(width=32, allow_nan=False, allow_infinity=False)
ARRAYS = hnp.arrays(np.float32, st.integers(1, 40), elements=FINITE)


def same(a: TensorStats, b: TensorStats) -> bool:
    return (a.minimum, a.maximum, a.bin_width, a.first_bin) == (
        b.minimum,
        b.maximum,
        b.bin_width,
        b.first_bin,
    ) and np.array_equal(a.counts, b.counts)


def same_runs(a: TensorStats, b: TensorStats) -> bool:
    return a.runs == b.runs and np.array_equal(a.lows, b.lows) and np.array_equal(a.highs, b.highs)


@given(ARRAYS, ARRAYS)
def test_merging_equals_observing_together(a: Array, b: Array) -> None:
    together = observe(np.concatenate([a, b]))
    assert same(merge(observe(a), observe(b)), together)
    assert same(merge(observe(b), observe(a)), together)


@given(ARRAYS, ARRAYS, ARRAYS)
def test_merging_is_associative(a: Array, b: Array, c: Array) -> None:
    x, y, z = observe(a), observe(b), observe(c)
    left, right = merge(merge(x, y), z), merge(x, merge(y, z))
    assert same(left, right) and same_runs(left, right)
    assert same_runs(merge(x, y), merge(y, x))


@settings(max_examples=50)
@given(hnp.arrays(np.float32, (20, 8), elements=FINITE), st.permutations(range(20)), st.integers(1, 20))
def test_order_and_batches_change_nothing(runs: Array, order: list[int], batch: int) -> None:
    def statistics(rows: Array, size: int) -> list[TensorStats]:
        observers = Observers(Segments.of([1, 1], [5, 3]))
        for start in range(0, len(rows), size):
            part = rows[start : start + size]
            ends = [np.stack([f(part[:, :5], axis=1), f(part[:, 5:], axis=1)], axis=1) for f in (np.min, np.max)]
            observers.add(ends[0], ends[1], part)
        return observers.stats()

    plain, shuffled = statistics(runs, 1), statistics(runs[order], batch)
    assert all(same(a, b) and same_runs(a, b) for a, b in zip(plain, shuffled, strict=True))
    first, second = (functools.reduce(merge, map(observe, part)) for part in (runs[:7, :5], runs[7:, :5]))
    assert same_runs(plain[0], merge(first, second))
    assert plain[0].lows.tolist() == np.sort(runs[:, :5].min(axis=1))[:EXTREMES].tolist()
    assert plain[0].highs.tolist() == np.sort(runs[:, :5].max(axis=1))[::-1][:EXTREMES].tolist()
    assert same(plain[0], observe(runs[:, :5]))
    assert same(plain[1], observe(runs[:, 5:]))


@given(ARRAYS)
def test_every_value_lies_in_its_bin_and_the_bins_are_few(values: Array) -> None:
    stats = observe(values)
    assert stats.counts.sum() == values.size
    assert len(stats.counts) <= 2 * BINS_PER_SIDE
    assert np.log2(stats.bin_width) == np.rint(np.log2(stats.bin_width))
    index = np.floor(values.astype(np.float64) / stats.bin_width).astype(np.int64) - stats.first_bin
    assert np.array_equal(np.bincount(index, minlength=len(stats.counts)), stats.counts)
    assert (stats.minimum, stats.maximum) == (values.min(), values.max())


def test_resolution_is_a_thousandth_of_the_largest_value() -> None:
    stats = observe(np.array([-1.0, 3.0], np.float32))
    assert stats.bin_width <= 3.0 / 1024 + 1e-12


@pytest.mark.parametrize("value", [0.0, -0.0, 1e-45, -1e-45, 3.4e38, -3.4e38])
def test_extreme_values(value: float) -> None:
    stats = observe(np.full(3, value, np.float32))
    assert stats.counts.tolist() == [3]
    assert stats.minimum == np.float32(value)


def test_channels_keep_their_own_ranges() -> None:
    values = np.array([[[1, 2], [-3, 4]]], np.float32)
    stats = observe(values, channel_axis=1)
    assert stats.channel_min is not None
    assert stats.channel_min.tolist() == [1, -3]
    merged = merge(stats, observe(values * 2, channel_axis=1))
    assert merged.channel_max is not None
    assert merged.channel_max.tolist() == [4, 8]


@pytest.mark.parametrize("value", [9.0, -9.0])
def test_a_sample_outside_the_range_is_refused(value: float) -> None:
    observers = Observers(Segments.of([1], [1]))
    with pytest.raises(ValueError, match="outside"):
        observers.add(np.array([0.0]), np.array([1.0]), np.array([value]))
