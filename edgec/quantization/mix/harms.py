"""How much noise each rounding of a plan makes at the output: of a node's weights, and of values that share a scale.

A plan of int8 weights alone has no such values: what its kernels round at run time counts with their weights.

1. One session holds the float model with a switch at every rounding (`alone`); a source's noise is that of the model
   with its switch alone on, over the signal, from one pass of each of a few samples.
2. Where there are more than `MAX_SOURCES`, neighbours share a switch, and what is measured is split evenly.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

import numpy as np

from edgec.graph.model import Model, const_of
from edgec.quantization.mix.allowance import Rounded
from edgec.quantization.mix.alone import SWITCHES, Switched, float_outputs, judged, power
from edgec.quantization.run.apply import integers_of
from edgec.quantization.run.executor import Executor
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

    `rows`: a node's switch rounds what it reads as well, row by row, as kernels do at run time.
    """
    constants = _constants(model, plan)
    if rows:  # also of nodes whose weights lose nothing
        constants = {n: constants.get(n, {}) for n, node in plan.nodes.items() if node.scheme == "dynamic"}
    weights, values = _shared(list(constants)), _shared(range(len(groups)))
    session = _Session(model, plan, feeds, len(weights) + len(values))

    def measured(switch: int) -> float:
        progress(switch * len(feeds), session.switches * len(feeds))
        if not session.ready:
            for i, names in enumerate(weights):
                for name in names:
                    session.swap(name, constants[name], i)
                    if rows:
                        session.editor.round_rows(name, i)
            for i, members in enumerate(values):
                for value in (v for m in members for v in groups[m].values):
                    session.editor.round(value, len(weights) + i)
        return session.noise(switch)

    found = [keep(str(switch), partial(measured, switch)) for switch in range(session.switches)]
    return Harms(
        weights={n: found[i] / len(names) for i, names in enumerate(weights) for n in names},
        values=[found[len(weights) + i] / len(members) for i, members in enumerate(values) for _ in members],
    )


class _Session:
    """The switched model, opened when the first measurement is not remembered."""

    def __init__(self, model: Model, plan: QuantPlan, feeds: Sequence[Mapping[str, Array]], switches: int) -> None:
        self._outputs, self._feeds, self.switches = float_outputs(model), feeds, switches
        self._model, self._plan = model, plan
        self._editor: Switched | None = None
        self._executor: Executor | None = None
        self._exact: list[list[Array]] = []

    @property
    def ready(self) -> bool:
        """Whether the session is open."""
        return self._executor is not None

    @property
    def editor(self) -> Switched:
        """The model to be switched, made at the first look."""
        if self._editor is None:
            self._editor = Switched(self._model, self._plan, self.switches)
        return self._editor

    def swap(self, node: str, constants: Mapping[int, Array], switch: int) -> None:
        """Put a node's rounded constants behind a switch."""
        for position, real in constants.items():
            self.editor.swap(node, position, real, switch)

    def noise(self, switch: int) -> float:
        """Rule 1; the mean over the outputs."""
        if self._executor is None:
            names = [self.editor.stand_in(judged(v)) for v in self._outputs]
            self._executor = Executor(self.editor.model, fetch=names, any_layout=True)
            self._exact = list(self._runs(None))
        noise, signal = np.zeros(len(self._outputs)), np.zeros(len(self._outputs))
        for found, exact in zip(self._runs(switch), self._exact, strict=True):
            noise += [power(f.astype(np.float64) - e) for f, e in zip(found, exact, strict=True)]
            signal += [power(e) for e in exact]
        relative = noise / np.maximum(signal, np.finfo(np.float64).tiny)
        return float(relative.mean()) if self._outputs else 0.0

    def _runs(self, switch: int | None) -> Iterator[list[Array]]:
        """The outputs for each sample, with one switch on, or none."""
        assert self._executor is not None
        on = np.arange(self.switches) == (-1 if switch is None else switch)
        for found in self._executor.run_all({**feed, SWITCHES: on} for feed in self._feeds):
            yield list(found.values())


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
