"""Ranges tensor by tensor: each gets the one that its own rounding costs least with, and the ladder takes that up."""

from __future__ import annotations

from dataclasses import replace

import pytest

from edgec.graph.model import Model
from edgec.quantization.calibration.range_choice import ByTensor, RangeChoice, method_for
from edgec.quantization.planning.plan import make_plan
from edgec.quantization.repair.by_tensor import by_tensor
from edgec.quantization.repair.ladder import BY_TENSOR, climb
from edgec.quantization.types import QuantPlan, Statistics
from edgec.targets.load import load_target
from edgec.tensors import Array
from tests.support.graphs import random_feeds
from tests.support.plans import kernel, measured, typed

TARGET = load_target("raspberrypi4")

NET = """(float[1,16] x) => (float[1,8] y)
{ a = Gemm(x, w1) ar = Relu(a) b = Gemm(ar, w2) br = Relu(b) y = Gemm(br, w3) }"""

#: The value that each way spoils, with steps so many times as wide.
SPOILT = {"auto": "ar", "minmax": "br"}
WIDER = 12.0


def net() -> tuple[Model, list[dict[str, Array]], Statistics]:
    model = typed(NET, {"w1": kernel(16, 32), "w2": kernel(32, 32, seed=1), "w3": kernel(32, 8, seed=2)})
    feeds = [random_feeds(model, seed) for seed in range(24)]
    return model, feeds, measured(model, feeds)


def make(model: Model, stats: Statistics | None, choice: RangeChoice) -> QuantPlan:
    """A plan in which each way to choose ranges does badly by another value."""
    assert stats is not None
    tensors = dict(stats.tensors)
    for method, name in SPOILT.items():
        if method_for(name, choice) == method:
            seen = tensors[name]
            tensors[name] = replace(
                seen, minimum=seen.minimum * WIDER, maximum=seen.maximum * WIDER, highs=seen.highs * WIDER
            )
    wide = replace(stats, tensors=tensors)
    return make_plan(model, wide, TARGET, "tflite", "int8", range_method="minmax")


def test_each_value_takes_what_serves_it() -> None:
    model, feeds, stats = net()
    plan, other = make(model, stats, "auto"), make(model, stats, "minmax")
    assert by_tensor(model, plan, "auto", {"minmax": other}, feeds[:1]) == ByTensor(
        usual="auto", others={"ar": "minmax"}
    )
    assert by_tensor(model, other, "minmax", {"auto": plan}, feeds[:1]) == ByTensor(
        usual="minmax", others={"br": "auto"}
    )


def test_ways_that_hardly_differ_are_left_alone() -> None:
    model, feeds, stats = net()
    plan = make(model, stats, "auto")
    close = {
        name: replace(old, qparams=replace(old.qparams, scale=(1.02 * old.qparams.scale[0],)))
        for name, old in plan.activations.items()
    }
    assert by_tensor(model, plan, "auto", {"minmax": replace(plan, activations=close)}, feeds[:1]) is None
    assert by_tensor(model, plan, "auto", {"minmax": plan}, feeds[:1]) is None
    assert by_tensor(model, plan, "auto", {}, feeds[:1]) is None


def test_the_ladder_climbs_by_it() -> None:
    model, feeds, stats = net()
    result = climb(model, make, stats, feeds)
    rung = next(rung for rung in result.rungs if rung.name == BY_TENSOR)
    best_of_one_way = max(rung.after_db for rung in result.rungs if rung.name in ("ranges: auto", "ranges: minmax"))
    assert rung.kept and rung.after_db > best_of_one_way + 3
    assert isinstance(result.ranges, ByTensor)
    assert method_for("ar", result.ranges) == "minmax" and method_for("br", result.ranges) == "auto"
    fixed = climb(model, make, stats, feeds, ranges="auto")
    assert BY_TENSOR not in [rung.name for rung in fixed.rungs] and fixed.ranges == "auto"


@pytest.mark.parametrize(("name", "wanted"), [("ar", "minmax"), ("br", "auto")])
def test_a_plan_says_which_way_a_range_is_chosen(name: str, wanted: str) -> None:
    model, _, stats = net()
    choice = ByTensor(usual="auto", others={"ar": "minmax"})
    plan = make_plan(model, stats, TARGET, "tflite", "int8", range_method=choice)
    assert f"{wanted} range" in plan.activations[name].reason
