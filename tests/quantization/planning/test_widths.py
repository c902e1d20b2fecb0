"""int8 and int16 in one plan, float16 weights beside it: who takes which width, and how a value passes between."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest

from edgec.graph.model import Model
from edgec.quantization.mix.costs import Costs, Width, costs_of
from edgec.quantization.planning.plan import make_plan
from edgec.quantization.run.apply import apply_plan, has_float16_weights
from edgec.quantization.types import NodeScheme, QuantPlan
from edgec.targets.load import load_target
from edgec.tensors import DType
from tests.support.graphs import random_feeds, run_ort
from tests.support.plans import kernel, measured, typed

NET = """(float[1,8,6,6] x) => (float[1,4] y)
{ a = Conv<kernel_shape=[3,3]>(x, w1) ar = Relu(a) p = MaxPool<kernel_shape=[2,2], strides=[2,2]>(ar)
  b = Conv<kernel_shape=[1,1]>(p, w2) s = Add(b, p) f = Flatten(s) y = Gemm(f, w3) }"""

CONSTANTS = {"w1": kernel(8, 8, 3, 3), "w2": kernel(8, 8, 1, 1, seed=1), "w3": kernel(32, 4, seed=2)}
FEEDS = [random_feeds(typed(NET, CONSTANTS), seed) for seed in range(2)]


def planned(reverted: Mapping[str, NodeScheme], target: str = "cortex-m4") -> tuple[Model, QuantPlan]:
    model = typed(NET, CONSTANTS)
    stats = measured(model, FEEDS)
    return model, make_plan(
        model, stats, load_target(target), "tflite", "int8", range_method="minmax", reverted=reverted
    )


def plan_of(model: Model, target: str, reverted: Mapping[str, NodeScheme]) -> QuantPlan:
    """The int8 plan of one sample's ranges, with nodes reverted."""
    stats = measured(model, [random_feeds(model)])
    return make_plan(model, stats, load_target(target), "tflite", "int8", reverted=reverted)


def schemes(plan: QuantPlan) -> dict[str, str]:
    return {name: node.scheme for name, node in plan.nodes.items()}


def test_a_wide_kernel_takes_its_fused_activation_and_what_moves_its_output_along() -> None:
    _, plan = planned({"Conv_a": "int16x8"})
    found = schemes(plan)
    assert [n for n, s in found.items() if s == "int16x8"] == ["Conv_a", "Relu_ar", "MaxPool_p"]
    assert plan.activations["x"].dtype is DType.INT16, "nobody else reads the input"
    assert plan.activations["p"].dtype is DType.INT16 and plan.requantized["p"].dtype is DType.INT8
    assert set(plan.requantized) == {"p"}


def test_what_an_8_bit_kernel_wrote_is_widened_for_those_who_ask() -> None:
    model, plan = planned({"Add_s": "int16x8"})
    assert plan.activations["b"].dtype is DType.INT8 and plan.requantized["b"].dtype is DType.INT16
    assert {n for n, s in schemes(plan).items() if s == "int16x8"} == {"Add_s", "Flatten_f"}
    quantized = apply_plan(model, plan)
    add = next(n for n in quantized.nodes() if n.name == "Add_s")
    for value in add.inputs:
        assert value is not None
        pair = value.producer()
        assert pair is not None and pair.op_type == "DequantizeLinear" and pair.inputs[0] is not None
        assert str(pair.inputs[0].dtype) == "INT16"
    wanted, got = run_ort(model, FEEDS[0])["y"], run_ort(quantized, FEEDS[0])["y"]
    assert np.abs(wanted - got).max() < 0.1 * np.abs(wanted).max()


def test_an_input_that_both_widths_read_is_stored_in_the_wider() -> None:
    text = """(float[1,8] x) => (float[1,4] y, float[1,4] z) { y = Gemm(x, w) z = Gemm(x, v) }"""
    model = typed(text, {"w": kernel(8, 4), "v": kernel(8, 4, seed=1)})
    feeds = [random_feeds(model)]
    plan = plan_of(model, "cortex-m4", {"Gemm_y": "int16x8"})
    assert plan.activations["x"].dtype is DType.INT16 and plan.requantized["x"].dtype is DType.INT8
    wanted, got = run_ort(model, feeds[0]), run_ort(apply_plan(model, plan), feeds[0])
    for name in ("y", "z"):
        assert np.abs(wanted[name] - got[name]).max() < 0.1 * np.abs(wanted[name]).max()


def test_an_operator_without_a_16_bit_kernel_stays_in_8() -> None:
    text = """(float[1,8] x) => (float[1,4] y) { a = Gemm(x, v) e = Elu(a) y = Gemm(e, w) }"""
    model = typed(text, {"v": kernel(8, 8), "w": kernel(8, 4, seed=1)})
    plan = plan_of(model, "cortex-m4", {"Elu_e": "int16x8", "Gemm_y": "int16x8"})
    assert schemes(plan) == {"Gemm_a": "int8", "Elu_e": "int8", "Gemm_y": "int16x8"}


def test_float16_weights_of_single_nodes_beside_int8() -> None:
    text = """(float[1,64] x) => (float[1,64] y) { a = Gemm(x, v) b = Gemm(a, w) c = Gemm(b, small) y = Gemm(c, u) }"""
    constants = {"v": kernel(64, 64), "w": kernel(64, 64, seed=1), "u": kernel(4, 64, seed=3)}
    model = typed(text, {**constants, "small": kernel(64, 4, seed=2)})
    plan = plan_of(model, "raspberrypi4", {"Gemm_b": "float16", "Gemm_c": "float16"})
    assert schemes(plan) == {"Gemm_a": "int8", "Gemm_b": "float16", "Gemm_c": "float32", "Gemm_y": "int8"}
    assert plan.weights["w"].dtype is DType.FLOAT16 and "small" not in plan.weights
    assert has_float16_weights(apply_plan(model, plan)) and not has_float16_weights(model)


def test_a_weight_that_an_int8_node_reads_too_is_not_halved() -> None:
    text = """(float[1,64] x) => (float[1,64] y) { a = Gemm(x, w) y = Gemm(a, w) }"""
    model = typed(text, {"w": kernel(64, 64)})
    plan = plan_of(model, "raspberrypi4", {"Gemm_y": "float16"})
    assert schemes(plan)["Gemm_y"] == "float32" and plan.weights["w"].dtype is DType.INT8


@pytest.mark.parametrize(
    ("first", "second", "outside", "converted"),
    [
        ("int8", "int8", None, {}),
        ("int16x8", "int16x8", None, {}),
        ("int8", "int16x8", None, {"f": {"int16"}}),
        ("int8", "int16x8", "float", {"x": {"int8"}, "f": {"int16"}, "y": {"float"}}),
        ("int8", "float32", None, {"f": {"float"}, "y": {"int8"}}),  # somebody has to make integers of it
    ],
)
def test_a_value_costs_a_conversion_for_each_other_width(
    first: NodeScheme, second: NodeScheme, outside: Width | None, converted: dict[str, set[str]]
) -> None:
    costs = _costs()
    mix = {n.name or "": first for n in typed(NET, CONSTANTS).nodes()} | {"Gemm_y": second}
    found = {v.name: v.converted_to(mix, outside) for v in costs.values}
    assert {name: widths for name, widths in found.items() if widths} == converted


def _costs() -> Costs:
    found = costs_of(typed(NET, CONSTANTS), load_target("cortex-m4"), "tflite", forms=("int8", "int16x8"))
    assert found is not None and found.outside is None
    return found


def test_16_bits_take_longer_than_8_and_less_than_float_where_the_profile_says_so() -> None:
    costs, names = _costs(), [n.name or "" for n in typed(NET, CONSTANTS).nodes()]
    forms: tuple[NodeScheme, ...] = ("int8", "int16x8", "float32")
    seconds = [costs.total_seconds(dict.fromkeys(names, form)) for form in forms]
    assert seconds == sorted(seconds)
