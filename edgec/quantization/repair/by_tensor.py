"""Ranges tensor by tensor: where two ways to choose them differ most, the one that costs less noise at the output.

1. Tried are the values whose ranges differ most, as many as a model's size allows; where they hardly differ, either
   will do. Values that share their parameters under both ways count as one.
2. What a range costs is what the model's outputs lose with that value alone rounded (`alone`).
3. A value takes the other way where that costs clearly less, and where the usual one costs something; and all of them
   are worth a trial only where what they save is a good share of what was measured.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from edgec.graph.model import Model
from edgec.graph.work import multiplications
from edgec.quantization.calibration.range_choice import ByTensor, RangeMethod
from edgec.quantization.mix.alone import noise_both_ways
from edgec.quantization.types import QuantPlan
from edgec.tensors import Array

#: Rule 1: groups of values at most and at least, and multiplications that measuring them may take for each way.
_MOST, _FEWEST = 16, 4
_WORK = 2e10

#: Rule 1: steps that differ by less than this ratio are the same.
_SAME = 1.05

#: Rule 3: of all that was measured, less than this share is nothing; clearly less noise; and a share worth a trial.
_NOTHING = 0.02
_LESS = 0.9
_WORTH = 0.1


def by_tensor(
    model: Model,
    plan: QuantPlan,
    usual: RangeMethod,
    others: Mapping[RangeMethod, QuantPlan],
    feeds: Sequence[Mapping[str, Array]],
) -> ByTensor | None:
    """Who should have another range than `usual`, the way of `plan`, gives; None where it would gain little.

    `others` are plans with the ranges of other ways, `feeds` a few samples.
    """
    chosen: dict[str, RangeMethod] = {}
    measured = saved = 0.0
    allowed = int(_WORK / max(sum(multiplications(node) for node in model.nodes()) * max(len(feeds), 1), 1))
    for method, other in others.items():
        groups = _differing(plan, other)[: min(_MOST, max(_FEWEST, allowed))]
        before, after = noise_both_ways(model, (plan, other), groups, feeds)
        least = _NOTHING * sum(before)
        better = [i for i in range(len(groups)) if before[i] > least and after[i] < _LESS * before[i]]
        chosen.update({name: method for i in better for name in groups[i] if name not in chosen})
        measured += sum(before)
        saved += sum(before[i] - after[i] for i in better)
    return ByTensor(usual=usual, others=chosen) if saved > _WORTH * measured else None


def _differing(plan: QuantPlan, other: QuantPlan) -> list[list[str]]:
    """Rule 1: values in groups, those first whose steps differ most."""
    apart: dict[object, tuple[float, list[str]]] = {}
    for name, mine in plan.activations.items():
        theirs = other.activations.get(name)
        if theirs is None or theirs.dtype is not mine.dtype:
            continue
        ratio = max(abs(math.log(a / b)) for a, b in zip(mine.qparams.scale, theirs.qparams.scale, strict=True))
        if ratio > math.log(_SAME):
            apart.setdefault((mine.qparams, theirs.qparams), (ratio, []))[1].append(name)
    return [names for _, names in sorted(apart.values(), key=lambda found: -found[0])]
