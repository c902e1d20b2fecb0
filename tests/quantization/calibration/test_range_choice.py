"""Ranges hold 0, never exceed min-max, and percentiles agree with numpy's to a bin."""

from __future__ import annotations

import functools
import itertools

import numpy as np
import pytest

from edgec.quantization.calibration.observers import merge, observe
from edgec.quantization.calibration.range_choice import (
    RANGE_METHODS,
    RangeMethod,
    outside,
    quantile,
    range_of,
    roomy_range_of,
)
from edgec.quantization.types import TensorStats
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


def _runs(*runs: Array) -> TensorStats:
    return functools.reduce(merge, map(observe, runs))


class TestRoom:
    """What ranges have beyond what calibration saw."""

    def test_it_is_two_doublings_of_how_the_ends_grew_from_half_the_runs(self) -> None:
        highs, lows = [3.0, 7.0, 4.0, 4.5, 6.0], [-1.0, -1.0, -2.0, -1.5, -1.0]
        stats = _runs(*(np.array(ends, np.float32) for ends in zip(lows, highs, strict=True)))
        low, high = roomy_range_of(stats, "minmax")
        for end, extremes in ((high, highs), (-low, [-x for x in lows])):
            # Each run is in the half or not; without any, the least extreme one stands for it.
            halves = [
                max(kept, default=min(extremes))
                for size in range(len(extremes) + 1)
                for kept in itertools.combinations(extremes, size)
            ]
            assert end == pytest.approx(max(extremes) + 2 * (max(extremes) - np.mean(halves)), rel=1e-6)

    def test_values_with_bounds_of_their_own_get_none(self) -> None:
        stats = _runs(*[np.array([-0.17, 1.0], np.float32)] * 6)
        assert roomy_range_of(stats, "minmax") == range_of(stats)

    def test_one_run_tells_nothing(self) -> None:
        stats = observe(_normal())
        assert roomy_range_of(stats, "minmax") == range_of(stats)

    @pytest.mark.parametrize("method", ["minmax", "mse", "auto", "percentile", "entropy"])
    def test_an_end_that_the_least_error_cuts_off_stays(self, method: RangeMethod) -> None:
        outliers = [np.concatenate([_normal(), [outlier]]).astype(np.float32) for outlier in (50.0, 100.0)]
        stats = _runs(*outliers)
        assert roomy_range_of(stats, method)[1] == range_of(stats, method)[1]

    def test_an_end_at_zero_stays(self) -> None:
        stats = _runs(*(np.array([0.5, high], np.float32) for high in (1.0, 2.0, 5.0)))
        low, high = roomy_range_of(stats, "minmax")
        assert low == 0.0 and high > 5.0

    def test_eight_runs_foretell_the_largest_of_thirty_two(self) -> None:
        """Tails that fall off exponentially grow by the same with each doubling."""
        maxima = np.random.default_rng(0).gumbel(10.0, 1.0, (4000, 32)).astype(np.float32)
        found = []
        for row in maxima[:, :8]:
            highs = np.sort(row)[::-1]
            stats = TensorStats(
                minimum=0.0, maximum=float(highs[0]), bin_width=1.0, first_bin=0, counts=np.ones(1), runs=8, highs=highs
            )
            found.append(roomy_range_of(stats, "minmax")[1])
        assert np.mean(found) == pytest.approx(maxima.max(axis=1).mean(), abs=0.25)  # the largest of 8 is 1.39 below

    def test_it_fades_as_runs_become_as_many_as_is_usual(self) -> None:
        runs = np.random.default_rng(0).standard_normal((100, 50)).astype(np.float32)
        rooms = []
        for count in (4, 40, 99, 100):
            stats = _runs(*runs[:count])
            rooms.append(roomy_range_of(stats, "minmax")[1] / stats.maximum - 1)
        assert rooms[0] > rooms[1] > rooms[2] > rooms[3] == 0.0


def error_of_integers(values: Array, low: float, high: float) -> float:
    """Squared error of 8 bits whose zero point is an integer, as every runtime has it."""
    step = (high - low) / 255
    zero = np.rint(-low / step)
    coded = (np.clip(np.rint(values.astype(np.float64) / step) + zero, 0, 255) - zero) * step
    return float(np.sum((coded - values) ** 2))


@pytest.mark.parametrize("tail", ["normal", "student", "cauchy", "outlier", "two"])
def test_mse_is_the_least_error_of_all_values_with_heavy_tails_too(tail: str) -> None:
    rng = np.random.default_rng(3)
    values = {
        "normal": rng.normal(size=20_000),
        "student": rng.standard_t(2, size=20_000),
        "cauchy": rng.standard_cauchy(20_000),
        "outlier": np.append(rng.normal(size=100_000), 1e4),
        "two": np.concatenate([rng.normal(-5, 0.1, 5000), rng.normal(8, 0.1, 5000)]),
    }[tail].astype(np.float32)
    ends = np.linspace(0.02, 1, 30)
    least = min(error_of_integers(values, a * values.min(), b * values.max()) for a in ends for b in ends)
    # The search takes other ends than the reference, and knows values to a bin: a few percent.
    assert error_of_integers(values, *range_of(observe(values), "mse")) <= 1.05 * least


def test_entropy_keeps_integers_that_fit_as_they_are() -> None:
    values = np.random.default_rng(0).integers(0, 256, 9000).astype(np.float32)
    assert range_of(observe(values), "entropy") == (0.0, 255.0)


@pytest.mark.parametrize("scale", [1e-30, 1e-6, 1.0, 1e6, 1e30])
@pytest.mark.parametrize("method", RANGE_METHODS)
def test_no_magnitude_is_too_small_or_too_large(method: RangeMethod, scale: float) -> None:
    values = (_normal(5000).astype(np.float64) * scale).astype(np.float32)
    low, high = range_of(observe(values), method)
    assert values.min() <= low < 0 < high <= values.max()
    assert high > 0.5 * values.max() and low < 0.5 * values.min()
