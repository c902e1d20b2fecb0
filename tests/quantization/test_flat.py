"""Where readers are flat: what saturates there changes nothing, and the steps are finer for it."""

from __future__ import annotations

import math

import numpy as np
import pytest

from edgec.quantization.flat import flat_outside
from edgec.quantization.planning.plan import make_plan
from edgec.quantization.run.apply import apply_plan
from edgec.targets.load import load_target
from tests.support.calibration import inferred
from tests.support.graphs import run_ort
from tests.support.plans import measured

NUMBERS = {name: np.asarray(number, np.float32) for name, number in (("zero", 0), ("three", 3), ("six", 6), ("one", 1))}
HARD_SWISH = "s = Add(x, three)  gate = Clip(s, zero, six)  y = Mul(x, gate)"


@pytest.mark.parametrize(
    ("body", "ends"),
    [
        ("y = Relu(x)", (0, math.inf)),
        ("y = Clip(x, zero, six)", (0, 6)),
        ("y = HardSwish(x)", (-3, math.inf)),
        ("y = HardSigmoid<alpha = 0.25, beta = 0.5>(x)", (-2, 2)),
        (HARD_SWISH, (-3, math.inf)),
        ("s = Add(three, x)  y = Clip(s, zero, six)", (-3, 3)),
        ("gate = Relu(x)  y = Mul(gate, x)", (0, math.inf)),
        ("m = MaxPool<kernel_shape = [1, 1]>(x)  y = Relu(m)", (0, math.inf)),
        ("t = Transpose<perm = [0, 2, 3, 1]>(x)  y = Relu(t)", (0, math.inf)),
        # the widest of the readers
        ("a = Clip(x, zero, six)  b = HardSwish(x)  y = Add(a, b)", (-3, math.inf)),
        ("a = Relu(x)  y = Add(a, x)", (-math.inf, math.inf)),
        ("a, b = Split<axis = 1, num_outputs = 2>(x)  c = Relu(a)  d = HardSwish(b)  y = Add(c, d)", (-3, math.inf)),
        ("a, b = Split<axis = 1, num_outputs = 2>(x)  y = Relu(b)", (0, math.inf)),  # nobody reads a
        # nothing of the kind
        ("a, b = Split<axis = 1, num_outputs = 2>(x)  c = Clip(a, zero, six)  y = Mul(c, b)", (-math.inf, math.inf)),
        ("m = AveragePool<kernel_shape = [2, 2]>(x)  y = Relu(m)", (-math.inf, math.inf)),
        ("s = Add(x, three)  gate = Clip(s, one, six)  y = Mul(x, gate)", (-math.inf, math.inf)),
        ("a = Abs(x)  s = Add(a, three)  gate = Clip(s, zero, six)  y = Mul(x, gate)", (-math.inf, math.inf)),
        ("y = Sigmoid(x)", (-math.inf, math.inf)),
    ],
)
def test_ends(body: str, ends: tuple[float, float]) -> None:
    model = inferred(f"(float[1,2,4,4] x) => (float[N,A,B,C] y) {{ {body} }}", constants=NUMBERS)
    assert flat_outside(model.graph.inputs[0]) == ends


@pytest.mark.parametrize(
    ("body", "ends"),
    [
        ("s = Sub(z, x)  y = Clip(s, zero, one)", (-3, 2)),  # z is -2 to 2: beyond -3 every sum is over 1
        ("s = Sub(x, z)  y = Clip(s, zero, one)", (-2, 3)),
        ("s = Add(z, x)  y = Clip(s, zero, one)", (-2, 3)),
        ("s = Add(x, z)  y = Relu(s)", (-2, math.inf)),
        ("s = Add(x, z)  y = Sigmoid(s)", (-math.inf, math.inf)),
        ("s = Add(x, x)  y = Clip(s, zero, one)", (-math.inf, math.inf)),
    ],
)
def test_ends_beside_another_value(body: str, ends: tuple[float, float]) -> None:
    text = f"(float[1,4] x, float[1,4] z) => (float[A,B] y) {{ {body} }}"
    x, z = inferred(text, constants=NUMBERS).graph.inputs
    assert flat_outside(x, lambda value: (-2.0, 2.0) if value is z else None) == ends
    assert flat_outside(x) == (-math.inf, math.inf)  # nothing is known of the other one
    if math.isfinite(ends[1]):  # beyond the ends nothing changes, whatever z is
        model = inferred(text, constants=NUMBERS)
        for number in (-2, -0.5, 2):
            feeds = [[ends[0], ends[0], ends[1], ends[1]], [ends[0] - 9, ends[0] - 1, ends[1] + 1, ends[1] + 9]]
            found = [
                run_ort(model, {"x": np.asarray([x], np.float32), "z": np.full((1, 4), number, np.float32)})["y"]
                for x in feeds
            ]
            np.testing.assert_array_equal(found[0], found[1])


def test_a_residual_that_is_clipped_has_the_steps_of_what_is_left_of_it() -> None:
    """Where clip(x - h, 0, 1) saturates, a net may give any h: its tail down to -40 would leave steps of 0.16."""
    rng = np.random.default_rng(0)
    model = inferred(
        "(float[1,1,8,8] x) => (float[1,1,8,8] y) "
        "{ r = Conv<kernel_shape = [1, 1]>(x, w) h = Mul(r, r2) s = Sub(x, h) y = Clip(s, zero, one) }",
        constants={"w": np.full((1, 1, 1, 1), 20, np.float32), "r2": np.full((1,), -1, np.float32), **NUMBERS},
    )
    feeds = [{"x": rng.uniform(-1, 2, (1, 1, 8, 8)).astype(np.float32)} for _ in range(4)]
    plan = make_plan(
        model, measured(model, feeds), load_target("raspberrypi4"), "tflite", "int8", range_method="minmax"
    )
    assert plan.activations["h"].qparams.scale[0] < 6 / 255  # x has room beyond what four samples show


def test_an_output_of_the_graph_is_flat_nowhere() -> None:
    model = inferred("(float[1,4] x) => (float[1,4] h, float[1,4] y) { h = Neg(x) y = Relu(h) }")
    assert flat_outside(model.graph.outputs[0]) == (-math.inf, math.inf)


def test_hard_swish_of_values_far_below_keeps_its_steps_for_the_others() -> None:
    """A tail down to -60 would leave a step of 0.27 for what matters, between -3 and 9."""
    rng = np.random.default_rng(0)
    model = inferred(
        "(float[1,8,6,6] x) => (float[1,8,6,6] y) "
        "{ h = Conv<kernel_shape = [1, 1]>(x, w) s = Add(h, three) gate = Clip(s, zero, six) y = Mul(h, gate) }",
        constants={"w": np.eye(8, dtype=np.float32)[:, :, None, None], **NUMBERS},
    )
    feeds = [{"x": np.where(rng.random((1, 8, 6, 6)) < 0.3, -60, rng.uniform(-4, 9, (1, 8, 6, 6))).astype(np.float32)}]
    target = load_target("raspberrypi4")
    plan = make_plan(model, measured(model, feeds), target, "tflite", "int8", range_method="minmax")
    assert plan.activations["h"].qparams.scale[0] == pytest.approx(12 / 255, rel=0.01)
    exact, quantized = run_ort(model, feeds[0])["y"], run_ort(apply_plan(model, plan), feeds[0])["y"]
    # the input's own steps are 69/255, but h's add less than half of one: y = 6h at most
    assert np.abs(quantized - exact).max() < 6 * (69 / 255 + 12 / 255)
