"""Compute a node whose inputs are constants, in numpy, unless the result would be far bigger than what it came from."""

from __future__ import annotations

import logging
import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import onnx_ir as ir
from onnx.reference.ops import load_op

from edgec.graph.model import static_shape
from edgec.tensors import Array

#: Results up to this size are folded; a constant beyond it is cheaper to compute on the device than to ship.
MAX_RESULT_BYTES = 16 << 20
#: ONNX's reference implementation of these loops in Python.
SLOW_OPS = frozenset(
    {
        "AveragePool",
        "Conv",
        "ConvInteger",
        "ConvTranspose",
        "DeformConv",
        "GRU",
        "GridSample",
        "LSTM",
        "LpPool",
        "MaxPool",
        "QLinearConv",
        "RNN",
        "Resize",
        "RoiAlign",
        "STFT",
        "Upsample",
    }
)
MAX_SLOW_ELEMENTS = 1 << 16
#: Quantization stays visible (a quantized constant is an integer one), randomness stays random, and what has no fixed
#: result is not folded.
NEVER = frozenset(
    {
        "Bernoulli",
        "DequantizeLinear",
        "Dropout",
        "DynamicQuantizeLinear",
        "If",
        "ImageDecoder",
        "Loop",
        "Multinomial",
        "NonMaxSuppression",
        "Optional",
        "RandomNormal",
        "RandomNormalLike",
        "RandomUniform",
        "RandomUniformLike",
        "Scan",
        "SequenceMap",
    }
)
#: Their result's shape depends on values; it cannot be bigger than rank × the input.
DATA_DEPENDENT = frozenset({"NonZero", "Unique", "Compress"})

_log = logging.getLogger(__name__)


def _gather_elements(data: Array, indices: Array, axis: int = 0) -> Array:
    return np.take_along_axis(data, np.where(indices < 0, indices + data.shape[axis], indices), axis)


def _hard_swish(x: Array) -> Array:
    return np.asarray(x * np.clip(x / 6 + 0.5, 0, 1), x.dtype)


def _mish(x: Array) -> Array:
    return np.asarray(x * np.tanh(np.logaddexp(0, x)), x.dtype)


def _gelu(x: Array, approximate: str = "none") -> Array:
    inner = math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)
    bend = np.tanh(inner) if approximate == "tanh" else np.vectorize(math.erf, otypes=[float])(x / math.sqrt(2))
    return np.asarray(0.5 * x * (1 + bend), x.dtype)


#: Where ONNX's reference implementation fails: on valid inputs, as it takes no more than 32 rows, or for lack of one.
_OWN: Mapping[str, Callable[..., Array]] = {
    "Gelu": _gelu,
    "GatherElements": _gather_elements,
    "HardSwish": _hard_swish,
    "Mish": _mish,
}


def refusal(node: ir.Node) -> str | None:
    """Why a node is not computed at compile time, or None when it can be."""
    if node.domain != "" or node.op_type in NEVER:
        return f"{node.op_type} is never folded"
    for value in node.inputs:
        if value is None:
            continue
        if value.const_value is None or value.is_graph_input():
            return f"input {value.name!r} is not constant"
        if value.dtype == ir.DataType.STRING:
            return f"input {value.name!r} holds strings"
    for output in node.outputs:
        if not isinstance(output.type, ir.TensorType) or output.dtype == ir.DataType.STRING:
            return f"output {output.name!r} is not a numeric tensor"
        shape = static_shape(output)
        if shape is None:
            if node.op_type in DATA_DEPENDENT:
                continue
            return f"the shape of {output.name!r} is not known"
        elements = math.prod(shape)
        width = output.dtype.itemsize if output.dtype is not None else 8
        inputs = sum(v.const_value.nbytes for v in node.inputs if v is not None and v.const_value is not None)
        if elements * width > max(MAX_RESULT_BYTES, 2 * inputs):
            return f"the result would take {elements * width} bytes"
        if node.op_type in SLOW_OPS and elements > MAX_SLOW_ELEMENTS:
            return f"{node.op_type} over {elements} elements is slow to compute here"
    return None


def compute(node: ir.Node, opset: int, arrays: Sequence[Array | None]) -> list[Array] | None:
    """What the node makes of some arrays, whatever shapes the graph promises; None when numpy cannot compute it."""
    attributes = {
        name: ir.serde.serialize_tensor(a.value) if a.type == ir.AttributeType.TENSOR else a.value
        for name, a in node.attributes.items()
    }
    if node.op_type == "Split" and len(node.inputs) > 1 and node.inputs[1] is not None:
        attributes.pop("num_outputs", None)
    try:
        run: Callable[..., Any] = _OWN.get(node.op_type) or partial(
            load_op("", node.op_type, opset).eval, n_outputs=len(node.outputs)
        )
        with np.errstate(all="ignore"), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            result = run(*arrays, **attributes)
            return [np.asarray(value) for value in (result if isinstance(result, (tuple, list)) else [result])]
    except Exception as error:  # noqa: BLE001 - numpy code of a third party: whatever it raises, there is no result
        _log.debug("%s is not computed: %s", node.name, error)
        return None


def evaluate(node: ir.Node, opset: int) -> list[Array] | None:
    """The node's outputs, or None when numpy cannot compute them or the result is not what inference promised."""
    arrays = [None if v is None else np.asarray(v.const_value.numpy()) for v in node.inputs]  # type: ignore[union-attr]  # refusal() saw to it
    results = compute(node, opset, arrays)
    if results is None or len(results) < len(node.outputs):
        return None
    checked = []
    for output, value in zip(node.outputs, results, strict=False):
        array = value if output.dtype is None else value.astype(output.dtype.numpy(), copy=False)
        if static_shape(output) not in (None, array.shape):
            _log.debug("%s is not folded: its shape is not the inferred one", node.name)
            return None
        checked.append(array)
    return checked
