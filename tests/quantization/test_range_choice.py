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


def squared_error(values: Array, low: float, high: float) -> float:
    """Of 8 bits over a range: rounding and cutting off."""
    step = (high - low) / 255
    coded = np.rint((np.clip(values, low, high) - low) / step) * step + low
    return float(np.mean((coded - values) ** 2))


@pytest.mark.parametrize("method", ["mse", "entropy", "auto"])
def test_searched_ranges_hold_zero_and_lie_inside_minmax(method: RangeMethod) -> None:
    for values in (_normal(), np.abs(_normal()), -np.abs(_normal()), np.zeros(10, np.float32), np.ones(9, np.float32)):
        stats = observe(values.astype(np.float32))
        low, high = range_of(stats, method)
        full = range_of(stats)
        assert full[0] <= low <= 0 <= high <= full[1]
        assert (low, high) == range_of(stats, method)


def test_the_least_error_is_no_more_than_that_of_other_ranges() -> None:
    values = np.concatenate([_normal(), 20 * _normal(50)]).astype(np.float32)
    stats = observe(values)
    found = squared_error(values, *range_of(stats, "mse"))
    assert found < squared_error(values, *range_of(stats))
    for percentile in (99.0, 99.9, 99.99, 99.999):
        # 2 %: the histogram has bins, the ends are tried on a grid.
        assert found <= 1.02 * squared_error(values, *range_of(stats, "percentile", percentile=percentile))


def test_auto_cuts_less_than_mse_and_evenly_spread_values_are_not_cut() -> None:
    stats = observe(np.concatenate([_normal(), 20 * _normal(50)]).astype(np.float32))
    assert range_of(stats, "auto")[1] >= range_of(stats, "mse")[1]
    even = observe(np.linspace(-1, 3, 10_000, dtype=np.float32))
    assert range_of(even, "mse") == pytest.approx((-1.0, 3.0), abs=0.07)
