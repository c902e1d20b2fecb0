"""Mixed precision: leave in float the fewest units that a budget demands, the most harmful ones first.

Noise of different units adds up at the output, so a unit's harm is the noise that the model has when it alone is
quantized. One forward pass of a few samples a unit gives the ranking; many units are taken in blocks of neighbours,
which bounds the cost. Then a growing number of the worst stay float until the budget holds.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from edgec.graph.model import Model
from edgec.metrics import MAX_DB
from edgec.quantization.apply import apply_plan
from edgec.quantization.types import QuantPlan, TensorPlan

#: Blocks that are ranked at most.
MAX_BLOCKS = 48

#: Share of the quantized nodes that may go back to float before int8 has lost its sense.
MAX_SHARE = 0.2

_STATIC = ("int8", "int16x8")

Make = Callable[[Collection[str]], QuantPlan]


@dataclass(frozen=True, kw_only=True, slots=True)
class Harm:
    """What quantizing a block of nodes alone does to the output, in dB of signal to noise."""

    nodes: tuple[str, ...]
    sqnr_db: float

    @property
    def noise(self) -> float:
        """Noise power over signal power."""
        return 0.0 if self.sqnr_db >= MAX_DB else float(10 ** (-self.sqnr_db / 10))


@dataclass(frozen=True, kw_only=True, slots=True)
class Mixed:
    """A plan with some nodes in float, its QDQ model, and the points of the way there: (nodes in float, dB)."""

    plan: QuantPlan
    model: Model
    float_nodes: tuple[str, ...]
    met: bool
    frontier: tuple[tuple[int, float], ...]

    def as_dict(self) -> dict[str, Any]:
        """A JSON-ready dict."""
        points = [{"float_nodes": count, "sqnr_db": round(db, 2)} for count, db in self.frontier]
        return {"float_nodes": list(self.float_nodes), "met": self.met, "frontier": points}


def rank(model: Model, plan: QuantPlan, make: Make, score: Callable[[Model], float]) -> tuple[Harm, ...]:
    """The blocks of quantized nodes, the most harmful first. `score` gives a model's dB on a few samples."""
    quantized = [name for name, node in plan.nodes.items() if node.scheme in _STATIC]
    everything = {n.name or "" for n in model.nodes()}
    harms = []
    for block in _blocks(plan, quantized):
        alone = make(everything - set(block))
        if any(node.scheme in _STATIC for node in alone.nodes.values()):
            harms.append(Harm(nodes=block, sqnr_db=score(apply_plan(model, keep_integers(alone, plan)))))
    return tuple(sorted(harms, key=lambda h: h.sqnr_db))


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
    good: Callable[[Model], bool],
    *,
    target_db: float,
    max_share: float = MAX_SHARE,
) -> Mixed:
    """Leave the worst blocks in float, ever more of them, until `good` says so or `max_share` of the nodes is float."""
    quantized = sum(node.scheme in _STATIC for node in plan.nodes.values())
    allowed = min(_within(harms, max_share * quantized), len(harms) - 1)  # all of it in float is another precision
    frontier: list[tuple[int, float]] = []
    best: Mixed | None = None
    count = min(_predicted(harms, target_db), allowed)
    while 0 < count <= allowed:
        names = tuple(n for harm in harms[:count] for n in harm.nodes)
        mixed = keep_integers(make(names), plan)
        candidate = apply_plan(model, mixed)
        frontier.append((len(names), score(candidate)))
        best = Mixed(plan=mixed, model=candidate, float_nodes=names, met=good(candidate), frontier=tuple(frontier))
        if best.met or count == allowed:
            return best
        count = min(allowed, count + max(1, count // 2))
    if best is not None:
        return best
    return Mixed(plan=plan, model=apply_plan(model, plan), float_nodes=(), met=False, frontier=())


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
