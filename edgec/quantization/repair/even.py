"""The equalised form of a model with statistics of its own.

1. Ranges of channels follow from those of the old model exactly, over all that calibration saw.
2. How values lie within them is observed anew, on some of the samples: of few, the tails would be missing.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from edgec.errors import Finding
from edgec.graph.model import Model
from edgec.quantization.calibration.collect import collect
from edgec.quantization.repair.equalize import Moved, equalize
from edgec.quantization.repair.ladder import Even
from edgec.quantization.types import QuantPlan, Statistics, TensorStats
from edgec.tensors import Array

#: Rule 2.
_SAMPLES = 32


@dataclass(frozen=True, slots=True)
class _Few:
    """Some of the samples, as calibration takes them."""

    feeds: Sequence[dict[str, Array]]
    digest: str = ""
    findings: tuple[Finding, ...] = ()

    @property
    def count(self) -> int:
        return len(self.feeds)

    def __len__(self) -> int:
        return len(self.feeds)

    def __iter__(self) -> Iterator[dict[str, Array]]:
        return iter(self.feeds)


def evener(model: Model, stats: Statistics, feeds: Sequence[Mapping[str, Array]]) -> Even:
    """How the ladder gets the equalised form of a plan's model; `feeds` are samples."""

    def even(plan: QuantPlan) -> tuple[Model, Statistics] | None:
        found = equalize(model, plan, stats)
        if found is None:
            return None
        work, changed = found
        wanted = {name: moved for name, moved in changed.items() if moved.origin in stats.tensors}
        places = np.linspace(0, len(feeds) - 1, min(_SAMPLES, len(feeds)))
        few = [dict(feeds[round(place)]) for place in places]
        seen = collect(work, _Few(few), list(wanted)).merged()
        fresh = {name: _widened(seen[name], stats.tensors[moved.origin], moved) for name, moved in wanted.items()}
        return work, replace(stats, tensors={**stats.tensors, **fresh})

    return even


def _widened(seen: TensorStats, old: TensorStats, moved: Moved) -> TensorStats:
    """Rule 1."""
    if old.channel_min is None or old.channel_max is None or len(old.channel_min) != len(moved.factors):
        return seen
    low, high = old.channel_min / moved.factors, old.channel_max / moved.factors
    return replace(
        seen,
        minimum=min(seen.minimum, float(low.min())),
        maximum=max(seen.maximum, float(high.max())),
        channel_min=low.astype(np.float32),
        channel_max=high.astype(np.float32),
        runs=old.runs,
    )
