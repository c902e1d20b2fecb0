"""Permutations of axes: numpy is the judge."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from edgec.backends.tflite.layout.perms import (
    between,
    channels_last,
    identity,
    inverse,
    same_bytes,
    stored_shape,
    through_reshape,
)

shapes = st.lists(st.integers(1, 4), min_size=1, max_size=5).map(tuple)


@st.composite
def permuted(draw: st.DrawFn) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """A shape and an order of its axes."""
    shape = draw(shapes)
    return shape, tuple(draw(st.permutations(range(len(shape)))))


@st.composite
def reshaped(draw: st.DrawFn) -> tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]:
    """A shape, another one of the same size, and an order of the first one's axes."""
    before, perm = draw(permuted())
    rest, after = math.prod(before), []
    while rest > 1:
        factor = draw(st.sampled_from([d for d in range(2, rest + 1) if rest % d == 0]))
        after.append(factor)
        rest //= factor
    for _ in range(draw(st.integers(0, 2))):
        after.insert(draw(st.integers(0, len(after))), 1)
    return before, tuple(after), perm


def numbered(shape: tuple[int, ...]) -> np.ndarray:
    return np.arange(math.prod(shape)).reshape(shape)


@given(permuted())
def test_inverse_undoes_a_permutation(case: tuple[tuple[int, ...], tuple[int, ...]]) -> None:
    shape, perm = case
    x = numbered(shape)
    np.testing.assert_array_equal(x.transpose(perm).transpose(inverse(perm)), x)
    assert x.transpose(perm).shape == stored_shape(shape, perm)


@given(permuted(), st.data())
def test_between_turns_one_order_into_another(
    case: tuple[tuple[int, ...], tuple[int, ...]], data: st.DataObject
) -> None:
    shape, source = case
    target = tuple(data.draw(st.permutations(range(len(shape)))))
    x = numbered(shape)
    np.testing.assert_array_equal(x.transpose(source).transpose(between(source, target)), x.transpose(target))


@given(permuted(), st.data())
def test_same_bytes_is_what_memory_says(case: tuple[tuple[int, ...], tuple[int, ...]], data: st.DataObject) -> None:
    shape, a = case
    b = tuple(data.draw(st.permutations(range(len(shape)))))
    x = numbered(shape)
    equal = x.transpose(a).tobytes() == x.transpose(b).tobytes()
    if same_bytes(a, b, shape):
        assert equal
    elif math.prod(shape) > 1:
        assert not equal


@settings(max_examples=200, deadline=None)
@given(reshaped())
def test_through_reshape_moves_no_byte(case: tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]) -> None:
    before, after, perm = case
    q = through_reshape(before, after, perm)
    assume(q is not None)
    assert q is not None and sorted(q) == list(range(len(after)))
    x = numbered(before)
    kept = x.transpose(perm).reshape(stored_shape(after, q))
    np.testing.assert_array_equal(kept, x.reshape(after).transpose(q))


@given(reshaped())
def test_the_plain_order_always_goes_through(case: tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]) -> None:
    before, after, _ = case
    q = through_reshape(before, after, identity(len(before)))
    assert q is not None and same_bytes(q, identity(len(after)), after)


def test_channels_last_goes_through_a_split_of_the_channels() -> None:
    # N, C, H, W → N, G, C/G, H, W: kept as N, H, W, G, C/G
    assert through_reshape((1, 8, 5, 6), (1, 2, 4, 5, 6), channels_last(4)) == (0, 3, 4, 1, 2)


def test_merged_axes_must_lie_together() -> None:
    # C and H merge, but W lies between them in memory
    assert through_reshape((1, 8, 5, 6), (1, 40, 6), (0, 1, 3, 2)) is None


def test_merged_axes_must_be_in_order() -> None:
    assert through_reshape((1, 8, 5, 6), (1, 8, 30), (0, 1, 3, 2)) is None


@pytest.mark.parametrize(("before", "after"), [((0, 3), (3, 0)), ((2, 0), (0,))])
def test_empty_shapes_have_no_groups(before: tuple[int, ...], after: tuple[int, ...]) -> None:
    assert through_reshape(before, after, identity(len(before))) is None


def test_channels_last_of_any_rank() -> None:
    assert channels_last(3) == (0, 2, 1)
    assert channels_last(4) == (0, 2, 3, 1)
    assert channels_last(5) == (0, 2, 3, 4, 1)
