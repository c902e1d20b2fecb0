"""Second moments do not depend on the order or the batches in which positions come, and join as sums do."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from edgec.quantization.repair.rounding import Moments
from edgec.tensors import Array

#: Small whole numbers: their products and sums are exact in float32, so that equal means equal bits.
WHOLE = st.integers(-8, 8).map(float)
GROUPS, FAN_IN, POSITIONS = 2, 3, 12
WEIGHT = np.arange(2 * 2 * 3, dtype=np.float32).reshape(2, 2, 3)
READ = hnp.arrays(np.float32, (GROUPS, POSITIONS, FAN_IN), elements=WHOLE)


def moments_of(read: Array, plain: Array, cuts: list[int]) -> Moments:
    """Over all positions, handed in between the cuts."""
    found = Moments.against_float(WEIGHT)
    for start, end in zip([0, *cuts], [*cuts, read.shape[1]], strict=True):
        if end > start:
            found.add(read[:, start:end], plain[:, start:end])
    return found.flush()


def same(a: Moments, b: Moments) -> bool:
    assert a.cross is not None and b.cross is not None
    return (
        a.count == b.count
        and np.array_equal(a.own, b.own)
        and np.array_equal(a.cross, b.cross)
        and np.array_equal(a.mean, b.mean)
        and np.array_equal(a.mean_pull(WEIGHT), b.mean_pull(WEIGHT))
    )


@settings(max_examples=25)
@given(READ, READ, st.permutations(range(POSITIONS)), st.lists(st.integers(0, POSITIONS), max_size=4))
def test_order_and_batches_change_nothing(read: Array, plain: Array, order: list[int], cuts: list[int]) -> None:
    together = moments_of(read, plain, [])
    assert same(together, moments_of(read[:, order], plain[:, order], sorted(cuts)))


@settings(max_examples=25)
@given(READ, READ, st.integers(0, POSITIONS))
def test_joining_equals_seeing_all(read: Array, plain: Array, cut: int) -> None:
    def first() -> Moments:
        return moments_of(read[:, :cut], plain[:, :cut], [])

    def second() -> Moments:
        return moments_of(read[:, cut:], plain[:, cut:], [])

    together = moments_of(read, plain, [])
    assert same(first().join(second()), together) and same(second().join(first()), together)


@pytest.mark.parametrize("outputs", [2, 5])
def test_what_they_are(outputs: int) -> None:
    rng = np.random.default_rng(0)
    read, plain = (rng.standard_normal((1, 5, FAN_IN)).astype(np.float32) for _ in range(2))
    weight = rng.standard_normal((1, outputs, FAN_IN)).astype(np.float32)
    found = Moments.against_float(weight)
    found.add(read, plain)
    found.flush()
    apart = weight[0] @ (plain - read)[0].T
    np.testing.assert_allclose(found.own[0], read[0].T @ read[0], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(found.pull(weight)[0], apart @ read[0], rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(found.mean[0], read[0].mean(axis=0), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(found.mean_pull(weight)[0], apart.mean(axis=1), rtol=1e-5, atol=1e-5)
