"""The QDQ model: what it looks like, that ONNX accepts it, and that it computes what the plan says."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgec.graph.model import Model
from edgec.metrics import sqnr_db
from edgec.quantization.planning.plan import make_plan
from edgec.quantization.run.apply import SCHEME_KEY, apply_plan, has_qdq
from edgec.quantization.types import QuantPlan
from edgec.targets.load import load_target
from edgec.targets.profile import PrecisionName
from edgec.tensors import Array, DType
from tests.support.graphs import assert_same, operators, random_feeds, run_ort
from tests.support.plans import kernel, measured, typed, with_scheme

TARGET = load_target("raspberrypi4")

#: A little of everything that convolutional networks have.
NET = """(float[1,3,8,8] x) => (float[1,10] y)
{ c1 = Conv<kernel_shape=[3,3], pads=[1,1,1,1]>(x, w1, b1) r1 = Relu(c1)
  c2 = Conv<kernel_shape=[3,3], pads=[1,1,1,1], group=8>(r1, w2) r2 = Clip(c2, lo, hi)
  s = Add(r1, r2) p = MaxPool<kernel_shape=[2,2], strides=[2,2]>(s) a = Conv(p, w3) g = Sigmoid(a) m = Mul(a, g)
  j = Concat<axis=1>(m, p) v = GlobalAveragePool(j) f = Flatten(v) y = Gemm<transB=1>(f, w4, b4) }"""
CONSTANTS = {
    "w1": kernel(8, 3, 3, 3),
    "b1": kernel(8, seed=1),
    "w2": kernel(8, 1, 3, 3, seed=2),
    "w3": kernel(8, 8, 1, 1, seed=3),
    "w4": kernel(10, 16, seed=4),
    "b4": kernel(10, seed=5),
    "lo": np.asarray(0, np.float32),
    "hi": np.asarray(6, np.float32),
}


def net() -> Model:
    return typed(NET, CONSTANTS)


def quantized(model: Model, precision: PrecisionName = "int8", feeds: list[dict[str, Array]] | None = None) -> Model:
    return apply_plan(model, plan_of(model, precision, feeds))


def plan_of(model: Model, precision: PrecisionName = "int8", feeds: list[dict[str, Array]] | None = None) -> QuantPlan:
    stats = measured(model, feeds or [random_feeds(model, seed) for seed in range(4)])
    return make_plan(model, stats, TARGET, "tflite", precision, range_method="minmax")


def check(model: Model) -> None:
    onnx.checker.check_model(onnx.load_from_string(model.to_bytes()), full_check=True)


@pytest.mark.parametrize("precision", ["int8", "int16x8", "dynamic", "float16", "float32"])
def test_onnx_accepts_each_form_and_it_stays_near_the_float_model(precision: PrecisionName) -> None:
    model = net()
    result = quantized(model, precision)
    check(result)
    feeds = random_feeds(model, 9)
    lowest = {"int8": 28.0, "int16x8": 35.0, "dynamic": 40.0, "float16": 60.0, "float32": 120.0}[precision]
    assert sqnr_db(run_ort(model, feeds)["y"], run_ort(result, feeds)["y"]) >= lowest


def test_the_source_is_left_as_it_is() -> None:
    model = net()
    before = model.to_bytes()
    quantized(model)
    assert model.to_bytes() == before


def test_the_same_bytes_every_time() -> None:
    assert quantized(net()).to_bytes() == quantized(net()).to_bytes()


def test_inputs_and_outputs_keep_their_names_and_types() -> None:
    result = quantized(net())
    assert [s.name for s in result.inputs()] == ["x"] and [s.name for s in result.outputs()] == ["y"]
    assert {s.dtype for s in (*result.inputs(), *result.outputs())} == {DType.FLOAT32}


def test_a_quantized_output_is_the_dequantized_value() -> None:
    result = quantized(net())
    writer = result.graph.outputs[0].producer()
    assert writer is not None and writer.op_type == "DequantizeLinear"
    quantize = writer.inputs[0].producer()  # type: ignore[union-attr]
    assert quantize is not None and quantize.inputs[0].name == "y/float"  # type: ignore[union-attr]


def test_nothing_stands_between_a_convolution_and_its_fused_activation() -> None:
    result = quantized(net())
    for relu in (n for n in result.nodes() if n.op_type in ("Relu", "Clip")):
        writer = relu.inputs[0].producer()  # type: ignore[union-attr]
        assert writer is not None and writer.op_type == "Conv"


def test_each_quantized_node_reads_only_dequantized_values() -> None:
    result = quantized(net())
    heads = [
        n for n in result.nodes() if n.metadata_props.get(SCHEME_KEY) == "int8" and n.op_type not in ("Relu", "Clip")
    ]
    assert len(heads) == 11
    for node in heads:
        for value in node.inputs:
            writer = None if value is None else value.producer()
            assert writer is not None and writer.op_type == "DequantizeLinear", (node.name, value)


def test_weights_are_int8_and_biases_int32_without_zero_point() -> None:
    result = quantized(net())
    tables = result.graph.initializers
    assert tables["w1/quantized"].dtype.name == "INT8" and tables["b1/quantized"].dtype.name == "INT32"  # type: ignore[union-attr]
    assert "b1/zero_point" not in tables
    assert not any(name in tables for name in CONSTANTS if name.startswith(("w", "b")))


def test_float_readers_of_a_float_value_keep_reading_it() -> None:
    text = "(float[1,3,4,4] x) => (float[1,4,4,4] y, float[1,3,4,4] z) { e = Erf(x) y = Conv(e, w) z = Erf(e) }"
    result = quantized(typed(text, {"w": kernel(4, 3, 1, 1)}))
    last = next(n for n in result.nodes() if n.name == "Erf_z")
    assert last.inputs[0].name == "e"  # type: ignore[union-attr]


def test_float_readers_of_a_quantized_value_read_what_is_there() -> None:
    text = "(float[1,3,4,4] x) => (float[1,4,4,4] y, float[1,4,4,4] z) { c = Conv(x, w) y = Conv(c, v) z = Erf(c) }"
    result = quantized(typed(text, {"w": kernel(4, 3, 1, 1), "v": kernel(4, 4, 1, 1)}))
    last = next(n for n in result.nodes() if n.name == "Erf_z")
    assert last.inputs[0].name == "c/dq"  # type: ignore[union-attr]


def test_a_float_output_that_an_int8_node_reads_stays_float() -> None:
    text = "(float[1,3,4,4] x) => (float[1,3,4,4] e, float[1,4,4,4] y) { e = Erf(x) y = Conv(e, w) }"
    model = typed(text, {"w": kernel(4, 3, 1, 1)})
    feeds = random_feeds(model)
    np.testing.assert_array_equal(run_ort(quantized(model), feeds)["e"], run_ort(model, feeds)["e"])


def test_shared_bias_is_stored_once_a_scale() -> None:
    text = "(float[1,3,4,4] x) => (float[1,4,4,4] y) { c = Conv(x, w, b) d = Conv(x, v, b) y = Add(c, d) }"
    model = typed(text, {"w": kernel(4, 3, 1, 1), "v": kernel(4, 3, 1, 1, seed=1) * 9, "b": kernel(4)})
    result = quantized(model)
    check(result)
    feeds = random_feeds(model)
    assert sqnr_db(run_ort(model, feeds)["y"], run_ort(result, feeds)["y"]) >= 30.0


def test_shared_weights_are_stored_once() -> None:
    text = "(float[1,4,4,4] x) => (float[1,4,4,4] y) { c = Conv(x, w) y = Conv(c, w) }"
    result = quantized(typed(text, {"w": kernel(4, 4, 1, 1)}))
    assert [n for n in result.graph.initializers if n.startswith("w/quantized")] == ["w/quantized"]


def test_a_name_that_is_taken_is_not_reused() -> None:
    text = "(float[1,3,4,4] x) => (float[1,4,4,4] y) { x_q = Erf(x) y = Conv(x_q, w) }"
    model = typed(text, {"w": kernel(4, 3, 1, 1)})
    next(v for n in model.nodes() for v in n.outputs if v.name == "x_q").name = "x/q"
    check(quantized(model))


def test_quantizing_a_quantized_model_changes_nothing() -> None:
    model = net()
    assert not has_qdq(model)
    result = quantized(model)
    assert has_qdq(result)
    assert apply_plan(result, plan_of(model)).to_bytes() == result.to_bytes()


def test_dynamic_range_touches_weights_alone() -> None:
    model = typed("(float[2,32] x) => (float[2,48] y) { y = MatMul(x, w) }", {"w": kernel(32, 48)})
    result = quantized(model, "dynamic")
    assert operators(result) == {"MatMul": 1, "DequantizeLinear": 1}


def test_float16_is_a_cast_of_a_float16_constant() -> None:
    weight = kernel(32, 48).astype(np.float16).astype(np.float32)
    model = typed("(float[2,32] x) => (float[2,48] y) { y = MatMul(x, w) }", {"w": weight})
    result = quantized(model, "float16")
    assert operators(result) == {"MatMul": 1, "Cast": 1}
    assert_same(model, result, random_feeds(model), relative=0.0)


def test_a_node_that_stays_float_says_so() -> None:
    text = "(float[1,3,4,4] x) => (float[1,4,4,4] y) { c = Conv(x, w) h = HardSwish(c) y = Conv(h, v) }"
    result = quantized(typed(text, {"w": kernel(4, 3, 1, 1), "v": kernel(4, 4, 1, 1)}))
    found = {n.op_type: n.metadata_props.get(SCHEME_KEY) for n in result.nodes() if SCHEME_KEY in n.metadata_props}
    assert found == {"Conv": "int8", "HardSwish": "float32"}


def test_weights_of_a_tensor_scheme_have_no_axis() -> None:
    model = net()
    stats = measured(model, [random_feeds(model)])
    plan = make_plan(model, stats, with_scheme(weight_granularity="tensor"), "tflite", "int8")
    result = apply_plan(model, plan)
    check(result)
    assert not any("axis" in n.attributes for n in result.nodes() if n.op_type == "DequantizeLinear")


@settings(max_examples=25, deadline=None)
@given(
    scale=st.floats(1e-3, 1e3),
    low=st.floats(-50, 0),
    high=st.floats(0.1, 50),
    seed=st.integers(0, 1000),
)
def test_one_layer_is_within_the_rounding_of_its_inputs_weights_and_output(
    scale: float, low: float, high: float, seed: int
) -> None:
    weight = kernel(3, 5, seed=seed, scale=scale)
    model = typed("(float[4,5] x) => (float[4,3] y) { y = Gemm<transB=1>(x, w) }", {"w": weight})
    feeds = [random_feeds(model, seed, low=low, high=high)]
    plan = plan_of(model, "int8", feeds)
    wanted, got = run_ort(model, feeds[0])["y"], run_ort(apply_plan(model, plan), feeds[0])["y"]
    s_x, s_y = (plan.activations[n].qparams.scale[0] for n in "xy")
    s_w = np.asarray(plan.weights["w"].qparams.scale)
    reach = np.abs(feeds[0]["x"]).max() + s_x
    bound = np.abs(weight).sum(axis=1) * s_x + 5 * s_w * reach + 1.01 * s_y
    assert np.all(np.abs(wanted - got) <= bound)
