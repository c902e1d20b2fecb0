"""What OpenVINO lacks or gets wrong, computed as ONNX says all the same; and what stays a refusal."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgec.backends.base import CompileOptions, load_backend
from edgec.errors import Severity
from edgec.graph.model import Model
from edgec.passes.pipelines import canonicalize
from edgec.runners import agent
from edgec.targets.load import load_target
from edgec.tensors import Array
from tests.support.graphs import graph, operators, run_ort

pytest.importorskip("openvino")

BACKEND = load_backend("openvino")
TARGET = load_target("intel-cpu")


def computed(model: Model, feeds: dict[str, Array], folder: Path) -> dict[str, Any]:
    """Outputs of the artifact, in the source's types."""
    legal = BACKEND.legalize(canonicalize(model), TARGET, "float32")
    artifact = BACKEND.compile(legal, TARGET, CompileOptions())
    for name, content in artifact.files.items():
        (folder / name).write_bytes(content)
    runtime = agent.load(str(folder / artifact.main), "openvino", 1)
    raw = runtime.run({b.artifact.name: b.to_artifact(feeds[b.source.name]) for b in artifact.inputs})
    return {b.source.name: b.to_source(raw[b.artifact.name]) for b in artifact.outputs}


def values(*shape: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


@pytest.mark.parametrize(
    ("text", "feeds"),
    [
        ("(float[2,3] x, int64[2] r) => (float[4,9] y) { y = Tile(x, r) }", {"r": np.asarray([2, 3])}),
        ("(float[2,3] x, int64[1] a) => (float[2,1,3] y) { y = Unsqueeze(x, a) }", {"a": np.asarray([1])}),
        ("(float[2,1,3] x, int64[1] a) => (float[2,3] y) { y = Squeeze(x, a) }", {"a": np.asarray([1])}),
        ("(float[2,3] x, int64[1] r) => (float[6] y) { y = Reshape(x, r) }", {"r": np.asarray([-1])}),
        (
            "(float[2,3,4] x, int64[2] a) => (float[3] y) { y = ReduceLogSumExp<keepdims=0>(x, a) }",
            {"a": np.asarray([0, 2])},
        ),
    ],
)
def test_parameters_that_the_declared_shape_implies(text: str, feeds: dict[str, Array], tmp_path: Path) -> None:
    model = graph(text)
    feeds = {"x": values(*model.inputs()[0].shape), **feeds}
    np.testing.assert_allclose(computed(model, feeds, tmp_path)["y"], run_ort(model, feeds)["y"], rtol=1e-5)


@pytest.mark.parametrize(("op", "infinity"), [("ReduceMax", -np.inf), ("ReduceMin", np.inf)])
def test_reductions_of_nothing_but_infinity(op: str, infinity: float, tmp_path: Path) -> None:
    model = graph(f"(float[2,3] x) => (float[2] y) <int64[1] a = {{1}}> {{ y = {op}<keepdims=0>(x, a) }}")
    x = np.asarray([[infinity] * 3, [infinity, 5.0, infinity]], np.float32)
    np.testing.assert_array_equal(computed(model, {"x": x}, tmp_path)["y"], np.asarray([infinity, 5.0], np.float32))


def test_a_reduction_that_nobody_compares_stays_one_operator() -> None:
    model = graph(
        "(float[2,3] x) => (float[2,3] y) <int64[1] a = {1}> { m = ReduceMax(x, a) d = Sub(x, m) y = Exp(d) }"
    )
    assert operators(BACKEND.legalize(model, TARGET, "float32")) == operators(model)


def test_ties_of_topk_keep_their_order(tmp_path: Path) -> None:
    model = graph("(float[2,6] x) => (float[2,4] v, int64[2,4] i) <int64[1] k = {4}> { v, i = TopK(x, k) }")
    x = np.asarray([[1, 1, 1, 1, 1, 1], [0, 3, 1, 3, 1, 3]], np.float32)
    got = computed(model, {"x": x}, tmp_path)
    np.testing.assert_array_equal(got["i"], [[0, 1, 2, 3], [1, 3, 5, 2]])
    np.testing.assert_array_equal(got["v"], np.take_along_axis(x, got["i"], 1))


@pytest.mark.parametrize("rows", [1, 4])
def test_mish_between_products_of_matrices(rows: int, tmp_path: Path) -> None:
    """One thread, as validation runs: the plugin refuses Mish there (`Supported precisions set is not available`)."""
    model = graph(
        f"(float[{rows},8] x) => (float[{rows},4] y) {{ h = MatMul(x, v) m = Mish(h) y = MatMul(m, w) }}",
        constants={"v": 3 * values(8, 16, seed=1), "w": values(16, 4, seed=2)},
    )
    feeds = {"x": 10 * values(rows, 8)}
    np.testing.assert_allclose(computed(model, feeds, tmp_path)["y"], run_ort(model, feeds)["y"], rtol=1e-4, atol=1e-4)


def test_mish_behind_a_convolution_stays_one_operator() -> None:
    text = "(float[1,2,4,4] x) => (float[1,2,4,4] y) { c = Conv(x, w) y = Mish(c) }"
    model = graph(text, constants={"w": values(2, 2, 1, 1)})
    assert operators(BACKEND.legalize(model, TARGET, "float32")) == operators(model)


def test_quotients_are_exact_before_they_are_rounded(tmp_path: Path) -> None:
    model = graph("(float[2000] x, float[2000] d) => (float[2000] y) { q = Div(x, d) y = Floor(q) }")
    d = np.abs(values(2000)) + np.float32(0.01)
    x = d * np.random.default_rng(1).integers(1, 100, 2000).astype(np.float32)
    np.testing.assert_array_equal(computed(model, {"x": x, "d": d}, tmp_path)["y"], np.floor(x / d))


def test_a_quotient_that_nobody_rounds_stays_one_operator() -> None:
    model = graph("(float[4] x, float[4] d) => (float[4] y) { q = Div(x, d) y = Relu(q) }")
    assert operators(BACKEND.legalize(model, TARGET, "float32")) == operators(model)


def test_quantization_by_a_scale_of_blocks_that_comes_at_run_time(tmp_path: Path) -> None:
    text = """(float[4,6] x, float[2,6] s, int8[2,6] z) => (int8[4,6] y)
    { y = QuantizeLinear<axis=0, block_size=2>(x, s, z) }"""
    feeds = {"x": 9 * values(4, 6), "s": np.abs(values(2, 6, seed=1)) + np.float32(0.01)}
    feeds["z"] = np.random.default_rng(2).integers(-9, 9, (2, 6)).astype(np.int8)
    model = graph(text)
    np.testing.assert_array_equal(computed(model, feeds, tmp_path)["y"], run_ort(model, feeds)["y"])


def test_boxes_that_overlap_by_the_threshold_are_kept(tmp_path: Path) -> None:
    text = """(float[1,2,4] b, float[1,1,2] s) => (int64[2,3] y) <int64 m = {5}, float t = {0.5}>
    { y = NonMaxSuppression(b, s, m, t) }"""
    feeds = {
        "b": np.asarray([[[0, 0, 2, 1], [0, 0, 1, 1]]], np.float32),
        "s": np.asarray([[[0.9, 0.8]]], np.float32),
    }
    np.testing.assert_array_equal(computed(graph(text), feeds, tmp_path)["y"], [[0, 0, 0], [0, 0, 1]])


def test_infinities_of_float64_stay(tmp_path: Path) -> None:
    model = graph("(double[4] x) => (double[4] y) { y = Neg(x) }")
    x = np.asarray([np.inf, -np.inf, np.nan, 1.5])
    y = computed(model, {"x": x}, tmp_path)["y"]
    assert y.dtype == np.float64
    np.testing.assert_array_equal(y, -x)


@pytest.mark.parametrize("kind", ["int8", "uint8"])
@pytest.mark.parametrize("op", ["Add", "Sub", "Mul"])
def test_eight_bit_arithmetic_wraps(op: str, kind: str, tmp_path: Path) -> None:
    model = graph(f"({kind}[256] x, {kind}[256] z) => ({kind}[256] y) {{ y = {op}(x, z) }}")
    rng, info = np.random.default_rng(0), np.iinfo(kind)
    feeds = {name: rng.integers(info.min, info.max, 256, dtype=kind, endpoint=True) for name in "xz"}
    np.testing.assert_array_equal(computed(model, feeds, tmp_path)["y"], run_ort(model, feeds)["y"])


@pytest.mark.parametrize("op", ["Max", "Min", "Less", "GreaterOrEqual"])
def test_large_unsigned_numbers_keep_their_order(op: str, tmp_path: Path) -> None:
    result = "uint32" if op in ("Max", "Min") else "bool"
    model = graph(f"(uint32[64] x, uint32[64] z) => ({result}[64] y) {{ y = {op}(x, z) }}")
    feeds = {name: np.random.default_rng(i).integers(0, 2**32, 64, dtype=np.uint32) for i, name in enumerate("xz")}
    np.testing.assert_array_equal(computed(model, feeds, tmp_path)["y"], run_ort(model, feeds)["y"])


@pytest.mark.parametrize("kind", ["int32", "int64", "uint32"])
@pytest.mark.parametrize("op", ["Equal", "Less", "LessOrEqual", "Greater", "GreaterOrEqual"])
def test_integers_that_differ_in_their_last_digit_differ(op: str, kind: str, tmp_path: Path) -> None:
    model = graph(f"({kind}[9] x, {kind}[9] z) => (bool[9] y) {{ y = {op}(x, z) }}")
    x = np.asarray([16777216, 16777217, 2**31 - 1, 2**31 - 2, 1, 0, 7, 2**30, 5], kind)
    z = np.asarray([16777217, 16777216, 2**31 - 2, 2**31 - 1, 2, 0, 6, 2**30, 2**31 - 1], kind)
    if kind != "uint32":
        x[4], z[6] = -(2**31), -(2**31)
    np.testing.assert_array_equal(
        computed(model, {"x": x, "z": z}, tmp_path)["y"], run_ort(model, {"x": x, "z": z})["y"]
    )


def test_comparisons_with_a_small_constant_stay_one_operator() -> None:
    model = graph("(int64[4] x) => (bool[4] y) <int64 c = {7}> { y = Less(x, c) }")
    assert operators(BACKEND.legalize(model, TARGET, "float32")) == operators(model)


def test_arithmetic_that_is_narrower_than_it_says_is_noted() -> None:
    model = graph("(int64[4] x) => (int64[4] y, int64[4] z) { y = Mul(x, x) z = Add(x, x) }")
    notes = [f for f in BACKEND.check(model, TARGET) if f.code == "backend/narrow-integers"]
    assert [f.severity for f in notes] == [Severity.INFO] and "2 node(s) compute in int64" in notes[0].message
    assert not BACKEND.check(graph("(int32[4] x) => (int32[4] y) { y = Mul(x, x) }"), TARGET)


@pytest.mark.parametrize(
    "text",
    [
        '(float[1,1,8,8] x) => (float[1,1,4,4] y) { y = Resize<mode="cubic", antialias=1>(x, e, s) }',
        '(float[1,1,8,8] x) => (float[1,1,4,4] y) { y = Resize<mode="cubic", exclude_outside=1>(x, e, s) }',
    ],
)
def test_forms_of_resize_that_the_importer_ignores(text: str, tmp_path: Path) -> None:
    constants = {"e": np.zeros(0, np.float32), "s": np.asarray([1, 1, 0.5, 0.5], np.float32)}
    model = graph(text, constants=constants)
    assert [f for f in BACKEND.check(model, TARGET) if f.severity is Severity.ERROR] == []
    feeds = {"x": values(1, 1, 8, 8)}
    np.testing.assert_allclose(computed(model, feeds, tmp_path)["y"], run_ort(model, feeds)["y"], rtol=1e-4, atol=1e-5)


def test_a_resize_that_openvino_reads_stays_one_operator() -> None:
    constants = {"e": np.zeros(0, np.float32), "s": np.asarray([1, 1, 2, 2], np.float32)}
    text = '(float[1,1,8,8] x) => (float[1,1,16,16] y) { y = Resize<mode="linear">(x, e, s) }'
    assert operators(BACKEND.legalize(graph(text, constants=constants), TARGET, "float32"))["Resize"] == 1


def test_everything_that_cannot_be_built_is_found_at_once() -> None:
    text = """(float[3] x, string[2] w, float[1,2,8,8] m) => (int32[3] b, bool[2] n, float[1,2,1,1] r)
    { b = BitCast<to=6>(x) n = RegexFullMatch <pattern = "a+"> (w) r = RoiAlign<mode="max">(m, boxes, at) }"""
    constants: dict[str, Array] = {"boxes": np.asarray([[0, 0, 4, 4]], np.float32), "at": np.zeros(1, np.int64)}
    model = graph(text, opset=26, constants=constants)
    for node in model.nodes():
        node.metadata_props["edgec.origin"] = f"net.py:{node.op_type}"
    errors = [f for f in BACKEND.check(model, TARGET) if f.severity is Severity.ERROR]
    assert {f.source for f in errors} >= {"net.py:BitCast", "net.py:RegexFullMatch", "net.py:RoiAlign"}
    assert all(f.hint for f in errors)
