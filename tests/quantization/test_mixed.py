"""Mixed precision: the unit that harms goes back to float, and no more than the budget needs."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

import numpy as np
import pytest

from edgec.graph.model import Model
from edgec.quantization.apply import SCHEME_KEY, apply_plan
from edgec.quantization.costs import multiplications
from edgec.quantization.judge import Judge
from edgec.quantization.mixed import Verdict, keep_integers, rank, revert
from edgec.quantization.plan import make_plan
from edgec.quantization.types import QuantPlan, Statistics
from edgec.targets.load import load_target
from edgec.tensors import Array
from tests.support.graphs import random_feeds
from tests.support.plans import kernel, measured, typed

TARGET = load_target("raspberrypi4")

#: The second layer multiplies its first input by 1000: one scale for all its outputs erases the others.
NET = """(float[1,16] x) => (float[1,8] y)
{ a = Gemm(x, w1, b1) ar = Relu(a) b = Gemm(ar, w2, b2) c = Mul(b, unevenly) d = Gemm(c, w3, b3) dr = Relu(d)
  y = Gemm(dr, w4, b4) }"""


def net() -> Model:
    uneven = np.ones((1, 16), np.float32)
    uneven[0, 0] = 1000
    last = kernel(16, 16, seed=4)
    last[0] /= 1000
    constants = {
        "w1": kernel(16, 16),
        "b1": kernel(16, seed=1),
        "w2": kernel(16, 16, seed=2),
        "b2": kernel(16, seed=3),
        "unevenly": uneven,
        "w3": last,
        "b3": kernel(16, seed=5),
        "w4": kernel(16, 8, seed=6),
        "b4": kernel(8, seed=7),
    }
    return typed(NET, constants)


class Setting:
    """The net, its samples, and how plans of it are made."""

    def __init__(self) -> None:
        self.model = net()
        self.feeds: list[dict[str, Array]] = [random_feeds(self.model, seed) for seed in range(6)]
        self.stats: Statistics = measured(self.model, self.feeds)
        self.score = Judge(self.model, self.feeds)

    def make(self, float_nodes: Collection[str] = ()) -> QuantPlan:
        return make_plan(
            self.model, self.stats, TARGET, "tflite", "int8", range_method="minmax", float_nodes=float_nodes
        )


def test_the_harmful_unit_comes_first_and_reverting_it_meets_the_budget() -> None:
    case = Setting()
    plan = case.make()
    before = case.score(apply_plan(case.model, plan))
    assert before < 20
    harms = rank(case.model, plan, case.make, case.score)
    assert "Mul_c" in harms[0].nodes or "Gemm_d" in harms[0].nodes or "Gemm_b" in harms[0].nodes
    found = revert(
        case.model,
        plan,
        harms,
        case.make,
        case.score,
        lambda m: Verdict(met=case.score(m) >= 25),
        target_db=25,
        max_share=0.7,
    )
    assert found.met and 0 < len(found.float_nodes) < len(plan.nodes)
    assert case.score(found.model) >= 25
    assert next(p for p in found.frontier if p.met).float_nodes == len(found.float_nodes)
    for name in found.float_nodes:
        assert found.plan.nodes[name].scheme == "float32"


def test_a_budget_that_nothing_meets_is_said() -> None:
    case = Setting()
    plan = case.make()
    harms = rank(case.model, plan, case.make, case.score)
    found = revert(
        case.model, plan, harms, case.make, case.score, lambda _: Verdict(met=False), target_db=90, max_share=0.5
    )
    assert not found.met
    none = revert(
        case.model, plan, harms, case.make, case.score, lambda _: Verdict(met=True), target_db=20, max_share=0.0
    )
    assert not none.met and none.float_nodes == () and none.frontier == ()


def test_integers_are_kept_where_the_parameters_are_the_same() -> None:
    case = Setting()
    plan = case.make()

    key, entry = next(iter(plan.weights.items()))
    marked = replace(plan, weights={**plan.weights, key: replace(entry, data=np.ones((16, 16), np.int8))})
    assert keep_integers(case.make(), marked).weights[key].data is not None
    other = replace(entry, qparams=replace(entry.qparams, scale=tuple(2 * s for s in entry.qparams.scale)))
    moved = replace(plan, weights={**plan.weights, key: other})
    assert keep_integers(moved, marked).weights[key].data is None


def test_no_fewer_nodes_would_do() -> None:
    case = Setting()
    plan = case.make()
    harms = rank(case.model, plan, case.make, case.score)
    asked: list[int] = []

    def judge(candidate: Model) -> Verdict:
        floats = sum(n.metadata_props.get(SCHEME_KEY) == "float32" for n in candidate.nodes())
        asked.append(floats)
        return Verdict(met=floats >= 5, words=f"{floats} in float")

    found = revert(case.model, plan, harms, case.make, case.score, judge, target_db=None, max_share=1.0)
    assert found.met and [p.float_nodes for p in found.frontier] == sorted(p.float_nodes for p in found.frontier)
    shy = [p for p in found.frontier if not p.met]
    assert all(p.float_nodes < len(found.float_nodes) for p in shy) and shy
    assert found.frontier[-1].words.endswith("in float")


def test_a_cheap_block_goes_before_a_dear_one_that_harms_as_much() -> None:
    text = """(float[1,8,16,16] x) => (float[1,4] y)
    { a = Conv<kernel_shape=[3,3], pads=[1,1,1,1]>(x, w1) ar = Relu(a) p = GlobalAveragePool(ar) f = Flatten(p)
      y = Gemm(f, w2) }"""
    model = typed(text, {"w1": kernel(8, 8, 3, 3), "w2": kernel(8, 4)})
    feeds = [random_feeds(model)]
    stats = measured(model, feeds)

    def make(float_nodes: Collection[str] = ()) -> QuantPlan:
        return make_plan(model, stats, TARGET, "tflite", "int8", range_method="minmax", float_nodes=float_nodes)

    harms = rank(model, make(), make, lambda _: 20.0)
    assert "Conv_a" in harms[-1].nodes and harms[-1].cost > 0.9
    assert sum(harm.cost for harm in harms) == pytest.approx(1.0, abs=1e-3)  # what stays float anyway is no block
    work = {node.name: multiplications(node) for node in model.nodes()}
    assert work["Conv_a"] == 8 * 16 * 16 * 8 * 9 and work["Gemm_y"] == 32 and work["Relu_ar"] == 8 * 16 * 16
