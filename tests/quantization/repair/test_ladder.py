"""The ladder: no rung that harms stays, the result is judged on samples it has not learnt from, and it repeats."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from edgec.graph.model import Model
from edgec.quantization.calibration.range_choice import RangeChoice
from edgec.quantization.measures.judge import Judge, Noise, Trial, Verdict
from edgec.quantization.planning.plan import make_plan
from edgec.quantization.repair import ladder
from edgec.quantization.repair.ladder import Climb, Effort, climb, split
from edgec.quantization.run.apply import apply_plan
from edgec.quantization.types import QuantPlan, Statistics
from edgec.targets.load import load_target
from edgec.targets.profile import PrecisionName
from edgec.tensors import Array
from tests.support.graphs import random_feeds
from tests.support.plans import fidelity, hard_weights, measured, typed

TARGET = load_target("raspberrypi4")

NET = """(float[1,3,12,12] x) => (float[1,6] y)
{ a = Conv<kernel_shape=[3,3], pads=[1,1,1,1]>(x, w1, b1) ar = Relu(a)
  d = Conv<kernel_shape=[3,3], group=16, pads=[1,1,1,1]>(ar, w2, b2) dr = Relu(d)
  e = Conv<kernel_shape=[1,1]>(dr, w3, b3) p = GlobalAveragePool(e) f = Flatten(p) y = Gemm<transB=1>(f, w4, b4) }"""


def net() -> Model:
    return typed(
        NET,
        hard_weights(
            3, w1=(16, 3, 3, 3), b1=(16,), w2=(16, 1, 3, 3), b2=(16,), w3=(64, 16, 1, 1), b3=(64,), w4=(6, 64), b4=(6,)
        ),
    )


def feeds_of(model: Model, count: int, seed: int = 0) -> list[dict[str, Array]]:
    return [random_feeds(model, seed + i) for i in range(count)]


def climbed(effort: Effort, *, precision: PrecisionName = "int8", count: int = 24) -> tuple[Model, Climb]:
    model = net()
    feeds = feeds_of(model, count)
    stats = measured(model, feeds)

    def make(of: Model, seen: Statistics | None, method: RangeChoice) -> QuantPlan:
        return make_plan(of, seen, TARGET, "tflite", precision, range_method=method)

    return model, climb(model, make, stats, feeds, effort=effort)


def fresh(model: Model, quantized: Model) -> float:
    return fidelity(model, quantized, feeds_of(model, 16, seed=1000))


@pytest.mark.parametrize("effort", ["balanced", "max"])
def test_every_rung_is_reported_and_no_harm_stays(effort: Effort) -> None:
    model, result = climbed(effort)
    names = [rung.name for rung in result.rungs]
    kept = {rung.name for rung in result.rungs if rung.kept}
    assert names[0] == "ranges: auto" and "following" in names
    # balanced rounds each layer by itself only where following did not help
    assert ({"rounding", "bias"} <= set(names)) == (effort == "max" or "following" not in kept)
    assert ("bias, full" in names) == (effort == "max")
    level = result.rungs[0].after_db
    for rung in result.rungs[1:]:
        # the last rungs are judged with weights as they are, the first with finer ones
        assert rung.before_db == level or rung.name in ("following", "rounding")
        assert rung.before_db is not None
        level = rung.before_db
        assert not rung.kept or rung.after_db > level
        level = rung.after_db if rung.kept else level
    _, fast = climbed("fast")
    # 0.5 dB: fresh samples may see it differently from the judging ones.
    assert fresh(model, result.model) > fresh(model, fast.model) - 0.5


def test_what_does_not_help_leaves_the_start() -> None:
    """Every repair is spoilt: the ladder returns what it began with, bit by bit."""
    model = net()
    feeds = feeds_of(model, 24)
    stats = measured(model, feeds)
    start = make_plan(model, stats, TARGET, "tflite", "int8", range_method="auto")

    def make(of: Model, seen: Statistics | None, method: RangeChoice) -> QuantPlan:
        plan = make_plan(of, seen, TARGET, "tflite", "int8", range_method="auto")
        if method == "auto":
            return plan
        wide = {
            name: replace(old, qparams=replace(old.qparams, scale=tuple(20 * scale for scale in old.qparams.scale)))
            for name, old in plan.activations.items()
        }
        return replace(plan, activations=wide)

    with pytest.MonkeyPatch.context() as patch:
        for repair in ("follow", "round_weights", "correct_biases"):
            patch.setattr(ladder, repair, lambda of, plan, *_, **__: make(of, stats, "minmax"))
        result = climb(model, make, stats, feeds)
    assert [rung.kept for rung in result.rungs] == [True] + [False] * (len(result.rungs) - 1)
    assert [rung.name for rung in result.rungs] == ["ranges: auto", "ranges: minmax", "following", "rounding", "bias"]
    assert result.model.to_bytes() == apply_plan(model, start).to_bytes()


@pytest.mark.parametrize(
    ("following", "rounding", "kept"),
    [
        ((1.0, "sure"), None, ["following"]),
        ((-0.1, "luck"), (0.05, "luck"), ["following", "rounding"]),  # the better of two that do no sure harm
        ((-0.1, "luck"), (-0.05, "luck"), ["following"]),
        ((-0.5, "harm"), (-0.1, "luck"), ["rounding"]),
        ((-0.5, "harm"), (-0.5, "harm"), []),
    ],
)
def test_weights_stay_repaired_unless_that_surely_harms(
    following: tuple[float, str], rounding: tuple[float, str] | None, kept: list[str]
) -> None:
    """Rule 7, whatever the judge says of each."""
    words = {"following": following, "rounding": rounding, "ranges: minmax": (0.1, "luck"), "bias": (0.1, "luck")}
    tried: list[str] = []
    step = ladder._Ladder.step

    def named(self: ladder._Ladder, name: str, *rest: Any) -> bool:
        tried.append(name)
        return step(self, name, *rest)

    def verdict(_: Judge, new: Trial, old: Trial) -> Verdict:
        found = words[tried[-1]]
        assert found is not None, "rounding is not tried where following is sure"
        gain, how = found
        assert new.noise(2).error.size and old.noise(2).error.size
        return Verdict(gain=gain, sure=how == "sure", harm=how == "harm", heard=True)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ladder._Ladder, "step", named)
        patch.setattr(Judge, "verdict", verdict)
        patch.setattr(Noise, "gain_over", lambda *_: (1.0, 0.0))
        _, result = climbed("balanced")
    assert [rung.name for rung in result.rungs[1:] if rung.kept] == kept


def test_fast_climbs_nothing() -> None:
    _, result = climbed("fast")
    assert result.rungs == () and all(entry.data is None for entry in result.plan.weights.values())


def test_the_model_is_the_plan_applied_and_the_same_every_time() -> None:
    model, first = climbed("balanced")
    _, second = climbed("balanced")
    assert first.model.to_bytes() == second.model.to_bytes() == apply_plan(model, first.plan).to_bytes()


@pytest.mark.parametrize("precision", ["dynamic", "float32", "int16x8"])
def test_other_precisions(precision: PrecisionName) -> None:
    _, result = climbed("balanced", precision=precision)
    assert bool(result.rungs) == (precision != "float32")
    if precision == "dynamic":
        assert [rung.name for rung in result.rungs] == ["ranges: auto", "rounding"]


def test_samples_that_judge_are_not_those_that_teach() -> None:
    feeds = [{"x": np.asarray(float(i))} for i in range(100)]
    learn, judge = split(feeds, 32, 16)
    learnt, judged = ({float(f["x"]) for f in part} for part in (learn, judge))
    assert not learnt & judged and len(judged) == 16 and len(learnt) == 32  # not one less than was asked for
    assert max(learnt) > 80 and max(judged) > 80
    alone = feeds[:1]
    assert split(alone, 32, 16) == (alone, alone)
    assert [len(part) for part in split(feeds[:50], 16, 16)] == [16, 16]


def test_a_judge_of_the_float_model_itself_hears_no_noise() -> None:
    model = net()
    assert Judge(model, feeds_of(model, 2))(model) == 300.0
