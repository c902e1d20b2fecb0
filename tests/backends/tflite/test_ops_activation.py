"""Activations in LiteRT against ONNX Runtime and their formulas, with attributes that are not the defaults."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from edgec.frontends.base import load_source
from edgec.tensors import Array
from tests.support.graphs import run_ort
from tests.support.operators import check, one_output
from tests.support.tflite import assert_equal_to_ort, emit, run

X = np.float32([[-100, -4, -1.5, -0.6], [-1e-3, 0, 1e-3, 0.4], [0.9, 2.0, 5.0, 90]])
TEXTS = [
    "Elu(x)",
    "Elu <alpha=2.0> (x)",
    "Selu(x)",
    "Selu <alpha=2.0, gamma=3.0> (x)",
    "Celu <alpha=0.5> (x)",
    "HardSigmoid(x)",
    "HardSigmoid <alpha=0.5, beta=0.1> (x)",
    "HardSwish(x)",
    "LeakyRelu <alpha=0.3> (x)",
    "Mish(x)",
    "Relu(x)",
    "Shrink <lambd=1.5, bias=0.5> (x)",
    "Sigmoid(x)",
    "Softplus(x)",
    "Softsign(x)",
    "Tanh(x)",
    "ThresholdedRelu <alpha=0.5> (x)",
    "Gelu(x)",
    'Gelu <approximate="tanh"> (x)',
    "Clip(x)",
]


@pytest.mark.parametrize("text", TEXTS)
def test_against_onnx_runtime(text: str) -> None:
    model = one_output(f"y = {text}", X, 22, {}, {"x": X})
    # the delegate's polynomials for exp and tanh: a few units in the last place
    assert_equal_to_ort(model, emit(model), relative=2e-6, feeds={"x": X})


@pytest.mark.parametrize("text", ["Softsign(x)", "Mish(x)", "Elu <alpha=2.0> (x)", "HardSigmoid(x)"])
def test_in_half_and_double_precision(text: str) -> None:
    for dtype, tolerance in (("float16", 1e-3), ("float64", 1e-6)):
        given = np.array([-2, -0.5, 0, 1.5], dtype)
        x = given.astype(np.float64)
        formulas = {
            "Softsign(x)": x / (1 + np.abs(x)),
            "Mish(x)": x * np.tanh(np.log1p(np.exp(x))),
            "Elu <alpha=2.0> (x)": np.where(x > 0, x, 2 * np.expm1(x)),
            "HardSigmoid(x)": np.clip(0.2 * x + 0.5, 0, 1),
        }
        check(f"y = {text}", formulas[text].astype(dtype), opset=22, x=given, rtol=tolerance, atol=1e-7)


def test_swish_with_a_slope() -> None:
    expected = X / (1 + np.exp(-1.7 * X.astype(np.float64)))
    check("y = Swish <alpha=1.7> (x)", expected.astype(np.float32), opset=24, x=X, rtol=2e-6, atol=1e-20)


@pytest.mark.parametrize("shape", [(3, 1, 1), (1,), (1, 3, 1, 1), (4,), (2, 3, 1, 4)])
@pytest.mark.parametrize("fixed", [True, False])
def test_slopes_broadcast(shape: tuple[int, ...], fixed: bool) -> None:
    rng = np.random.default_rng(0)
    x, slope = rng.normal(size=(2, 3, 2, 4)).astype(np.float32), rng.uniform(0, 1, shape).astype(np.float32)
    expected = np.where(x < 0, x * slope, x)
    given: dict[str, Array] = {"x": x} if fixed else {"x": x, "s": slope}
    check("y = PRelu(x, s)", expected, constants={"s": slope} if fixed else {}, rtol=1e-6, **given)


@pytest.mark.parametrize("shape", [(5,), (2, 3), (2, 3, 4), (1, 2, 3, 4), (2, 1, 3, 2, 2), (1, 2, 1, 3, 2, 2)])
@pytest.mark.parametrize("op", ["Softmax", "LogSoftmax", "Hardmax"])
def test_along_every_axis(op: str, shape: tuple[int, ...]) -> None:
    x = np.random.default_rng(3).normal(size=shape).astype(np.float32)
    for axis in (0, len(shape) // 2, -1):
        model = one_output(f"y = {op} <axis={axis}> (x)", x, 21, {}, {"x": x})
        assert_equal_to_ort(model, emit(model), relative=2e-6, feeds={"x": x})


@pytest.mark.parametrize("op", ["Softmax", "LogSoftmax", "Hardmax"])
def test_old_opsets_flatten_from_the_axis(op: str, tmp_path: Path) -> None:
    x = np.random.default_rng(4).normal(size=(2, 3, 4)).astype(np.float32)
    path = tmp_path / "old.onnx"
    path.write_bytes(one_output(f"y = {op} <axis=1> (x)", x, 11, {}, {"x": x}).to_bytes())
    artifact = emit(load_source(path).model)
    (wanted,) = run_ort(path.read_bytes(), {"x": x}).values()
    np.testing.assert_allclose(run(artifact, {"x": x})["y"], wanted, rtol=1e-5)


def test_hardmax_takes_the_first_of_equals() -> None:
    x = np.float32([[1, 3, 3], [2, 2, 2]])
    check("y = Hardmax(x)", np.float32([[0, 1, 0], [1, 0, 0]]), x=x)


def test_relu_of_integers() -> None:
    check("y = Relu(x)", np.array([0, 0, 5], np.int8), x=np.array([-5, 0, 5], np.int8))
