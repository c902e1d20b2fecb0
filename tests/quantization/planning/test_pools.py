"""Where a kernel may write float, a MaxPool between convolutions still moves integers: it rounds to the same steps."""

from __future__ import annotations

import numpy as np

from edgec.quantization.planning.plan import make_plan
from edgec.quantization.run.apply import apply_plan
from edgec.targets.load import load_target
from tests.support.graphs import run_ort
from tests.support.plans import kernel, measured, typed, with_scheme

RNG = np.random.default_rng(0)
MODEL = """(float[1,3,8,8] x) => (float[1,4,4,4] y) {
    a = Conv(x, w) r = Relu(a) p = MaxPool<kernel_shape=[2,2], strides=[2,2]>(r) y = Conv(p, u) }"""
CONSTANTS = {"w": kernel(4, 3, 1, 1), "u": kernel(4, 4, 1, 1)}
INTEL = load_target("intel-cpu")


def test_a_maxpool_reads_and_writes_one_scale() -> None:
    model = typed(MODEL, CONSTANTS)
    feed = {"x": RNG.normal(size=(1, 3, 8, 8)).astype(np.float32)}
    stats = measured(model, [feed])
    plan = make_plan(model, stats, INTEL, "openvino", "int8", range_method="minmax")
    assert plan.nodes["MaxPool_p"].scheme == "int8"
    assert plan.activations["r"].qparams == plan.activations["p"].qparams
    behind = make_plan(
        model,
        stats,
        with_scheme("openvino", name="intel-cpu", int8_ops={"Conv"}, same_scale_ops=frozenset()),
        "openvino",
        "int8",
        range_method="minmax",
    )
    assert behind.nodes["MaxPool_p"].scheme == "float32" and "r" not in behind.activations
    first, second = (run_ort(apply_plan(model, p), feed)["y"] for p in (plan, behind))
    np.testing.assert_array_equal(first, second)


def test_a_maxpool_that_no_convolution_reads_stays_float() -> None:
    text = "(float[1,3,8,8] x) => (float[1,3,4,4] y) { y = MaxPool<kernel_shape=[2,2], strides=[2,2]>(x) }"
    plan = make_plan(typed(text), measured(typed(text), []), INTEL, "openvino", "int8", range_method="minmax")
    assert plan.nodes["MaxPool_y"].scheme == "float32"
