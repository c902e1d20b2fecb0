"""A reduction and the constants behind it: OpenVINO's plugin must not read beside them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper

from edgec.artifact import Artifact
from edgec.backends.base import CompileOptions, load_backend
from edgec.frontends.base import load_source
from edgec.graph.model import Model
from edgec.metrics import sqnr_db
from edgec.passes.pipelines import canonicalize
from edgec.quantization.planning.plan import make_plan
from edgec.quantization.run.apply import apply_plan
from edgec.runners.base import run_artifact
from edgec.targets.load import load_target
from edgec.tensors import Array
from tests.support.graphs import random_feeds, run_ort
from tests.support.plans import measured, typed
from tools.sklearn_cases import built

RNG = np.random.default_rng(11)


@pytest.mark.parametrize("kind", ["ReduceSum", "ReduceMax", "ReduceMean"])
def test_constants_of_several_numbers_after_a_reduction(kind: str, tmp_path: Path) -> None:
    inits: dict[str, np.ndarray] = {
        "c": RNG.normal(size=(1, 3, 13)).astype(np.float32),
        "d": RNG.normal(size=(1, 3, 13)).astype(np.float32),
        "q": RNG.normal(size=(1, 3)).astype(np.float32),
        "axes": np.asarray([2], np.int64),
    }
    nodes = [
        helper.make_node("Add", ["x", "c"], ["a"]),
        helper.make_node("Mul", ["a", "d"], ["b"]),
        helper.make_node(kind, ["b", "axes"], ["r"], keepdims=0),
        helper.make_node("Sub", ["r", "q"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", 1, [45, 1, 13])],
        [helper.make_tensor_value_info("y", 1, [45, 3])],
        [onnx.numpy_helper.from_array(v, k) for k, v in inits.items()],
    )
    path = tmp_path / "m.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10), path)
    feeds = {"x": RNG.normal(size=(45, 1, 13)).astype(np.float32)}
    [got] = run_artifact(built(load_source(path), "openvino"), [feeds])
    np.testing.assert_allclose(got["y"], run_ort(str(path), feeds)["y"], rtol=1e-5, atol=1e-5)


def compiled(model: Model) -> Artifact:
    """The float artifact."""
    backend, target = load_backend("openvino"), load_target("linux-x86_64")
    legal = backend.legalize(canonicalize(model), target, "float32")
    return backend.compile(legal, target, CompileOptions(precision="float32"))


#: Reduced axis, and the shape of the constant: what the plugin reads beside, and neighbours that it reads right.
FUSED = [(2, (5, 1)), (2, (1, 5, 1)), (0, (1, 5, 1)), (0, (5, 3)), (1, (1, 1, 3)), (2, (2, 1, 1))]


@pytest.mark.parametrize(("axis", "shape"), FUSED)
@pytest.mark.parametrize("chain", ["y = Sub(r, q)", "a = Relu(r) b = Add(a, one) y = Mul(b, q)", "y = Div(q, r)"])
def test_a_reduction_that_keeps_its_axes(chain: str, axis: int, shape: tuple[int, ...]) -> None:
    constants: dict[str, Array] = {
        "axes": np.asarray([axis], np.int64),
        "q": RNG.uniform(1, 2, shape).astype(np.float32),
        "one": np.asarray([1], np.float32),
    }
    out = ",".join("1" if i == axis else str(size) for i, size in enumerate((2, 5, 3)))
    text = f"(float[2,5,3] x) => (float[{out}] y) {{ s = Mul(x, x) r = ReduceSum<keepdims=1>(s, axes) {chain} }}"
    model = typed(text, {k: v for k, v in constants.items() if k in text})
    feeds = {"x": RNG.uniform(0.5, 1, (2, 5, 3)).astype(np.float32)}
    [got] = run_artifact(compiled(model), [feeds])
    np.testing.assert_allclose(got["y"], run_ort(model, feeds)["y"], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("pool", ["GlobalAveragePool", "GlobalMaxPool"])
def test_a_constant_for_each_channel_after_a_global_pool(pool: str) -> None:
    model = typed(
        f"(float[2,5,7] x) => (float[2,5,1] y) {{ a = Relu(x) p = {pool}(a) y = Div(p, q) }}",
        {"q": RNG.uniform(1, 2, (1, 5, 1)).astype(np.float32)},
    )
    feeds = {"x": RNG.normal(size=(2, 5, 7)).astype(np.float32)}
    [got] = run_artifact(compiled(model), [feeds])
    np.testing.assert_allclose(got["y"], run_ort(model, feeds)["y"], rtol=1e-5, atol=1e-5)


def _int8_db(source: Model, *, samples: int) -> float:
    """Signal to noise of what int8 makes of a model with the output `y`."""
    target, backend = load_target("intel-cpu"), load_backend("openvino")
    model = backend.legalize(canonicalize(source), target, "int8")
    stats = measured(model, [random_feeds(model, seed) for seed in range(samples)])
    int8 = apply_plan(model, make_plan(model, stats, target, "openvino", "int8", range_method="minmax"))
    artifact = backend.compile(int8, target, CompileOptions(precision="int8"))
    feeds = random_feeds(model, 1)
    stored = {b.artifact.name: b.to_artifact(feeds[b.source.name]) for b in artifact.inputs}
    [raw] = run_artifact(artifact, [stored])
    got = artifact.outputs[0].to_source(raw[artifact.outputs[0].artifact.name])
    return sqnr_db(run_ort(source, feeds)["y"], got)


@pytest.mark.parametrize("keepdims", [0, 1])
def test_in_int8_too(keepdims: int) -> None:
    shape = (1, 5, 1) if keepdims else (1, 5)
    out = "2,5,1" if keepdims else "2,5"
    source = typed(
        f"(float[2,5,8] x) => (float[{out}] y) "
        f"{{ a = Relu(x) r = ReduceMean<keepdims={keepdims}>(a, axes) y = Mul(r, q) }}",
        {"axes": np.asarray([2], np.int64), "q": RNG.uniform(0.5, 2, shape).astype(np.float32)},
    )
    assert _int8_db(source, samples=4) > 25


@pytest.mark.parametrize("keepdims", [0, 1])
@pytest.mark.parametrize("tokens", [1, 16])
def test_a_normalisation_behind_a_mean_over_tokens_before_an_int8_product(tokens: int, keepdims: int) -> None:
    """FakeQuantize takes the normalisation in, and the plugin took that into the mean, channels mixed up."""
    shape = "1,1,32" if keepdims else "1,32"
    source = typed(
        f"(float[1,{tokens},32] x) => (float[{shape[:-3]},20] y) "
        f"{{ s = Relu(x) r = ReduceMean<keepdims={keepdims}>(s, axes) m = Mul(r, q) n = Add(m, c) y = MatMul(n, w) }}",
        {
            "axes": np.asarray([1], np.int64),
            "q": RNG.uniform(0.2, 3, 32).astype(np.float32),
            "c": RNG.normal(size=32).astype(np.float32),
            "w": RNG.normal(size=(32, 20)).astype(np.float32),
        },
    )
    # Some 35 dB are what int8 keeps here; mixed up it was below 5.
    assert _int8_db(source, samples=8) > 25


@pytest.mark.parametrize(("op", "scale"), [("ReduceMean", "Mul"), ("ReduceMax", "Mul"), ("ReduceMean", "Div")])
def test_a_mean_of_what_is_scaled_before_an_int8_product(op: str, scale: str) -> None:
    """A written-out RMSNorm: the plugin moves its scale behind the mean, and channels are mixed up in FakeQuantize."""
    source = typed(
        "(float[1,16,32] x) => (float[1,20] y) "
        f"{{ s = Sin(x) m = {scale}(s, q) r = {op}<keepdims=0>(m, axes) y = MatMul(r, w) }}",
        {
            "axes": np.asarray([1], np.int64),
            "q": RNG.uniform(0.2, 3, 32).astype(np.float32),
            "w": RNG.normal(size=(32, 20)).astype(np.float32),
        },
    )
    assert _int8_db(source, samples=16) > 25


@pytest.mark.parametrize(("keepdims", "out"), [(0, "1,20"), (1, "1,1,20")])
@pytest.mark.parametrize("op", ["ReduceMax", "ReduceMin"])
def test_an_extreme_over_tokens_before_an_int8_product(op: str, keepdims: int, out: str) -> None:
    """The plugin takes FakeQuantize into the reduction, and then compares numbers without a sign."""
    source = typed(
        f"(float[1,16,32] x) => (float[{out}] y) "
        f"{{ s = Sin(x) r = {op}<keepdims={keepdims}>(s, axes) y = MatMul(r, w) }}",
        {"axes": np.asarray([1], np.int64), "w": RNG.normal(size=(32, 20)).astype(np.float32)},
    )
    assert _int8_db(source, samples=16) > 25


@pytest.mark.parametrize("rows", [1, 4])
@pytest.mark.parametrize("count", [2, 3])
def test_int8_products_of_matrices_in_a_row(rows: int, count: int) -> None:
    """A layer of low rank: the plugin compiles both as one piece, which gives garbage."""
    body = " ".join(f"v{i + 1} = MatMul(v{i}, w{i})" for i in range(count))
    source = typed(
        f"(float[{rows},32] x) => (float[{rows},20] y) {{ v0 = Sin(x) {body} y = Identity(v{count}) }}",
        {
            f"w{i}": RNG.normal(size=(32 if i == 0 else 16, 20 if i == count - 1 else 16)).astype(np.float32)
            for i in range(count)
        },
    )
    assert _int8_db(source, samples=16) > 25
