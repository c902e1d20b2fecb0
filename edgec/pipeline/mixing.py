"""Mixed precision in a build: which nodes go back to float, searched on a few samples and judged on all.

What was measured is written down as it comes, so a search that was interrupted goes on where it stopped.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from edgec.graph.model import Model
from edgec.pipeline.budget import Budget
from edgec.pipeline.precision import AUTO_MIN_SQNR_DB
from edgec.quantization.cache import cache_folder, model_digest
from edgec.quantization.judge import Feeds, Judge
from edgec.quantization.memo import Memo
from edgec.quantization.mixed import Make, Mixed, Verdict, rank, revert
from edgec.quantization.types import QuantPlan

#: Samples that rank the nodes by the harm that quantizing them does.
RANKING_SAMPLES = 4

#: Mixes that a search tries, about: what its progress expects before it knows.
_MIXES = 6


def mix(
    legal: Model,
    plan: QuantPlan,
    make: Make,
    feeds: Feeds,
    budget: Budget,
    outcome: Callable[[Model], dict[str, Any]],
    *,
    data_digests: Sequence[str],
    max_share: float,
    progress: Callable[[int, int], None],
) -> Mixed:
    """The plan with the fewest nodes in float that keeps the budget, or the best there is.

    `outcome` gives a model's fidelity, with its task's metric where the budget has one.
    """
    few = feeds[:: max(1, len(feeds) // RANKING_SAMPLES)][:RANKING_SAMPLES]
    name = "" if budget.task is None else budget.task.metric_name
    memo = Memo(cache_folder(), model_digest(legal), *data_digests, str(len(few)), name)
    exact = Judge(legal, few)

    def score(candidate: Model) -> float:
        return float(memo.get("db", candidate, exact))

    def judge(candidate: Model) -> Verdict:
        good, words = budget.keeps(memo.get("outcome", candidate, outcome))
        return Verdict(met=good, words=words)

    blocks = 0

    def ranked(done: int, total: int) -> None:
        nonlocal blocks
        blocks = total
        progress(done, total + _MIXES)

    def reverted(done: int, total: int) -> None:
        progress(blocks + done, blocks + total)

    target_db = budget.min_sqnr
    if not budget.asked:
        target_db = AUTO_MIN_SQNR_DB
    harms = rank(legal, plan, make, score, ranked)
    return revert(legal, plan, harms, make, score, judge, target_db=target_db, max_share=max_share, progress=reverted)
