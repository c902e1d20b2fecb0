"""The allowance goes where rounding makes noise and float costs little, never past its limits, and into files that
compute what the plan says."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import numpy as np
import pytest

from edgec.backends.base import CompileOptions, load_backend
from edgec.graph.model import Model
from edgec.metrics import sqnr_db, step_differences
from edgec.quantization.mix.allowance import Allowance, Mixer, Mixture, Rounded, mixer, rounded_together
from edgec.quantization.mix.costs import costs_of
from edgec.quantization.planning.plan import make_plan, scheme_of
from edgec.quantization.repair.ladder import climb
from edgec.quantization.run.apply import apply_plan
from edgec.quantization.run.executor import Executor
from edgec.quantization.types import NodeScheme, QuantPlan, Statistics
from edgec.runners.base import run_artifact
from edgec.targets.load import load_target
from edgec.targets.profile import Target
from edgec.tensors import Array
from tests.support.graphs import random_feeds
from tests.support.plans import kernel, measured, typed, with_scheme

TARGET = load_target("raspberrypi4")

#: Heavy convolutions, whose rounding the average evens out, then a light tail that gives floats to the user.
NET = """(float[1,16,16,16] x) => (float[1,40] y)
{ a = Conv <pads = [1,1,1,1]> (x, w1) ar = Relu(a) b = Conv <pads = [1,1,1,1]> (ar, w2) br = Relu(b)
  c = Conv <pads = [1,1,1,1]> (br, w3) cr = Relu(c) p = GlobalAveragePool(cr) f = Flatten(p) y = Gemm(f, w4) }"""


def exact_in_int8(*shape: int, seed: int, channel_axis: int = 0) -> Array:
    """Weights that int8 holds as they are, so that what is left is the noise of activations."""
    whole = np.random.default_rng(seed).integers(-127, 128, shape)
    np.moveaxis(whole, channel_axis, -1)[(0,) * (len(shape) - 1)] = 127  # of every channel one weight
    return (whole * 2.0**-10).astype(np.float32)


def net() -> Model:
    constants = {
        "w1": exact_in_int8(64, 16, 3, 3, seed=1),
        "w2": exact_in_int8(64, 64, 3, 3, seed=2),
        "w3": exact_in_int8(64, 64, 3, 3, seed=3),
        "w4": exact_in_int8(64, 40, seed=4, channel_axis=1),
    }
    return typed(NET, constants)


class Setting:
    """The net, its samples and its int8 plan."""

    def __init__(self, target: Target = TARGET) -> None:
        self.model, self.target = net(), target
        self.feeds: list[dict[str, Array]] = [random_feeds(self.model, seed) for seed in range(8)]
        self.stats: Statistics = measured(self.model, self.feeds)
        self.plan = self.make()

    def make(self) -> QuantPlan:
        return make_plan(self.model, self.stats, self.target, "tflite", "int8", range_method="minmax")

    def found(self) -> Mixture:
        return Mixer(self.target, "tflite").find(self.model, self.plan, self.feeds)


def test_the_last_layer_leaves_int8_and_the_heavy_one_does_not() -> None:
    case = Setting()
    found = case.found()
    reasons = {**found.float_nodes, **found.dynamic_nodes}
    assert "Gemm_y" in reasons and "Conv_b" not in reasons
    assert "of the noise" in reasons["Gemm_y"] and "estimated latency" in reasons["Gemm_y"]


def test_the_mix_is_less_noisy_within_its_costs() -> None:
    case = Setting()
    mixed = Mixer(TARGET, "tflite").plan(case.model, case.stats, "minmax", case.found())
    costs = costs_of(case.model, TARGET, "tflite")
    assert costs is not None
    before, after = ({name: node.scheme for name, node in plan.nodes.items()} for plan in (case.plan, mixed))
    share = scheme_of(TARGET, "tflite").accuracy_allowance
    assert 0 < share < 0.1
    assert costs.total_seconds(after) <= (1 + share) * costs.total_seconds(before)
    exact = Executor(case.model)
    expected = np.stack([exact.run(feed)["y"] for feed in case.feeds])

    def db(plan: QuantPlan) -> float:
        quantized = Executor(apply_plan(case.model, plan))
        return sqnr_db(expected, np.stack([quantized.run(feed)["y"] for feed in case.feeds]))

    assert db(mixed) > db(case.plan) + 3


def test_an_allowance_of_nothing_and_a_target_of_integers_have_no_mixer() -> None:
    assert mixer(TARGET, "tflite") is not None
    assert mixer(with_scheme(accuracy_allowance=0.0), "tflite") is None
    assert mixer(with_scheme(io_dtype="int8"), "tflite") is None
    assert mixer(load_target("coral-edgetpu"), "tflite") is None
    assert mixer(load_target("cortex-m7"), "tflite") is None


def test_a_small_allowance_takes_only_what_is_free() -> None:
    case = Setting(with_scheme(accuracy_allowance=1e-9))
    costs = costs_of(case.model, case.target, "tflite")
    assert costs is not None
    allowance = Allowance(case.model, case.plan, case.target, "tflite", costs)
    found = allowance.choose(dict.fromkeys(range(len(allowance.groups)), 1.0))
    after: dict[str, NodeScheme] = {name: node.scheme for name, node in case.plan.nodes.items()}
    for name in (*found.float_nodes, *found.dynamic_nodes):
        after[name] = "float32" if name in found.float_nodes else "dynamic"
    assert costs.total_seconds(after) <= allowance.seconds * (1 + 1e-6)


class _Priced:
    """Costs of a plan in which the first convolution without int8 takes all bytes, and the last layer most seconds."""

    seconds: ClassVar = {"Gemm_y": 0.02}
    sizes: ClassVar = {"Conv_a": 30_000, "Gemm_y": 10_000}

    def touching(self) -> dict[str, tuple[str, ...]]:
        return {}

    def total_seconds(self, schemes: Mapping[str, NodeScheme]) -> float:
        return 1.0 + sum(s for name, s in self.seconds.items() if schemes[name] != "int8")

    def total_bytes(self, schemes: Mapping[str, NodeScheme]) -> int:
        return 1_000_000 + sum(s for name, s in self.sizes.items() if schemes[name] != "int8")

    def difference(
        self, schemes: Mapping[str, NodeScheme], changes: Mapping[str, NodeScheme], _: object
    ) -> tuple[float, int]:
        after = {**schemes, **changes}
        seconds = self.total_seconds(after) - self.total_seconds(schemes)
        return seconds, self.total_bytes(after) - self.total_bytes(schemes)


class _Slow(_Priced):
    """The last layer takes more than the allowance, three times of which would do."""

    seconds: ClassVar = {"Gemm_y": 0.07}


def _leaving(noise_of_x: float, noise_of_y: float, costs: _Priced | None = None, whole: float = 0.0) -> set[str]:
    """Which of the priced layers leave int8."""
    case = Setting()
    allowance = Allowance(case.model, case.plan, TARGET, "tflite", costs or _Priced())  # type: ignore[arg-type]  # as much as is asked
    alone = {"x": noise_of_x, "y": noise_of_y}
    noise = {i: alone[v] for i, group in enumerate(allowance.groups) for v in group.values if v in alone}
    found = allowance.choose(noise, whole)
    return {*found.float_nodes, *found.dynamic_nodes} & {"Conv_a", "Gemm_y"}


@pytest.mark.parametrize(("noise_of_x", "left"), [(2e-4, "Gemm_y"), (2e-3, "Conv_a")])
def test_what_takes_no_time_but_all_bytes_is_not_free(noise_of_x: float, left: str) -> None:
    """Both do not fit: the one that takes more noise away for its share of what it has less of goes first."""
    assert _leaving(noise_of_x, 1e-3) == {left}


def test_noise_above_the_usual_budget_may_take_more_bytes() -> None:
    """The last layer goes first and leaves 0.2 of the output's power as noise: 14 dB below the usual budget."""
    assert _leaving(0.2, 1.0) == {"Conv_a", "Gemm_y"}


@pytest.mark.parametrize(("noise_of_y", "left"), [(1e-3, set()), (0.2, {"Gemm_y"})])
def test_noise_above_the_usual_budget_may_take_more_time(noise_of_y: float, left: set[str]) -> None:
    assert _leaving(0.0, noise_of_y, _Slow()) == left


def test_noise_that_nobody_measured_counts_for_the_budget_too() -> None:
    assert _leaving(0.0, 1e-3, _Slow(), whole=0.2) == {"Gemm_y"}


def test_a_rescue_goes_on_until_noise_is_well_below_the_budget() -> None:
    """The last layer takes most away; what is left of 19.9 and 21 dB before the first one is freed as well."""
    assert _leaving(4e-3, 0.2) == {"Gemm_y"}
    assert _leaving(8e-3, 0.2) == {"Conv_a", "Gemm_y"}


def test_more_is_measured_of_a_lost_model() -> None:
    case = Setting()
    allowance = Allowance(case.model, case.plan, TARGET, "tflite", _Slow())  # type: ignore[arg-type]
    usual, lost = (allowance.worth_measuring(lost=is_lost) for is_lost in (False, True))
    assert set(usual) < set(lost)
    assert "y" in [v for i in set(lost) - set(usual) for v in allowance.groups[i].values]


def test_products_alone_keep_their_weights_in_int8_where_that_is_as_fast() -> None:
    """Matrix products between normalisations: the runtime multiplies int8 as fast beside float data."""
    constants = {"w1": kernel(64, 256), "w2": kernel(256, 64, seed=1), "g": np.ones(64, np.float32)}
    model = typed(
        """(float[1,32,64] x) => (float[1,32,64] y)
        { n = LayerNormalization<axis=-1>(x, g) a = MatMul(n, w1) b = Gelu(a) c = MatMul(b, w2) y = Add(c, x) }""",
        constants,
    )
    feeds = [random_feeds(model, seed) for seed in range(8)]
    plan = make_plan(model, measured(model, feeds), TARGET, "tflite", "int8")
    found = Mixer(TARGET, "tflite").light(model, plan)
    assert len(found.dynamic_nodes) == 2 and all("latency" in why for why in found.dynamic_nodes.values())
    # That no data is int8 any more is told as a choice.
    made = Mixer(TARGET, "tflite").plan(model, measured(model, feeds), "auto", found)
    assert [f.code for f in made.findings] == ["quant/weights-alone"]
    # OpenVINO widens such weights and multiplies in float; an int8 net of convolutions is faster as it is.
    intel = load_target("intel-cpu")
    assert not Mixer(intel, "openvino").light(
        model, make_plan(model, measured(model, feeds), intel, "openvino", "int8")
    )
    setting = Setting()
    assert not Mixer(TARGET, "tflite").light(setting.model, setting.plan)


def test_noise_of_a_group_follows_who_writes_and_reads_it() -> None:
    group = Rounded(values=("v",), writers=("w",), readers=("r",))

    def roundings(w: NodeScheme, r: NodeScheme, *, writes: bool = True, widens: bool = False) -> int:
        return group.roundings({"w": w, "r": r}, writes=writes, widens=widens)

    assert roundings("int8", "int8") == 1
    assert roundings("float32", "int8") == 1
    assert roundings("float32", "dynamic") == 1  # at run time
    assert roundings("int8", "dynamic") == 2  # and once more
    assert roundings("float32", "float32") == 0
    # OpenVINO multiplies widened weights in float, and its int8 kernels write float for who reads that.
    assert roundings("float32", "dynamic", widens=True) == 0
    assert roundings("int8", "dynamic", writes=False, widens=True) == 0
    assert roundings("int8", "int8", writes=False, widens=True) == 1


class TestWidenedWeights:
    """A product with many weights and few positions, whose float weights are too large, beside a heavy convolution."""

    target = load_target("intel-cpu")
    model = typed(
        """(float[1,256,2,2] x, float[1,64,16,16] h) => (float[1,256,2,2] y, float[1,64,16,16] z)
        { y = Conv(x, w) z = Conv <pads = [1,1,1,1]> (h, v) }""",
        {"w": kernel(256, 256, 1, 1), "v": kernel(64, 64, 3, 3)},
    )

    def planned(self) -> tuple[QuantPlan, Statistics]:
        stats = measured(self.model, [random_feeds(self.model, seed) for seed in range(4)])
        return make_plan(self.model, stats, self.target, "openvino", "int8"), stats

    def chosen(self, value: str, noise: float) -> Mixture:
        costs = costs_of(self.model, self.target, "openvino")
        assert costs is not None
        allowance = Allowance(self.model, self.planned()[0], self.target, "openvino", costs)
        return allowance.choose({i: noise for i, group in enumerate(allowance.groups) if value in group.values})

    def test_noise_above_the_usual_budget_leaves_weights_alone_in_int8(self) -> None:
        found = self.chosen("x", 0.2)
        assert [*found.dynamic_nodes] == ["Conv_y"] and not found.float_nodes

    @pytest.mark.parametrize(("value", "noise"), [("x", 1e-3), ("h", 0.2)])
    def test_not_where_the_noise_is_usual_nor_where_it_takes_long(self, value: str, noise: float) -> None:
        assert self.chosen(value, noise) == Mixture()

    def test_leaving_int8_takes_what_its_multiplications_take_longer(self) -> None:
        costs = costs_of(self.model, self.target, "openvino")
        assert costs is not None
        facts = self.target.estimate
        assert facts is not None
        macs = 256 * 256 * 4
        longer = macs / facts.speed["float32"].conv - macs / facts.speed["int8"].conv
        assert longer > 0
        in_int8, in_float, widened = (costs.seconds["Conv_y", form] for form in ("int8", "float32", "dynamic"))
        assert widened == pytest.approx(max(in_float, in_int8 + longer), rel=1e-9)

    def test_that_no_data_is_int8_is_told_for_what_it_is(self) -> None:
        """Such products are as slow as float ones: nothing is said of a fast runtime."""
        _, stats = self.planned()
        mixture = Mixture(dynamic_nodes={"Conv_y": "asked", "Conv_z": "asked"})
        made = Mixer(self.target, "openvino").plan(self.model, stats, "auto", mixture)
        (finding,) = made.findings
        assert finding.code == "quant/weights-alone" and "as fast" not in finding.message


def test_moved_values_are_rounded_together() -> None:
    case = Setting()
    groups = rounded_together(case.model, case.plan, scheme_of(TARGET, "tflite"))
    assert {"p", "f"} <= {*next(g for g in groups if "p" in g.values).values}
    assert all(set(g.values) == {"br"} for g in groups if "br" in g.values)  # an average is rounded anew


def test_the_ladder_shows_the_rung_and_keeps_what_helps() -> None:
    case = Setting()

    def make(model: Model, stats: Statistics | None, method: object) -> QuantPlan:
        return case.make()

    found = climb(case.model, make, case.stats, case.feeds, mix=mixer(TARGET, "tflite"))
    rung = next(r for r in found.rungs if r.name == "mixed")
    assert rung.kept and rung.after_db > (rung.before_db or 0) + 3
    assert found.plan.nodes["Gemm_y"].scheme in ("dynamic", "float32") and found.mixture
    assert climb(case.model, make, case.stats, case.feeds).mixture == Mixture()


@pytest.mark.parametrize("name", ["raspberrypi4", "intel-cpu"])
def test_the_mixed_artifact_computes_what_its_graph_says(name: str) -> None:
    target = load_target(name)
    case = Setting(target)
    backend_name = target.default_backend
    backend = load_backend(backend_name)
    legal = backend.legalize(case.model, target, "int8")
    stats = measured(legal, case.feeds)
    plan = make_plan(legal, stats, target, backend_name, "int8", range_method="minmax")
    heads = {n.op_type: n.name or "" for n in legal.nodes()}
    mixture = Mixture(dynamic_nodes={heads["Gemm"]: "test"}, float_nodes={heads["GlobalAveragePool"]: "test"})
    assert plan.nodes[heads["Conv"]].scheme == "int8"
    model = apply_plan(legal, Mixer(target, backend_name).plan(legal, stats, "minmax", mixture))
    artifact = backend.compile(model, target, CompileOptions(precision="int8"))
    executor = Executor(model)
    expected = np.stack([executor.run(feed)["y"] for feed in case.feeds])
    raw = run_artifact(
        artifact, [{b.artifact.name: b.to_artifact(f[b.source.name]) for b in artifact.inputs} for f in case.feeds]
    )
    actual = np.stack([b.to_source(r[b.artifact.name]) for r in raw for b in artifact.outputs])
    step = float(expected.max() - expected.min()) / 255
    assert step_differences(expected, actual, step=step).within_2 >= 0.99


def test_something_of_an_int8_model_stays_int8() -> None:
    """Weights too small for int8 beside floats would all be float: another precision, under the name of this one."""
    model = typed(
        "(float[1,16] x) => (float[1,4] y) { a = Gemm(x, w1) ar = Relu(a) y = Gemm(ar, w2) }",
        {"w1": kernel(16, 16), "w2": kernel(16, 4, seed=2)},
    )
    feeds = [random_feeds(model, seed) for seed in range(8)]
    plan = make_plan(model, measured(model, feeds), TARGET, "tflite", "int8", range_method="minmax")
    mix = Mixer(TARGET, "tflite")
    assert not mix.light(model, plan)
    mixed = mix.find(model, plan, feeds)
    assert set(plan.nodes) - mixed.float_nodes.keys(), "not all of them in float"
