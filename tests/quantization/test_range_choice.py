"""Ranges hold 0, never exceed min-max, and percentiles agree with numpy's to a bin."""

from __future__ import annotations

import numpy as np
import pytest

from edgec.quantization.observers import observe
from edgec.quantization.range_choice import RangeMethod, outside, quantile, range_of
from edgec.tensors import Array


def _normal(count: int = 100_000) -> Array:
    return np.random.default_rng(0).standard_normal(count).astype(np.float32)


def test_minmax_is_exact_and_holds_zero() -> None:
    assert range_of(observe(np.array([2.0, 3.0], np.float32))) == (0.0, 3.0)
    assert range_of(observe(np.array([-2.0, -3.0], np.float32))) == (-3.0, 0.0)
    assert range_of(observe(np.array([-1.0, 0.25], np.float32))) == (-1.0, 0.25)


@pytest.mark.parametrize("method", ["minmax", "percentile"])
def test_constant_tensors(method: RangeMethod) -> None:
    assert range_of(observe(np.zeros(10, np.float32)), method) == (0.0, 0.0)
    assert range_of(observe(np.full(10, 5.0, np.float32)), method) == (0.0, 5.0)
    assert range_of(observe(np.full(10, -5.0, np.float32)), method) == (-5.0, 0.0)


@pytest.mark.parametrize("percentile", [99.0, 99.9, 99.99])
def test_percentile_agrees_with_numpy_to_a_bin(percentile: float) -> None:
    values = _normal()
    stats = observe(values)
    low, high = range_of(stats, "percentile", percentile=percentile)
    assert abs(high - np.percentile(values, percentile)) <= stats.bin_width
    assert abs(low - np.percentile(values, 100 - percentile)) <= stats.bin_width


def test_percentile_cuts_an_outlier_that_minmax_keeps() -> None:
    values = np.concatenate([_normal(), [1000.0]]).astype(np.float32)
    stats = observe(values)
    assert range_of(stats)[1] == 1000.0
    assert range_of(stats, "percentile")[1] < 6.0


def test_share_outside() -> None:
    values = np.arange(-100, 100, dtype=np.float32)
    stats = observe(values)
    assert outside(stats, -100.0, 99.0) == 0.0
    assert outside(stats, -50.0, 50.0) == pytest.approx(99 / 200, abs=0.01)
    assert outside(stats, 0.0, 0.0) == pytest.approx(1.0, abs=0.01)


def test_quantiles_rise_and_stay_inside() -> None:
    stats = observe(_normal(1000))
    found = [quantile(stats, share) for share in np.linspace(0, 1, 21)]
    assert found == sorted(found)
    assert stats.minimum <= found[0] <= found[-1] <= stats.maximum
