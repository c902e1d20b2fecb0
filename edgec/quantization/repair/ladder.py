"""Climb the repair ladder: each rung is tried on samples that it has not learnt from, and kept only where it helps.

1. Ranges: the least-error range of each tensor against the full one, whichever serves the whole model better.
2. Equalisation: differences between channels move from activations into weights (`equalize`).
3. Mixing: all data leaves 8 bits where the runtime multiplies int8 weights as fast beside floats. Elsewhere what
   depthwise convolutions read has a range a channel where channels differ much (`by_channel`), a tensor whose range is
   better chosen another way than the others' gets that (`by_tensor`), and what 8 bits still hurt most leaves them,
   within the target's allowance (`allowance`). Weights are rounded after it, for the layers left.
4. Following: weights rounded, and biases set, so that each layer's output keeps closest to float for what the
   quantized model gives it (`follow`).
5. Rounding: the same for what float gives it (`rounding`), which is surer where samples are few.
6. Bias: each output's mean error goes into its bias (`bias`).
7. 4 and 5 have layers' own errors to show for themselves, and need not gain more than what the judging samples leave
   to luck: the better of them stays unless it is surely worse than rounding to nearest. A mix has the measured noise of
   what it frees: it stays where it gains at all.

Weights are rounded last, and better than to nearest; so rungs 1 to 3 are judged with weights of finer steps, as if that
were done already: what moves differences into weights would not stay otherwise.

Effort `fast` climbs nothing and judges nothing; `balanced` takes rungs 5 and 6 only where 4 is not sure to help; `max`
takes them before it, tries more ranges, learns from more positions, and corrects the biases once more from runs of the
quantized model.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Literal

import numpy as np

from edgec.graph.model import Model, static_shape
from edgec.quantization.calibration.range_choice import RangeChoice, RangeMethod, channels_of, with_channels
from edgec.quantization.measures.judge import Feeds, Judge, Trial
from edgec.quantization.mix.allowance import Mixer, Mixture
from edgec.quantization.repair.bias import STRETCHES, correct_fully, own_shift, shifted
from edgec.quantization.repair.by_channel import worth_by_channel
from edgec.quantization.repair.by_tensor import by_tensor
from edgec.quantization.repair.follow import follow
from edgec.quantization.repair.layers import Layer, find_layers
from edgec.quantization.repair.moments import gather
from edgec.quantization.repair.rounding import Moments, round_rows
from edgec.quantization.run.apply import apply_plan
from edgec.quantization.run.cores import few_collections, in_order, one_thread_a_call, physical_cores
from edgec.quantization.run.run_time import round_at_run_time
from edgec.quantization.types import QuantPlan, Statistics
from edgec.tensors import Array, DType

Effort = Literal["fast", "balanced", "max"]

#: An evener form of the model that a plan is of, with its statistics; None where there is nothing to even out.
Even = Callable[[QuantPlan], tuple[Model, Statistics] | None]
#: Plans a model from its statistics, with one way to choose ranges.
Plan = Callable[[Model, Statistics | None, RangeChoice], QuantPlan]

#: Rounding for a layer's output leaves about a tenth of the noise that rounding to nearest does: a third of the steps.
_FINER = 3.0

#: What a repair has to show to stay: a gain that is worth it and more than luck, one that is more than luck, any gain,
#: or no loss that is more than luck.
Need = Literal["worth", "sure", "better", "harmless"]

#: dB that are worth it.
_WORTH_DB = 0.5

#: Repairs that stay without a word of the judge: it has nothing to say of models without float outputs.
_TRUSTED = ("rounding", "bias", "following")

#: Multiplications that one look at all judging samples may take: small models are judged by more.
_JUDGING_WORK = 4e9
_FEWEST = 16

#: How ranges are chosen before anything was tried.
FIRST_RANGES: RangeMethod = "auto"

#: What rungs call the second and third parts of rule 3.
BY_TENSOR = "ranges: tensor by tensor"
BY_CHANNEL = "ranges: channel by channel"

#: Samples that say what each rounding costs (rule 3).
_RANKING = 2


@dataclass(frozen=True, kw_only=True, slots=True)
class Reach:
    """How far an effort goes: the fewest samples to learn from, the most to judge by, positions a sample, and the ways
    to choose ranges that are tried beside the first."""

    learn: int
    judge: int
    positions: int
    ranges: tuple[RangeMethod, ...]
    full_bias: bool


REACH: dict[Effort, Reach] = {
    "fast": Reach(learn=0, judge=0, positions=0, ranges=(), full_bias=False),
    "balanced": Reach(learn=16, judge=50, positions=96, ranges=("minmax",), full_bias=False),
    "max": Reach(learn=50, judge=50, positions=256, ranges=("minmax", "mse", "percentile"), full_bias=True),
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Rung:
    """One repair: what the judging samples said before and after, and whether it stayed."""

    name: str
    before_db: float | None
    after_db: float
    kept: bool
    seconds: float

    def as_dict(self) -> dict[str, Any]:
        """A JSON-ready dict, without the seconds: the same build gives the same numbers."""
        before = None if self.before_db is None else round(self.before_db, 2)
        return {
            "rung": self.name,
            "before_db": before,
            "after_db": round(self.after_db, 2),
            "kept": self.kept,
        }


@dataclass(frozen=True, kw_only=True, slots=True)
class Climb:
    """Where the ladder led: the plan, its QDQ model, every rung tried, and how the plan's ranges are chosen.

    `evened` is the float model that the plan is of where equalisation stayed, with its statistics; `mixture` what the
    target's allowance took out of int8.
    """

    plan: QuantPlan
    model: Model
    rungs: tuple[Rung, ...]
    ranges: RangeChoice = "auto"
    evened: tuple[Model, Statistics] | None = None
    mixture: Mixture = field(default_factory=Mixture)


@few_collections()
@one_thread_a_call()
def climb(
    model: Model,
    make: Plan,
    stats: Statistics | None,
    feeds: Feeds,
    *,
    effort: Effort = "balanced",
    ranges: RangeMethod | None = None,
    plan: QuantPlan | None = None,
    weight_bits: int = 8,
    even: Even | None = None,
    mix: Mixer | None = None,
    rows: bool = True,
    progress: Callable[[int, int], None] | None = None,
) -> Climb:
    """The best plan that `effort` finds. `make` plans a model; `feeds` are samples; `ranges` leaves out rung 1, `even`
    prepares rung 2, `mix` rung 3. `plan` is the first that `make` gives (`FIRST_RANGES`), where it is known already.
    `rows` is False where the runtime does not round what int8 weights meet beside float data (`run_time`).

    Without samples, or where nothing is quantized, the plan is the first that `make` gives.
    """
    reach = REACH[effort]
    taken, *others = (FIRST_RANGES, *reach.ranges) if ranges is None else (ranges,)
    plan = plan or make(model, stats, taken)
    if not reach.learn or not feeds or not (plan.activations or plan.weights):
        return Climb(plan=plan, model=apply_plan(model, plan), rungs=(), ranges=taken)
    count = reach.judge if effort == "max" else _affordable(model, plan, reach.judge)
    learn, judged = split(feeds, max(reach.learn, count), count)  # what small models cost is not their samples
    methods = others if plan.activations else ()
    ladder = _Ladder(model, Judge(model, judged), plan, taken, rows=rows)
    total = len(methods) + bool(methods) + (even is not None) + (mix is not None) + 3

    def step(name: str, change: Callable[[QuantPlan], QuantPlan], of: Model, need: Need = "sure") -> bool:
        if progress is not None:
            progress(min(len(ladder.rungs) - 1, total - 1), total)
        return ladder.step(name, change, of, need)

    for method in methods:
        if step(f"ranges: {method}", partial(_with_ranges, make, method, (model, stats)), model):
            taken = method
    evened = even(ladder.plan) if even is not None and plan.activations else None
    if evened is not None and not step("equalisation", partial(_with_ranges, make, taken, evened), evened[0], "worth"):
        evened = None
    base, seen = (model, stats) if evened is None else evened
    choice: RangeChoice = taken
    mixture = Mixture()
    if mix is not None and plan.activations:
        light = mix.light(base, ladder.plan)
        if light and step("int8 weights alone", partial(_with_mixture, mix.plan, base, seen, taken, light), base):
            mixture = light
    if plan.activations and not mixture:
        every = make(base, seen, with_channels(taken, frozenset(ladder.plan.activations)))
        worth = with_channels(taken, worth_by_channel(base, ladder.plan, every))
        if worth != taken and step(BY_CHANNEL, partial(_with_ranges, make, worth, (base, seen)), base):
            choice = worth
    if methods and not mixture:
        channels = channels_of(choice)
        others = [method for method in (FIRST_RANGES, *others) if method != taken]
        ways = {method: make(base, seen, with_channels(method, channels)) for method in others}
        apart = by_tensor(base, ladder.plan, taken, ways, _spread(learn, 1))
        both = None if apart is None else with_channels(apart, channels)
        if both is not None and step(BY_TENSOR, partial(_with_ranges, make, both, (base, seen)), base):
            choice = both
    if mix is not None and plan.activations and not mixture:
        found = mix.find(base, ladder.plan, _spread(learn, _RANKING), sqnr_db=ladder.score)
        if found and step("mixed", partial(_with_mixture, mix.plan, base, seen, choice, found), base, "better"):
            mixture = found
    ladder.settle(base)
    how = {"positions": reach.positions, "bits": weight_bits}
    means: dict[str, Array] = {}

    nearest = ladder.plan

    def following(need: Need) -> bool:
        stretches = 2 * STRETCHES if effort == "max" else STRETCHES
        return step("following", lambda p: follow(base, p, learn, stretches=stretches, **how), base, need)

    def rounding(need: Need) -> None:
        kept = step("rounding", lambda _: round_weights(base, nearest, learn, means=means, **how), base, need)
        if plan.biases and (kept or ladder.plan is nearest):
            step("bias", lambda p: correct_biases(base, p, means), base)

    if not ladder.plan.activations:
        rounding("harmless")
    elif reach.full_bias:
        rounding("harmless")
        following("sure")
    elif not following("harmless"):  # rule 7
        rounding("harmless")
    elif not ladder.sure:
        rounding("better")
    if plan.biases and reach.full_bias:
        step("bias, full", lambda p: correct_fully(base, p, find_layers(base, p), learn), base)
    rungs = tuple(ladder.rungs)
    quantized = apply_plan(base, ladder.plan)
    return Climb(plan=ladder.plan, model=quantized, rungs=rungs, ranges=choice, evened=evened, mixture=mixture)


def _finer(plan: QuantPlan) -> QuantPlan:
    """The plan with weights that are rounded in finer steps."""
    weights = {
        key: replace(
            entry,
            dtype=DType.INT16,
            qparams=replace(entry.qparams, scale=tuple((np.asarray(entry.qparams.scale) / _FINER).tolist())),
        )
        for key, entry in plan.weights.items()
        if entry.dtype is DType.INT8 and entry.data is None
    }
    return replace(plan, weights={**plan.weights, **weights})


def _affordable(model: Model, plan: QuantPlan, most: int) -> int:
    """How many judging samples a model's size allows, by its multiplications: the same on every machine."""
    shapes = {node.name: static_shape(node.outputs[0]) or () for node in model.nodes() if node.outputs}
    sizes = {name: math.prod(shape) for name, shape in shapes.items()}
    work = sum(abs(sizes[layer.node]) * layer.shape[2] for layer in find_layers(model, plan))
    return min(most, max(_FEWEST, int(_JUDGING_WORK / max(work, 1))))


def _with_ranges(make: Plan, method: RangeChoice, of: tuple[Model, Statistics | None], _: QuantPlan) -> QuantPlan:
    return make(*of, method)


def _with_mixture(make: Callable[..., QuantPlan], *arguments: Any) -> QuantPlan:
    return make(*arguments[:-1])


class _Ladder:
    """The best so far."""

    def __init__(self, model: Model, judge: Judge, plan: QuantPlan, ranges: RangeMethod, *, rows: bool) -> None:
        start = time.perf_counter()
        self._judge, self._early, self._rows = judge, bool(plan.activations), rows
        #: Whether the latest repair's gain was more than luck.
        self.sure = True
        self.plan = plan
        self._best, self._first, self.score = self._begun(model)
        seconds = time.perf_counter() - start
        self.rungs = [Rung(name=f"ranges: {ranges}", before_db=None, after_db=self.score, kept=True, seconds=seconds)]

    def step(self, name: str, change: Callable[[QuantPlan], QuantPlan], model: Model, need: Need = "sure") -> bool:
        """Try one repair of a plan of `model`, and keep it where most samples gain; True when it stays."""
        start = time.perf_counter()
        plan = change(self.plan)
        trial = self._trial(model, plan)
        verdict = self._judge.verdict(trial, self._best)
        self.sure = verdict.sure and trial.known.gain_over(self._first.known)[0] > 0
        worth = self.sure and verdict.gain >= _WORTH_DB
        enough = {"worth": worth, "sure": self.sure, "better": verdict.gain > 0, "harmless": not verdict.harm}[need]
        kept = enough if verdict.heard else name in _TRUSTED
        score = self.score + verdict.gain
        seconds = time.perf_counter() - start
        self.rungs.append(Rung(name=name, before_db=self.score, after_db=score, kept=kept, seconds=seconds))
        (self._best if kept else trial).close()
        if kept:
            self.plan, self.score, self._best = plan, score, trial
        return kept

    def settle(self, model: Model) -> None:
        """From here on judge weights as they are: rounded to nearest, until a rung rounds them better."""
        if self._early:
            self._early = False
            self._best.close()
            self._best, self._first, self.score = self._begun(model)

    def _begun(self, model: Model) -> tuple[Trial, Trial, float]:
        """The plan's trial as the best and the first, which all that comes is held against, and its dB."""
        trial = self._trial(model, self.plan)
        return trial, trial, self._judge.first_look(trial).pooled_db

    def _trial(self, model: Model, plan: QuantPlan) -> Trial:
        quantized = apply_plan(model, _finer(plan) if self._early else plan)
        return self._judge.trial(round_at_run_time(quantized) if self._rows else quantized)


def split(feeds: Feeds, learn: int, judge: int) -> tuple[Feeds, Feeds]:
    """Samples to learn from and others to judge by, both spread over all; one sample has to serve for both."""
    if len(feeds) < 2:
        return feeds, feeds
    return _spread(feeds[0::2], learn), _spread(feeds[1::2], judge)


def _spread(feeds: Feeds, count: int) -> Feeds:
    """As many as that, or all where there are no more, spread over all."""
    count = min(count, len(feeds))
    return [feeds[i * len(feeds) // count] for i in range(count)]


def round_weights(
    model: Model,
    plan: QuantPlan,
    feeds: Feeds,
    *,
    positions: int,
    bits: int = 8,
    means: dict[str, Array] | None = None,
) -> QuantPlan:
    """The plan with weights rounded for their layers' outputs; `means` receives what the layers read on average."""
    weights = dict(plan.weights)
    limit = 2 ** (bits - 1) - 1

    def take(moments: Mapping[str, Moments], part: tuple[Layer, ...]) -> None:
        def rounded(layer: Layer) -> Array:
            found = moments[layer.key].flush()
            return layer.weight_of(round_rows(layer.rows(layer.weight), layer.scales(), found, limit=limit))

        once = {layer.key: layer for layer in part}.values()
        for layer, data in zip(once, in_order(rounded, once, physical_cores()), strict=True):
            reason = f"{layer.plan.reason}; rounded for the layer's output"
            if means is not None:
                means[layer.key] = moments[layer.key].mean
            weights[layer.key] = replace(layer.plan, data=data, reason=reason)

    gather(find_layers(model, plan), feeds, model, take, positions=positions)
    return replace(plan, weights=weights)


def correct_biases(model: Model, plan: QuantPlan, means: Mapping[str, Array]) -> QuantPlan:
    """The plan with biases that hold the mean error of their own layer's rounding.

    `means` are those of what the layers read, by weight key, as `round_weights` gives them.
    """
    layers = tuple(layer for layer in find_layers(model, plan) if layer.bias_key is not None)
    shifts: dict[str, tuple[Array, Array]] = {}
    for layer in layers:
        assert layer.bias_key is not None and layer.bias is not None
        rounded = layer.plan.data
        if rounded is None:
            rounded = layer.plan.qparams.quantize(layer.weight, layer.plan.dtype)
        shifts[layer.bias_key] = (layer.bias, own_shift(layer, rounded, means[layer.key]))
    return shifted(plan, shifts)
