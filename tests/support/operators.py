"""One operator as a graph: inputs declared from arrays, run in LiteRT, compared with an expected array."""

from __future__ import annotations

from typing import Any

import numpy as np

from edgec.graph.model import Model
from edgec.tensors import Array
from tests.support.graphs import graph
from tests.support.tflite import emit, run

_NAMES = {"float32": "float", "float64": "double"}


def declare(array: Array, name: str) -> str:
    """An array's type as ONNX text."""
    shape = f"[{','.join(map(str, array.shape))}]" if array.ndim else ""
    return f"{_NAMES.get(array.dtype.name, array.dtype.name)}{shape} {name}"


def one_output(body: str, result: Any, opset: int, constants: dict[str, Array], feeds: dict[str, Array]) -> Model:
    """A model that computes `y` of `result`'s type and shape."""
    inputs = ", ".join(declare(array, name) for name, array in feeds.items())
    text = f"({inputs}) => ({declare(np.asarray(result), 'y')}) {{ {body} }}"
    return graph(text, opset=opset, constants=constants)


def compute(
    body: str, result: Any, *, opset: int = 21, constants: dict[str, Array] | None = None, **feeds: Array
) -> Array:
    """The output `y` of a graph with these inputs; `result` has its type and shape."""
    return run(emit(one_output(body, result, opset, constants or {}, feeds)), feeds)["y"]


def check(
    body: str,
    expected: Any,
    *,
    rtol: float = 0.0,
    atol: float = 0.0,
    opset: int = 21,
    constants: dict[str, Array] | None = None,
    **feeds: Array,
) -> None:
    """`y` has the expected type, shape and values; without tolerances it is equal."""
    expected = np.asarray(expected)
    y = compute(body, expected, opset=opset, constants=constants, **feeds)
    assert y.dtype == expected.dtype and y.shape == expected.shape
    np.testing.assert_allclose(y, expected, rtol=rtol, atol=atol)
