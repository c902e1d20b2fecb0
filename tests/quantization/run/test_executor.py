"""The executor gives ONNX's own results for any value of the graph, and names the node when it cannot."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx_ir as ir
import onnxruntime as ort
import pytest

from edgec.errors import EdgecError
from edgec.graph.model import Model
from edgec.quantization.run.dequantize_constants import dequantize_constants
from edgec.quantization.run.executor import Executor
from edgec.tensors import Array
from tests.support.calibration import inferred
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


def test_any_layout_changes_nothing_but_the_order_of_sums() -> None:
    """A Pad of zeros before a MaxPool of negative values is what the whole optimiser changes."""
    rng = np.random.default_rng(1)
    model = inferred(
        """
        (float[1,16,12,12] x) => (float[1,32,7,7] pooled, float[1,32,12,12] rounded) {
            c = Conv<kernel_shape = [3, 3], pads = [1, 1, 1, 1]>(x, w)
            negative = Sub(c, far)
            padded = Pad(negative, around)
            pooled = MaxPool<kernel_shape = [2, 2], strides = [2, 2]>(padded)
            q = QuantizeLinear(c, step, zero)
            rounded = DequantizeLinear(q, step, zero)
        }
        """,
        constants={
            "w": rng.standard_normal((32, 16, 3, 3)).astype(np.float32),
            "far": np.full((1,), 1000, np.float32),
            "around": np.array([0, 0, 1, 1, 0, 0, 1, 1], np.int64),
            "step": np.asarray(0.5, np.float32),
            "zero": np.asarray(3, np.int8),
        },
    )
    x = {"x": rng.standard_normal((1, 16, 12, 12)).astype(np.float32)}
    fetch = ["c", "pooled", "rounded"]
    plain, laid_out = (Executor(model, fetch=fetch, any_layout=chosen).run(x) for chosen in (False, True))
    assert plain["pooled"].max() == 0  # the padding's own
    for name in ("c", "pooled"):
        np.testing.assert_allclose(laid_out[name], plain[name], rtol=1e-5, atol=1e-4)
    # a sum in another order may fall on the other side of the middle between two steps
    assert np.mean(laid_out["rounded"] != plain["rounded"]) < 0.001


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


def _feeds(count: int) -> list[dict[str, Array]]:
    rng = np.random.default_rng(3)
    return [{"x": rng.standard_normal((1, 4)).astype(np.float32)} for _ in range(count)]


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_runs_at_a_time_give_what_each_gives_alone_in_order(threads: int) -> None:
    feeds = _feeds(23)
    executor = Executor(_model(), fetch=["b", "y"], threads=threads)
    assert executor.at_once == threads
    alone = [executor.run(feed) for feed in feeds]
    together = list(executor.run_all(iter(feeds)))
    assert len(together) == len(alone)
    for one, other in zip(alone, together, strict=True):
        assert all(np.array_equal(one[name], other[name]) for name in ("b", "y"))


def test_feeds_are_read_no_further_ahead_than_the_cores_need() -> None:
    read: list[int] = []

    def feeds() -> Iterator[dict[str, Array]]:
        for i, feed in enumerate(_feeds(50)):
            read.append(i)
            yield feed

    executor = Executor(_model(), threads=3)
    for done, _ in enumerate(executor.run_all(feeds()), start=1):
        assert len(read) <= done + executor.at_once


def test_an_error_stops_all_runs_and_is_that_of_the_first() -> None:
    feeds = _feeds(9)
    feeds[4] = {"x": np.ones((1, 5), np.float32)}
    feeds[5] = {}
    executor, done = Executor(_model(), threads=2), 0
    with pytest.raises(EdgecError, match="Expected: 4"):
        for _ in executor.run_all(feeds):
            done += 1
    assert done == 4
    assert len(list(executor.run_all(feeds[:3]))) == 3  # and the executor goes on working


def test_large_activations_are_computed_one_run_at_a_time() -> None:
    text = "(float[1,{n}] x) => (float[1,{n}] y) {{ y = Relu(x) }}"
    assert Executor(graph(text.format(n=1 << 20)), threads=4).at_once == 4
    assert Executor(graph(text.format(n=1 << 24)), threads=4).at_once == 3
    assert Executor(graph(text.format(n=1 << 28)), threads=4).at_once == 1
    assert Executor(_model(), threads=4, at_once=1).at_once == 1


DEQUANTIZED = """
(float[2,3] x) => (float[2,3] y, float[3] bias) {
    small = DequantizeLinear<axis = 0>(q8, s8, z8)
    wide = DequantizeLinear(q16, s16, z16)
    bias = DequantizeLinear(q32, s32)
    half = Cast<to = 1>(h)
    odd = DequantizeLinear(o32, s32, z32)
    a = Mul(x, small)
    b = Add(a, wide)
    c = Add(b, half)
    d = Add(c, odd)
    y = Add(d, bias)
}
"""


def _dequantized() -> Model:
    rng = np.random.default_rng(1)
    constants: dict[str, Array] = {
        "q8": rng.integers(-128, 128, (2, 3)).astype(np.int8),
        "s8": np.array([0.013, 0.7], np.float32),
        "z8": np.array([-7, 100], np.int8),
        "q16": rng.integers(0, 65536, (2, 3)).astype(np.uint16),
        "s16": np.array(0.0031, np.float32),
        "z16": np.array(32769, np.uint16),
        "q32": rng.integers(-(2**31), 2**31, 3).astype(np.int32),
        "s32": np.array(1.7e-7, np.float32),
        "z32": np.array(5, np.int32),
        "o32": np.array([2**31 - 1, 12, -5], np.int32),
        "h": rng.standard_normal((2, 3)).astype(np.float16),
    }
    return inferred(DEQUANTIZED, constants=constants)


def test_constants_are_dequantized_once_to_the_same_bits() -> None:
    model, x = _dequantized(), np.random.default_rng(2).standard_normal((2, 3)).astype(np.float32)
    folded = model.clone()
    dequantize_constants(folded.ir)
    left = [
        (node.op_type, node.outputs[0].name) for node in folded.nodes() if node.op_type in ("DequantizeLinear", "Cast")
    ]
    # One is an output, the other's difference may not fit into 32 bits.
    assert left == [("DequantizeLinear", "bias"), ("DequantizeLinear", "odd")]
    plain = ort.InferenceSession(model.to_bytes(), providers=["CPUExecutionProvider"]).run(None, {"x": x})
    found = Executor(model).run({"x": x})
    assert np.array_equal(found["y"], plain[0])
    assert np.array_equal(found["bias"], plain[1])
    fetched = Executor(model, fetch=["small", "wide", "half"]).run({"x": x})  # what is fetched stays a node
    for name, value in fetched.items():
        tensor = folded.graph.initializers[f"{name}/folded"].const_value
        assert tensor is not None
        assert np.array_equal(tensor.numpy(), value)


def test_blocks_and_computed_parameters_stay_in_the_graph(monkeypatch: pytest.MonkeyPatch) -> None:
    text = """(float[4] x, float s) => (float[4] y) {
        blocks = DequantizeLinear<axis = 0, block_size = 2>(q, two)
        scaled = DequantizeLinear(q, s)
        z = Add(blocks, scaled)
        y = Add(x, z)
    }"""
    constants: dict[str, Array] = {"q": np.arange(4, dtype=np.int8), "two": np.array([0.5, 2.0], np.float32)}
    model = graph(text, constants=constants)
    dequantize_constants(model.ir)
    assert [node.op_type for node in model.nodes()] == ["DequantizeLinear", "DequantizeLinear", "Add", "Add"]
    feeds = {"x": np.zeros(4, np.float32), "s": np.array(1.0, np.float32)}
    assert Executor(model).run(feeds)["y"].tolist() == [0.0, 1.5, 6.0, 9.0]
    large = _dequantized()
    monkeypatch.setattr("edgec.quantization.run.dequantize_constants.MOST_BYTES", 8)
    dequantize_constants(large.ir)
    assert sum(node.op_type == "DequantizeLinear" for node in large.nodes()) == 4
