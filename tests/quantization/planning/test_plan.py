"""Which nodes run in int8, over which ranges, and why: each rule, and where it does not apply."""

from __future__ import annotations

import functools
from typing import ClassVar

import numpy as np
import pytest

from edgec.errors import EdgecError
from edgec.graph.model import Model
from edgec.quantization.calibration.observers import merge, observe
from edgec.quantization.calibration.range_choice import range_of
from edgec.quantization.planning.plan import make_plan, scheme_of, tensors_to_observe
from edgec.quantization.planning.ranges import Ranges
from edgec.quantization.types import QuantPlan, Statistics
from edgec.targets.load import load_target
from edgec.tensors import DType
from tests.support.graphs import constant
from tests.support.plans import Extents, kernel, statistics, typed, with_scheme

TARGET = load_target("raspberrypi4")
CONV = {"w": kernel(4, 3, 1, 1), "b": kernel(4)}


def plan_of(model: Model, extents: Extents, **options: object) -> QuantPlan:
    target = options.pop("target", TARGET)
    return make_plan(model, statistics(extents), target, "tflite", "int8", range_method="minmax", **options)  # type: ignore[arg-type]


def schemes(plan: QuantPlan) -> dict[str, str]:
    return {name: node.scheme for name, node in plan.nodes.items()}


def scale(plan: QuantPlan, name: str) -> float:
    return plan.activations[name].qparams.scale[0]


def codes(plan: QuantPlan) -> list[str]:
    return [finding.code for finding in plan.findings]


class TestRanges:
    MODEL = "(float[1,3,4,4] x) => (float[1,4,4,4] y) { y = Conv(x, w, b) }"

    def test_input_and_output_cover_what_was_seen_and_zero(self) -> None:
        plan = plan_of(typed(self.MODEL, CONV), {"x": (1.0, 3.0), "y": (-2.0, 5.0)})
        x, y = plan.activations["x"].qparams, plan.activations["y"].qparams
        assert x.zero_point == (-128,) and x.scale[0] == pytest.approx(3 / 255, rel=1e-6)
        assert y.scale[0] == pytest.approx(7 / 255, rel=1e-6)
        low, high = (-128 - y.zero_point[0]) * y.scale[0], (127 - y.zero_point[0]) * y.scale[0]
        assert low == pytest.approx(-2, abs=y.scale[0]) and high == pytest.approx(5, abs=y.scale[0])

    def test_uint8_activations_have_their_zero_point_in_0_to_255(self) -> None:
        target = with_scheme(activation_dtype=DType.UINT8)
        plan = plan_of(typed(self.MODEL, CONV), {"x": (-1.0, 3.0), "y": (0, 1)}, target=target)
        assert plan.activations["x"].dtype is DType.UINT8
        assert plan.activations["x"].qparams.zero_point == (64,)

    def test_percentile_cuts_an_outlier_that_minmax_keeps(self) -> None:
        model = typed(self.MODEL, CONV)
        stats = statistics({"x": (-1, 1), "y": (-1, 1)})
        values = np.concatenate([np.linspace(-1, 1, 1_000_000), [100.0]]).astype(np.float32)
        tensors = {**stats.tensors, "x": observe(values)}
        stats = type(stats)(tensors=tensors, samples=1, digest="")
        wide = make_plan(model, stats, TARGET, "tflite", "int8", range_method="minmax")
        tight = make_plan(model, stats, TARGET, "tflite", "int8", range_method="percentile")
        assert scale(wide, "x") == pytest.approx(101 / 255, rel=1e-6)
        assert scale(tight, "x") < 2.1 / 255

    def test_ranges_have_room_where_runs_differ_but_not_beyond_what_an_operator_gives(self) -> None:
        text = """(float[1,3,4,4] x) => (float[1,4,4,4] y, float[1,4,4,4] z)
        { c = Conv(x, w, b) r = Relu(c) s = Softmax<axis=1>(c) y = Clip(r, lo, hi) z = Mul(s, r) }"""
        model = typed(text, {**CONV, "lo": np.asarray(0, np.float32), "hi": np.asarray(4, np.float32)})
        extents = {"x": (-2.0, 2.0), "c": (-4.0, 4.0), "r": (0.0, 4.0), "y": (0.0, 3.9), "s": (0.0, 0.9), "z": (0, 1)}
        found = Ranges(statistics(extents, narrower=0.5), "minmax")
        values = {out.name: out for node in model.nodes() for out in node.outputs}
        # Of the two runs half show all in half of the cases, else 1/2 of it: 1/4 more for each doubling.
        assert found.of(model.graph.inputs[0]) == pytest.approx((-3.0, 3.0))
        assert found.of(values["r"]) == pytest.approx((0.0, 6.0))
        assert found.of(values["y"]) == pytest.approx((0.0, 4.0))
        assert found.of(values["s"]) == pytest.approx((0.0, 1.0))

    @pytest.mark.parametrize(
        ("text", "kept"),
        [
            ("s = Sigmoid(c) m = Mul(c, s) y = GlobalMaxPool(m)", True),
            ("m = Relu(c) y = GlobalMaxPool(m)", True),
            ("s = Sigmoid(c) m = Mul(c, s) y = GlobalAveragePool(m)", False),
            ("m = Neg(c) y = GlobalMaxPool(m)", False),
            ("m = GlobalMaxPool(c) y = Sub(c, m)", False),
        ],
    )
    def test_what_is_read_for_its_maximum_keeps_its_largest_values(self, text: str, kept: bool) -> None:
        model = typed(f"(float[1,3,4,4] x) => (float[1,4,N,M] y) {{ c = Conv(x, w, b) {text} }}", CONV)
        outlier = np.concatenate([np.linspace(-1, 1, 1_000_000), [-3.0, 3.0]]).astype(np.float32)
        stats = Statistics(tensors={"c": observe(outlier)}, samples=1, digest="")
        conv = next(iter(model.nodes())).outputs[0]
        extent = Ranges(stats, "auto").of(conv)
        assert extent is not None
        assert extent[0] > -2.0
        assert extent[1] == 3.0 if kept else extent[1] < 2.6

    @pytest.mark.parametrize(
        ("text", "outlier", "kept"),
        [
            ("y = Reshape(c, flat)", 4.0, True),
            ("m = Conv(c, w3) y = Reshape(m, flat)", 4.0, False),
            ("y = Reshape(c, flat) r = Relu(c) z = Conv(r, w3)", 4.0, False),
            ("y = Reshape(c, flat)", 80.0, False),  # so wide that its steps would make much of the answer
        ],
    )
    def test_an_answer_is_cut_nowhere_and_has_room_for_more(self, text: str, outlier: float, kept: bool) -> None:
        constants = {**CONV, "w3": kernel(4, 4, 1, 1), "flat": np.array([1, -1])}
        outputs = "y, float[1,4,4,4] z" if "z =" in text else "y"
        model = typed(f"(float[1,3,4,4] x) => (float[1,N] {outputs}) {{ c = Conv(x, w, b) {text} }}", constants)
        runs = np.random.default_rng(0).uniform(-2, 2, (100, 4000)).astype(np.float32)
        runs[0, 0] = outlier
        stats = Statistics(tensors={"c": functools.reduce(merge, map(observe, runs))}, samples=100, digest="")
        extent = Ranges(stats, "auto").of(next(iter(model.nodes())).outputs[0])
        assert extent is not None
        # half of the runs show 4 in half of the cases, and 2 in the others: 1 more for each of three doublings
        assert extent[1] == pytest.approx(7.0, abs=0.01) if kept else extent[1] < outlier
        assert kept or extent == range_of(stats.tensors["c"], "auto")

    @pytest.mark.parametrize(
        ("text", "low", "high"),
        [
            ("y = Conv(c, w3)", "plain", "plain"),
            ("s = Sigmoid(c) m = Mul(c, s) y = Conv(m, w3)", "narrower", "other"),
            ("m = HardSwish(c) y = Conv(m, w3)", "flat", "plain"),  # rule 7 alone
        ],
    )
    def test_what_readers_make_of_a_value_decides_where_they_are_flat_nowhere(
        self, text: str, low: str, high: str
    ) -> None:
        constants = {**CONV, "w3": kernel(4, 4, 1, 1)}
        model = typed(f"(float[1,3,4,4] x) => (float[1,4,4,4] y) {{ c = Conv(x, w, b) {text} }}", constants)
        values = np.random.default_rng(0).normal(0, 3, 40_000).astype(np.float32)
        stats = Statistics(tensors={"c": observe(values)}, samples=1, digest="")
        plain = range_of(stats.tensors["c"], "auto")
        extent = Ranges(stats, "auto").of(next(iter(model.nodes())).outputs[0])
        assert extent is not None
        assert extent[0] == {"plain": plain[0], "flat": -3.0}.get(low, extent[0])
        assert (extent[0] > 0.7 * plain[0]) == (low != "plain")
        assert (extent[1] == plain[1]) == (high == "plain")

    def test_a_tensor_without_range_keeps_its_node_float_and_is_reported(self) -> None:
        plan = plan_of(typed(self.MODEL, CONV), {"x": (0, 1)})
        assert schemes(plan) == {"Conv_y": "float32"}
        assert codes(plan) == ["quant/no-range", "quant/nothing-quantized"]
        assert "'y'" in plan.nodes["Conv_y"].reason

    def test_a_range_that_no_int8_can_hold_keeps_its_node_float(self) -> None:
        plan = plan_of(typed(self.MODEL, CONV), {"x": (0, 1), "y": (-1e9, 1)})
        assert schemes(plan) == {"Conv_y": "float32"}
        assert "quant/huge-range" in codes(plan)

    def test_int8_without_statistics_is_refused(self) -> None:
        with pytest.raises(EdgecError) as caught:
            make_plan(typed(self.MODEL, CONV), None, TARGET, "tflite", "int8")
        assert caught.value.code == "quant/no-statistics"

    def test_an_unknown_backend_is_refused(self) -> None:
        with pytest.raises(EdgecError) as caught:
            scheme_of(TARGET, "tensorrt")
        assert caught.value.code == "target/no-backend"
        assert "tflite" in caught.value.finding.hint

    def test_an_always_zero_tensor_has_a_usable_scale(self) -> None:
        plan = plan_of(typed(self.MODEL, CONV), {"x": (0, 0), "y": (0, 1)})
        assert scale(plan, "x") == 1.0 and plan.activations["x"].qparams.zero_point == (0,)


class TestFusion:
    TEXT = "(float[1,3,4,4] x) => (float[1,4,4,4] y) { c = Conv(x, w, b) y = %s }"
    CLIP6: ClassVar = {"lo": np.asarray(0, np.float32), "hi": np.asarray(6, np.float32)}

    def test_conv_relu_is_quantized_only_behind_the_relu(self) -> None:
        plan = plan_of(typed(self.TEXT % "Relu(c)", CONV), {"x": (0, 1), "y": (0, 4)})
        assert set(plan.activations) == {"x", "y"}
        assert schemes(plan) == {"Conv_c": "int8", "Relu_y": "int8"}

    def test_relu_output_never_goes_below_zero(self) -> None:
        plan = plan_of(typed(self.TEXT % "Relu(c)", CONV), {"x": (0, 1), "y": (-0.5, 4)})
        assert plan.activations["y"].qparams.zero_point == (-128,)

    def test_clip_0_6_fuses_and_bounds_its_range(self) -> None:
        model = typed(self.TEXT % "Clip(c, lo, hi)", {**CONV, **self.CLIP6})
        plan = plan_of(model, {"x": (0, 1), "y": (-1, 9)})
        assert set(plan.activations) == {"x", "y"}
        assert scale(plan, "y") == pytest.approx(6 / 255, rel=1e-6)

    def test_other_clip_bounds_do_not_fuse(self) -> None:
        bounds = {"lo": np.asarray(0, np.float32), "hi": np.asarray(1, np.float32)}
        plan = plan_of(
            typed(self.TEXT % "Clip(c, lo, hi)", {**CONV, **bounds}), {"x": (0, 1), "c": (-1, 1), "y": (0, 1)}
        )
        assert set(plan.activations) == {"x", "c", "y"}

    def test_a_second_reader_prevents_fusion(self) -> None:
        text = "(float[1,3,4,4] x) => (float[1,4,4,4] y) { c = Conv(x, w, b) r = Relu(c) y = Add(r, c) }"
        plan = plan_of(typed(text, CONV), {"x": (0, 1), "c": (-1, 1), "r": (0, 1), "y": (-1, 2)})
        assert "c" in plan.activations

    def test_a_graph_output_prevents_fusion(self) -> None:
        text = "(float[1,3,4,4] x) => (float[1,4,4,4] c, float[1,4,4,4] y) { c = Conv(x, w, b) y = Relu(c) }"
        plan = plan_of(typed(text, CONV), {"x": (0, 1), "c": (-1, 1), "y": (0, 1)})
        assert "c" in plan.activations

    def test_matmul_takes_its_bias_addition_and_activation_in(self) -> None:
        text = "(float[2,3] x) => (float[2,4] y) { m = MatMul(x, w) a = Add(m, b) y = Relu(a) }"
        plan = plan_of(typed(text, {"w": kernel(3, 4), "b": kernel(4)}), {"x": (0, 1), "y": (0, 1)})
        assert set(plan.activations) == {"x", "y"} and set(plan.biases) == {"b"}
        assert plan.biases["b"].dtype is DType.INT32

    def test_an_addition_that_is_no_bias_is_not_taken_in(self) -> None:
        text = "(float[4,3] x) => (float[4,4] y) { m = MatMul(x, w) y = Add(m, b) }"
        plan = plan_of(typed(text, {"w": kernel(3, 4), "b": kernel(4, 1)}), {"x": (0, 1), "m": (0, 1), "y": (0, 1)})
        assert "m" in plan.activations and not plan.biases
        assert plan.weights["b"].dtype is DType.INT8


class TestSameScale:
    def test_pooling_and_reshaping_hand_the_scale_on(self) -> None:
        text = """(float[1,3,4,4] x) => (float[1,16] y)
        { p = MaxPool<kernel_shape=[2,2], strides=[2,2]>(x) c = Conv(p, w, b) y = Flatten(c) }"""
        plan = plan_of(typed(text, CONV), {"x": (-1, 3), "c": (-2, 2)})
        assert plan.activations["x"].qparams == plan.activations["p"].qparams
        assert plan.activations["c"].qparams == plan.activations["y"].qparams

    def test_concat_takes_the_union_of_its_inputs(self) -> None:
        text = """(float[1,3,4,4] x) => (float[1,4,4,4] y)
        { a = Conv(x, w, b) s = Conv(x, w2) j = Concat<axis=1>(a, s) y = Conv(j, w3) }"""
        constants = {**CONV, "w2": kernel(4, 3, 1, 1, seed=1), "w3": kernel(4, 8, 1, 1)}
        plan = plan_of(typed(text, constants), {"x": (0, 1), "a": (-1, 2), "s": (-4, 1), "y": (0, 1)})
        assert {plan.activations[n].qparams for n in "asj"} == {plan.activations["a"].qparams}
        assert scale(plan, "j") == pytest.approx(6 / 255, rel=1e-6)
        assert codes(plan) == []

    def test_concat_of_very_different_ranges_is_reported(self) -> None:
        text = """(float[1,3,4,4] x) => (float[1,4,4,4] y)
        { a = Conv(x, w, b) s = Conv(x, w2) j = Concat<axis=1>(a, s) y = Conv(j, w3) }"""
        constants = {**CONV, "w2": kernel(4, 3, 1, 1, seed=1), "w3": kernel(4, 8, 1, 1)}
        plan = plan_of(typed(text, constants), {"x": (0, 1), "a": (0, 1), "s": (0, 17), "y": (0, 1)})
        assert codes(plan) == ["quant/concat-ranges"] and schemes(plan)["Concat_j"] == "int8"

    def test_such_a_concat_stays_float_when_only_an_output_reads_it(self) -> None:
        text = """(float[1,3,4,4] x) => (float[1,8,4,4] y)
        { a = Conv(x, w, b) s = Conv(x, w2) y = Concat<axis=1>(a, s) }"""
        constants = {**CONV, "w2": kernel(4, 3, 1, 1, seed=1)}
        model = typed(text, constants)
        plan = plan_of(model, {"x": (0, 1), "a": (0, 1), "s": (0, 17)})
        assert schemes(plan)["Concat_y"] == "float32" and "17 ×" in plan.nodes["Concat_y"].reason
        near = plan_of(model, {"x": (0, 1), "a": (0, 1), "s": (0, 2)})
        assert schemes(near)["Concat_y"] == "int8"

    def test_a_constant_operand_of_concat_joins_the_group(self) -> None:
        text = "(float[1,3,4,4] x) => (float[1,4,4,4] y) { j = Concat<axis=1>(x, k) y = Conv(j, w5) }"
        constants = {"k": np.full((1, 2, 4, 4), 3, np.float32), "w5": kernel(4, 5, 1, 1)}
        plan = plan_of(typed(text, constants), {"x": (-1, 1), "y": (0, 1)})
        assert scale(plan, "x") == pytest.approx(4 / 255, rel=1e-6)
        assert plan.weights["k"].qparams == plan.activations["x"].qparams

    def test_zero_padding_keeps_the_range_and_a_pad_value_widens_it(self) -> None:
        text = "(float[1,3,4,4] x) => (float[1,4,5,5] y) { p = Pad(x, pads, v) y = Conv(p, w, b) }"
        pads = {"pads": constant(0, 0, 0, 0, 0, 0, 1, 1, dtype="int64")}
        for value, low in ((0.0, -0.9), (-3.0, -3.0), (-np.inf, -0.9), (-3e38, -0.9)):
            model = typed(text, {**CONV, **pads, "v": np.asarray(value, np.float32)})
            plan = plan_of(model, {"x": (-0.9, 1), "y": (0, 1)})
            assert scale(plan, "x") == scale(plan, "p") == pytest.approx((1 - low) / 255, rel=1e-6), value


class TestFixedOutputs:
    def test_sigmoid_between_int8_operators_has_its_fixed_scale(self) -> None:
        text = """(float[1,3,4,4] x) => (float[1,4,4,4] y)
        { c = Conv(x, w, b) s = Sigmoid(c) y = Mul(s, c) }"""
        plan = plan_of(typed(text, CONV), {"x": (0, 1), "c": (-5, 5), "y": (-1, 5)})
        assert plan.activations["s"].qparams.scale == (1 / 256,)
        assert plan.activations["s"].qparams.zero_point == (-128,)

    def test_a_group_with_a_fixed_scale_and_a_wider_range_cannot_be(self) -> None:
        text = """(float[1,3,4,4] x) => (float[1,4,4,4] y)
        { c = Conv(x, w, b) s = Sigmoid(c) j = Concat<axis=1>(s, c) y = Conv(j, w3) }"""
        plan = plan_of(
            typed(text, {**CONV, "w3": kernel(4, 8, 1, 1)}), {"x": (0, 1), "c": (-5, 6), "y": (0, 1), "j": (-5, 6)}
        )
        assert schemes(plan)["Concat_j"] == "float32"
        assert plan.activations["j"].qparams.scale[0] == pytest.approx(11 / 255, rel=1e-6)

    def test_a_probability_at_a_float_output_stays_float(self) -> None:
        text = "(float[1,3,4,4] x) => (float[1,4,4,4] y) { c = Conv(x, w, b) y = Softmax<axis=1>(c) }"
        model = typed(text, CONV)
        extents = {"x": (0, 1), "c": (-5, 5)}
        assert schemes(plan_of(model, extents))["Softmax_y"] == "float32"
        quantized_io = plan_of(model, extents, target=with_scheme(io_dtype="int8"))
        assert schemes(quantized_io)["Softmax_y"] == "int8"


class TestNeighbours:
    def test_normalisation_between_int8_layers_stays_float(self) -> None:
        text = """(float[2,3] x) => (float[2,4] y)
        { m = MatMul(x, w) mean = ReduceMean<keepdims=1>(m, axes) d = Sub(m, mean) sq = Mul(d, d)
          v = ReduceMean<keepdims=1>(sq, axes) e = Add(v, eps) r = Sqrt(e) n = Div(d, r) g = Mul(n, gamma)
          y = MatMul(g, w2) }"""
        constants = {
            "w": kernel(3, 4),
            "w2": kernel(4, 4),
            "axes": constant(-1, dtype="int64"),
            "eps": constant(1e-5),
            "gamma": kernel(4),
        }
        model = typed(text, constants)
        names = ("x", "m", "mean", "d", "sq", "v", "e", "r", "n", "g", "y")
        plan = plan_of(model, dict.fromkeys(names, (-1.0, 1.0)))
        quantized = {name for name, scheme in schemes(plan).items() if scheme == "int8"}
        assert quantized == {"MatMul_m", "MatMul_y"}
        assert plan.nodes["Mul_g"].reason == "everything it reads is float"
        assert plan.nodes["Sub_d"].reason == "everything that reads it is float"

    def test_a_residual_addition_between_convolutions_is_int8(self) -> None:
        text = """(float[1,4,4,4] x) => (float[1,4,4,4] y)
        { a = Conv(x, w) s = Add(a, x) y = Conv(s, w) }"""
        plan = plan_of(typed(text, {"w": kernel(4, 4, 1, 1)}), dict.fromkeys("xasy", (-1.0, 1.0)))
        assert set(schemes(plan).values()) == {"int8"}

    def test_a_mover_between_float_operators_stays_float(self) -> None:
        text = "(float[2,3] x) => (float[3,2] y) { a = Erf(x) t = Transpose(a) y = Erf(t) }"
        plan = plan_of(typed(text), dict.fromkeys("xaty", (-1.0, 1.0)))
        assert plan.nodes["Transpose_t"].reason == "it moves data between float operators"
        assert codes(plan) == ["quant/nothing-quantized"]

    def test_movers_between_float_and_int8_are_int8(self) -> None:
        text = "(float[3,2] x) => (float[2,4] y) { a = Erf(x) t = Transpose(a) y = MatMul(t, w) }"
        plan = plan_of(typed(text, {"w": kernel(3, 4)}), dict.fromkeys("xay", (-1.0, 1.0)))
        assert schemes(plan) == {"Erf_a": "float32", "Transpose_t": "int8", "MatMul_y": "int8"}
        assert set(plan.activations) == {"a", "t", "y"}


class TestNodes:
    def test_asked_to_stay_float(self) -> None:
        model = typed("(float[1,3,4,4] x) => (float[1,4,4,4] y) { y = Conv(x, w, b) }", CONV)
        plan = plan_of(model, {"x": (0, 1), "y": (0, 1)}, float_nodes={"Conv_y"})
        assert plan.nodes["Conv_y"].reason == "asked to stay float" and not plan.activations

    def test_an_operator_without_kernel_says_so(self) -> None:
        plan = plan_of(typed("(float[2] x) => (float[2] y) { y = Erf(x) }"), {"x": (0, 1), "y": (0, 1)})
        assert "no quantized kernel for Erf" in plan.nodes["Erf_y"].reason

    @pytest.mark.parametrize(
        ("body", "reason"),
        [
            ("y = Gemm<transA=1>(x, w)", "transposed"),
            ("y = Gemm<alpha=0.5>(x, w)", "alpha"),
            ("y = MatMul(w, x)", "run time"),
        ],
    )
    def test_products_that_kernels_lack(self, body: str, reason: str) -> None:
        model = typed(f"(float[4,4] x) => (float[4,4] y) {{ {body} }}", {"w": kernel(4, 4)})
        plan = plan_of(model, {"x": (0, 1), "y": (0, 1)})
        assert reason in plan.nodes[next(iter(plan.nodes))].reason
        assert set(schemes(plan).values()) == {"float32"}

    def test_products_of_two_activations_only_where_the_scheme_has_them(self) -> None:
        model = typed("(float[2,3] x, float[3,4] z) => (float[2,4] y) { y = MatMul(x, z) }")
        extents = {"x": (0, 1), "z": (0, 1), "y": (0, 1)}
        assert schemes(plan_of(model, extents)) == {"MatMul_y": "float32"}
        ops = scheme_of(TARGET, "tflite").int8_ops | {"MatMul:activations"}
        plan = plan_of(model, extents, target=with_scheme(int8_ops=ops))
        assert schemes(plan) == {"MatMul_y": "int8"} and set(plan.activations) == {"x", "z", "y"}

    def test_a_mask_stays_float(self) -> None:
        text = "(float[2,3] x) => (float[2,4] y) { m = MatMul(x, w) y = Add(m, mask) }"
        model = typed(text, {"w": kernel(3, 4), "mask": np.asarray([[0, 0, 0, -1e9]] * 2, np.float32)})
        plan = plan_of(model, {"x": (0, 1), "m": (0, 1), "y": (-1e9, 1)})
        assert schemes(plan) == {"MatMul_m": "int8", "Add_y": "float32"}
        assert "mask" in plan.nodes["Add_y"].reason

    def test_integer_data_is_left_alone(self) -> None:
        plan = plan_of(typed("(int64[4] x) => (int64[4] y) { y = Add(x, x) }"), {})
        assert plan.nodes["Add_y"].reason == "its data is not float32"

    def test_weights_computed_at_run_time_keep_a_convolution_float(self) -> None:
        model = typed("(float[1,3,4,4] x, float[4,3,1,1] w) => (float[1,4,4,4] y) { y = Conv(x, w) }")
        plan = plan_of(model, {"x": (0, 1), "w": (0, 1), "y": (0, 1)})
        assert plan.nodes["Conv_y"].reason == "its weights are computed at run time"


class TestRatios:
    ADD = """(float[1,4,4,4] x) => (float[1,4,4,4] y) { a = Conv(x, w) c = Conv(x, w) s = Add(a, c) y = Conv(s, w) }"""

    def test_an_addition_outside_the_kernels_scale_ratio_stays_float(self) -> None:
        also_read = self.ADD.replace("y = Conv(s, w)", "d = Conv(c, w) t = Add(s, d) y = Conv(t, w)")
        model = typed(also_read, {"w": kernel(4, 4, 1, 1)})
        others = {"x": (0, 1), "a": (0, 1), "s": (0, 1), "d": (0, 1), "t": (0, 1), "y": (0, 1)}
        near = plan_of(model, {**others, "c": (0, 1 / 1000)})
        far = plan_of(model, {**others, "c": (0, 1 / 2000)})
        assert schemes(near)["Add_s"] == "int8"
        assert schemes(far)["Add_s"] == "float32" and "outside the kernel's limits" in far.nodes["Add_s"].reason

    def test_the_scale_of_a_term_that_nobody_else_reads_is_raised_instead(self) -> None:
        model = typed(self.ADD, {"w": kernel(4, 4, 1, 1)})
        plan = plan_of(model, {"x": (0, 1), "a": (0, 1), "c": (0, 1 / 2000), "s": (0, 1), "y": (0, 1)})
        assert schemes(plan)["Add_s"] == "int8" and "raised" in plan.activations["c"].reason
        assert 2.0**-10 <= scale(plan, "c") / scale(plan, "s") < 2.0**-9

    def test_a_constants_scale_is_raised_instead(self) -> None:
        text = "(float[1,4,4,4] x) => (float[1,4,4,4] y) { a = Conv(x, w) s = Add(a, eps) y = Conv(s, w) }"
        model = typed(text, {"w": kernel(4, 4, 1, 1), "eps": constant(1e-7)})
        plan = plan_of(model, {"x": (0, 1), "a": (0, 1), "s": (0, 1), "y": (0, 1)})
        ratio = plan.weights["eps"].qparams.scale[0] / scale(plan, "s")
        assert schemes(plan)["Add_s"] == "int8" and 2.0**-10 <= ratio < 2.0**-9
        assert "raised" in plan.weights["eps"].reason

    def test_multiplication_is_judged_by_the_product_of_its_scales(self) -> None:
        text = "(float[1,4,4,4] x) => (float[1,4,4,4] y) { a = Conv(x, w) s = Mul(a, a) y = Conv(s, w) }"
        model = typed(text, {"w": kernel(4, 4, 1, 1)})
        near = plan_of(model, {"x": (0, 1), "a": (0, 1), "s": (0, 1), "y": (0, 1)})
        far = plan_of(model, {"x": (0, 1), "a": (0, 1), "s": (0, 1e4), "y": (0, 1)})
        assert (schemes(near)["Mul_s"], schemes(far)["Mul_s"]) == ("int8", "float32")


class TestObserved:
    def test_only_what_the_plan_needs_is_observed(self) -> None:
        text = """(float[1,3,4,4] x) => (float[1,16] y)
        { c = Conv(x, w, b) r = Relu(c) p = MaxPool<kernel_shape=[2,2], strides=[2,2]>(r) e = Erf(p) y = Flatten(e) }"""
        model = typed(text, CONV)
        assert tensors_to_observe(model, scheme_of(TARGET, "tflite")) == ("x", "r")
        assert tensors_to_observe(model, scheme_of(TARGET, "tflite"), precision="dynamic") == ()

    def test_what_is_observed_suffices(self) -> None:
        text = """(float[1,3,4,4] x) => (float[1,4,4,4] y)
        { c = Conv(x, w, b) s = Sigmoid(c) m = Mul(s, c) j = Concat<axis=1>(m, x) p = Pad(j, pads) y = Conv(p, w7) }"""
        constants = {**CONV, "w7": kernel(4, 7, 1, 1), "pads": np.zeros(8, np.int64)}
        model = typed(text, constants)
        names = tensors_to_observe(model, scheme_of(TARGET, "tflite"))
        plan = plan_of(model, dict.fromkeys(names, (-1.0, 1.0)))
        assert codes(plan) == [] and set(schemes(plan).values()) == {"int8"}

    @pytest.mark.parametrize(
        "between", ["j = Pad(c, pads, low)", "p = Pad(c, pads, low) j = Transpose<perm=[0,1,3,2]>(p)"]
    )
    @pytest.mark.parametrize(("name", "backend"), [("intel-cpu", "openvino"), ("raspberrypi4", "tflite")])
    def test_what_a_pad_reads_is_observed_whatever_runs_in_int8(self, name: str, backend: str, between: str) -> None:
        """A sentinel before a MaxPool: OpenVINO keeps Pad and MaxPool apart, and what it pads was not observed."""
        text = "(float[1,3,4,4] x) => (float[1,4,2,2] y) { c = Conv(x, w, b) %s"
        text += " m = MaxPool<kernel_shape=[3,3], strides=[2,2]>(j) y = Conv(m, v) }"
        constants = {
            **CONV,
            "v": kernel(4, 4, 1, 1),
            "pads": np.asarray([0, 0, 0, 0, 0, 0, 1, 1]),
            "low": constant(-1e30),
        }
        model, target = typed(text % between, constants), load_target(name)
        names = tensors_to_observe(model, scheme_of(target, backend), backend=backend)
        stats = statistics(dict.fromkeys(names, (-1.0, 1.0)))
        plan = make_plan(model, stats, target, backend, "int8", range_method="minmax")
        assert codes(plan) == [] and schemes(plan)["Conv_y"] == "int8"
        assert scale(plan, "m" if backend == "openvino" else "c") == pytest.approx(2 / 255, rel=0.02)


def test_the_plan_is_the_same_every_time() -> None:
    model = typed(TestRatios.ADD, {"w": kernel(4, 4, 1, 1)})
    extents = dict.fromkeys("xacsy", (-1.0, 1.0))
    assert plan_of(model, extents) == plan_of(model, extents)


def test_openvino_quantizes_only_what_its_kernels_read() -> None:
    text = "(float[1,4,4,4] x) => (float[1,4,4,4] y) { a = Conv(x, w) s = Add(a, x) y = Conv(s, w) }"
    model = typed(text, {"w": kernel(4, 4, 1, 1)})
    target = load_target("intel-cpu")
    assert tensors_to_observe(model, scheme_of(target, "openvino"), backend="openvino") == ("x", "s")
    stats = statistics({"x": (-1, 1), "s": (-1, 1)})
    plan = make_plan(model, stats, target, "openvino", "int8", range_method="minmax")
    assert set(plan.activations) == {"x", "s"}
    assert schemes(plan) == {"Conv_a": "int8", "Add_s": "float32", "Conv_y": "int8"}
    assert codes(plan) == []


def test_a_convolution_at_one_position_has_int8_weights_alone_where_the_scheme_says_so() -> None:
    text = """(float[1,4,4,4] x) => (float[1,4,4,4] y)
    { g = GlobalAveragePool(x) e = Conv(g, v) m = Mul(x, e) y = Conv(m, w) }"""
    model = typed(text, {"w": kernel(4, 4, 1, 1), "v": kernel(4, 4, 1, 1, seed=1)})
    stats = statistics(dict.fromkeys("xgemy", (-1.0, 1.0)))
    plan = make_plan(model, stats, load_target("intel-cpu"), "openvino", "int8")
    assert schemes(plan)["Conv_e"] == "dynamic" and schemes(plan)["Conv_y"] == "int8"
    assert set(plan.activations) == {"m"} and set(plan.weights) == {"v", "w"}
    assert schemes(make_plan(model, stats, TARGET, "tflite", "int8"))["Conv_e"] == "int8"


def test_float32_leaves_everything() -> None:
    model = typed("(float[1,3,4,4] x) => (float[1,4,4,4] y) { y = Conv(x, w, b) }", CONV)
    plan = make_plan(model, None, TARGET, "tflite", "float32")
    assert schemes(plan) == {"Conv_y": "float32"} and not plan.activations and not plan.weights
