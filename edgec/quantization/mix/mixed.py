"""Mixed precision: of the ways out of int8 (`reverts`) no more than a budget demands, and what was tried on the way.

1. Steps come in an order; a prefix of them is a mix. A growing number is tried until the budget holds, then the number
   is halved back to the fewest. Noise that was predicted says where to begin.
   Where none of them is enough, a few between are tried too, to show what there is to have.
2. Of the steps that are left, the dearest are tried without: what another one made needless goes.
3. Of all mixes that keep the budget, the one with the least estimated time is taken.
4. Weights were repaired for the data that layers really get. Where that was mostly noise, they mend the noise, and
   make their own as soon as a mix takes it away (`misled`): each mix is made with and without them, and the better one
   counts.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from edgec.graph.model import Model, const_of
from edgec.quantization.mix.costs import Costs
from edgec.quantization.mix.harms import Harms
from edgec.quantization.mix.reverts import Step
from edgec.quantization.run.apply import apply_plan
from edgec.quantization.types import NodeScheme, QuantPlan, TensorPlan
from edgec.quantization.use_keys import lookup
from edgec.tensors import Array, DType

#: Rule 2: steps that are tried without, and the share of the mix's extra time that makes one worth it.
_DROPPED = 4
_DEAR = 0.05

#: Rule 1: mixes between, where the budget cannot be met.
_SHOWN = 3

#: Scales that differ by less hold the same integers (a target's exact factors raise them by up to 2^-15).
_SAME_SCALE = 1e-4

#: Rule 4: so many times the noise of the same weights rounded to nearest is no luck.
_MISLED = 2.0

Schemes = Mapping[str, NodeScheme]
Make = Callable[[Schemes], QuantPlan]


@dataclass(frozen=True, kw_only=True, slots=True)
class Verdict:
    """Whether a model keeps the budget, and its figures in words."""

    met: bool
    words: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Point:
    """One mix that was tried: how many nodes run in what, what that is estimated to take, and what it computes.

    `reverted` counts nodes that left the plan's own precision. `estimated_ms` is None without coefficients.
    """

    reverted: int
    nodes: Mapping[str, int]
    estimated_ms: float | None
    weights_bytes: int
    sqnr_db: float
    met: bool
    words: str

    def as_dict(self) -> dict[str, Any]:
        """A JSON-ready dict."""
        return {
            "reverted": self.reverted,
            "nodes": dict(self.nodes),
            "estimated_ms": None if self.estimated_ms is None else float(f"{self.estimated_ms:.4g}"),
            "weights_bytes": self.weights_bytes,
            "sqnr_db": round(self.sqnr_db, 2),
            "judged": self.words,
            "met": self.met,
        }


@dataclass(frozen=True, kw_only=True, slots=True)
class Mixed:
    """The mix that was chosen, its plan and model, and all that were tried, those with fewest reverted nodes first.

    `taken_up` is how many measurements an earlier search had made.
    """

    plan: QuantPlan
    model: Model
    reverted: Schemes
    met: bool
    frontier: tuple[Point, ...]
    chosen: Point | None = None
    taken_up: int = 0

    def as_dict(self) -> dict[str, Any]:
        """A JSON-ready dict, the same however often the search was cut short."""
        frontier = [{**point.as_dict(), "chosen": self.met and point is self.chosen} for point in self.frontier]
        return {"reverted": dict(self.reverted), "met": self.met, "frontier": frontier}


@dataclass(frozen=True, kw_only=True, slots=True)
class Search:
    """What a search is made of. `make` plans the model with some nodes reverted; `score` gives dB on a few samples;
    `judge` says whether a model keeps the budget. Something has to be left in `usual`, or it is another precision.
    `timed` is False where `costs` are good for comparing alone; `misled` are the keys of rule 4."""

    model: Model
    plan: QuantPlan
    make: Make
    score: Callable[[Model], float]
    judge: Callable[[Model], Verdict]
    costs: Costs
    usual: NodeScheme = "int8"
    timed: bool = True
    misled: Collection[str] = ()

    def run(
        self,
        steps: Sequence[Step],
        *,
        target_db: float | None = None,
        progress: Callable[[int, int], None] | None = None,
    ) -> Mixed:
        """Rules 1 to 3. `target_db` is a budget of signal to noise; `progress` counts mixes, done and expected."""
        tries = _Tries(self, steps, progress)
        start = tries.of(())
        if start.point.met:
            return tries.best()
        low, high = 0, None
        count = 1 if target_db is None else _predicted(steps, target_db - start.point.sqnr_db)
        while 0 < count <= len(steps):
            if tries.first(count).enough:
                high = count
                break
            low, count = count, min(len(steps), count + max(1, count // 2))
            if low == count:
                break
        while high is not None and high - low > 1:
            middle = (low + high) // 2
            low, high = (low, middle) if tries.first(middle).enough else (middle, high)
        if high is None:
            for part in range(1, _SHOWN + 1):
                tries.first(len(steps) * part // (_SHOWN + 1))
        else:
            tries.without_the_dearest(tuple(range(high)))
        return tries.best()


@dataclass(frozen=True, kw_only=True, slots=True)
class _Tried:
    """`enough`: the budget is met, were it not for nothing being left in the usual precision."""

    plan: QuantPlan
    reverted: Schemes
    seconds: float
    point: Point
    enough: bool


class _Tries:
    """Mixes by the positions of their steps, each made once."""

    def __init__(self, search: Search, steps: Sequence[Step], progress: Callable[[int, int], None] | None) -> None:
        self._search, self._steps = search, steps
        self._known: dict[tuple[int, ...], _Tried] = {}
        self._progress = progress or (lambda _done, _total: None)

    def first(self, count: int) -> _Tried:
        """The mix of the first steps."""
        return self.of(tuple(range(count)))

    def of(self, positions: tuple[int, ...]) -> _Tried:
        """Plan, measure and judge a mix."""
        if positions not in self._known:
            expected = 2 + math.ceil(math.log2(len(self._steps) + 1)) + min(_DROPPED, len(self._steps))
            self._progress(len(self._known), max(expected, len(self._known) + 1))
            self._known[positions] = self._try(positions)
        return self._known[positions]

    def _try(self, positions: tuple[int, ...]) -> _Tried:
        search = self._search
        asked = {n: form for i in positions for n, form in self._steps[i].changes.items()}
        plan, candidate, score = self._best_integers(search.make(asked) if asked else None)
        verdict = judged = search.judge(candidate)
        schemes = {name: node.scheme for name, node in plan.nodes.items()}
        reverted = {n: form for n, form in schemes.items() if form != search.plan.nodes[n].scheme}
        seconds = search.costs.total_seconds(schemes)
        forms = sorted(set(schemes.values()))
        if search.usual not in forms and asked:
            verdict = Verdict(met=False, words=f"{judged.words}, with nothing left in {search.usual}")
        point = Point(
            reverted=len(reverted),
            nodes={form: sum(s == form for s in schemes.values()) for form in forms},
            estimated_ms=1e3 * seconds if search.timed else None,
            weights_bytes=search.costs.total_bytes(schemes),
            sqnr_db=score,
            met=verdict.met,
            words=verdict.words,
        )
        plan = self._with_reasons(plan, positions)
        return _Tried(plan=plan, reverted=reverted, seconds=seconds, point=point, enough=judged.met)

    def _best_integers(self, plan: QuantPlan | None) -> tuple[QuantPlan, Model, float]:
        """A mix with what was repaired, but for what rule 4 finds better without; its model and dB. None: no mix."""
        search = self._search
        plans = [search.plan] if plan is None else [keep_integers(plan, search.plan)]
        if plan is not None and search.misled:
            plans.append(keep_integers(plan, search.plan, but=search.misled))
        models = [apply_plan(search.model, p) for p in plans]
        scores = [search.score(model) for model in models]
        best = scores.index(max(scores))
        return plans[best], models[best], scores[best]

    def _with_reasons(self, plan: QuantPlan, positions: tuple[int, ...]) -> QuantPlan:
        """Why a node was reverted stands in the plan."""
        if not positions:
            return plan
        nodes = dict(plan.nodes)
        for step in (self._steps[i] for i in positions):
            why = f"reverted for the accuracy budget: 8 bits here make {100 * step.gain:.2g} % of the noise"
            for name, form in step.changes.items():
                if nodes[name].scheme == form:
                    nodes[name] = replace(nodes[name], reason=why)
        return replace(plan, nodes=nodes)

    def without_the_dearest(self, positions: tuple[int, ...]) -> None:
        """Rule 2."""
        extra = sum(max(self._steps[i].seconds, 0.0) for i in positions)
        dear = sorted(positions, key=lambda i: (-self._steps[i].seconds, -i))[:_DROPPED]
        for i in dear:
            fewer = tuple(p for p in positions if p != i)
            if self._steps[i].seconds > _DEAR * extra and fewer and self.of(fewer).point.met:
                positions = fewer

    def best(self) -> Mixed:
        """Rule 3; the plan as it was where no mix keeps the budget."""
        different = {tuple(sorted(entry.reverted.items())): entry for entry in self._known.values()}
        tried = sorted(different.values(), key=lambda entry: (entry.point.reverted, -entry.seconds))
        frontier = tuple(entry.point for entry in tried)
        met = [entry for entry in tried if entry.point.met]
        chosen = min(met, key=lambda t: (t.seconds, t.point.reverted)) if met else self._known[()]
        return Mixed(
            plan=chosen.plan,
            model=apply_plan(self._search.model, chosen.plan),
            reverted=chosen.reverted,
            met=bool(met),
            frontier=frontier,
            chosen=chosen.point,
        )


def _predicted(steps: Sequence[Step], missing_db: float) -> int:
    """Steps until what is left of the noise is as much less as is missing; at least 1, where there are any."""
    left = 1 - np.cumsum([step.gain for step in steps])
    enough = np.flatnonzero(left <= 10 ** (-max(missing_db, 0.0) / 10))
    return int(enough[0]) + 1 if enough.size else len(steps)


def misled_by_noise(model: Model, plan: QuantPlan, repaired: Harms, plain: Harms) -> tuple[frozenset[str], Harms]:
    """Rule 4: keys of the constants of `plan` that make more noise repaired than rounded to nearest, and the harms with
    those as they are rounded to nearest."""
    worse = {n for n, noise in repaired.weights.items() if noise > _MISLED * plain.weights.get(n, noise)}
    hits = [
        lookup(plans, value.name or "", name)
        for node in model.nodes()
        if (name := node.name or "") in worse
        for value in node.inputs
        if value is not None and const_of(value) is not None
        for plans in (plan.weights, plan.biases)
    ]
    weights = {n: plain.weights[n] if n in worse else noise for n, noise in repaired.weights.items()}
    return frozenset(hit[0] for hit in hits if hit is not None), replace(repaired, weights=weights)


def keep_integers(plan: QuantPlan, repaired: QuantPlan, *, but: Collection[str] = ()) -> QuantPlan:
    """`plan` with the integers of an earlier, repaired plan, wherever the scales are still the same; `but` those keys.

    A repaired bias stays what it is in real numbers, whatever its scale has become.
    """
    weights = {
        key: replace(entry, data=repaired.weights[key].data)
        if key not in but and key in repaired.weights and _same(entry, repaired.weights[key])
        else entry
        for key, entry in plan.weights.items()
    }
    biases = {
        key: replace(entry, data=_rescaled(repaired.biases[key], entry))
        if key not in but and key in repaired.biases
        else entry
        for key, entry in plan.biases.items()
    }
    return replace(plan, weights=weights, biases=biases)


def _same(one: TensorPlan, other: TensorPlan) -> bool:
    mine, theirs = one.qparams, other.qparams
    return (
        (one.dtype, mine.axis, mine.zero_point) == (other.dtype, theirs.axis, theirs.zero_point)
        and len(mine.scale) == len(theirs.scale)
        and np.allclose(mine.scale, theirs.scale, rtol=_SAME_SCALE, atol=0.0)
    )


def _rescaled(old: TensorPlan, new: TensorPlan) -> Array | None:
    """The repaired integers of a bias in the steps of another plan."""
    if old.data is None or old.qparams == new.qparams:
        return old.data
    ratio = np.asarray(old.qparams.scale, np.float64) / np.asarray(new.qparams.scale, np.float64)
    low, high = DType.INT32.limits
    return np.clip(np.rint(old.data.astype(np.float64) * ratio), low, high).astype(np.int32)
