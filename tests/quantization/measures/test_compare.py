"""Layers compared: a layer that is spoilt on purpose is the one that is found, and its numbers are the metric's."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from edgec.graph.model import Model
from edgec.metrics import MAX_DB, sqnr_db
from edgec.quantization.measures.compare import compare_layers, first_diverging, worst_first
from edgec.quantization.planning.plan import make_plan
from edgec.quantization.run.apply import apply_plan, without_activation_pairs
from edgec.targets.load import load_target
from edgec.tensors import Array
from tests.support.graphs import random_feeds, run_ort
from tests.support.plans import kernel, measured, typed

_TEXT = """(float[1,4,8,8] x) => (float[1,4,8,8] y)
{ c1 = Conv<kernel_shape=[3,3], pads=[1,1,1,1]>(x, w1, b1) r1 = Relu(c1)
  c2 = Conv<kernel_shape=[3,3], pads=[1,1,1,1]>(r1, w2) s = Sigmoid(c2) y = Conv(s, w3) }"""


def _pair() -> tuple[Model, Model]:
    constants = {"w1": kernel(4, 4, 3, 3), "b1": kernel(4), "w2": kernel(4, 4, 3, 3, seed=1), "w3": kernel(4, 4, 1, 1)}
    model = typed(_TEXT, constants)
    plan = make_plan(model, measured(model, [random_feeds(model)]), load_target("raspberrypi4"), "tflite", "int8")
    return model, apply_plan(model, plan)


def _scale_of(quantized: Model, tensor: str) -> ir.Value:
    """The scale initializer of a value's QuantizeLinear."""
    value = next(n.inputs[1] for n in quantized.nodes() if n.name == f"{tensor}/quantize")
    assert value is not None
    return value


def test_numbers_are_the_metrics_of_the_tensors() -> None:
    model, quantized = _pair()
    feed = random_feeds(model)
    found = {layer.tensor: layer for layer in compare_layers(model, quantized, [feed])}
    assert list(found) == ["x", "r1", "c2", "s", "y"]  # c1 is inside the kernel of the convolution
    expected, actual = run_ort(model, feed)["y"], run_ort(quantized, feed)["y"]
    assert found["y"].sqnr_db == pytest.approx(sqnr_db(expected, actual), abs=1e-6)
    assert found["y"].loss_db == pytest.approx(found["s"].sqnr_db - found["y"].sqnr_db, abs=1e-9)
    assert found["x"].loss_db is None and found["r1"].op == "Conv+Relu"
    for layer in found.values():
        assert sum(layer.histogram.float_counts) == sum(layer.histogram.quantized_counts) == 256


def test_a_spoilt_layer_is_the_first_that_diverges() -> None:
    model, quantized = _pair()
    before = compare_layers(model, quantized, [random_feeds(model)])
    assert first_diverging(before, 20.0) is None
    scale = _scale_of(quantized, "c2")
    scale.const_value = ir.tensor(scale.const_value.numpy() / np.float32(16), name=scale.name)  # type: ignore[union-attr]
    after = compare_layers(model, quantized, [random_feeds(model)])
    first = first_diverging(after, 20.0)
    assert first is not None and first.tensor == "c2"
    assert first.clipped_share is not None and first.clipped_share > 0.3
    assert first.loss_db is not None and first.loss_db > 10
    ranked = worst_first(after)
    assert [layer.sqnr_db for layer in ranked] == sorted(layer.sqnr_db for layer in after)


def test_slices_change_nothing() -> None:
    model, quantized = _pair()
    feeds = [random_feeds(model, seed=i) for i in range(3)]
    whole = compare_layers(model, quantized, feeds)
    parts = compare_layers(model, quantized, feeds, slice_bytes=1)
    assert [layer.as_dict() for layer in whole] == [layer.as_dict() for layer in parts]


def test_a_layer_says_what_the_plan_did_to_it() -> None:
    model, quantized = _pair()
    found = {layer.tensor: layer for layer in compare_layers(model, quantized, [random_feeds(model)])}
    assert found["r1"].scheme == "int8" and "quantized kernel" in found["r1"].reason
    assert {line.partition(":")[0] for line in found["r1"].constants} == {"w1", "b1"}


def test_float_models_are_exact() -> None:
    model, _ = _pair()
    layers = compare_layers(model, model.clone(), [random_feeds(model)])
    assert {layer.sqnr_db for layer in layers} == {MAX_DB} and layers[0].as_dict()["sqnr_db"] is None
    assert {layer.clipped_share for layer in layers} == {None}


def test_without_pairs_only_weights_are_rounded() -> None:
    model, quantized = _pair()
    plain = without_activation_pairs(quantized)
    assert not any(n.op_type == "QuantizeLinear" for n in plain.nodes())
    assert [o.name for o in plain.outputs()] == ["y"]
    feed = random_feeds(model)
    expected = run_ort(model, feed)["y"]
    assert sqnr_db(expected, run_ort(plain, feed)["y"]) > sqnr_db(expected, run_ort(quantized, feed)["y"])


def test_a_range_that_stands_for_a_relu_stays_without_pairs() -> None:
    """ONNX Runtime's quantizer removes a Relu where the integers begin at zero: they do its work."""
    constants: dict[str, Array] = {"s": np.asarray(0.02, np.float32), "z": np.asarray(-128, np.int8)}
    text = """(float[1,4,8] x) => (float[1,4,8] y)
    { c = Neg(x) q = QuantizeLinear(c, s, z) d = DequantizeLinear(q, s, z) y = Neg(d) }"""
    plain = without_activation_pairs(typed(text, constants))
    x = np.linspace(-9, 9, 32, dtype=np.float32).reshape(1, 4, 8)
    np.testing.assert_allclose(run_ort(plain, {"x": x})["y"], -np.clip(-x, 0, 255 * 0.02), atol=1e-6)
    assert not any(n.op_type == "QuantizeLinear" for n in plain.nodes())


def test_what_only_a_function_reads_counts_as_its_result() -> None:
    """A Gelu is all but 0 far below: a plan that gives what lies there no steps loses nothing."""
    text = "(float[1,8,16] x) => (float[1,8,16] y) { h = Neg(x) y = Gelu(h) }"
    model = typed(text)
    held = typed(text.replace("y = Gelu(h)", "c = Clip(h, low) k = Identity(c) y = Gelu(k)"),
                 {"low": np.asarray(-6, np.float32)})  # fmt: skip
    for node in held.nodes():
        if node.op_type == "Neg":
            node.outputs[0].name = "h/float"
        elif node.op_type == "Identity":
            node.outputs[0].name = "h"
    feed = {"x": np.linspace(-20, 40, 128, dtype=np.float32).reshape(1, 8, 16)}
    found = {layer.tensor: layer for layer in compare_layers(model, held, [feed])}
    assert found["h"].sqnr_db > 80 and found["y"].sqnr_db > 80


def test_masked_positions_are_equal_and_the_layers_behind_them_are_judged() -> None:
    """Attention masked with −∞: the same infinity on both sides is no difference, and no reason to blame the mask."""
    text = """(float[1,4,8] x, bool[1,1,4] keep) => (float[1,4,8] y)
    { a = MatMul(x, wa) b = MatMul(x, wb) t = Transpose<perm=[0,2,1]>(b) s = MatMul(a, t) m = Where(keep, s, far)
      p = Softmax<axis=-1>(m) y = MatMul(p, b) }"""
    constants = {"wa": kernel(8, 8), "wb": kernel(8, 8, seed=1)}
    model = typed(text, {**constants, "far": np.asarray(-np.inf, np.float32)})
    finite = typed(text, {**constants, "far": np.asarray(-9, np.float32)})  # statistics are of finite values
    feed = {"x": random_feeds(model)["x"], "keep": np.asarray([[[True, True, True, False]]])}
    plan = make_plan(model, measured(finite, [feed]), load_target("raspberrypi4"), "tflite", "int8")
    found = {layer.tensor: layer for layer in compare_layers(model, apply_plan(model, plan), [feed])}
    assert found["m"].sqnr_db == pytest.approx(found["s"].sqnr_db, abs=3)  # of other positions, so not the same number
    assert found["m"].cosine > 0.99 and first_diverging(tuple(found.values()), 20.0) is None


def test_what_lies_where_its_readers_are_flat_is_no_difference() -> None:
    """HardSwish gives 0 below −3, so the plan gives what lies there no steps: no layer is blamed for that."""
    rng = np.random.default_rng(0)
    values = np.where(rng.random((1, 8, 6, 6)) < 0.3, -60, rng.uniform(-3, 9, (1, 8, 6, 6))).astype(np.float32)
    numbers = {name: np.asarray(number, np.float32) for name, number in (("zero", 0), ("three", 3), ("six", 6))}
    model = typed(
        """(float[1,8,6,6] x) => (float[1,8,6,6] y)
        { h = Conv(x, w) s = Add(h, three) g = Clip(s, zero, six) y = Mul(h, g) }""",
        {"w": np.eye(8, dtype=np.float32)[:, :, None, None], **numbers},
    )
    plan = make_plan(model, measured(model, [{"x": values}]), load_target("raspberrypi4"), "tflite", "int8")
    found = {layer.tensor: layer for layer in compare_layers(model, apply_plan(model, plan), [{"x": values}])}
    assert found["h"].sqnr_db > 25 and found["h"].clipped_share == 0
    assert found["h"].histogram.low == pytest.approx(-3, rel=0.1)
