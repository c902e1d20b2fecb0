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
