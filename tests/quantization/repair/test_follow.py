"""Following: layers mend what the quantized model gives them, where the errors begin, and as far as samples agree."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgec.graph.model import Model
from edgec.quantization.planning.plan import make_plan
from edgec.quantization.repair.follow import beginnings, follow
from edgec.quantization.repair.ladder import round_weights
from edgec.quantization.repair.layers import find_layers
from edgec.quantization.repair.rounding import Curvature, Moments, round_rows
from edgec.quantization.repair.triangular import cholesky
from edgec.quantization.run.apply import apply_plan
from edgec.quantization.types import QuantPlan
from edgec.targets.load import load_target
from edgec.tensors import Array
from tests.support.graphs import random_feeds
from tests.support.plans import fidelity, hard_weights, kernel, measured, typed

NET = """(float[1,8,12,12] x) => (float[1,6] y)
{ c = Conv<kernel_shape=[3,3], pads=[1,1,1,1]>(x, w1, b1) cr = Relu(c)
  d = Conv<kernel_shape=[3,3], group=16, pads=[1,1,1,1]>(cr, w2, b2) dr = Relu(d)
  e = Conv<kernel_shape=[1,1]>(dr, w3, b3) p = GlobalAveragePool(e) f = Flatten(p) y = Gemm<transB=1>(f, w4, b4) }"""


def setting() -> tuple[Model, QuantPlan, list[dict[str, Array]]]:
    """A net with weights that are hard to round."""
    constants = hard_weights(
        5, w1=(16, 8, 3, 3), b1=(16,), w2=(16, 1, 3, 3), b2=(16,), w3=(12, 16, 1, 1), b3=(12,), w4=(6, 12), b4=(6,)
    )
    model = typed(NET, constants)
    feeds = [random_feeds(model, seed, low=0.0) for seed in range(24)]
    plan = make_plan(model, measured(model, feeds), load_target("raspberrypi4"), "tflite", "int8")
    return model, plan, feeds


def fresh(model: Model, plan: QuantPlan) -> float:
    feeds = (random_feeds(model, seed, low=0.0) for seed in range(100, 116))
    return fidelity(model, apply_plan(model, plan), feeds)


def test_more_than_rounding_each_layer_by_itself() -> None:
    model, plan, feeds = setting()
    alone = fresh(model, round_weights(model, plan, feeds, positions=64))
    followed = follow(model, plan, feeds, positions=64)
    # Fresh samples: 2 dB is far from what they can do by luck (alone 26.8, followed 35.1).
    assert fresh(model, followed) > alone + 2
    again = follow(model, plan, feeds, positions=64)
    for key, weight in followed.weights.items():
        np.testing.assert_array_equal(weight.data, again.weights[key].data)
        assert weight.data is not None and weight.data.dtype == np.int8 and weight.data.min() >= -127


def test_a_range_that_cuts_is_made_up_for_by_the_next_layer() -> None:
    model, plan, feeds = setting()
    name = next(n for n in plan.activations if n in ("cr", "c"))
    old = plan.activations[name]
    cut = replace(old, qparams=replace(old.qparams, scale=tuple(0.5 * scale for scale in old.qparams.scale)))
    plan = replace(plan, activations={**plan.activations, name: cut})
    alone = fresh(model, round_weights(model, plan, feeds, positions=64))
    assert fresh(model, follow(model, plan, feeds, positions=64)) > alone + 2


def test_only_the_first_layers_of_a_stretch_mend() -> None:
    model, plan, _ = setting()
    layers = find_layers(model, plan)
    first, second, third, _ = (layer.node for layer in layers)
    assert beginnings(model, layers) == {first}
    assert beginnings(model, layers[1:]) == {second}
    assert beginnings(model, layers[2:3]) == {third}


def test_side_by_side_both_begin() -> None:
    model = typed(
        """(float[1,8,6,6] x) => (float[1,8,6,6] y)
        { a = Conv<kernel_shape=[1,1]>(x, w1) b = Conv<kernel_shape=[1,1]>(x, w2) s = Add(a, b)
          y = Conv<kernel_shape=[1,1]>(s, w3) }""",
        {f"w{i}": kernel(8, 8, 1, 1, seed=i) for i in (1, 2, 3)},
    )
    feeds = [random_feeds(model, seed) for seed in range(4)]
    plan = make_plan(model, measured(model, feeds), load_target("raspberrypi4"), "tflite", "int8")
    layers = find_layers(model, plan)
    assert beginnings(model, layers) == {layer.node for layer in layers[:2]}


def gathered(columns: Array, plain: Array, weight: Array | None = None) -> Moments:
    """Moments of [groups, n, positions]; through a weight where one is given."""
    groups, fan_in, _ = columns.shape
    eye = np.broadcast_to(np.eye(fan_in, dtype=np.float32), (groups, fan_in, fan_in))
    moments = Moments.against_float(eye if weight is None else weight)
    moments.add(columns.transpose(0, 2, 1), plain.transpose(0, 2, 1))
    return moments.flush()


@settings(max_examples=30, deadline=None)
@given(fan_in=st.integers(1, 8), outputs=st.integers(1, 12), positions=st.integers(9, 60), seed=st.integers(0, 1000))
def test_the_change_is_what_is_best_where_each_half_is_to_hold_for_the_other(
    fan_in: int, outputs: int, positions: int, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    plain = rng.standard_normal((2, 1, fan_in, positions)).astype(np.float32)
    coded = (0.8 * plain + 0.2 * rng.standard_normal(plain.shape)).astype(np.float32)
    weight = rng.standard_normal((1, outputs, fan_in)).astype(np.float32)
    first, second = (gathered(coded[i], plain[i], weight) for i in range(2))
    pulls = [first.pull(weight), second.pull(weight)]
    for i, pull in enumerate(pulls):
        wanted = weight @ (plain[i] - coded[i]) @ coded[i].transpose(0, 2, 1)
        # 1e-3 of sums of at most 60 products around 1: float32.
        np.testing.assert_allclose(pull, wanted, atol=1e-3)
    whole = first.join(second)
    count = whole.count
    share = 0.5 * fan_in / (fan_in + count)
    seen = whole.own[0].astype(np.float64)
    hessian = (1 - share) * seen + np.diag(share * np.diag(seen) + 0.01 * np.diag(seen).mean())
    halves = [pull[0].astype(np.float64) for pull in pulls]
    changes = [half @ np.linalg.inv(hessian) for half in halves]

    def error(t: float) -> float:
        """By brute force: what the change leaves where the samples are others, of which each half knows the other's."""
        change = changes[0] + changes[1]
        gain = np.sum(halves[0] * changes[1]) + np.sum(halves[1] * changes[0])
        return float(t * t * np.sum((change @ seen) * change) - 4 * t * gain)

    found = Curvature(whole).change(pulls)[0]
    best = min(np.linspace(0, 1, 1001), key=error)
    # The share is found to 0.001, and moments are float32.
    np.testing.assert_allclose(found, best * (changes[0] + changes[1]), atol=5e-3 * float(np.abs(found).max()) + 5e-3)


def test_noise_that_says_nothing_is_not_trusted() -> None:
    rng = np.random.default_rng(0)
    plain = rng.standard_normal((2, 1, 30, 12)).astype(np.float32)  # fewer positions than inputs
    coded = (plain + 0.01 * rng.standard_normal(plain.shape)).astype(np.float32)
    weight = rng.standard_normal((1, 3, 30)).astype(np.float32)
    halves = [gathered(coded[i], plain[i]) for i in range(2)]
    pulls = [half.pull(weight) for half in halves]
    curvature = Curvature(halves[0].join(halves[1]))
    believed = curvature.change([pulls[0] + pulls[1]])  # of one part: nothing says that it is not to be trusted
    assert np.abs(curvature.change(pulls)).max() < 0.2 * np.abs(believed).max()


@pytest.mark.parametrize("fan_in", [1, 63, 64, 65, 200])
def test_cholesky_factors_multiply_to_what_they_are_of(fan_in: int) -> None:
    wide = np.random.default_rng(fan_in).standard_normal((2, fan_in, fan_in + 30)).astype(np.float32)
    matrices = wide @ wide.transpose(0, 2, 1)
    lower = cholesky(matrices)
    assert not np.triu(lower, 1).any()
    # 1e-4 of the diagonal, about 200: float32.
    np.testing.assert_allclose(lower @ lower.transpose(0, 2, 1), matrices, atol=0.02)
    np.testing.assert_allclose(lower, np.linalg.cholesky(matrices.astype(np.float64)), atol=0.02)


@pytest.mark.parametrize("joined", [False, True])
def test_centred_moments_are_those_of_centred_inputs(joined: bool) -> None:
    rng = np.random.default_rng(0)
    plain = (rng.standard_normal((2, 5, 400)) + 3).astype(np.float32)
    coded = (plain + 0.1 * rng.standard_normal(plain.shape) - 0.2).astype(np.float32)
    moments = gathered(coded, plain)
    if joined:
        parts = slice(0, 150), slice(150, 400)
        first, second = (gathered(coded[:, :, part], plain[:, :, part]) for part in parts)
        moments = first.join(second)
    np.testing.assert_allclose(moments.mean, coded.mean(axis=2), atol=1e-4)
    eye = np.broadcast_to(np.eye(5), (2, 5, 5))
    np.testing.assert_allclose(moments.mean_pull(eye), (plain - coded).mean(axis=2), atol=1e-5)
    moments.centre()
    inner, apart = (value - value.mean(axis=2, keepdims=True) for value in (coded, plain - coded))
    assert moments.cross is not None
    # 2e-3 of sums of 400 squares around 9: float32.
    np.testing.assert_allclose(moments.own, inner @ inner.transpose(0, 2, 1), atol=0.02)
    np.testing.assert_allclose(moments.cross, apart @ inner.transpose(0, 2, 1), atol=0.02)


def test_inputs_that_are_constant_but_for_rounding_correlate_with_nothing() -> None:
    """What float32 leaves of them is no sum of squares, and has no Cholesky factor."""
    values = np.asarray([0.3, -1.7, 5.1, 0.07, 2.9], np.float32)
    coded = np.repeat(values[None, :, None], 100, axis=2)
    plain = coded + 0.1 * np.random.default_rng(0).standard_normal(coded.shape).astype(np.float32)
    moments = gathered(coded, plain)
    moments.centre()
    assert moments.cross is not None
    assert not moments.own.any() and not moments.cross.any()
    weight, scales = kernel(1, 4, 5), np.full((1, 4), 0.01, np.float32)
    nearest = np.clip(np.rint(weight / scales[:, :, None]), -127, 127)
    np.testing.assert_array_equal(round_rows(weight, scales, moments), nearest)


def test_a_constant_input_leaves_the_others_as_they_are() -> None:
    varied = np.random.default_rng(0).standard_normal((1, 4, 200)).astype(np.float32)
    coded = np.concatenate([np.full((1, 1, 200), 40000.3, np.float32), varied], axis=1)
    moments = gathered(coded, coded)
    moments.centre()
    own = moments.own
    assert not own[:, 0].any() and not own[:, :, 0].any()
    inner = varied - varied.mean(axis=2, keepdims=True)
    # 1e-3 of sums of 200 squares around 1: float32.
    np.testing.assert_allclose(own[:, 1:, 1:], inner @ inner.transpose(0, 2, 1), atol=0.2)


def test_sums_that_no_samples_can_have_are_rounded_input_by_input() -> None:
    own = np.asarray([[[1.0, 2.0], [2.0, 1.0]]], np.float32)  # no positive definite matrix, whatever the precision
    weight, scales = kernel(1, 4, 2), np.full((1, 4), 0.01, np.float32)
    nearest = np.clip(np.rint(weight / scales[:, :, None]), -127, 127)
    np.testing.assert_array_equal(round_rows(weight, scales, Moments(own=own, count=10**6)), nearest)
