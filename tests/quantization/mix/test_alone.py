"""Noise of single roundings: what a switch says is what the model with that one rounding does."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from edgec.graph.model import Model
from edgec.metrics import sqnr_db
from edgec.quantization.mix import alone
from edgec.quantization.mix.alone import noise_alone, noise_both_ways
from edgec.quantization.planning.plan import make_plan
from edgec.quantization.run.apply import apply_plan
from edgec.quantization.run.executor import Executor
from edgec.quantization.types import QuantPlan
from edgec.targets.load import load_target
from edgec.tensors import Array
from tests.support.graphs import random_feeds
from tests.support.plans import kernel, measured, typed

TARGET = load_target("raspberrypi4")

NET = """(float[1,8] x) => (float[1,4] y)
{ a = Gemm(x, w1) ar = Relu(a) b = Gemm(ar, w2) br = Relu(b) y = Gemm(br, w3) }"""


def planned() -> tuple[Model, QuantPlan, list[dict[str, Array]]]:
    model = typed(NET, {"w1": kernel(8, 8), "w2": kernel(8, 8, seed=1), "w3": kernel(8, 4, seed=2)})
    feeds = [random_feeds(model, seed) for seed in range(4)]
    return model, make_plan(model, measured(model, feeds), TARGET, "tflite", "int8", range_method="minmax"), feeds


@pytest.mark.parametrize("name", ["x", "ar", "br", "y"])
def test_a_switch_is_the_model_with_that_rounding_alone(name: str) -> None:
    model, plan, feeds = planned()
    groups = [["x"], ["ar"], ["br"], ["y"]]
    found = noise_alone(model, plan, groups, feeds)[groups.index([name])]
    one = QuantPlan(activations={name: plan.activations[name]}, nodes=plan.nodes)
    quantized, exact = Executor(apply_plan(model, one)), Executor(model)
    expected = sqnr_db(np.stack([exact.run(f)["y"] for f in feeds]), np.stack([quantized.run(f)["y"] for f in feeds]))
    assert -10 * np.log10(found) == pytest.approx(expected, abs=1e-3)  # float32 of two different graphs


def test_two_ways_at_once_are_each_alone() -> None:
    model, plan, feeds = planned()
    finer = {
        name: replace(old, qparams=replace(old.qparams, scale=(old.qparams.scale[0] / 3,)))
        for name, old in plan.activations.items()
    }
    other = replace(plan, activations=finer)
    groups = [[name] for name in plan.activations]
    both = noise_both_ways(model, (plan, other), groups, feeds)
    for way, found in zip((plan, other), both, strict=True):
        assert found == pytest.approx(noise_alone(model, way, groups, feeds), rel=1e-4)  # float32 in another order
    assert both[0] != pytest.approx(both[1], rel=0.5)


def test_nothing_to_measure_is_nothing() -> None:
    model = typed(NET, {"w1": kernel(8, 8), "w2": kernel(8, 8, seed=1), "w3": kernel(8, 4, seed=2)})
    assert noise_alone(model, QuantPlan(), [], []) == []
    assert noise_both_ways(model, (QuantPlan(), QuantPlan()), [], []) == ([], [])


def test_parts_measure_what_the_whole_does(monkeypatch: pytest.MonkeyPatch) -> None:
    model, plan, feeds = planned()
    groups = [[name] for name in plan.activations]
    in_parts = noise_alone(model, plan, groups, feeds)
    monkeypatch.setattr(alone, "PARTS", 1)
    whole = noise_alone(model, plan, groups, feeds)
    assert in_parts == pytest.approx(whole, rel=1e-4)  # float32 sums in another order
    assert len(set(whole)) > 1
