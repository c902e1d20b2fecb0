"""The minimum cut against trying every assignment."""

from __future__ import annotations

import itertools

from hypothesis import given, settings
from hypothesis import strategies as st

from edgec.backends.tflite.layout.cut import minimum_cut

costs = st.integers(-20, 20)


@st.composite
def energies(draw: st.DrawFn) -> tuple[list[int], list[int], list[tuple[int, int, int]]]:
    """Costs of keeping and of taking, and pair terms, for up to 7 nodes."""
    count = draw(st.integers(1, 7))
    keep = draw(st.lists(costs, min_size=count, max_size=count))
    take = draw(st.lists(costs, min_size=count, max_size=count))
    node = st.integers(0, count - 1)
    pairs = draw(st.lists(st.tuples(node, node, st.integers(0, 20)), max_size=15))
    return keep, take, [p for p in pairs if p[0] != p[1]]


def energy(keep: list[int], take: list[int], pairs: list[tuple[int, int, int]], x: tuple[bool, ...]) -> int:
    single = sum(t if taken else k for k, t, taken in zip(keep, take, x, strict=True))
    return single + sum(c for i, j, c in pairs if not x[i] and x[j])


@settings(max_examples=300, deadline=None)
@given(energies())
def test_it_is_a_minimum(case: tuple[list[int], list[int], list[tuple[int, int, int]]]) -> None:
    keep, take, pairs = case
    best = min(energy(keep, take, pairs, x) for x in itertools.product((False, True), repeat=len(keep)))
    assert energy(keep, take, pairs, tuple(minimum_cut(keep, take, pairs))) == best


def test_no_nodes() -> None:
    assert minimum_cut([], [], []) == []


def test_a_strong_pair_moves_together() -> None:
    # node 1 gains 5 by taking, but only together with node 0, which loses 3
    assert minimum_cut([0, 5], [3, 0], [(0, 1, 100)]) == [True, True]
    assert minimum_cut([0, 5], [9, 0], [(0, 1, 100)]) == [False, False]


def test_many_nodes_in_a_row() -> None:
    # the last node gains 1 by taking; a neighbour left behind would cost 10, so all of them go
    count = 500
    pairs = [(i, i + 1, 10) for i in range(count - 1)]
    assert minimum_cut([0] * count, [0] * (count - 1) + [-1], pairs) == [True] * count
