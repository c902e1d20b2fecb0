"""Permutations of axes: stored axis i of a tensor is its logical axis perm[i] (numpy transpose convention)."""

from __future__ import annotations

from collections.abc import Sequence

Perm = tuple[int, ...]


def identity(rank: int) -> Perm:
    """The order that changes nothing."""
    return tuple(range(rank))


def inverse(perm: Perm) -> Perm:
    """The permutation that undoes `perm`."""
    result = [0] * len(perm)
    for i, p in enumerate(perm):
        result[p] = i
    return tuple(result)


def stored_shape(shape: Sequence[int], perm: Perm) -> tuple[int, ...]:
    """The shape in memory."""
    return tuple(shape[p] for p in perm)


def same_bytes(a: Perm, b: Perm, shape: Sequence[int]) -> bool:
    """Whether two orders put the same bytes in the same places: axes of size 1 do not count."""
    if a == b:
        return True
    return [p for p in a if shape[p] != 1] == [p for p in b if shape[p] != 1]


def between(source: Perm, target: Perm) -> Perm:
    """The TRANSPOSE that turns a tensor stored as `source` into one stored as `target`."""
    position = inverse(source)
    return tuple(position[p] for p in target)


def channels_last(rank: int) -> Perm:
    """N, spatial axes, C."""
    return (0, *range(2, rank), 1)


def through_reshape(before: Sequence[int], after: Sequence[int], perm: Perm) -> Perm | None:
    """The storage order of a reshape's result when its input is stored as `perm`; None if bytes would move.

    Both shapes split into the finest groups of adjacent axes with equal products. Axes that a group merges or
    splits must lie together and in order in memory; whole groups may be permuted.
    """
    groups = _groups(before, after)
    if groups is None:
        return None
    group_of = {axis: g for g, (axes, _) in enumerate(groups) for axis in axes}
    order: list[int] = []
    expected: list[int] = []
    for axis in perm:
        if before[axis] == 1:
            continue
        g = group_of[axis]
        members = [a for a in groups[g][0] if before[a] != 1]
        if not expected:
            if axis != members[0]:
                return None
            order.append(g)
            expected = members[1:]
        else:
            if axis != expected[0]:
                return None
            expected = expected[1:]
    result = [axis for g in order for axis in groups[g][1]]
    # unit axes of the result go where they stand in its own shape: next to their left neighbour
    placed = set(result)
    for axis in range(len(after)):
        if axis in placed:
            continue
        position = result.index(axis - 1) + 1 if axis - 1 in placed else 0
        result.insert(position, axis)
        placed.add(axis)
    return tuple(result)


def _groups(before: Sequence[int], after: Sequence[int]) -> list[tuple[list[int], list[int]]] | None:
    """Minimal runs of non-unit axes (of both shapes) with equal products; unit axes belong to no run."""
    left = [i for i, d in enumerate(before) if d != 1]
    right = [i for i, d in enumerate(after) if d != 1]
    if any(before[i] <= 0 for i in left) or any(after[i] <= 0 for i in right):
        return None
    groups: list[tuple[list[int], list[int]]] = []
    i = j = 0
    while i < len(left) and j < len(right):
        a, b = [left[i]], [right[j]]
        pa, pb = before[left[i]], after[right[j]]
        while pa != pb:
            if pa < pb:
                i += 1
                a.append(left[i])
                pa *= before[left[i]]
            else:
                j += 1
                b.append(right[j])
                pb *= after[right[j]]
        groups.append((a, b))
        i, j = i + 1, j + 1
    return groups
