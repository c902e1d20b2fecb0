"""Layers as matrix products: W times what a layer reads is what the operator computes, at every position."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest

from edgec.quantization.planning.plan import make_plan
from edgec.quantization.repair.layers import Layer, find_layers, in_slices
from edgec.targets.load import load_target
from edgec.tensors import Array
from tests.support.graphs import random_feeds, run_ort
from tests.support.plans import kernel, measured, typed

TARGET = load_target("raspberrypi4")

OPERATORS = {
    "plain": ("float[1,3,9,8]", "float[1,5,9,8]", "Conv<kernel_shape=[3,3], pads=[1,1,1,1]>(x, w)", (5, 3, 3, 3)),
    "strided": (
        "float[2,4,9,8]",
        "float[2,6,4,3]",
        "Conv<kernel_shape=[3,2], strides=[2,3], pads=[0,1,0,0]>(x, w)",
        (6, 4, 3, 2),
    ),
    "dilated": ("float[1,2,9,9]", "float[1,4,5,5]", "Conv<kernel_shape=[3,3], dilations=[2,2]>(x, w)", (4, 2, 3, 3)),
    "grouped": ("float[1,6,5,5]", "float[1,4,5,5]", "Conv<kernel_shape=[1,1], group=2>(x, w)", (4, 3, 1, 1)),
    "depthwise": (
        "float[1,4,6,6]",
        "float[1,8,6,6]",
        "Conv<kernel_shape=[3,3], group=4, pads=[1,1,1,1]>(x, w)",
        (8, 1, 3, 3),
    ),
    "sequence": ("float[1,3,20]", "float[1,4,18]", "Conv<kernel_shape=[3]>(x, w)", (4, 3, 3)),
    "product": ("float[1,7,6]", "float[1,7,5]", "MatMul(x, w)", (6, 5)),
    "gemm": ("float[3,6]", "float[3,5]", "Gemm(x, w)", (6, 5)),
    "gemm, transposed": ("float[3,6]", "float[3,5]", "Gemm<transB=1>(x, w)", (5, 6)),
}


def layer_and_outputs(name: str) -> tuple[Layer, Mapping[str, Array], Array]:
    given, result, operator, shape = OPERATORS[name]
    model = typed(f"({given} x) => ({result} y) {{ y = {operator} }}", {"w": kernel(*shape)})
    feeds = random_feeds(model)
    plan = make_plan(model, measured(model, [feeds]), TARGET, "tflite", "int8", range_method="minmax")
    (layer,) = find_layers(model, plan)
    return layer, feeds, run_ort(model, feeds)["y"]


@pytest.mark.parametrize("name", OPERATORS)
def test_rows_times_what_is_read_is_the_operator(name: str) -> None:
    layer, feeds, y = layer_and_outputs(name)
    product = layer.rows(layer.weight) @ layer.reads(feeds["x"], 10**6).transpose(0, 2, 1)
    channels_first = np.moveaxis(y, 1, 0) if layer.window is not None else y.reshape(-1, y.shape[-1]).T
    np.testing.assert_allclose(product.reshape(-1), channels_first.reshape(-1), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", OPERATORS)
def test_rows_have_an_inverse_and_scales_their_shape(name: str) -> None:
    layer, _, _ = layer_and_outputs(name)
    np.testing.assert_array_equal(layer.weight_of(layer.rows(layer.weight)), layer.weight)
    assert layer.rows(layer.weight).shape == layer.shape
    assert layer.scales().shape == layer.shape[:2]
    np.testing.assert_allclose(layer.scales(), np.abs(layer.rows(layer.weight)).max(axis=2) / 127, rtol=1e-6)


def test_few_positions_are_spread_over_the_whole_output() -> None:
    layer, feeds, _ = layer_and_outputs("plain")
    read = layer.reads(feeds["x"], 10)
    assert read.shape[::2] == (1, 27) and 5 <= read.shape[1] < 20
    np.testing.assert_array_equal(read, layer.reads(feeds["x"], 10))


def test_a_bias_that_two_layers_share_is_nobodys() -> None:
    text = """(float[1,4] x) => (float[1,4] y) { a = Gemm(x, w1, b) r = Relu(a) y = Gemm(r, w2, b) }"""
    model = typed(text, {"w1": kernel(4, 4), "w2": kernel(4, 4, seed=1), "b": kernel(4, seed=2)})
    stats = measured(model, [random_feeds(model)])
    plan = make_plan(model, stats, TARGET, "tflite", "int8", range_method="minmax")
    found = find_layers(model, plan)
    assert len(found) == 2
    if found[0].bias_key == found[1].bias_key:
        assert found[0].bias_key is None


def test_what_stays_float_is_no_layer() -> None:
    model = typed("(float[1,4] x) => (float[1,4] y) { y = Gemm(x, w) }", {"w": kernel(4, 4)})
    plan = make_plan(model, None, TARGET, "tflite", "float32")
    assert find_layers(model, plan) == ()


def test_slices_hold_every_layer_once() -> None:
    layer, _, _ = layer_and_outputs("plain")
    size = 27 * 27 * 4
    assert [len(part) for part in in_slices((layer,) * 5, 2 * size)] == [2, 2, 1]
    assert [len(part) for part in in_slices((layer,) * 3, 1)] == [1, 1, 1]
