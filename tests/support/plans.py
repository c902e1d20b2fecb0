"""Graphs with shapes, made-up statistics and targets, for the tests of the planner."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir

from edgec.graph.model import Model
from edgec.metrics import sqnr_db
from edgec.quantization.calibration.observers import merge, observe
from edgec.quantization.types import Statistics
from edgec.targets.load import load_target
from edgec.targets.profile import Target
from edgec.tensors import Array
from tests.support.graphs import graph, run_ort

Extents = Mapping[str, tuple[float, float]]


def typed(text: str, constants: Mapping[str, Array] | None = None) -> Model:
    """A model from text with all shapes and types inferred; nodes are named by operator and first output."""
    model = graph(text, constants=constants)
    proto = onnx.shape_inference.infer_shapes(ir.serde.serialize_model(model.ir), strict_mode=True, data_prop=True)
    result = Model(ir=ir.serde.deserialize_model(proto), source=model.source, name=model.name)
    for node in result.nodes():
        node.name = f"{node.op_type}_{node.outputs[0].name}"
    return result


def statistics(extents: Extents, *, narrower: float | None = None) -> Statistics:
    """Statistics of tensors whose values are spread evenly over a range, in a second run over a `narrower` one."""
    tensors = {}
    for name, (low, high) in extents.items():
        tensors[name] = observe(np.linspace(low, high, 1001, dtype=np.float32))
        if narrower is not None:
            part = np.linspace(low * narrower, high * narrower, 1001, dtype=np.float32)
            tensors[name] = merge(tensors[name], observe(part))
    return Statistics(tensors=tensors, samples=1, digest="made-up")


def measured(model: Model, feeds: Iterable[Mapping[str, Array]]) -> Statistics:
    """Statistics of every float value of a model over some inputs."""
    seen: dict[str, list[Array]] = {}
    probe = model.clone()
    outputs = {v.name for v in probe.graph.outputs}
    for node in probe.nodes():
        for value in node.outputs:
            if value.name not in outputs and value.dtype == ir.DataType.FLOAT:
                probe.graph.outputs.append(value)
    for sample in feeds:
        for name, array in {**run_ort(probe, sample), **sample}.items():
            if array.dtype == np.float32:
                seen.setdefault(name, []).append(array.ravel())
    tensors = {name: observe(np.concatenate(arrays)) for name, arrays in seen.items()}
    return Statistics(tensors=tensors, samples=1, digest="measured")


def with_scheme(
    backend: str = "tflite", *, name: str = "raspberrypi4", io_dtype: str = "float32", **changes: Any
) -> Target:
    """A target whose scheme for `backend` differs in some fields."""
    target = load_target(name)
    facts = target.backends[backend]  # type: ignore[index]  # a backend's name
    scheme = facts.scheme.model_copy(update=changes)
    backends: dict[Any, Any] = dict(target.backends)
    backends[backend] = facts.model_copy(update={"scheme": scheme})
    return target.model_copy(update={"backends": backends, "io_dtype": io_dtype})


def hard_weights(power: int, **shapes: tuple[int, ...]) -> dict[str, Array]:
    """Random weights and biases that are hard to round: kernels have a few large numbers, which stretch the scales."""
    made = {name: kernel(*shape, seed=seed) for seed, (name, shape) in enumerate(shapes.items())}
    return {name: array**power if array.ndim == 4 else array for name, array in made.items()}


def fidelity(model: Model, quantized: Model, feeds: Iterable[Mapping[str, Array]]) -> float:
    """The SQNR of output y over some inputs, in dB."""
    several = list(feeds)
    expected, actual = (np.stack([run_ort(m, feed)["y"] for feed in several]) for m in (model, quantized))
    return sqnr_db(expected, actual)


def kernel(*shape: int, seed: int = 0, scale: float = 0.5) -> Array:
    """Random weights."""
    return (np.random.default_rng(seed).standard_normal(shape) * scale).astype(np.float32)
