"""Operators of 8 and of 16 bits in one file: LiteRT and TensorFlow Lite Micro compute what the QDQ model says."""

from __future__ import annotations

import numpy as np
import pytest

from edgec.artifact import Artifact
from edgec.backends.base import CompileOptions, load_backend
from edgec.graph.model import Model
from edgec.metrics import sqnr_db
from edgec.quantization.planning.plan import make_plan
from edgec.quantization.run.apply import apply_plan
from edgec.runners.base import run_artifact
from edgec.targets.load import load_target
from edgec.tensors import Array
from tests.support.graphs import random_feeds, run_ort
from tests.support.plans import kernel, measured, typed
from tests.support.tflite import unpacked

#: Nets of several operators each; every second unit is wide, then the others.
NETS = {
    "convolutions": """(float[1,8,9,9] x) => (float[1,8,5,5] y)
        { a = Conv<kernel_shape=[3,3], pads=[1,1,1,1]>(x, k33, v8) ar = Relu(a)
          b = Conv<kernel_shape=[3,3], group=8, pads=[1,1,1,1]>(ar, depth, v8) br = Clip(b, zero, six)
          c = Conv<kernel_shape=[1,1]>(br, k11) d = Conv<kernel_shape=[3,3], strides=[2,2], pads=[1,1,1,1]>(c, k33)
          y = Conv<kernel_shape=[1,1]>(d, k11, v8) }""",
    "branches": """(float[1,8,6,6] x) => (float[1,24,3,3] y)
        { a = Conv<kernel_shape=[1,1]>(x, k11, v8) b = Conv<kernel_shape=[1,1]>(a, k11b, v8) s = Add(a, b) r = Relu(s)
          c = Conv<kernel_shape=[1,1]>(r, k11) d = Mul(c, b) e = Sub(d, a) j = Concat<axis=1>(d, e, r)
          p = MaxPool<kernel_shape=[2,2], strides=[2,2]>(j) y = Conv<kernel_shape=[1,1]>(p, k24, v24) }""",
    "head": """(float[1,8,6,6] x) => (float[1,12] y)
        { a = Conv<kernel_shape=[3,3]>(x, k33, v8) l = LeakyRelu<alpha=0.1>(a)
          p = AveragePool<kernel_shape=[2,2], strides=[2,2]>(l) t = Transpose<perm=[0,2,3,1]>(p) f = Flatten(t)
          g = Gemm(f, w32, v16) t2 = Tanh(g) h = Gemm(t2, w16) s = Sigmoid(h) y = Gemm(s, w12) }""",
    "moved": """(float[1,8,6,6] x) => (float[1,8,12,12] y)
        { a = Conv<kernel_shape=[1,1]>(x, k11, v8) l, r = Split<axis=1, num_outputs=2>(a) c = Slice(l, one, five, axes)
          u = ConvTranspose<kernel_shape=[2,2], strides=[2,2]>(c, up) d = Conv<kernel_shape=[3,3]>(r, half)
          z = Resize<mode="nearest">(d, , scales) j = Add(u, z) k = Relu(j) m = ReduceMean<keepdims=1>(k, axes23)
          n = Mul(k, m) o = ConvTranspose<kernel_shape=[5,5]>(n, wider) y = Conv<kernel_shape=[1,1]>(o, k11) }""",
    "pooled": """(float[1,8,6,6] x) => (float[1,12] y)
        { a = Conv<kernel_shape=[3,3]>(x, k33, v8) q = Pad(a, pads) b = Conv<kernel_shape=[3,3]>(q, k33, v8)
          g = GlobalAveragePool(b) f = Flatten(g) m = MatMul(f, w8) z = Gemm(m, w12) y = Softmax(z) }""",
}  # fmt: skip

CONSTANTS: dict[str, Array] = {
    "k33": kernel(8, 8, 3, 3, scale=0.2),
    "k11": kernel(8, 8, 1, 1, seed=1),
    "k11b": kernel(8, 8, 1, 1, seed=2),
    "depth": kernel(8, 1, 3, 3, seed=3),
    "k24": kernel(24, 24, 1, 1, seed=4, scale=0.3),
    "v8": kernel(8, seed=5),
    "v24": kernel(24, seed=6),
    "v16": kernel(16, seed=7),
    "w32": kernel(32, 16, seed=8, scale=0.3),
    "w16": kernel(16, 16, seed=9),
    "w12": kernel(16, 12, seed=10),
    "w8": kernel(8, 16, seed=11),
    "zero": np.array(0, np.float32),
    "six": np.array(6, np.float32),
    "up": kernel(4, 8, 2, 2, seed=12),
    "half": kernel(8, 4, 3, 3, seed=13, scale=0.3),
    "wider": kernel(8, 8, 5, 5, seed=14, scale=0.1),
    "one": np.array([1, 1], np.int64),
    "five": np.array([5, 5], np.int64),
    "axes": np.array([2, 3], np.int64),
    "axes23": np.array([2, 3], np.int64),
    "scales": np.array([1, 1, 2, 2], np.float32),
    "pads": np.array([0, 0, 1, 1, 0, 0, 1, 1], np.int64),
}


def _net(name: str) -> Model:
    text = NETS[name]
    return typed(text, {key: value for key, value in CONSTANTS.items() if f" {key}" in text or f", {key}" in text})


def _run(artifact: Artifact, feeds: list[dict[str, Array]]) -> Array:
    """The output of each sample, from the artifact's own runtime."""
    raw = ({b.artifact.name: b.to_artifact(feed[b.source.name]) for b in artifact.inputs} for feed in feeds)
    (output,) = artifact.outputs
    return np.stack([output.to_source(found[output.artifact.name]) for found in run_artifact(artifact, raw)])


@pytest.mark.parametrize("first", [0, 1])
@pytest.mark.parametrize("net", NETS)
@pytest.mark.parametrize("target", ["raspberrypi4", "cortex-m4"])
def test_runtimes_agree_with_the_qdq_model(target: str, net: str, first: int) -> None:
    if target == "cortex-m4":
        pytest.importorskip("tflite_micro", reason="TensorFlow Lite Micro's wheel is for Linux on x86-64 only")
    profile, model = load_target(target), _net(net)
    feeds = [random_feeds(model, seed) for seed in range(4)]
    plain = make_plan(model, measured(model, feeds), profile, "tflite", "int8", range_method="minmax")
    heads = [n for n, p in plain.nodes.items() if p.scheme == "int8" and not p.reason.startswith("part of")]
    plan = make_plan(
        model,
        measured(model, feeds),
        profile,
        "tflite",
        "int8",
        range_method="minmax",
        reverted=dict.fromkeys(heads[first::2], "int16x8"),
    )
    assert {"int8", "int16x8"} <= {p.scheme for p in plan.nodes.values()} and plan.requantized
    quantized = apply_plan(model, plan)
    artifact = load_backend("tflite").compile(quantized, profile, CompileOptions(precision="int8"))
    assert artifact.operators["QUANTIZE"] >= 1 and not _floats_inside(artifact, profile.io_dtype)
    exact, wanted = (np.stack([run_ort(m, sample)["y"] for sample in feeds]) for m in (model, quantized))
    got = _run(artifact, feeds)
    # As near as files of 8 bits alone are (34 to 42 dB for these nets): layers amplify a step more or less before them.
    assert sqnr_db(wanted, got) >= 32
    assert sqnr_db(exact, got) >= sqnr_db(exact, wanted) - 1.5


def _floats_inside(artifact: Artifact, io_dtype: str) -> list[str]:
    """Operators beside those at the border that work on float tensors."""
    graph = unpacked(artifact).subgraphs[0]
    floats = {i for i, t in enumerate(graph.tensors) if t.type == 0}
    work = [op for op in graph.operators if {*op.inputs, *op.outputs} & floats]
    return [] if io_dtype == "float32" else [str(op.opcodeIndex) for op in work]
