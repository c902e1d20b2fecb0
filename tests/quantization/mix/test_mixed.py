"""Mixed precision: what harms leaves int8 first, no more than the budget needs, and for what is fastest there."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from edgec.graph.model import Model
from edgec.quantization.measures.judge import Judge
from edgec.quantization.mix.allowance import rounded_together
from edgec.quantization.mix.costs import Costs, costs_of
from edgec.quantization.mix.harms import Harms, measure_harms
from edgec.quantization.mix.mixed import Mixed, Search, Verdict, keep_integers, misled_by_noise
from edgec.quantization.mix.reverts import Step, find_way
from edgec.quantization.planning.plan import make_plan, scheme_of
from edgec.quantization.repair.follow import follow
from edgec.quantization.run.apply import apply_plan
from edgec.quantization.types import NodeScheme, QuantPlan, Statistics
from edgec.targets.load import load_target
from edgec.tensors import Array
from tests.support.graphs import random_feeds
from tests.support.plans import kernel, measured, typed

#: The second layer multiplies its first input by 1000: one scale for all its outputs erases the others.
NET = """(float[1,16] x) => (float[1,8] y)
{ a = Gemm(x, w1, b1) ar = Relu(a) b = Gemm(ar, w2, b2) c = Mul(b, unevenly) d = Gemm(c, w3, b3) dr = Relu(d)
  y = Gemm(dr, w4, b4) }"""


def net(*, reads_first: bool = True) -> Model:
    uneven = np.ones((1, 16), np.float32)
    uneven[0, 0] = 1000
    last = kernel(16, 16, seed=4)
    last[0] *= 0.001 if reads_first else 0
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
    """A net, its samples, how plans of it are made, and the ways out of int8 on a target."""

    def __init__(self, model: Model | None = None, target: str = "raspberrypi4") -> None:
        self.model = net() if model is None else model
        self.target = load_target(target)
        self.feeds: list[dict[str, Array]] = [random_feeds(self.model, seed) for seed in range(6)]
        self.stats: Statistics = measured(self.model, self.feeds)
        self.score = Judge(self.model, self.feeds)
        self.plan = self.make({})
        self.scheme = scheme_of(self.target, "tflite")
        self.groups = rounded_together(self.model, self.plan, self.scheme)

    def make(self, reverted: Mapping[str, NodeScheme]) -> QuantPlan:
        return make_plan(
            self.model, self.stats, self.target, "tflite", "int8", range_method="minmax", reverted=reverted
        )

    @property
    def costs(self) -> Costs:
        found = costs_of(self.model, self.target, "tflite", forms=["int8", *self.scheme.revert_to])
        assert found is not None
        return found

    def harms(self) -> Harms:
        def keep(_: str, measure: Any) -> float:
            return float(measure())

        return measure_harms(
            self.model, self.plan, self.groups, self.feeds, keep=keep, progress=lambda _done, _total: None
        )

    def judge(self, target_db: float) -> Any:
        return lambda candidate: Verdict(met=self.score(candidate) >= target_db)

    def way(self, **options: Any) -> tuple[Step, ...]:
        return find_way(self.model, self.plan, self.scheme, "tflite", self.groups, self.harms(), self.costs, **options)

    def search(self, judge: Any) -> Search:
        return Search(model=self.model, plan=self.plan, make=self.make, score=self.score, judge=judge, costs=self.costs)

    def found(self, target_db: float, **options: Any) -> Mixed:
        def judge(candidate: Model) -> Verdict:
            return Verdict(met=self.score(candidate) >= target_db)

        return self.search(judge).run(self.way(**options), target_db=target_db)


def test_what_harms_most_goes_first_and_meets_the_budget() -> None:
    case = Setting()
    assert case.score(apply_plan(case.model, case.plan)) < 20
    first = case.way()[:2]
    assert {"Mul_c", "Gemm_d"} <= {name for step in first for name in step.changes}
    assert sum(step.gain for step in first) > 0.99
    found = case.found(25, max_share=0.7)
    assert found.met and 0 < len(found.reverted) < len(case.plan.nodes)
    assert case.score(found.model) >= 25 and found.chosen is not None
    assert found.chosen.reverted == len(found.reverted) and found.chosen in found.frontier
    for name, form in found.reverted.items():
        assert found.plan.nodes[name].scheme == form
    assert any("reverted for the accuracy budget" in node.reason for node in found.plan.nodes.values())


def test_harms_are_those_of_single_roundings() -> None:
    case = Setting()
    harms = case.harms()
    for name, noise in harms.weights.items():
        head = next(n for n in case.model.nodes() if n.name == name)
        keys = {v.name for v in head.inputs if v is not None}
        alone = QuantPlan(
            weights={k: v for k, v in case.plan.weights.items() if k in keys},
            biases={k: v for k, v in case.plan.biases.items() if k in keys},
            nodes=case.plan.nodes,
        )
        # float32 of two different graphs
        assert -10 * np.log10(noise) == pytest.approx(case.score(apply_plan(case.model, alone)), abs=1e-2)
    assert max(harms.weights, key=lambda name: harms.weights[name]) == "Mul_c"


def test_neighbours_share_a_switch_where_there_are_many(monkeypatch: pytest.MonkeyPatch) -> None:
    case = Setting()
    monkeypatch.setattr("edgec.quantization.mix.harms.MAX_SOURCES", 2)
    measured_: list[str] = []

    def keep(name: str, measure: Any) -> float:
        measured_.append(name)
        return float(measure())

    found = measure_harms(
        case.model, case.plan, case.groups, case.feeds, keep=keep, progress=lambda _done, _total: None
    )
    assert len(measured_) == 4 and len(found.values) == len(case.groups)
    assert found.weights["Gemm_a"] == found.weights["Gemm_b"] == found.weights["Mul_c"]


def test_a_budget_that_nothing_meets_is_said() -> None:
    case = Setting()
    found = case.search(lambda _: Verdict(met=False)).run(case.way(max_share=0.5), target_db=90)
    assert not found.met and found.plan is case.plan and found.reverted == {}
    assert len(found.frontier) > 1 and not any(entry["chosen"] for entry in found.as_dict()["frontier"])
    nothing = case.search(lambda _: Verdict(met=False)).run(case.way(max_share=0.0), target_db=90)
    assert not nothing.met and len(nothing.frontier) == 1


def test_a_plan_that_keeps_the_budget_stays() -> None:
    case = Setting()
    found = case.search(lambda _: Verdict(met=True)).run(case.way())
    assert found.met and found.reverted == {} and len(found.frontier) == 1


def test_no_fewer_steps_would_do() -> None:
    case = Setting()
    steps = case.way()
    tried: list[int] = []

    def judge(candidate: Model) -> Verdict:
        plain = sum(n.op_type in ("QuantizeLinear", "DequantizeLinear") for n in candidate.nodes())
        tried.append(plain)
        return Verdict(met=len(tried) > 1 and plain <= tried[0] - 6, words=f"{plain} conversions")

    found = case.search(judge).run(steps)
    assert found.met and found.chosen is not None
    met = [p for p in found.frontier if p.met]
    assert min(p.estimated_ms or 0 for p in met) == found.chosen.estimated_ms
    assert all(p.reverted >= found.chosen.reverted for p in met)


def test_without_the_dearest_when_another_made_it_needless() -> None:
    case = Setting()
    steps = (
        Step(changes={"Gemm_y": "float32"}, gain=0.5, seconds=1.0),
        Step(changes={"Gemm_b": "float32"}, gain=0.3, seconds=0.1),
    )

    def judge(candidate: Model) -> Verdict:
        floats = {n.name for n in candidate.nodes() if n.metadata_props.get("edgec.scheme") == "float32"}
        return Verdict(met="Gemm_b" in floats)

    found = case.search(judge).run(steps)
    assert found.met and "Gemm_y" not in found.reverted and found.reverted["Gemm_b"] == "float32"


def test_all_of_it_in_float_is_another_precision() -> None:
    case = Setting()
    everything = {n.name or "": "float32" for n in case.model.nodes()}
    steps = (
        Step(changes={"Gemm_y": "float32"}, gain=0.5, seconds=1.0),
        Step(changes=everything, gain=0.5, seconds=1.0),  # type: ignore[arg-type]
    )

    def judge(candidate: Model) -> Verdict:
        floats = sum(n.metadata_props.get("edgec.scheme") == "float32" for n in candidate.nodes())
        return Verdict(met=floats > 4, words=f"{floats}")

    found = case.search(judge).run(steps)
    assert not found.met and found.reverted == {}
    assert "nothing left in int8" in found.frontier[-1].words


def test_weights_that_mend_noise_are_left_where_a_mix_takes_the_noise_away() -> None:
    case = Setting()
    plain, before = case.harms(), case.plan
    case.plan = follow(case.model, before, case.feeds, positions=96)
    # Following gains, as the last layers learn what the erased channels leave them.
    assert case.score(apply_plan(case.model, case.plan)) > case.score(apply_plan(case.model, before)) + 2
    followed = case.harms()
    misled, harms = misled_by_noise(case.model, case.plan, followed, plain)
    assert "w4" in misled and "w1" not in misled
    assert harms.weights["Gemm_y"] == plain.weights["Gemm_y"] < followed.weights["Gemm_y"] / 100
    assert harms.weights["Gemm_a"] == followed.weights["Gemm_a"] < plain.weights["Gemm_a"]
    out: dict[str, NodeScheme] = dict.fromkeys(("Gemm_b", "Mul_c", "Gemm_d", "Relu_dr"), "float32")
    steps = (Step(changes=out, gain=0.99, seconds=1e-6),)
    search = case.search(case.judge(30))
    assert not search.run(steps, target_db=30).met  # the last layer spoils it alone
    found = replace(search, misled=misled).run(steps, target_db=30)
    assert found.met and found.plan.nodes["Gemm_y"].scheme == "int8"
    assert case.score(found.model) >= 30


def test_integers_are_kept_where_the_scales_are_the_same() -> None:
    case = Setting()
    key, entry = next(iter(case.plan.weights.items()))
    ones = np.ones((16, 16), np.int8)
    marked = replace(case.plan, weights={**case.plan.weights, key: replace(entry, data=ones)})
    assert keep_integers(case.make({}), marked).weights[key].data is ones

    def scaled(factor: float) -> QuantPlan:
        qparams = replace(entry.qparams, scale=tuple(factor * s for s in entry.qparams.scale))
        return replace(case.plan, weights={**case.plan.weights, key: replace(entry, qparams=qparams)})

    assert keep_integers(scaled(1 + 2**-15), marked).weights[key].data is ones
    assert keep_integers(scaled(2.0), marked).weights[key].data is None


def test_a_repaired_bias_keeps_its_value_in_other_steps() -> None:
    case = Setting()
    key, entry = next(iter(case.plan.biases.items()))
    repaired = np.arange(16, dtype=np.int32) * 1000
    marked = replace(case.plan, biases={**case.plan.biases, key: replace(entry, data=repaired)})
    finer = replace(entry.qparams, scale=tuple(s / 4 for s in entry.qparams.scale))
    other = replace(case.plan, biases={**case.plan.biases, key: replace(entry, qparams=finer)})
    found = keep_integers(other, marked).biases[key].data
    assert found is not None
    np.testing.assert_array_equal(found, 4 * repaired)


def test_a_cheap_node_goes_before_a_dear_one_that_harms_as_much() -> None:
    text = """(float[1,8,16,16] x) => (float[1,4] y)
    { a = Conv<kernel_shape=[3,3], pads=[1,1,1,1]>(x, w1) ar = Relu(a) p = GlobalAveragePool(ar) f = Flatten(p)
      y = Gemm(f, w2) }"""
    case = Setting(typed(text, {"w1": kernel(8, 8, 3, 3), "w2": kernel(8, 4)}))
    alike = Harms(weights={"Conv_a": 0.1, "Gemm_y": 0.1}, values=[0.0] * len(case.groups))
    steps = find_way(case.model, case.plan, case.scheme, "tflite", case.groups, alike, case.costs)
    assert "Gemm_y" in steps[0].changes and "Conv_a" not in steps[0].changes


@pytest.mark.parametrize(
    ("target", "forms"),
    [
        ("raspberrypi4", {"dynamic", "float16", "float32"}),
        ("cortex-m4", {"int16x8", "float32"}),
        ("ethos-u55-128", {"int16x8"}),
    ],
)
def test_a_target_s_profile_says_what_nodes_revert_to(target: str, forms: set[str]) -> None:
    case = Setting(target=target)
    used = {form for step in case.way() for form in step.changes.values()}
    assert used and used <= forms
    found = case.search(lambda _: Verdict(met=False)).run(case.way(), target_db=60)
    assert {form for point in found.frontier for form in point.nodes} <= forms | {"int8"}


def test_on_integers_alone_16_bits_are_the_repair() -> None:
    case = Setting(net(reads_first=False), target="ethos-u55-128")
    assert case.score(apply_plan(case.model, case.plan)) < 10
    found = case.found(24)
    assert found.met and set(found.reverted.values()) == {"int16x8"}
    assert "int8" in {node.scheme for node in found.plan.nodes.values()}


def test_int8_weights_alone_of_an_int8_plan_leave_them_too() -> None:
    """The ladder may give any node int8 weights beside float data; a budget takes them out like what is int8."""
    case = Setting()
    weights = {"Gemm_d", "Gemm_y"}
    case.plan = make_plan(
        case.model, case.stats, case.target, "tflite", "int8", range_method="minmax", dynamic_nodes=weights
    )
    case.groups = rounded_together(case.model, case.plan, case.scheme)
    assert {name for name, node in case.plan.nodes.items() if node.scheme == "dynamic"} == weights
    loud = Harms(weights=dict.fromkeys(weights, 0.1), values=[0.0] * len(case.groups))
    steps = find_way(case.model, case.plan, case.scheme, "tflite", case.groups, loud, case.costs)
    assert {(n, form) for step in steps for n, form in step.changes.items() if n in weights} == {
        ("Gemm_d", "float32"),
        ("Gemm_y", "float32"),
    }


def test_what_kernels_round_at_run_time_harms_in_an_int8_plan_too() -> None:
    case = Setting()
    plan = make_plan(
        case.model, case.stats, case.target, "tflite", "int8", range_method="minmax", dynamic_nodes=["Gemm_a"]
    )
    groups = rounded_together(case.model, plan, case.scheme)

    def measured_harms(rows: bool) -> Harms:
        return measure_harms(
            case.model, plan, groups, case.feeds, keep=lambda _, f: f(), progress=lambda *_: None, rows=rows
        )

    plain, whole = measured_harms(False), measured_harms(True)
    assert whole.weights["Gemm_a"] > 1.5 * plain.weights["Gemm_a"], "its input's rounding counts with its weights"
    assert whole.weights["Gemm_b"] == pytest.approx(plain.weights["Gemm_b"], rel=1e-6) and whole.values == plain.values


@pytest.mark.parametrize("budget_db", [1.0, 3.0, 6.0])
def test_no_mix_at_all_is_faster(budget_db: float) -> None:
    """All 32 mixes of a small net: what saves a conversion beside a step belongs to it."""
    case = Setting(target="ethos-u55-128")
    kernels = ["Gemm_a", "Gemm_b", "Mul_c", "Gemm_d", "Gemm_y"]
    fastest = np.inf
    for bits in itertools.product([False, True], repeat=len(kernels)):
        asked: dict[str, NodeScheme] = {k: "int16x8" for k, wide in zip(kernels, bits, strict=True) if wide}
        plan = keep_integers(case.make(asked), case.plan)
        schemes = {name: node.scheme for name, node in plan.nodes.items()}
        if "int8" in schemes.values() and case.score(apply_plan(case.model, plan)) >= budget_db:
            fastest = min(fastest, 1e3 * case.costs.total_seconds(schemes))
    found = case.found(budget_db).chosen
    assert found is not None and found.met and found.estimated_ms == pytest.approx(fastest, rel=1e-9)
