"""Exact arithmetic on a 16x8 model's integers: LiteRT's kernels come out at the same steps."""

from __future__ import annotations

import numpy as np
import pytest

from edgec.backends.base import load_backend
from edgec.passes.pipelines import canonicalize
from edgec.quantization.planning.plan import make_plan
from edgec.quantization.run.apply import apply_plan
from edgec.targets.load import load_target
from tests.support.graphs import random_feeds
from tests.support.plans import kernel, measured, typed
from tests.support.tflite import emit, emit_qdq, run
from tools.exact16 import by_operator, exact

CONSTANTS = {"w": kernel(4, 3, 3, 3), "d": kernel(4, 1, 3, 3), "f": kernel(4, 5)}
NET = """(float[1,3,8,8] x) => (float[1,5] y) {
    a = Conv<pads=[1,1,1,1], strides=[2,2]>(x, w) r = Relu(a) c = Conv<pads=[1,1,1,1], group=4>(r, d)
    s = Add(r, c) g = GlobalAveragePool(s) v = Flatten(g) y = MatMul(v, f) }"""


def test_litert_comes_to_the_same_steps() -> None:
    model, target = typed(NET, CONSTANTS), load_target("linux-x86_64")
    legal = load_backend("tflite").legalize(canonicalize(model), target, "int16x8")
    feeds = [random_feeds(model, seed) for seed in range(3)]
    plan = make_plan(legal, measured(legal, feeds), target, "tflite", "int16x8", range_method="minmax")
    artifact = emit_qdq(apply_plan(legal, plan), precision="int16x8")
    step = plan.activations["y"].qparams.scale[0]
    for feed in feeds:
        found = exact(artifact.files[artifact.main], feed["x"].transpose(0, 2, 3, 1))
        np.testing.assert_allclose(found, run(artifact, feed)["y"], rtol=0, atol=1.5 * step)
    # Ties alone may go elsewhere: of a few hundred values a few.
    alone = by_operator(artifact.files[artifact.main], feeds[0]["x"].transpose(0, 2, 3, 1))
    assert {"CONV_2D", "DEPTHWISE_CONV_2D", "ADD", "FULLY_CONNECTED"} <= alone.keys()
    assert all(share < 0.05 for kind, share in alone.items() if kind != "MEAN"), alone


def test_an_operator_that_is_not_written_down_is_refused() -> None:
    artifact = emit(typed("(float[1,4] x) => (float[1,4] y) { y = Tanh(x) }"))
    with pytest.raises(KeyError, match="TANH"):
        exact(artifact.files[artifact.main], np.zeros((1, 4)))
