"""Bias correction takes the mean error out of each output, and touches nothing else."""

from __future__ import annotations

import numpy as np

from edgec.graph.model import Model
from edgec.quantization.planning.plan import make_plan
from edgec.quantization.repair.bias import correct_fully
from edgec.quantization.repair.ladder import correct_biases, round_weights
from edgec.quantization.repair.layers import find_layers
from edgec.quantization.repair.moments import gather
from edgec.quantization.run.apply import apply_plan
from edgec.quantization.types import QuantPlan
from edgec.targets.load import load_target
from edgec.tensors import Array
from tests.support.graphs import random_feeds, run_ort
from tests.support.plans import hard_weights, kernel, measured, typed

TARGET = load_target("raspberrypi4")

NET = """(float[1,3,8,8] x) => (float[1,4] y)
{ c = Conv<kernel_shape=[3,3], pads=[1,1,1,1]>(x, w1, b1) r = Relu(c) d = Conv<kernel_shape=[1,1]>(r, w2, b2)
  p = GlobalAveragePool(d) f = Flatten(p) y = Gemm<transB=1>(f, w3, b3) }"""


def setting() -> tuple[Model, QuantPlan, list[dict[str, Array]]]:
    """A net with weights that are hard to round."""
    constants = hard_weights(5, w1=(16, 3, 3, 3), b1=(16,), w2=(8, 16, 1, 1), b2=(8,), w3=(4, 8), b3=(4,))
    model = typed(NET, constants)
    feeds = [random_feeds(model, seed, low=0.0) for seed in range(8)]
    stats = measured(model, feeds)
    return model, make_plan(model, stats, TARGET, "tflite", "int8", range_method="minmax"), feeds


def means_of(model: Model, plan: QuantPlan, feeds: list[dict[str, Array]]) -> dict[str, Array]:
    layers = tuple(layer for layer in find_layers(model, plan) if layer.bias_key is not None)
    means: dict[str, Array] = {}
    gather(layers, feeds, model, lambda m, _: means.update({k: v.flush().mean for k, v in m.items()}), positions=1000)
    return means


def mean_error(model: Model, plan: QuantPlan, feeds: list[dict[str, Array]]) -> float:
    quantized = apply_plan(model, plan)
    errors = [run_ort(quantized, feed)["y"] - run_ort(model, feed)["y"] for feed in feeds]
    return float(np.square(np.mean(errors, axis=0)).sum())


def test_both_corrections_lower_the_mean_error() -> None:
    model, plan, feeds = setting()
    before = mean_error(model, plan, feeds)
    fast = correct_biases(model, plan, means_of(model, plan, feeds))
    full = correct_fully(model, plan, find_layers(model, plan), feeds)
    assert mean_error(model, fast, feeds) < before
    assert mean_error(model, full, feeds) < 0.5 * before


def test_only_integers_of_biases_change() -> None:
    model, plan, feeds = setting()
    fast = correct_biases(model, plan, means_of(model, plan, feeds))
    assert fast.weights == plan.weights and fast.activations == plan.activations
    assert {k: v.qparams for k, v in fast.biases.items()} == {k: v.qparams for k, v in plan.biases.items()}
    assert all(entry.data is not None and entry.data.dtype == np.int32 for entry in fast.biases.values())
    again = correct_biases(model, plan, means_of(model, plan, feeds))
    for key, entry in fast.biases.items():
        assert entry.data is not None
        np.testing.assert_array_equal(entry.data, again.biases[key].data)


def test_a_net_without_biases_is_left_alone() -> None:
    model = typed("(float[1,4] x) => (float[1,4] y) { y = Gemm(x, w) }", {"w": kernel(4, 4)})
    feeds = [random_feeds(model)]
    plan = make_plan(model, measured(model, feeds), TARGET, "tflite", "int8", range_method="minmax")
    assert correct_fully(model, plan, find_layers(model, plan), feeds) is plan
    assert correct_biases(model, plan, means_of(model, plan, feeds)) == plan


def test_rounding_hands_on_the_means_that_correction_needs() -> None:
    model, plan, feeds = setting()
    means: dict[str, Array] = {}
    round_weights(model, plan, feeds, positions=1000, means=means)
    for key, mean in means_of(model, plan, feeds).items():
        np.testing.assert_allclose(means[key], mean, rtol=1e-5, atol=1e-5)
