"""Casts to bfloat16 and back round on the device as ONNX says, to the bit."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest

from edgec.tensors import Array
from tests.support.backends import answers
from tests.support.graphs import graph


def numbers() -> Array:
    """All that a float32 can hold but subnormals: both signs, all exponents, ties, infinities, NaN."""
    bits = np.random.default_rng(3).integers(0, 2**32, 4096, dtype=np.uint32)
    ties = (bits[:1024] & 0xFFFF0000) | 0x8000
    x = np.concatenate([bits, ties]).view(np.float32)
    x[(np.abs(x) < np.finfo(np.float32).tiny) & (x != 0)] = 1 + 2**-8
    x[:6] = [np.inf, -np.inf, np.nan, 0.0, 3.4e38, -3.39e38]
    return x


@pytest.mark.parametrize("backend", ["tflite", "openvino"])
def test_every_number_rounds_as_bfloat16(backend: str) -> None:
    body = "{ a = Cast <to = 16> (x) b = Reshape(a, s) y = Cast <to = 1> (b) }"
    model = graph(f"(float[5120] x) => (float[5, 1024] y) <int64[2] s = {{5, 1024}}> {body}")
    with np.errstate(over="ignore", invalid="ignore"):
        expected = numbers().astype(ml_dtypes.bfloat16).astype(np.float32)
    np.testing.assert_array_equal(answers(model, backend, x=numbers())["y"], expected.reshape(5, 1024))


@pytest.mark.parametrize("backend", ["tflite", "openvino"])
def test_rounding_stands_between_layers_that_scale(backend: str) -> None:
    """Neither factor may move through the split and into a weight."""
    text = """(float[2, 8] x) => (float[2, 4] y) {
        h = MatMul(x, w) a = Cast <to = 16> (h) b = Cast <to = 1> (a) s = Mul(b, factor) y = MatMul(s, v)
    }"""
    rng = np.random.default_rng(4)
    w, v = (rng.integers(-300, 300, shape).astype(np.float32) for shape in ((8, 8), (8, 4)))
    model = graph(text, constants={"w": w, "v": v, "factor": np.asarray(0.5, np.float32)})
    x = rng.integers(-300, 300, (2, 8)).astype(np.float32)  # whole numbers: every sum is exact
    rounded = (x @ w).astype(ml_dtypes.bfloat16).astype(np.float32)
    assert np.any(rounded != x @ w)
    np.testing.assert_allclose(answers(model, backend, x=x)["y"], rounded * 0.5 @ v, rtol=1e-6)
