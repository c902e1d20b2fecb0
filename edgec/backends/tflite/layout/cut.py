"""Minimum of a binary energy with non-negative pair terms, by maximum flow (Dinic's algorithm).

E(x) = Σ keep[i]·(1−x_i) + take[i]·x_i + Σ c·(1−x_i)·x_j over pairs (i, j, c), c ≥ 0.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence


def minimum_cut(keep: Sequence[int], take: Sequence[int], pairs: Sequence[tuple[int, int, int]]) -> list[bool]:
    """x_i of a minimum: True where node i takes."""
    count = len(keep)
    source, sink = count, count + 1
    heads: list[list[int]] = [[] for _ in range(count + 2)]
    target: list[int] = []
    room: list[int] = []

    def add(u: int, v: int, capacity: int) -> None:
        heads[u].append(len(target))
        target.append(v)
        room.append(capacity)
        heads[v].append(len(target))
        target.append(u)
        room.append(0)

    # cut side of the source = keep (x = 0), of the sink = take (x = 1)
    for i in range(count):
        low = min(keep[i], take[i])
        if take[i] > low:
            add(source, i, take[i] - low)
        if keep[i] > low:
            add(i, sink, keep[i] - low)
    for i, j, capacity in pairs:
        if capacity:
            add(i, j, capacity)  # paid when i keeps and j takes
    while True:
        level = _levels(source, heads, target, room)
        if level[sink] < 0:
            return [level[i] < 0 for i in range(count)]
        start = [0] * (count + 2)
        while _augment(source, sink, heads, target, room, level, start):
            pass


def _levels(source: int, heads: list[list[int]], target: list[int], room: list[int]) -> list[int]:
    level = [-1] * len(heads)
    level[source] = 0
    queue = deque([source])
    while queue:
        u = queue.popleft()
        for e in heads[u]:
            if room[e] and level[target[e]] < 0:
                level[target[e]] = level[u] + 1
                queue.append(target[e])
    return level


def _augment(
    source: int,
    sink: int,
    heads: list[list[int]],
    target: list[int],
    room: list[int],
    level: list[int],
    start: list[int],
) -> bool:
    """Push flow along one shortest path; False when none is left at these levels."""
    path: list[int] = []
    u = source
    while u != sink:
        while start[u] < len(heads[u]):
            e = heads[u][start[u]]
            if room[e] and level[target[e]] == level[u] + 1:
                break
            start[u] += 1
        else:
            if u == source:
                return False
            u = target[path.pop() ^ 1]
            start[u] += 1
            continue
        path.append(e)
        u = target[e]
    flow = min(room[e] for e in path)
    for e in path:
        room[e] -= flow
        room[e ^ 1] += flow
    return True
