"""The one intermediate representation: an `onnx_ir.Model` with ONNX semantics, NCHW, at opset 21 or later.

Opset 21 brought 16-bit QuantizeLinear; later opsets only add operators and types that the compiler reads
as they are, so a newer source keeps its own number (up to `MAX_OPSET`, the newest that ONNX Runtime runs).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import onnx_ir as ir

from edgec.errors import EdgecError
from edgec.tensors import CARRIED, Array, DType, TensorSpec

MIN_OPSET = 21
MAX_OPSET = 26

#: protobuf's limit for one message.
MAX_FILE_BYTES = 2**31 - 1

# Inside `Model` the name `ir` is its field.
IrGraph = ir.Graph
IrNode = ir.Node

#: Node metadata key that carries the user's own layer and source line.
ORIGIN_KEY = "edgec.origin"
#: Model metadata: this and an input's or output's name give the type that the source has where a wider one carries it.
SOURCE_TYPE = "edgec.type/"


@dataclass(frozen=True, kw_only=True, slots=True)
class SourceInfo:
    """Where a model came from: kind of frontend, file name (no folder), sha256 of what was read."""

    kind: str
    name: str
    digest: str


@dataclass(slots=True)
class Model:
    """A thin typed view on an `onnx_ir.Model`. `name` becomes the bundle's stem."""

    ir: ir.Model
    source: SourceInfo
    name: str

    @property
    def graph(self) -> IrGraph:
        """The main graph."""
        return self.ir.graph

    @property
    def opset(self) -> int:
        """Opset of the default domain."""
        return int(self.ir.opset_imports.get("", MIN_OPSET))

    def nodes(self) -> Iterator[IrNode]:
        """Nodes of the main graph in order; the list is taken first, so the graph may be edited meanwhile."""
        return iter(list(self.ir.graph))

    def inputs(self) -> tuple[TensorSpec, ...]:
        """Specs of the graph inputs (initializers excluded)."""
        return tuple(spec(v) for v in self.ir.graph.inputs if not v.is_initializer())

    def outputs(self) -> tuple[TensorSpec, ...]:
        """Specs of the graph outputs."""
        return tuple(spec(v) for v in self.ir.graph.outputs)

    def source_inputs(self) -> tuple[TensorSpec, ...]:
        """Specs of the inputs in the source model's own types, which wider ones may carry here."""
        return tuple(self._as_in_source(s) for s in self.inputs())

    def source_outputs(self) -> tuple[TensorSpec, ...]:
        """Specs of the outputs in the source model's own types, which wider ones may carry here."""
        return tuple(self._as_in_source(s) for s in self.outputs())

    def _as_in_source(self, carried: TensorSpec) -> TensorSpec:
        kind = self.ir.metadata_props.get(SOURCE_TYPE + carried.name)
        return carried if kind is None else replace(carried, dtype=DType(kind))

    def clone(self) -> Model:
        """A copy that can be edited; weight tensors are shared, not copied."""
        return Model(ir=self.ir.clone(), source=self.source, name=self.name)

    def to_bytes(self) -> bytes:
        """The model as one ONNX file's bytes, external weights included; raises `EdgecError` for over 2 GiB."""
        tensors = [v.const_value for v in self.ir.graph.initializers.values() if v.const_value is not None]
        if sum(tensor.nbytes for tensor in tensors) > MAX_FILE_BYTES:
            raise self._too_large("its weights take more than 2 GiB")
        model = self.ir
        if any(isinstance(tensor, ir.ExternalTensor) for tensor in tensors):
            # A reference to a file means nothing in bytes that have no folder.
            model = ir.external_data.load_to_model(model.clone())
        try:
            return bytes(ir.serde.serialize_model(model).SerializeToString(deterministic=True))
        except ValueError as error:
            raise self._too_large(str(error)) from error

    def _too_large(self, reason: str) -> EdgecError:
        return EdgecError(
            "graph/too-large",
            f"the model does not fit into one ONNX file: {reason}",
            where=self.name,
            hint="keep its weights as external data",
        )


def optional_input(node: ir.Node, index: int) -> ir.Value | None:
    """An input that the node may have been given, or None."""
    return node.inputs[index] if len(node.inputs) > index else None


def const_of(value: ir.Value | None) -> Array | None:
    """The constant that a value holds (initializer, or Constant node), or None."""
    if value is None:
        return None
    tensor = value.const_value
    if tensor is None:
        texts = _constant_text(value.producer())
        if texts is not None:
            return texts
        tensor = ir.convenience.get_const_tensor(value)
    return None if tensor is None else np.asarray(tensor.numpy())


def _constant_text(node: ir.Node | None) -> Array | None:
    """What a Constant of texts gives: onnx_ir reads only those of ASCII letters."""
    texts = attrs(node, "value_string", "value_strings") if node is not None and node.op_type == "Constant" else {}
    return np.asarray(next(iter(texts.values())), object) if texts else None


def shape_of(value: ir.Value) -> tuple[int, ...]:
    """The static shape; a free dimension is -1. Raises `EdgecError` when the rank is unknown."""
    if value.shape is None:
        raise EdgecError(
            "graph/unknown-shape",
            f"the shape of tensor {value.name!r} cannot be inferred",
            where=value.name or "",
            hint="fix the model's inputs with --input name:1x3x224x224",
        )
    return tuple(d if isinstance(d, int) else -1 for d in value.shape)


def static_shape(value: ir.Value | None) -> tuple[int, ...] | None:
    """The shape when all of it is known now, else None."""
    if value is None or value.shape is None:
        return None
    dims = tuple(d for d in value.shape if isinstance(d, int))
    return dims if len(dims) == len(value.shape) else None


def dtype_of(value: ir.Value) -> DType:
    """The element type. Raises `EdgecError` when it is unknown or outside `DType`."""
    if value.dtype is None:
        raise EdgecError("graph/unknown-type", f"tensor {value.name!r} has no element type", where=value.name or "")
    if value.dtype == ir.DataType.STRING:
        return DType.STRING
    try:
        kind = DType(value.dtype.numpy().name)
        if kind in CARRIED:
            raise TypeError("no runtime computes in it")
        return kind
    except (ValueError, TypeError) as error:
        raise EdgecError(
            "graph/unsupported-type",
            f"tensor {value.name!r} has element type {value.dtype.name}, which no target takes",
            where=value.name or "",
            hint="cast it to float32 or int8 in the source model",
        ) from error


def spec(value: ir.Value) -> TensorSpec:
    """Name, shape and type of a value as a `TensorSpec`."""
    return TensorSpec(name=value.name or "", shape=shape_of(value), dtype=dtype_of(value))


def attr(node: ir.Node, name: str, default: Any = None) -> Any:
    """An attribute's value (tuples for lists, str for strings, numpy for tensors), or the default."""
    attribute = node.attributes.get(name)
    if attribute is None or attribute.value is None:
        return default
    value = attribute.value
    if attribute.type == ir.AttributeType.TENSOR:
        return np.asarray(value.numpy())
    return tuple(value) if isinstance(value, (list, tuple)) else value


def attrs(node: ir.Node, *names: str) -> dict[str, Any]:
    """The attributes of these names that the node has: what is left out keeps the operator's default."""
    return {name: attr(node, name) for name in names if name in node.attributes}


_LINE = re.compile(r'File "([^"]+)", line (\d+)')


def origin(node: ir.Node) -> str:
    """The user's own layer and line, as far as the exporter kept them: `model.layer3.0.conv2, resnet.py:92`."""
    meta = node.metadata_props
    if ORIGIN_KEY in meta:
        return meta[ORIGIN_KEY]
    scopes = re.findall(r"'([^']*)'", meta.get("pkg.torch.onnx.name_scopes", ""))
    layer = scopes[-2] if len(scopes) > 1 else ""
    lines = _LINE.findall(meta.get("pkg.torch.onnx.stack_trace", ""))
    own = [entry for entry in lines if "/site-packages/torch/" not in entry[0]]
    line = f"{own[-1][0].rpartition('/')[2]}:{own[-1][1]}" if own else ""
    return ", ".join(part for part in (layer, line) if part)


def label(node: ir.Node) -> str:
    """How messages name a node: its name, or its operator and first output."""
    return node.name or f"{node.op_type}({node.outputs[0].name if node.outputs else ''})"


def keep_origin(new: Sequence[ir.Node], old: ir.Node) -> None:
    """Let nodes that replace `old` carry its metadata, so that messages still name the user's line."""
    for node in new:
        for key, value in old.metadata_props.items():
            node.metadata_props.setdefault(key, value)
