"""The executor gives ONNX's own results for any value of the graph, and names the node when it cannot."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest

from edgec.errors import EdgecError
from edgec.graph.model import Model
from edgec.quantization.executor import Executor
from tests.support.graphs import graph

TEXT = """
(float[1,4] x) => (float[1,8] y) {
    a = Relu(x)
    b = MatMul(a, w)
    y = Add(b, x2)
}
"""


def _model() -> Model:
    rng = np.random.default_rng(0)
    return graph(
        TEXT, constants={"w": rng.standard_normal((4, 8)).astype(np.float32), "x2": np.ones((1, 8), np.float32)}
    )


def test_outputs_by_default_and_any_value_on_request() -> None:
    model = _model()
    x = np.array([[-1, 2, -3, 4]], np.float32)
    assert list(Executor(model).run({"x": x})) == ["y"]
    found = Executor(model, fetch=["b", "x", "x2", "a"]).run({"x": x})
    assert list(found) == ["b", "x", "x2", "a"]
    assert np.array_equal(found["a"], np.maximum(x, 0))
    assert np.array_equal(found["x"], x)
    assert np.array_equal(found["x2"], np.ones((1, 8), np.float32))
    assert [v.name for v in model.graph.outputs] == ["y"]  # the model itself is untouched


def test_a_large_weight_is_handed_over_not_serialized() -> None:
    weight = np.random.default_rng(0).standard_normal((256, 512)).astype(np.float32)
    model = graph("(float[1,256] x) => (float[1,512] y) { y = MatMul(x, w) }", constants={"w": weight})
    x = np.ones((1, 256), np.float32)
    got = Executor(model).run({"x": x})["y"]
    assert np.allclose(got, x @ weight, rtol=1e-5, atol=1e-4)
    assert isinstance(model.graph.initializers["w"].const_value, ir.Tensor)


def test_external_weights_are_read_from_their_folder(tmp_path: Path) -> None:
    weight = np.arange(4096, dtype=np.float32).reshape(4, 1024)
    model = graph("(float[1,4] x) => (float[1,1024] y) { y = MatMul(x, w) }", constants={"w": weight})
    ir.save(model.ir, tmp_path / "m.onnx", external_data="m.data", size_threshold_bytes=1)
    model.ir = ir.load(tmp_path / "m.onnx")
    assert isinstance(model.graph.initializers["w"].const_value, ir.ExternalTensor)
    got = Executor(model).run({"x": np.array([[1, 0, 0, 0]], np.float32)})["y"]
    assert np.array_equal(got, weight[:1])


def test_nodes_that_nothing_fetched_needs_do_not_run() -> None:
    model = graph(
        "(float[1,4] x) => (float[1,4] y) { a = Relu(x)  s = Reshape(a, bad)  y = Reshape(s, good) }",
        constants={"bad": np.array([3], np.int64), "good": np.array([1, 4], np.int64)},
    )
    x = np.ones((1, 4), np.float32)
    assert np.array_equal(Executor(model, fetch=["a"]).run({"x": x})["a"], x)


def test_a_failing_node_is_named() -> None:
    model = graph(
        "(float[1,4] x, int64[1] shape) => (float[n] y) { y = Reshape(x, shape) }",
    )
    next(model.nodes()).name = "the_reshape"
    with pytest.raises(EdgecError) as caught:
        Executor(model).run({"x": np.ones((1, 4), np.float32), "shape": np.array([3], np.int64)})
    assert caught.value.code == "graph/run-failed"
    assert caught.value.finding.where == "the_reshape"


def test_feeds_that_do_not_fit() -> None:
    executor = Executor(_model())
    with pytest.raises(EdgecError) as caught:
        executor.run({})
    assert caught.value.code == "graph/missing-input"
    with pytest.raises(EdgecError, match="Expected: 4"):
        executor.run({"x": np.ones((1, 5), np.float32)})


def test_scalar_inputs_stay_scalars() -> None:
    model = graph("(float x) => (float y) { y = Neg(x) }")
    assert Executor(model).run({"x": np.array(2.0, np.float32)})["y"].shape == ()


def test_unknown_tensor_and_unknown_operator() -> None:
    with pytest.raises(EdgecError) as caught:
        Executor(_model(), fetch=["nope"])
    assert caught.value.code == "graph/unknown-tensor"
    with pytest.raises(EdgecError) as caught:
        Executor(graph("(float[4] x) => (float[4] y) { y = NoSuchOperator(x) }"))
    assert caught.value.code == "graph/not-runnable"
