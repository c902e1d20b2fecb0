"""Following: layers mend what the quantized model gives them, where the errors begin, and as far as samples agree."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgec.graph.model import Model
from edgec.quantization.algorithms.follow import beginnings, follow, trust
from edgec.quantization.algorithms.layers import find_layers
from edgec.quantization.algorithms.rounding import Moments, round_rows, target_change
from edgec.quantization.apply import apply_plan
from edgec.quantization.ladder import round_weights
from edgec.quantization.plan import make_plan
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


def gathered(columns: Array, plain: Array) -> Moments:
    moments = Moments.zeros(*columns.shape[:2], cross=True)
    moments.add(columns.transpose(0, 2, 1), plain.transpose(0, 2, 1))
    return moments.flush()


@settings(max_examples=30, deadline=None)
@given(fan_in=st.integers(1, 8), positions=st.integers(9, 60), seed=st.integers(0, 1000))
def test_trust_is_the_best_share_on_the_other_half(fan_in: int, positions: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    plain = rng.standard_normal((2, 1, fan_in, positions)).astype(np.float32)
    coded = (0.8 * plain + 0.2 * rng.standard_normal(plain.shape)).astype(np.float32)
    weight = rng.standard_normal((1, 3, fan_in)).astype(np.float32)
    halves = (gathered(coded[0], plain[0]), gathered(coded[1], plain[1]))
    changes = [target_change(weight, half) for half in halves]

    def error(share: float) -> float:
        """By brute force: each half's change on the other half's samples."""
        pairs = ((changes[0], 1), (changes[1], 0))
        return sum(
            float(np.square(weight @ plain[i] - (weight + share * change) @ coded[i]).sum()) for change, i in pairs
        )

    best = trust(weight, halves)
    # 1e-4: moments are float32.
    assert error(best) <= min(error(share) for share in np.linspace(0, 1, 21)) * (1 + 1e-4) + 1e-4


def test_noise_that_says_nothing_is_not_trusted() -> None:
    rng = np.random.default_rng(0)
    plain = rng.standard_normal((2, 1, 30, 12)).astype(np.float32)  # fewer positions than inputs
    coded = (plain + 0.01 * rng.standard_normal(plain.shape)).astype(np.float32)
    weight = rng.standard_normal((1, 3, 30)).astype(np.float32)
    assert trust(weight, (gathered(coded[0], plain[0]), gathered(coded[1], plain[1]))) < 0.2


@pytest.mark.parametrize("joined", [False, True])
def test_centred_moments_are_those_of_centred_inputs(joined: bool) -> None:
    rng = np.random.default_rng(0)
    plain = (rng.standard_normal((2, 5, 400)) + 3).astype(np.float32)
    coded = (plain + 0.1 * rng.standard_normal(plain.shape) - 0.2).astype(np.float32)
    moments = gathered(coded, plain)
    if joined:
        parts = slice(0, 150), slice(150, 400)
        first, second = (gathered(coded[:, :, part], plain[:, :, part]) for part in parts)
        moments = first.joined(second)
    centred = moments.centred()
    inner, apart = (value - value.mean(axis=2, keepdims=True) for value in (coded, plain - coded))
    assert centred.cross is not None
    # 2e-3 of sums of 400 squares around 9: float32.
    np.testing.assert_allclose(centred.own, inner @ inner.transpose(0, 2, 1), atol=0.02)
    np.testing.assert_allclose(centred.cross, apart @ inner.transpose(0, 2, 1), atol=0.02)
    np.testing.assert_allclose(moments.mean_apart, (plain - coded).mean(axis=2), atol=1e-5)
    np.testing.assert_array_equal(centred.mean_apart, 0)


def test_inputs_that_are_constant_but_for_rounding_correlate_with_nothing() -> None:
    """What float32 leaves of them is no sum of squares, and has no Cholesky factor."""
    values = np.asarray([0.3, -1.7, 5.1, 0.07, 2.9], np.float32)
    coded = np.repeat(values[None, :, None], 100, axis=2)
    plain = coded + 0.1 * np.random.default_rng(0).standard_normal(coded.shape).astype(np.float32)
    moments = gathered(coded, plain).centred()
    assert moments.cross is not None
    assert not moments.own.any() and not moments.cross.any()
    weight, scales = kernel(1, 4, 5), np.full((1, 4), 0.01, np.float32)
    nearest = np.clip(np.rint(weight / scales[:, :, None]), -127, 127)
    np.testing.assert_array_equal(round_rows(weight, scales, moments), nearest)


def test_a_constant_input_leaves_the_others_as_they_are() -> None:
    varied = np.random.default_rng(0).standard_normal((1, 4, 200)).astype(np.float32)
    coded = np.concatenate([np.full((1, 1, 200), 40000.3, np.float32), varied], axis=1)
    own = gathered(coded, coded).centred().own
    assert not own[:, 0].any() and not own[:, :, 0].any()
    inner = varied - varied.mean(axis=2, keepdims=True)
    # 1e-3 of sums of 200 squares around 1: float32.
    np.testing.assert_allclose(own[:, 1:, 1:], inner @ inner.transpose(0, 2, 1), atol=0.2)


def test_sums_that_no_samples_can_have_are_rounded_input_by_input() -> None:
    own = np.asarray([[[1.0, 2.0], [2.0, 1.0]]], np.float32)  # no positive definite matrix, whatever the precision
    weight, scales = kernel(1, 4, 2), np.full((1, 4), 0.01, np.float32)
    nearest = np.clip(np.rint(weight / scales[:, :, None]), -127, 127)
    np.testing.assert_array_equal(round_rows(weight, scales, Moments(own=own, count=10**6)), nearest)
