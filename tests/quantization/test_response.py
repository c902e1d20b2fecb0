"""What readers make of a value, and ranges that are chosen for it."""

from __future__ import annotations

import math

import numpy as np
import pytest

from edgec.graph.model import Model
from edgec.quantization.calibration.observers import observe
from edgec.quantization.calibration.range_choice import range_of
from edgec.quantization.response import response_of
from edgec.quantization.run.executor import Executor
from edgec.tensors import Array
from tests.support.graphs import graph

X = np.linspace(-9, 9, 181).astype(np.float32)
W = np.ones((4, 4, 1, 1), np.float32)


def sigmoid(x: Array) -> Array:
    return np.asarray(1 / (1 + np.exp(-x.astype(np.float64))))


def made(model: Model, name: str = "c") -> Array | None:
    value = next(v for node in model.nodes() for v in node.outputs if v.name == name)
    response = response_of(value)
    return None if response is None else response(X)


def net(body: str, **constants: Array) -> Model:
    text = f"(float[1,4,5,5] x) => (float[1,4,5,5] y) {{ c = Conv(x, w) {body} }}"
    return graph(text, constants={"w": W, **constants})


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ("s = Sigmoid(c) m = Mul(c, s) y = Conv(m, w)", lambda x: x * sigmoid(x)),
        ("m = HardSwish(c) y = Conv(m, w)", lambda x: x * np.clip(x / 6 + 0.5, 0, 1)),
        ("d = Mul(c, k) e = Erf(d) f = Add(e, k) m = Mul(c, f) y = Conv(m, w)",
         lambda x: x * (np.vectorize(math.erf)(0.5 * x) + 0.5)),
        ("f = Flatten(c) y = Sigmoid(f)", sigmoid),
        ("s = Sigmoid(c) y = Mul(s, x)", sigmoid),  # a gate of another value
    ],
)  # fmt: skip
def test_the_function_that_readers_make(body: str, expected: object) -> None:
    found = made(net(body, k=np.asarray(0.5, np.float32)))
    assert found is not None
    assert callable(expected)
    np.testing.assert_allclose(found, expected(X), atol=2e-6)


@pytest.mark.parametrize(
    "body",
    [
        "y = Conv(c, w)",  # read as it is
        "s = Sigmoid(c) a = Conv(c, w) y = Mul(s, a)",  # as it is, and through a function
        "s = Sigmoid(c) t = Tanh(c) a = Conv(s, w) b = Conv(t, w) y = Add(a, b)",  # two functions
        "m = Mul(c, v) y = Conv(m, w)",  # another factor for every channel
    ],
)
def test_no_one_function(body: str) -> None:
    assert made(net(body, v=np.ones((1, 4, 1, 1), np.float32) / 2)) is None


@pytest.mark.parametrize(
    "body", ["m = Gelu(c)", 'm = Gelu<approximate = "tanh">(c)', "m = Mish(c)", "m = HardSwish(c)"]
)
def test_functions_are_as_onnx_runtime_has_them(body: str) -> None:
    model = net(f"{body} y = Conv(m, w)")
    model.ir.opset_imports[""] = 20
    alone = graph(f"(float[181] c) => (float[181] m) {{ {body} }}", opset=20)
    found = made(model)
    assert found is not None
    np.testing.assert_allclose(found, next(iter(Executor(alone).run({"c": X}).values())), atol=2e-6)


def test_steps_are_not_spent_where_silu_is_flat() -> None:
    """The error behind x·σ(x) of 8 bits over the chosen range, against that over all that was seen."""
    values = np.random.default_rng(0).normal(0, 3, 40_000).astype(np.float32)
    stats = observe(values)
    response = response_of(
        next(v for n in net("s = Sigmoid(c) m = Mul(c, s) y = Conv(m, w)").nodes() for v in n.outputs if v.name == "c")
    )
    assert response is not None

    def error(low: float, high: float) -> float:
        step = (high - low) / 255
        rounded = np.clip(np.rint(values / step), np.rint(low / step), np.rint(high / step)) * step
        return float(np.mean((response(values) - response(rounded)) ** 2))

    chosen, plain = range_of(stats, "auto", response=response), range_of(stats, "auto")
    assert chosen[0] > 0.7 * plain[0]
    assert error(*chosen) < 0.8 * error(*plain)
