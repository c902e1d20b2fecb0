"""Distances between tensors: known values, and finite numbers whatever comes in."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from edgec.metrics import (
    MAX_DB,
    cosine,
    looks_like_scores,
    max_abs,
    relative_error,
    sqnr_db,
    step_differences,
    top1_agreement,
)


def f32(*values: float) -> np.ndarray:
    return np.array(values, np.float32)


def test_sqnr_of_a_tenth_is_twenty_decibels() -> None:
    reference = f32(1, -1, 1, -1)
    assert sqnr_db(reference, reference * np.float32(1.1)) == pytest.approx(20, abs=1e-4)
    assert sqnr_db(reference, reference) == MAX_DB
    assert sqnr_db(f32(0, 0), f32(0, 1)) == -MAX_DB
    assert sqnr_db(f32(0, 0), f32(0, 0)) == MAX_DB


def test_cosine() -> None:
    assert cosine(f32(1, 0), f32(2, 0)) == pytest.approx(1, abs=1e-12)
    assert cosine(f32(1, 0), f32(0, 3)) == pytest.approx(0, abs=1e-12)
    assert cosine(f32(1, 1), f32(-1, -1)) == pytest.approx(-1, abs=1e-12)
    assert cosine(f32(0, 0), f32(0, 0)) == 1
    assert cosine(f32(0, 0), f32(1, 0)) == 0


def test_differences() -> None:
    assert max_abs(f32(1, 2), f32(1, 2.5)) == 0.5
    assert relative_error(f32(1, -5), f32(1, -4)) == pytest.approx(0.2, abs=1e-7)
    assert relative_error(f32(0, 0), f32(0, 0)) == 0
    assert relative_error(f32(0, 0), f32(0, 1)) > 1e30


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_values_that_are_no_numbers_count_as_the_worst(bad: float) -> None:
    reference, value = f32(1, 2), f32(1, bad)
    assert sqnr_db(reference, value) == -MAX_DB
    assert cosine(reference, value) == 0
    assert max_abs(reference, value) > 1e38
    assert relative_error(reference, value) > 1e30
    assert step_differences(reference, value, step=0.5).within_2 == 0.5


def test_the_same_infinity_agrees_another_does_not() -> None:
    mask = f32(-math.inf, 1, math.nan)
    assert sqnr_db(mask, mask.copy()) == MAX_DB
    assert relative_error(mask, mask.copy()) == 0
    assert sqnr_db(mask, f32(math.inf, 1, math.nan)) == -MAX_DB
    assert max_abs(mask, f32(-1, 1, math.nan)) > 1e38


def test_shapes_that_differ_in_size_are_an_error() -> None:
    with pytest.raises(ValueError, match="cannot compare"):
        sqnr_db(f32(1, 2), f32(1))


def test_top1_only_where_it_means_something() -> None:
    reference = np.array([[0.1, 0.9], [0.8, 0.2]], np.float32)
    assert top1_agreement(reference, reference[:, ::-1]) == 0
    assert top1_agreement(reference, reference * 2) == 1
    assert top1_agreement(reference, np.array([[0.0, 1.0], [0.0, 1.0]], np.float32)) == 0.5
    assert top1_agreement(np.ones((1, 3, 4), np.float32), np.ones((1, 3, 4), np.float32)) is None
    assert top1_agreement(np.zeros((1, 5), np.int64), np.zeros((1, 5), np.int64)) is None
    assert looks_like_scores(np.full((1, 3, 4), 0.25, np.float32))
    assert not looks_like_scores(np.ones((4, 1), np.float32))


def test_directions_are_no_scores() -> None:
    directions = np.array([[0.6, -0.8], [-1.0, 0.0]], np.float32)
    assert not looks_like_scores(directions)
    assert looks_like_scores(2 * directions)
    assert looks_like_scores(np.abs(directions))  # probabilities as sure as can be


def test_steps_of_integers_do_not_overflow() -> None:
    expected = np.array([-128, 127, 0, 5], np.int8)
    steps = step_differences(expected, np.array([127, -128, 1, 7], np.int8))
    assert (steps.values, steps.largest) == (4, 255)
    assert (steps.equal, steps.within_1, steps.within_2) == (0, 0.25, 0.5)


def test_steps_of_dequantized_values() -> None:
    scale = 0.037
    q = np.array([0, 10, 20, 30])
    expected = (q * scale).astype(np.float32)
    actual = ((q + np.array([0, 1, -2, 3])) * scale).astype(np.float32)
    steps = step_differences(expected, actual, step=scale)
    assert (steps.equal, steps.within_1, steps.within_2, steps.largest) == (0.25, 0.5, 0.75, 3)


ANY = hnp.arrays(np.float32, st.integers(0, 6), elements=st.floats(width=32))


@settings(max_examples=100, deadline=None)
@given(ANY, st.floats(width=32))
def test_every_result_is_finite(reference: np.ndarray, noise: float) -> None:
    with np.errstate(all="ignore"):
        value = reference + np.float32(noise)
    for metric in (sqnr_db, cosine, max_abs, relative_error):
        assert math.isfinite(metric(reference, value))
