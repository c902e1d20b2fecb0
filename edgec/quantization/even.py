"""The equalised form of a model with statistics of its own: only the values that changed are observed again."""

from __future__ import annotations

from dataclasses import replace

from edgec.graph.model import Model
from edgec.quantization.algorithms.equalize import equalize
from edgec.quantization.collect import Samples, collect
from edgec.quantization.ladder import Even
from edgec.quantization.types import QuantPlan, Statistics


def evener(model: Model, stats: Statistics, samples: Samples) -> Even:
    """How the ladder gets the equalised form of a plan's model."""

    def even(plan: QuantPlan) -> tuple[Model, Statistics] | None:
        found = equalize(model, plan, stats)
        if found is None:
            return None
        work, changed = found
        fresh = collect(work, samples, [name for name in changed if name in stats.tensors]).merged()
        return work, replace(stats, tensors={**stats.tensors, **fresh})

    return even
