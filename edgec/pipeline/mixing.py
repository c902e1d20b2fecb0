"""Mixed precision in a build: which nodes leave int8, for what, searched on a few samples and judged on all.

What was measured is written down as it comes, so a search that was interrupted goes on where it stopped.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from edgec import __version__
from edgec.errors import EdgecError
from edgec.graph.model import Model
from edgec.pipeline.budget import Budget
from edgec.pipeline.precision import AUTO_MIN_SQNR_DB
from edgec.quantization.calibration.cache import cache_folder, model_digest
from edgec.quantization.measures.judge import Feeds, Judge
from edgec.quantization.mix.allowance import Rounded, rounded_together
from edgec.quantization.mix.costs import Costs, costs_of
from edgec.quantization.mix.harms import Harms, measure_harms
from edgec.quantization.mix.memo import Memo
from edgec.quantization.mix.mixed import Make, Mixed, Search, Verdict, misled_by_noise
from edgec.quantization.mix.reverts import find_way
from edgec.quantization.planning.plan import scheme_of
from edgec.quantization.run.apply import apply_plan
from edgec.quantization.run.run_time import as_run
from edgec.quantization.types import NodeScheme, QuantPlan
from edgec.targets.profile import EstimateFacts, Speed, Target

#: Samples that rank the roundings by the harm that they do.
RANKING_SAMPLES = 4

#: Mixes that a search tries, about: what its progress expects before it knows.
_MIXES = 10


def _assumed(factor: float) -> Speed:
    return Speed(conv=4e9 * factor, depthwise=1.5e9 * factor, dense=3e9 * factor, bytes=3e9 * factor)


#: For comparing mixes where a profile has no coefficients: 8 bits are twice as fast as float.
_ASSUMED = EstimateFacts(
    basis="derived",
    source="assumed",
    factor=10,
    operator_us=1,
    runtime_ram_bytes=0,
    speed={
        "int8": _assumed(1.0),
        "int16x8": _assumed(0.6),
        "dynamic": _assumed(0.8),
        "float16": _assumed(0.5),
        "float32": _assumed(0.5),
    },
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Ground:
    """Where a search takes place: the target and backend, and the precision that nodes leave."""

    target: Target
    backend: str
    usual: NodeScheme

    @property
    def runtime(self) -> str:
        """What an artifact's results depend on beside the model: the target, and the runtime that is here."""
        facts = next(facts for name, facts in self.target.backends.items() if name == self.backend)
        with contextlib.suppress(PackageNotFoundError):
            return f"{self.target.id} {facts.runtime.engine} {facts.runtime.package} {version(facts.runtime.package)}"
        return f"{self.target.id} {facts.runtime.engine} {facts.runtime.package}"


def mix(
    legal: Model,
    plan: QuantPlan,
    make: Make,
    feeds: Feeds,
    budget: Budget,
    outcome: Callable[[Model], dict[str, Any]],
    there: Callable[[Model], dict[str, Any]] | None,
    *,
    ground: Ground,
    data_digests: Sequence[str],
    progress: Callable[[int, int], None],
) -> Mixed:
    """The plan with the fewest nodes reverted that keeps the budget, at the least estimated time; or as it was.

    `outcome` gives a model's fidelity, with its task's metric where the budget has one; `there` that of what the
    backend makes of the model, which has to keep the budget too. `progress` counts samples run.
    """
    few = feeds[:: max(1, len(feeds) // RANKING_SAMPLES)][:RANKING_SAMPLES]
    memo = Memo(cache_folder(), __version__, model_digest(legal), *data_digests, str(len(few)), budget.measures)
    exact = Judge(legal, few)
    scheme = scheme_of(ground.target, ground.backend)
    costs, timed = _costs(legal, ground, scheme.revert_to)
    judged = len(feeds) + (0 if budget.task is None else len(budget.task.labels))
    a_mix = len(few) + (1 if there is None else 2) * judged
    ranked = 0

    def ranking(done: int, total: int) -> None:
        nonlocal ranked
        ranked = total
        progress(done, total + _MIXES * a_mix)

    groups = rounded_together(legal, plan, scheme)

    def harms_of(one: QuantPlan, *, of: Sequence[Rounded]) -> Harms:
        digest = model_digest(apply_plan(legal, one))
        return measure_harms(
            legal,
            one,
            of,
            few,
            keep=lambda name, measure: float(memo.keep(f"noise/{digest}/{len(of)}/{name}", measure)),
            progress=ranking,
            rows=not scheme.widened_weights,
        )

    harms, misled = harms_of(plan, of=groups), frozenset[str]()
    if any(entry.data is not None for entry in plan.weights.values()):
        misled, harms = misled_by_noise(legal, plan, harms, harms_of(make({}), of=()))
    steps = find_way(
        legal,
        plan,
        scheme,
        ground.backend,
        groups,
        harms,
        costs,
        usual=ground.usual,
    )

    def judge(candidate: Model) -> Verdict:
        good, words = budget.keeps(memo.get("outcome", candidate, outcome))
        if not good or there is None:
            return Verdict(met=good, words=words)
        try:
            good, found = budget.keeps(memo.get(f"there/{ground.runtime}", candidate, there))
        except EdgecError as error:
            return Verdict(met=False, words=f"{words}, but {error.finding.message}")
        return Verdict(met=good, words=words if good else f"{words}, but {found} in its runtime")

    search = Search(
        model=legal,
        plan=plan,
        make=make,
        score=lambda candidate: float(memo.get("db as run", candidate, lambda m: exact(as_run(m, scheme)))),
        judge=judge,
        costs=costs,
        usual=ground.usual,
        timed=timed,
        misled=misled,
    )
    target_db = budget.min_sqnr if budget.asked else AUTO_MIN_SQNR_DB
    found = search.run(
        steps,
        target_db=target_db,
        progress=lambda done, total: progress(ranked + done * a_mix, ranked + total * a_mix),
    )
    return replace(found, taken_up=memo.taken_up)


def _costs(legal: Model, ground: Ground, forms: Sequence[NodeScheme]) -> tuple[Costs, bool]:
    """Costs of all that nodes may run in, and whether they are the target's own figures."""
    wanted = {ground.usual, *forms}
    known = costs_of(legal, ground.target, ground.backend, forms=wanted)
    if known is not None:
        return known, True
    assumed = ground.target.model_copy(update={"estimate": _ASSUMED})
    found = costs_of(legal, assumed, ground.backend, forms=wanted)
    assert found is not None
    return found, False
