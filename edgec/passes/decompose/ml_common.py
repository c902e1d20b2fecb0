"""What the rules for ai.onnx.ml share: features as float32 matrices, labels, and what happens to scores at last.

Where ONNX's text leaves something open, ONNX Runtime's answer is the one that is computed here.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from edgec.graph.build import Builder
from edgec.graph.model import attr, static_shape
from edgec.tensors import Array

FLOAT, INT32, INT64, BOOL = (
    int(t) for t in (ir.DataType.FLOAT, ir.DataType.INT32, ir.DataType.INT64, ir.DataType.BOOL)
)
#: Scores closer to 0 than this stay 0 in SOFTMAX_ZERO.
_ZERO = 1e-7
#: Winitzki's constant: the error function's inverse in closed form.
_WINITZKI = 0.147


def f32(values: Sequence[float] | Array | float) -> Array:
    """A float32 constant."""
    return np.asarray(values, np.float32)


def text(node: ir.Node, name: str, default: str) -> str:
    """A string attribute."""
    value = attr(node, name, default)
    return value.decode() if isinstance(value, bytes) else str(value)


def numbers(node: ir.Node, name: str) -> Array | None:
    """An attribute of numbers, as a list or as the tensor `name_as_tensor`; None where there is neither."""
    value = attr(node, f"{name}_as_tensor")
    if value is None:
        value = attr(node, name)
    return None if value is None else np.asarray(value)


def labels_of(node: ir.Node) -> Array | None:
    """Numeric class labels; None where they are strings, or missing."""
    for name in ("classlabels_ints", "classlabels_int64s"):
        if attr(node, name):
            return np.asarray(attr(node, name), np.int64)
    return None


def features(b: Builder, x: ir.Value | None) -> tuple[ir.Value, int, int] | None:
    """[rows, columns] of float32, and these two numbers; a vector is one row. None for strings and open shapes.

    int64 features are rounded to float32, as ONNX's own results are floats.
    """
    shape = static_shape(x)
    if x is None or x.dtype is None or x.dtype == ir.DataType.STRING or shape is None or len(shape) not in (1, 2):
        return None
    rows, columns = (1, shape[0]) if len(shape) == 1 else shape
    value = x if x.dtype == ir.DataType.FLOAT else b("Cast", x, to=FLOAT)
    if len(shape) == 1:
        value = b("Reshape", value, b.ints(rows, columns))
    return value, rows, columns


def label_of(b: Builder, scores: ir.Value, names: Array) -> ir.Value:
    """The label of the largest score in each row; of the first one where there are several."""
    place = b("ArgMax", scores, axis=1, keepdims=0)
    return place if np.array_equal(names, np.arange(len(names))) else b("Gather", names, place)


def choose(b: Builder, hit: ir.Value, rows: int, names: Array) -> ir.Value:
    """The second of two labels where [rows, 1] says so, else the first."""
    return b("Where", b("Reshape", hit, b.ints(rows)), names[1:2], names[:1])


def post_transform(b: Builder, scores: ir.Value, name: str) -> ir.Value | None:
    """What happens to scores at last; None for a name that ONNX has not."""
    if name == "NONE":
        return scores
    if name == "SOFTMAX":
        return b("Softmax", scores, axis=-1)
    if name == "LOGISTIC":
        return b("Sigmoid", scores)
    if name == "SOFTMAX_ZERO":
        return _softmax_zero(b, scores)
    return probit(b, scores) if name == "PROBIT" else None


def _softmax_zero(b: Builder, scores: ir.Value) -> ir.Value:
    """Softmax among the scores that are not 0; 0 stays 0."""
    axes = b.ints(-1)
    weights = b("Exp", b("Sub", scores, b("ReduceMax", scores, axes, keepdims=1)))
    weights = b("Where", b("Greater", b("Abs", scores), f32(_ZERO)), weights, f32(0.0))
    return b("Div", weights, b("ReduceSum", weights, axes, keepdims=1))


def probit(b: Builder, scores: ir.Value) -> ir.Value:
    """√2 · erf⁻¹(2s − 1), by Winitzki's formula as ONNX Runtime has it."""
    x = b("Sub", b("Mul", scores, f32(2.0)), f32(1.0))
    log = b("Log", b("Mul", b("Sub", f32(1.0), x), b("Add", x, f32(1.0))))
    half = b("Add", b("Mul", log, f32(0.5)), f32(2 / (math.pi * _WINITZKI)))
    root = b("Sqrt", b("Sub", b("Mul", half, half), b("Mul", log, f32(1 / _WINITZKI))))
    size = b("Sqrt", b("Sub", root, half))
    return b("Mul", b("Mul", b("Sign", x), size), f32(math.sqrt(2)))
