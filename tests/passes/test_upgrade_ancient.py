"""Forms of opsets 1 to 6 against ONNX's reference of what they meant."""

from __future__ import annotations

import numpy as np
import pytest

from edgec.errors import EdgecError
from edgec.graph.model import MIN_OPSET
from edgec.passes.upgrade_opset import upgrade_opset
from edgec.tensors import Array
from tests.support.graphs import graph, run_ort

RNG = np.random.default_rng(5)
X = RNG.uniform(-2, 2, (2, 3, 4)).astype(np.float32)
C = np.asarray([1.0, -2.0, 3.0], np.float32)


def upgraded(text: str, opset: int, feeds: dict[str, Array]) -> Array:
    model = graph(text, opset=opset)
    assert upgrade_opset(model)
    assert model.opset == MIN_OPSET
    return run_ort(model, feeds)["y"]


@pytest.mark.parametrize(
    ("op", "function"), [("Add", np.add), ("Sub", np.subtract), ("Mul", np.multiply), ("Div", np.divide)]
)
def test_broadcast_along_an_axis(op: str, function: np.ufunc) -> None:
    text = f"(float[2,3,4] x, float[3] c) => (float[2,3,4] y) {{ y = {op} <broadcast=1, axis=1> (x, c) }}"
    np.testing.assert_allclose(upgraded(text, 6, {"x": X, "c": C}), function(X, C[:, None]), rtol=1e-6, atol=0)


def test_broadcast_without_an_axis_takes_the_last_ones() -> None:
    row = np.asarray([1, 2, 3, 4], np.float32)
    text = "(float[2,3,4] x, float[4] c) => (float[2,3,4] y) { y = Add <broadcast=1> (x, c) }"
    np.testing.assert_allclose(upgraded(text, 6, {"x": X, "c": row}), X + row, rtol=1e-6, atol=0)


def test_prelu_has_a_slope_for_each_channel() -> None:
    text = "(float[2,3,4] x, float[3] s) => (float[2,3,4] y) { y = PRelu(x, s) }"
    wanted = np.where(X < 0, X * C[:, None], X)
    np.testing.assert_allclose(upgraded(text, 6, {"x": X, "s": C}), wanted, rtol=1e-6, atol=0)


def test_reshape_had_an_attribute() -> None:
    text = "(float[2,3,4] x) => (float[6,4] y) { y = Reshape <shape=[6,4]> (x) }"
    np.testing.assert_array_equal(upgraded(text, 1, {"x": X}), X.reshape(6, 4))


def test_hints_go() -> None:
    text = "(float[2,3,4] x) => (float[2,3,4] y) { y = Relu <consumed_inputs=[0]> (x) }"
    np.testing.assert_array_equal(upgraded(text, 1, {"x": X}), np.maximum(X, 0))


def test_cast_named_its_type() -> None:
    text = '(float[2,3,4] x) => (int32[2,3,4] y) { y = Cast <to="INT32"> (x) }'
    np.testing.assert_array_equal(upgraded(text, 1, {"x": X}), X.astype(np.int32))


def test_concat_had_a_default_axis() -> None:
    text = "(float[2,3,4] x) => (float[2,6,4] y) { y = Concat (x, x) }"
    np.testing.assert_array_equal(upgraded(text, 1, {"x": X}), np.concatenate([X, X], 1))


def test_gemm_broadcast_by_an_attribute() -> None:
    a, b = X[0], RNG.uniform(-1, 1, (4, 5)).astype(np.float32)
    bias = np.arange(5, dtype=np.float32)
    text = "(float[3,4] a, float[4,5] b, float[5] c) => (float[3,5] y) { y = Gemm <broadcast=1> (a, b, c) }"
    np.testing.assert_allclose(upgraded(text, 6, {"a": a, "b": b, "c": bias}), a @ b + bias, rtol=1e-5, atol=1e-6)


def test_tile_along_one_axis_is_refused() -> None:
    text = "(float[2,3] x, float[1] n, float[1] a) => (float[4,3] y) { y = Tile (x, n, a) }"
    with pytest.raises(EdgecError) as raised:
        upgraded(text, 1, {})
    assert raised.value.code == "source/opset"
