"""How much noise each rounding of a plan makes at the output: of a node's weights, and of values that share a scale.

What kernels with int8 weights beside float data round at run time counts with their weights.

1. The float model gets a switch at every rounding (`alone`); a source's noise is that of the model with its switch
   alone on, over the signal, from one pass of each of a few samples.
2. Where there are more than `MAX_SOURCES`, neighbours share a switch, and what is measured is split evenly.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from typing import TypeVar

import numpy as np

from edgec.graph.model import Model, const_of
from edgec.quantization.mix.allowance import Rounded
from edgec.quantization.mix.alone import Passes, Switched, float_outputs
from edgec.quantization.run.apply import integers_of
from edgec.quantization.types import QuantPlan
from edgec.quantization.use_keys import lookup
from edgec.tensors import Array, DType

#: Switches of weights at most, and as many of values.
MAX_SOURCES = 48

_T = TypeVar("_T")

#: A result by its name, remembered or measured.
Keep = Callable[[str, Callable[[], float]], float]


@dataclass(frozen=True, kw_only=True, slots=True)
class Harms:
    """Noise over signal: of the weights of each node, and of each group of values by its position."""

    weights: Mapping[str, float]
    values: Sequence[float]


def measure_harms(
    model: Model,
    plan: QuantPlan,
    groups: Sequence[Rounded],
    feeds: Sequence[Mapping[str, Array]],
    *,
    keep: Keep,
    progress: Callable[[int, int], None],
    rows: bool = False,
) -> Harms:
    """The noise of every source of a plan of `model`. `progress` counts passes.

    `rows`: the switch of a node with int8 weights beside float data rounds what it reads as well, row by row, as its
    kernel does at run time; values of `groups` are rounded there.
    """
    constants = _constants(model, plan)
    at_run_time = _round_rows(model, plan) if rows else frozenset()
    # Also nodes whose weights lose nothing; in graph order, as neighbours share a switch.
    constants = {n: constants.get(n, {}) for n in plan.nodes if n in constants or n in at_run_time}
    weights, values = _shared(list(constants)), _shared(range(len(groups)))
    count = len(weights) + len(values)

    @cache  # not before the first measurement that is not remembered
    def passes() -> Passes:
        editor = Switched(model, plan, count)
        for i, names in enumerate(weights):
            for name in names:
                for position, real in constants[name].items():
                    editor.swap(name, position, real, i)
                if name in at_run_time:
                    editor.round_rows(name, i)
        for i, members in enumerate(values):
            for value in (v for m in members for v in groups[m].values):
                editor.round(value, len(weights) + i)
        return Passes(editor, float_outputs(model), feeds)

    def measured(switch: int) -> float:
        progress(switch * len(feeds), count * len(feeds))
        return passes().noise([switch])[0]

    found = [keep(str(switch), partial(measured, switch)) for switch in range(count)]
    return Harms(
        weights={n: found[i] / len(names) for i, names in enumerate(weights) for n in names},
        values=[found[len(weights) + i] / len(members) for i, members in enumerate(values) for _ in members],
    )


def _round_rows(model: Model, plan: QuantPlan) -> frozenset[str]:
    """Nodes with int8 weights alone, by name, that read what nothing has rounded."""
    return frozenset(
        n.name or ""
        for n in model.nodes()
        if plan.nodes[n.name or ""].scheme == "dynamic"
        and n.inputs[0] is not None
        and n.inputs[0].name not in plan.activations
    )


def _constants(model: Model, plan: QuantPlan) -> dict[str, dict[int, Array]]:
    """The numbers that stand in place of each node's constants, by the input's position; nodes in graph order."""
    found: dict[str, dict[int, Array]] = {}
    for node in model.nodes():
        name = node.name or ""
        if plan.nodes[name].scheme in ("float16", "float32"):
            continue
        for position, value in enumerate(node.inputs):
            constant = const_of(value)
            if value is None or constant is None or constant.dtype.kind != "f":
                continue
            hit = lookup(plan.biases, value.name or "", name) or lookup(plan.weights, value.name or "", name)
            if hit is None:
                continue
            entry = hit[1]
            real = entry.qparams.dequantize(integers_of(constant, entry)).astype(np.float32)
            if entry.dtype is not DType.FLOAT16 and not np.array_equal(real, constant):
                found.setdefault(name, {})[position] = real
    return found


def _shared(items: Sequence[_T]) -> list[list[_T]]:
    """Rule 2."""
    size = max(1, -(-len(items) // MAX_SOURCES))
    return [list(items[i : i + size]) for i in range(0, len(items), size)]
