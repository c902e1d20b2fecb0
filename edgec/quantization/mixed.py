"""Mixed precision: leave in float the fewest units that a budget demands, the most harmful ones first.

1. Noise of different units adds up at the output, so a unit's harm is the noise that the model has when it alone is
   quantized. One forward pass of a few samples a unit gives it; many units are taken in blocks of neighbours, which
   bounds the cost.
2. Blocks are ranked by their harm over what float costs there, in multiplications: the least of them that meets a
   budget is also a fast one.
3. A growing number of the first stay float until the budget holds; then the number is halved back to the fewest.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from edgec.graph.model import Model
from edgec.metrics import MAX_DB
from edgec.quantization.apply import apply_plan
from edgec.quantization.costs import multiplications
from edgec.quantization.types import QuantPlan, TensorPlan

#: Blocks that are ranked at most.
MAX_BLOCKS = 48

#: Share of the quantized nodes that may go back to float before int8 has lost its sense.
MAX_SHARE = 0.2

_STATIC = ("int8", "int16x8")

Make = Callable[[Collection[str]], QuantPlan]


@dataclass(frozen=True, kw_only=True, slots=True)
class Harm:
    """What quantizing a block of nodes alone does to the output, in dB of signal to noise.

    `cost` is the block's share of the model's multiplications.
    """

    nodes: tuple[str, ...]
    sqnr_db: float
    cost: float = 0.0

    @property
    def noise(self) -> float:
        """Noise power over signal power."""
        return 0.0 if self.sqnr_db >= MAX_DB else float(10 ** (-self.sqnr_db / 10))


@dataclass(frozen=True, kw_only=True, slots=True)
class Verdict:
    """Whether a model keeps the budget, and its figures in words."""

    met: bool
    words: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Point:
    """One mix that was tried: nodes in float, their share of the multiplications, and what it computes."""

    float_nodes: int
    float_share: float
    sqnr_db: float
    met: bool
    words: str

    def as_dict(self) -> dict[str, Any]:
        """A JSON-ready dict."""
        return {
            "float_nodes": self.float_nodes,
            "float_share": round(self.float_share, 4),
            "sqnr_db": round(self.sqnr_db, 2),
            "met": self.met,
            "judged": self.words,
        }


@dataclass(frozen=True, kw_only=True, slots=True)
class Mixed:
    """A plan with some nodes in float, its QDQ model, and the frontier: the mixes tried, fewest float nodes first."""

    plan: QuantPlan
    model: Model
    float_nodes: tuple[str, ...]
    met: bool
    frontier: tuple[Point, ...]

    def as_dict(self) -> dict[str, Any]:
        """A JSON-ready dict."""
        return {
            "float_nodes": list(self.float_nodes),
            "met": self.met,
            "frontier": [point.as_dict() for point in self.frontier],
        }


def rank(
    model: Model,
    plan: QuantPlan,
    make: Make,
    score: Callable[[Model], float],
    progress: Callable[[int, int], None] | None = None,
) -> tuple[Harm, ...]:
    """The blocks of quantized nodes, the most harmful for their cost first (rules 1, 2).

    `score` gives a model's dB on a few samples.
    """
    quantized = [name for name, node in plan.nodes.items() if node.scheme in _STATIC]
    everything = {n.name or "" for n in model.nodes()}
    work = {n.name or "": multiplications(n) for n in model.nodes()}
    total = sum(work.values()) or 1
    blocks = _blocks(plan, quantized)
    harms = []
    for number, block in enumerate(blocks):
        if progress is not None:
            progress(number, len(blocks))
        alone = make(everything - set(block))
        if any(node.scheme in _STATIC for node in alone.nodes.values()):
            db = score(apply_plan(model, keep_integers(alone, plan)))
            harms.append(Harm(nodes=block, sqnr_db=db, cost=sum(work[n] for n in block) / total))
    usual = sum(h.cost for h in harms) / max(len(harms), 1)  # a block costs its dispatch and conversions too
    return tuple(sorted(harms, key=lambda h: -h.noise / ((h.cost + usual) or 1)))


def _blocks(plan: QuantPlan, quantized: Sequence[str]) -> list[tuple[str, ...]]:
    """Units, a head with what is fused to it, in as few blocks as allowed."""
    units: list[list[str]] = []
    for name in quantized:
        if units and plan.nodes[name].reason.startswith("part of the kernel of"):
            head = plan.nodes[name].reason.split("'")[1] if "'" in plan.nodes[name].reason else ""
            own = next((unit for unit in units if unit[0] == head), units[-1])
            own.append(name)
        else:
            units.append([name])
    size = -(-len(units) // MAX_BLOCKS) if units else 1
    return [tuple(n for unit in units[i : i + size] for n in unit) for i in range(0, len(units), size)]


def revert(
    model: Model,
    plan: QuantPlan,
    harms: Sequence[Harm],
    make: Make,
    score: Callable[[Model], float],
    judge: Callable[[Model], Verdict],
    *,
    target_db: float | None,
    max_share: float = MAX_SHARE,
    progress: Callable[[int, int], None] | None = None,
) -> Mixed:
    """Leave the first blocks in float, as few as `judge` asks for, at most `max_share` of the nodes (rule 3).

    `target_db` says where to begin, where the budget is one of signal to noise.
    """
    quantized = sum(node.scheme in _STATIC for node in plan.nodes.values())
    allowed = min(_within(harms, max_share * quantized), len(harms) - 1)  # all of it in float is another precision
    tried: dict[int, tuple[QuantPlan, tuple[str, ...], Point]] = {}

    def attempt(count: int) -> bool:
        names = tuple(n for harm in harms[:count] for n in harm.nodes)
        mixed = keep_integers(make(names), plan)
        candidate = apply_plan(model, mixed)
        verdict = judge(candidate)
        point = Point(
            float_nodes=len(names),
            float_share=sum(h.cost for h in harms[:count]),
            sqnr_db=score(candidate),
            met=verdict.met,
            words=verdict.words,
        )
        tried[count] = mixed, names, point
        if progress is not None:
            progress(len(tried), len(tried) + _left(low, count if verdict.met else None, allowed))
        return verdict.met

    low, high = 0, None
    count = min(1 if target_db is None else _predicted(harms, target_db), allowed)
    while 0 < count <= allowed:
        if attempt(count):
            high = count
            break
        low = count
        if count == allowed:
            break
        count = min(allowed, count + max(1, count // 2))
    while high is not None and high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if attempt(middle) else (middle, high)
    if not tried:
        return Mixed(plan=plan, model=apply_plan(model, plan), float_nodes=(), met=False, frontier=())
    best, names, _ = tried[low if high is None else high]
    points = tuple(point for _, (_, _, point) in sorted(tried.items()))
    return Mixed(plan=best, model=apply_plan(model, best), float_nodes=names, met=high is not None, frontier=points)


def _left(low: int, high: int | None, allowed: int) -> int:
    """How many more mixes will be tried, about."""
    return max(0, math.ceil(math.log2(max((allowed if high is None else high) - low, 1))))


def _within(harms: Sequence[Harm], nodes: float) -> int:
    """How many blocks fit into a number of nodes."""
    sizes = np.cumsum([len(h.nodes) for h in harms]) if harms else np.zeros(0)
    return int(np.searchsorted(sizes, nodes, side="right"))


def _predicted(harms: Sequence[Harm], target_db: float) -> int:
    """Blocks to take out until the noise of the others, added up, is within the target; at least 1."""
    noise = np.asarray([h.noise for h in harms])
    left = noise.sum() - np.cumsum(noise)
    return int(np.argmax(left <= 10 ** (-target_db / 10))) + 1 if len(harms) else 0


def keep_integers(plan: QuantPlan, repaired: QuantPlan) -> QuantPlan:
    """`plan` with the integers of an earlier, repaired plan wherever the parameters are still the same."""

    def kept(mine: dict[str, TensorPlan], theirs: dict[str, TensorPlan]) -> dict[str, TensorPlan]:
        return {
            key: theirs[key] if key in theirs and _same(entry, theirs[key]) else entry for key, entry in mine.items()
        }

    return replace(
        plan,
        weights=kept(dict(plan.weights), dict(repaired.weights)),
        biases=kept(dict(plan.biases), dict(repaired.biases)),
    )


def _same(one: TensorPlan, other: TensorPlan) -> bool:
    return (one.dtype, one.qparams) == (other.dtype, other.qparams)
