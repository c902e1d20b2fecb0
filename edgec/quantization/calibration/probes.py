"""Let a model measure itself: minima, maxima and a strided sample of each tensor become three small outputs.

Whole activations never leave the runtime, and each is measured right behind the node that computes it, so that the
runtime frees it where it would without probes. The stride depends only on a tensor's own shape and is coprime with its
inner dimensions, so that the sample visits every channel and column.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from edgec.graph.channels import channel_axis
from edgec.graph.model import Model, shape_of
from edgec.quantization.calibration.observers import Segments
from edgec.tensors import Array

#: Sampled values a tensor and run, at most (a stride of 1 takes fewer than twice as many).
SAMPLED_VALUES = 4096

#: With more channels than this (a vocabulary, a flattened map) a tensor has only one overall range.
_MOST_CHANNELS = 8192

_PREFIX = "edgec_probe/"
MINIMUM, MAXIMUM, VALUES = (_PREFIX + name for name in ("minimum", "maximum", "values"))


@dataclass(frozen=True, kw_only=True, slots=True)
class Probed:
    """A model with probes. `names` are the tensors in the order of the `segments`; `whole` are fetched as they are."""

    model: Model
    names: tuple[str, ...]
    segments: Segments
    whole: tuple[str, ...]

    @property
    def fetch(self) -> tuple[str, ...]:
        """What to fetch from each run."""
        return (*((MINIMUM, MAXIMUM, VALUES) if self.names else ()), *self.whole)


def float_activations(model: Model) -> tuple[str, ...]:
    """Names of all floating inputs and computed values of the main graph, in the graph's order."""
    values = [v for v in model.graph.inputs if not v.is_initializer()]
    values += [out for node in model.graph for out in node.outputs]
    floats = {ir.DataType.FLOAT, ir.DataType.FLOAT16, ir.DataType.DOUBLE, ir.DataType.BFLOAT16}
    return tuple(v.name for v in values if v.name and v.dtype in floats)


def insert_probes(model: Model, tensors: Sequence[str]) -> Probed:
    """A copy of the model that measures `tensors`. Those of unknown shape are left to be fetched whole."""
    work = model.clone()
    by_name = {v.name: v for v in work.graph.inputs}
    by_name |= {out.name: out for node in work.graph for out in node.outputs}
    probe = _Probe(work.graph)
    names, whole, channels, lengths = [], [], [], []
    for name in dict.fromkeys(tensors):
        value = by_name[name]
        size = _static_size(value)
        if size is None:
            whole.append(name)
        elif size > 0:
            names.append(name)
            channels.append(probe.reduce(value))
            lengths.append(probe.sample(value, size))
    if names:
        probe.gather()
    return Probed(
        model=work, names=tuple(names), segments=Segments.of(channels, lengths), whole=tuple(whole)
    )  # fmt: skip


def stride_of(shape: Sequence[int]) -> int:
    """The step through a tensor's flat values: about size/SAMPLED_VALUES, coprime with all inner dimensions."""
    stride = max(1, math.prod(shape) // SAMPLED_VALUES)
    while any(math.gcd(stride, dim) != 1 for dim in shape[1:] if dim > 1):
        stride += 1
    return stride


def _static_size(value: ir.Value) -> int | None:
    if value.shape is None:
        return None
    dims = shape_of(value)
    return None if -1 in dims else math.prod(dims)


class _Probe:
    """Adds the measuring nodes to one graph."""

    def __init__(self, graph: ir.Graph) -> None:
        self._graph = graph
        self._count = 0
        self._behind: ir.Node | None = None
        self._first = next(iter(graph), None)
        self._constants: dict[tuple[int, ...], ir.Value] = {}
        self._parts: dict[str, list[ir.Value]] = {MINIMUM: [], MAXIMUM: [], VALUES: []}

    def reduce(self, value: ir.Value) -> int:
        """Minimum and maximum of each channel; returns the number of channels."""
        shape = shape_of(value)
        axis = channel_axis(value)
        if axis is not None and not 1 < shape[axis] <= _MOST_CHANNELS:
            axis = None
        self._behind = value.producer()
        value = self._float32(value)
        channels = 1 if axis is None else shape[axis]
        if math.prod(shape) == channels:
            flat = self._node("Reshape", value, self._constant(-1))
            self._parts[MINIMUM].append(flat)
            self._parts[MAXIMUM].append(flat)
            return channels
        if axis == len(shape) - 1:
            # ONNX Runtime reduces rows several times as fast as columns, and turning them costs once for both.
            value = self._node("Reshape", value, self._constant(-1, channels))
            value = self._node("Transpose", value, perm=(1, 0))
            shape, axis = (channels, -1), 0
        axes = self._constant(*(i for i in range(len(shape)) if i != axis))
        for op_type, target in (("ReduceMin", MINIMUM), ("ReduceMax", MAXIMUM)):
            reduced = self._node(op_type, value, axes, keepdims=0)
            self._parts[target].append(self._node("Reshape", reduced, self._constant(1)) if axis is None else reduced)
        return channels

    def sample(self, value: ir.Value, size: int) -> int:
        """Every stride-th value; returns how many."""
        stride = stride_of(shape_of(value))
        picked = self._node("Reshape", value, self._constant(-1))
        if stride > 1:
            bounds = (self._constant(0), self._constant(size), self._constant(0), self._constant(stride))
            picked = self._node("Slice", picked, *bounds)
        self._parts[VALUES].append(self._float32(picked))
        return len(range(0, size, stride))

    def gather(self) -> None:
        """One flat output for all minima, one for all maxima, one for all sampled values."""
        self._behind = self._first = None
        for name, parts in self._parts.items():
            self._node("Concat", *parts, axis=0, name=name)

    def _float32(self, value: ir.Value) -> ir.Value:
        return value if value.dtype == ir.DataType.FLOAT else self._node("Cast", value, to=ir.DataType.FLOAT)

    def _node(self, op_type: str, *inputs: ir.Value, name: str = "", **attributes: int | tuple[int, ...]) -> ir.Value:
        """A node behind the last one; the first of a tensor's stands behind its producer, before all for an input."""
        node = ir.node(op_type, inputs, attributes)
        self._count += 1
        node.name = f"{_PREFIX}{op_type}_{self._count}"
        result = node.outputs[0]
        result.name = name or f"{_PREFIX}{op_type}_{self._count}/out"
        if op_type == "Cast":
            result.dtype = ir.DataType.FLOAT
        elif inputs[0].dtype is not None:
            result.dtype = inputs[0].dtype
        if self._behind is not None:
            self._graph.insert_after(self._behind, node)
            self._behind = node
        elif self._first is not None:
            self._graph.insert_before(self._first, node)
        else:
            self._graph.append(node)
        return result

    def _constant(self, *numbers: int) -> ir.Value:
        """An int64 vector, one for all that need the same."""
        if numbers not in self._constants:
            name = f"{_PREFIX}constant_{len(self._constants)}"
            tensor = ir.Tensor(np.asarray(numbers, np.int64), name=name)
            value = ir.Value(name=name, shape=tensor.shape, type=ir.TensorType(tensor.dtype), const_value=tensor)
            self._graph.register_initializer(value)
            self._constants[numbers] = value
        return self._constants[numbers]


def sample_array(value: Array) -> Array:
    """The same sample of an array that the probes take in the graph."""
    return value.reshape(-1)[:: stride_of(value.shape)]
