"""A forest as one decision diagram whose every question is `column ≤ value`: equal subtrees exist once.

Columns are the features, and what is made of them so that one comparison, exact in float32, serves all modes:
    x ≤ t  asks column x;            x ≥ t is −x ≤ −t;
    x > t  and x < t are the other two with `yes` and `no` exchanged.
A missing value (NaN) answers no. Where it must answer yes, a copy of the column has −∞ in its place.
    x = t  is x ≤ t, then x ≥ t; membership in a set is a search among its sorted members.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

from edgec.passes.decompose.trees_read import Branch, Forest, Leaf
from edgec.tensors import Array


@dataclass(frozen=True, order=True, slots=True)
class Column:
    """One column that is compared: a feature, perhaps negated, perhaps with −∞ for missing values.

    In order, columns of one kind stand side by side.
    """

    negated: bool
    missing_low: bool
    feature: int


@dataclass(frozen=True, slots=True)
class Diagram:
    """Tables by node: leaves come first, and lead to themselves. `roots` has one node a tree."""

    columns: tuple[Column, ...]
    leaves: tuple[tuple[tuple[int, float], ...], ...]
    column: Array
    value: Array
    yes: Array
    no: Array
    roots: Array
    steps: int


_Question = tuple[Column, float, int, int]


@dataclass(slots=True)
class _Maker:
    """Nodes by what they are. Leaves have numbers ≥ 0, questions −1, −2, …"""

    leaves: dict[tuple[tuple[int, float], ...], int] = field(default_factory=dict)
    questions: dict[_Question, int] = field(default_factory=dict)
    heights: list[int] = field(default_factory=list)

    def leaf(self, weights: tuple[tuple[int, float], ...]) -> int:
        return self.leaves.setdefault(weights, len(self.leaves))

    def height(self, node: int) -> int:
        return 0 if node >= 0 else self.heights[-node - 1]

    def ask(self, column: Column, value: float, yes: int, no: int) -> int:
        if yes == no:
            return yes
        question = (column, value, yes, no)
        known = self.questions.get(question)
        if known is None:
            known = -len(self.questions) - 1
            self.questions[question] = known
            self.heights.append(1 + max(self.height(yes), self.height(no)))
        return known

    def branch(self, b: Branch, yes: int, no: int) -> int:
        if b.mode in ("LEQ", "GT"):
            return self._compare(b, b.value, yes, no, negated=False, swapped=b.mode == "GT")
        if b.mode in ("GTE", "LT"):
            return self._compare(b, -b.value, yes, no, negated=True, swapped=b.mode == "LT")
        if b.mode == "EQ":
            return self._equal(b, b.value, yes, no)
        if b.mode == "NEQ":  # NaN differs from everything, whatever the node says of missing values
            return self._equal(Branch("EQ", b.feature, b.value, False, 0, 0), b.value, no, yes)
        if b.mode == "MEMBER":
            return self._member(b, sorted(set(b.members)), yes, no)
        raise ValueError(f"no mode {b.mode}")

    def _compare(self, b: Branch, value: float, yes: int, no: int, *, negated: bool, swapped: bool) -> int:
        column = Column(negated, b.missing_is_yes != swapped, b.feature)
        return self.ask(column, value, no, yes) if swapped else self.ask(column, value, yes, no)

    def _equal(self, b: Branch, value: float, yes: int, no: int) -> int:
        above = self._compare(b, -value, yes, no, negated=True, swapped=False)
        return self._compare(b, value, above, no, negated=False, swapped=False)

    def _member(self, b: Branch, members: list[float], yes: int, no: int) -> int:
        if not members:  # only a missing value can be a member of nothing
            return self._compare(b, -np.inf, yes, no, negated=False, swapped=False) if b.missing_is_yes else no
        if len(members) == 1:
            return self._equal(b, members[0], yes, no)
        half = (len(members) + 1) // 2
        below = self._member(b, members[:half], yes, no)
        above = self._member(b, members[half:], yes, no)
        return self._compare(b, members[half - 1], below, above, negated=False, swapped=False)


def diagram_of(forest: Forest) -> Diagram | None:
    """The diagram; None for a forest with a circle in it, or a mode that ONNX has not."""
    maker = _Maker()
    try:
        roots = _nodes(forest, maker)
    except (ValueError, IndexError):
        return None
    leaves, questions = len(maker.leaves), list(maker.questions)
    columns = tuple(sorted({question[0] for question in questions}))
    place = {column: i for i, column in enumerate(columns)}
    itself = np.arange(leaves, dtype=np.int32)

    def number(node: int) -> int:
        return node if node >= 0 else leaves - node - 1

    def table(start: Array, rest: Iterator[float], kind: type) -> Array:
        return np.concatenate([start.astype(kind), np.fromiter(rest, kind, len(questions))])

    nothing = np.zeros(leaves)
    return Diagram(
        columns=columns,
        leaves=tuple(maker.leaves),
        column=table(nothing, (place[q[0]] for q in questions), np.int32),
        value=table(nothing, (q[1] for q in questions), np.float32),
        yes=table(itself, (number(q[2]) for q in questions), np.int32),
        no=table(itself, (number(q[3]) for q in questions), np.int32),
        roots=np.asarray([number(root) for root in roots], np.int32),
        steps=max((maker.height(root) for root in roots), default=0),
    )


def _nodes(forest: Forest, maker: _Maker) -> list[int]:
    """Each root's node. Children are made before their parents, without recursion: trees may be deep."""
    made: dict[int, int] = {}
    open_: set[int] = set()
    for root in forest.roots:
        stack = [root]
        while stack:
            at = stack[-1]
            entry = forest.entries[at]
            if at in made:
                stack.pop()
            elif isinstance(entry, Leaf):
                made[at] = maker.leaf(entry.weights)
            elif entry.yes in made and entry.no in made:
                made[at] = maker.branch(entry, made[entry.yes], made[entry.no])
            elif at in open_:
                raise ValueError("a tree leads back into itself")
            else:
                open_.add(at)
                stack += [end for end in (entry.no, entry.yes) if end not in made]
    return [made[root] for root in forest.roots]
