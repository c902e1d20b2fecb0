"""Scales of weights and biases, and the plans that touch weights alone."""

from __future__ import annotations

import numpy as np
import pytest

from edgec.graph.model import Model
from edgec.metrics import sqnr_db
from edgec.quantization.planning.affine import power_of_two
from edgec.quantization.planning.plan import make_plan
from edgec.quantization.run.apply import apply_plan
from edgec.quantization.types import QuantPlan
from edgec.targets.load import load_target
from edgec.tensors import Array, DType
from tests.support.graphs import run_ort
from tests.support.plans import kernel, measured, statistics, typed, with_scheme

TARGET = load_target("raspberrypi4")
CONV = "(float[1,3,4,4] x) => (float[1,4,4,4] y) { y = Conv(x, w, b) }"


def plan_of(model: Model, low_y: float = -1.0, **changes: object) -> QuantPlan:
    stats = statistics({"x": (-1, 1), "y": (low_y, 1.0)})
    return make_plan(model, stats, with_scheme(**changes), "tflite", "int8", range_method="minmax")  # type: ignore[arg-type]


def conv(weight: Array, bias: Array) -> Model:
    return typed(CONV, {"w": weight, "b": bias})


def test_a_scale_a_channel_symmetric_and_narrow() -> None:
    weight = kernel(4, 3, 1, 1)
    params = plan_of(conv(weight, kernel(4))).weights["w"].qparams
    expected = np.abs(weight).max(axis=(1, 2, 3)) / 127
    assert params.axis == 0 and set(params.zero_point) == {0}
    np.testing.assert_allclose(params.scale, expected, rtol=1e-6)
    assert np.abs(params.quantize(weight, DType.INT8)).max() == 127


def test_one_scale_for_the_tensor_where_the_scheme_says_so() -> None:
    weight = kernel(4, 3, 1, 1)
    plan = plan_of(conv(weight, kernel(4)), weight_granularity="tensor")
    assert plan.weights["w"].qparams.axis is None and plan.biases["b"].qparams.axis is None
    assert plan.weights["w"].qparams.scale[0] == pytest.approx(float(np.abs(weight).max()) / 127, rel=1e-6)


def test_seven_bit_weights() -> None:
    weight = kernel(4, 3, 1, 1)
    params = plan_of(conv(weight, kernel(4)), weight_bits=7).weights["w"].qparams
    assert np.abs(params.quantize(weight, DType.INT8)).max() == 63


def test_powers_of_two_where_kernels_shift() -> None:
    """Every scale, the smallest one that covers its range: beside the free one it is less than twice as large."""
    model = conv(kernel(4, 3, 1, 1), kernel(4))
    free, shifted = plan_of(model, -0.3), plan_of(model, -0.3, power_of_two_scales=True)
    for plans, usual in (
        (shifted.activations, free.activations),
        (shifted.weights, free.weights),
        (shifted.biases, free.biases),
    ):
        for key, entry in plans.items():
            scales, others = np.asarray(entry.qparams.scale), np.asarray(usual[key].qparams.scale)
            assert set(np.frexp(scales)[0]) == {0.5}, key
            assert np.all((scales >= others) & (scales < (4 if plans is shifted.biases else 2) * others)), key
    x = shifted.activations["x"].qparams
    np.testing.assert_allclose(x.dequantize(x.quantize(np.array([-1.0, 1.0]), DType.INT8)), [-1, 1], atol=x.scale[0])
    assert power_of_two([0.5, 0.51, 1.0, 3.0]).tolist() == [0.5, 1.0, 1.0, 4.0]


def test_bias_scale_is_input_scale_times_weight_scale() -> None:
    plan = plan_of(conv(kernel(4, 3, 1, 1), kernel(4)))
    product = np.float32(plan.activations["x"].qparams.scale[0]) * np.asarray(
        plan.weights["w"].qparams.scale, np.float32
    )
    np.testing.assert_array_equal(np.asarray(plan.biases["b"].qparams.scale, np.float32), product)


def test_16_bit_activations_are_rescaled_by_factors_that_15_bits_hold() -> None:
    """The kernels round the factor to 15 bits; an unrounded one would be off by up to a step in each layer."""
    weight = kernel(4, 3, 1, 1)
    model, stats = conv(weight, kernel(4)), statistics({"x": (-1.1, 1), "y": (-1.3, 1.0)})
    plan = make_plan(model, stats, with_scheme(), "tflite", "int16x8", range_method="minmax")
    params = plan.weights["w"].qparams
    ratio = plan.activations["x"].qparams.scale[0] / plan.activations["y"].qparams.scale[0]
    mantissa = np.frexp(np.asarray(params.scale) * ratio)[0] * 2.0**15
    np.testing.assert_allclose(mantissa, np.rint(mantissa), rtol=0, atol=0.01)  # scales are stored in float32
    plain = np.abs(weight).max(axis=(1, 2, 3)) / 127
    assert (np.asarray(params.scale) >= plain * (1 - 1e-7)).all()
    np.testing.assert_allclose(params.scale, plain, rtol=2.0**-13)


def test_a_channel_without_weights_keeps_its_bias() -> None:
    weight = kernel(4, 3, 1, 1)
    weight[1] = 0
    weight[2] = 1e-24
    bias = np.asarray([0.5, 3.0, -2.0, 0.1], np.float32)
    plan = plan_of(conv(weight, bias))
    scales = np.asarray(plan.biases["b"].qparams.scale, np.float64)
    assert np.all(np.abs(bias / scales) <= 2.0**30 * (1 + 1e-6))
    assert "raised for 1 of 4" in plan.weights["w"].reason
    # The others keep the best scale.
    assert plan.weights["w"].qparams.scale[0] == pytest.approx(float(np.abs(weight[0]).max()) / 127, rel=1e-6)


def test_all_zero_weights_have_a_scale() -> None:
    plan = plan_of(conv(np.zeros((4, 3, 1, 1), np.float32), np.zeros(4, np.float32)))
    assert all(s > 0 for s in plan.weights["w"].qparams.scale)


def test_an_output_too_narrow_to_rescale_to_keeps_the_node_float() -> None:
    model = typed(CONV, {"w": kernel(4, 3, 1, 1, scale=1e4), "b": kernel(4)})
    stats = statistics({"x": (-1e4, 1e4), "y": (0, 1e-3)})
    plan = make_plan(model, stats, TARGET, "tflite", "int8", range_method="minmax")
    assert plan.nodes["Conv_y"].scheme == "float32" and "too narrow" in plan.nodes["Conv_y"].reason


def test_convtranspose_groups_share_the_scales_of_their_channels() -> None:
    text = "(float[1,4,4,4] x) => (float[1,6,4,4] y) { y = ConvTranspose<group=2>(x, w, b) }"
    plan = plan_of(typed(text, {"w": kernel(4, 3, 1, 1), "b": kernel(6)}))
    assert plan.weights["w"].qparams.axis == 1 and len(plan.weights["w"].qparams.scale) == 3
    bias = plan.biases["b"].qparams.scale
    assert len(bias) == 6 and bias[:3] == bias[3:]


def test_a_bias_that_two_layers_share_gets_a_plan_for_each() -> None:
    text = "(float[1,3,4,4] x) => (float[1,4,4,4] y) { c = Conv(x, w, b) d = Conv(x, v, b) y = Add(c, d) }"
    model = typed(text, {"w": kernel(4, 3, 1, 1), "v": kernel(4, 3, 1, 1, seed=1), "b": kernel(4)})
    stats = statistics(dict.fromkeys("xcdy", (-1.0, 1.0)))
    plan = make_plan(model, stats, TARGET, "tflite", "int8", range_method="minmax")
    assert set(plan.biases) == {"b@Conv_c", "b@Conv_d"}


def test_int16_activations_are_symmetric_with_int8_weights() -> None:
    stats = statistics({"x": (-1, 3), "y": (-1, 1)})
    plan = make_plan(conv(kernel(4, 3, 1, 1), kernel(4)), stats, TARGET, "tflite", "int16x8")
    x = plan.activations["x"]
    assert (x.dtype, x.qparams.zero_point) == (DType.INT16, (0,))
    assert x.qparams.scale[0] == pytest.approx(2 * 3 / 32767, rel=1e-6)  # room for what was not seen
    assert plan.weights["w"].dtype is DType.INT8 and plan.nodes["Conv_y"].scheme == "int16x8"


def test_16_bits_hold_what_goes_beyond_the_samples() -> None:
    """1.8 times what was seen: cut off in 8 bits, where steps are dear, and within a step in 16."""
    model = conv(kernel(4, 3, 1, 1), kernel(4))
    seen = np.linspace(-1, 1, 48, dtype=np.float32).reshape(1, 3, 4, 4)
    stats = measured(model, [{"x": seen}])
    noise = {}
    for precision in ("int8", "int16x8"):
        quantized = apply_plan(model, make_plan(model, stats, TARGET, "tflite", precision, range_method="minmax"))
        noise[precision] = sqnr_db(run_ort(model, {"x": 1.8 * seen})["y"], run_ort(quantized, {"x": 1.8 * seen})["y"])
    assert noise["int8"] < 15 and noise["int16x8"] > 35  # what is left are the weights' steps


def test_int16_fixes_sigmoid_at_its_own_scale() -> None:
    text = "(float[1,3,4,4] x) => (float[1,4,4,4] y) { c = Conv(x, w) s = Sigmoid(c) y = Mul(s, c) }"
    stats = statistics(dict.fromkeys("xcy", (-1.0, 1.0)))
    plan = make_plan(typed(text, {"w": kernel(4, 3, 1, 1)}), stats, TARGET, "tflite", "int16x8")
    assert plan.activations["s"].qparams.scale == (2.0**-15,)


class TestWeightsOnly:
    LINEAR = "(float[2,32] x) => (float[2,48] y) { y = MatMul(x, w) }"

    def test_dynamic_quantizes_weights_alone(self) -> None:
        plan = make_plan(typed(self.LINEAR, {"w": kernel(32, 48)}), None, TARGET, "tflite", "dynamic")
        assert not plan.activations and not plan.biases and not plan.findings
        assert plan.weights["w"].qparams.axis == 1 and plan.nodes["MatMul_y"].scheme == "dynamic"

    def test_dynamic_leaves_small_weights_and_what_has_no_kernel(self) -> None:
        small = typed("(float[2,4] x) => (float[2,4] y) { y = MatMul(x, w) }", {"w": kernel(4, 4)})
        plan = make_plan(small, None, TARGET, "tflite", "dynamic")
        assert "fewer than 1024" in plan.nodes["MatMul_y"].reason and not plan.weights
        assert [f.code for f in plan.findings] == ["quant/nothing-quantized"]  # or it would be float by another name
        none = make_plan(
            typed(self.LINEAR, {"w": kernel(32, 48)}), None, with_scheme(dynamic_ops=frozenset()), "tflite", "dynamic"
        )
        assert "no dynamic-range kernel" in none.nodes["MatMul_y"].reason

    def test_float16_stores_weights_in_float16(self) -> None:
        plan = make_plan(typed(self.LINEAR, {"w": kernel(32, 48)}), None, TARGET, "tflite", "float16")
        assert (
            not plan.findings
            and plan.weights["w"].dtype is DType.FLOAT16
            and plan.nodes["MatMul_y"].scheme == "float16"
        )

    def test_float16_leaves_weights_that_it_cannot_hold(self) -> None:
        weight = kernel(32, 48)
        weight[0, 0] = 1e6
        plan = make_plan(typed(self.LINEAR, {"w": weight}), None, TARGET, "tflite", "float16")
        assert not plan.weights and "exceed" in plan.nodes["MatMul_y"].reason
        assert [f.code for f in plan.findings] == ["quant/nothing-quantized"]

    def test_dynamic_leaves_grouped_convolutions_where_they_have_no_fast_kernel(self) -> None:
        text = "(float[1,64,8,8] x) => (float[1,64,6,6] y) { y = Conv<group=64>(x, w) }"
        model = typed(text, {"w": kernel(64, 1, 3, 3)})
        wide = typed(text.replace("group=64", "group=2"), {"w": kernel(64, 32, 3, 3)})
        plan = make_plan(wide, None, TARGET, "tflite", "dynamic")
        assert plan.nodes["Conv_y"].scheme == "float32" and "grouped" in plan.nodes["Conv_y"].reason
        fast = with_scheme(dynamic_grouped=True)
        assert make_plan(wide, None, fast, "tflite", "dynamic").nodes["Conv_y"].scheme == "dynamic"
        assert "fewer than" in make_plan(model, None, fast, "tflite", "dynamic").nodes["Conv_y"].reason

    @pytest.mark.parametrize("precision", ["dynamic", "float16"])
    def test_asked_to_stay_float(self, precision: str) -> None:
        model = typed(self.LINEAR, {"w": kernel(32, 48)})
        plan = make_plan(model, None, TARGET, "tflite", precision, float_nodes={"MatMul_y"})  # type: ignore[arg-type]
        assert not plan.weights
