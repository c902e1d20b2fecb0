"""Graphs as a few lines of ONNX text, run in ONNX Runtime with its optimiser off."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx_ir as ir
import onnxruntime

from edgec.graph.model import Model, SourceInfo
from edgec.graph.names import name_everything
from edgec.tensors import Array


def graph(text: str, *, opset: int = 21, constants: Mapping[str, Array] | None = None) -> Model:
    """A model from ONNX text such as `(float[1,4] x) => (float[1,4] y) { y = Relu(x) }`.

    `constants` become initializers; the text refers to them as inputs of no declared type.
    """
    header = f'<ir_version: 10, opset_import: ["": {opset}]> g '
    arrays = dict(constants or {})
    if arrays:
        declared = ", ".join(f"{_type_text(array)} {name}" for name, array in arrays.items())
        open_, rest = text.split(")", 1)
        text = f"{open_}{', ' if open_.strip() != '(' else ''}{declared}){rest}"
    model = ir.from_onnx_text(header + text)
    for name, array in arrays.items():
        value = next(v for v in model.graph.inputs if v.name == name)
        model.graph.inputs.remove(value)
        value.const_value = ir.Tensor(np.asarray(array, order="C"), name=name)
        value.shape = ir.Shape(array.shape)
        model.graph.register_initializer(value)
    name_everything(model)
    return Model(ir=model, source=SourceInfo(kind="onnx", name="test.onnx", digest=""), name="test")


def _type_text(array: Array) -> str:
    names = {"float32": "float", "float64": "double", "float16": "float16"}
    kind = names.get(array.dtype.name, array.dtype.name)
    return f"{kind}[{','.join(map(str, array.shape))}]"


def run_ort(model: Model | bytes | str, feeds: Mapping[str, Array]) -> dict[str, Array]:
    """All outputs of a model (or of a file's bytes, or of a file), computed without graph optimisation."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = 2
    options.log_severity_level = 4
    source = model.to_bytes() if isinstance(model, Model) else model
    session = onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, dict(feeds)), strict=True))


def random_feeds(model: Model, seed: int = 0, *, low: float = -2.0, high: float = 2.0) -> dict[str, Array]:
    """Uniform random inputs of the right shapes and types; integers from 0 to 9."""
    rng = np.random.default_rng(seed)
    feeds: dict[str, Array] = {}
    for spec in model.inputs():
        if spec.dtype.is_float:
            feeds[spec.name] = rng.uniform(low, high, spec.shape).astype(spec.dtype.numpy)
        elif spec.dtype.value == "bool":
            feeds[spec.name] = rng.integers(0, 2, spec.shape).astype(bool)
        else:
            feeds[spec.name] = rng.integers(0, 10, spec.shape).astype(spec.dtype.numpy)
    return feeds


def assert_same(left: Model | bytes, right: Model | bytes, feeds: Mapping[str, Array], *, relative: float) -> None:
    """Both compute the same: the largest difference is at most `relative` times the largest magnitude."""
    before, after = run_ort(left, feeds), run_ort(right, feeds)
    assert before.keys() == after.keys()
    for name, wanted in before.items():
        got = after[name]
        assert got.shape == wanted.shape and got.dtype == wanted.dtype, name
        if wanted.dtype.kind != "f":
            np.testing.assert_array_equal(got, wanted, err_msg=name)
            continue
        magnitude = float(np.max(np.abs(wanted), initial=0.0))
        error = float(np.max(np.abs(got.astype(np.float64) - wanted.astype(np.float64)), initial=0.0))
        assert error <= relative * magnitude, f"{name}: error {error:g} at magnitude {magnitude:g}"


def operators(model: Model) -> Counter[str]:
    """How often each operator stands in the main graph."""
    return Counter(node.op_type for node in model.ir.graph)


def has_static_shapes(model: Model) -> bool:
    """True when every value in the main graph has a static shape and a type."""
    return all(
        value.shape is not None and value.shape.is_static() and value.type is not None
        for node in model.ir.graph
        for value in node.outputs
        if value.name
    )


def constant(*values: Any, dtype: str = "float32") -> Array:
    """A small array from numbers."""
    return np.asarray(values, np.dtype(dtype))
