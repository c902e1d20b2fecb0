"""Check an ONNX protobuf before anything is computed from it.

1. The file holds a graph, with at least one output; all names are text.
2. Every tensor's type is known, its dimensions are sane, and its data is exactly as long as its shape says.
3. External data lies beside the model (no absolute path, no `..`), exists, and is long enough.
4. Every value is written once, and every value that is read is written somewhere before.
5. Every attribute holds what its type says.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

import onnx
from google.protobuf.descriptor import FieldDescriptor  # type: ignore[import-untyped]  # protobuf ships no types
from google.protobuf.message import Message  # type: ignore[import-untyped]  # protobuf ships no types
from onnx import helper

from edgec.errors import EdgecError

#: No dimension of a real model is longer; beyond it sizes overflow in the runtimes.
MAX_DIMENSION = 2**31 - 1
_MAX_DEPTH = 32
_PACKED_BITS: dict[int, int] = {
    onnx.TensorProto.UINT4: 4,
    onnx.TensorProto.INT4: 4,
    onnx.TensorProto.FLOAT4E2M1: 4,
}
_ATTRIBUTE_FIELD: dict[int, str] = {
    onnx.AttributeProto.FLOAT: "f",
    onnx.AttributeProto.INT: "i",
    onnx.AttributeProto.STRING: "s",
    onnx.AttributeProto.TENSOR: "t",
    onnx.AttributeProto.GRAPH: "g",
    onnx.AttributeProto.SPARSE_TENSOR: "sparse_tensor",
    onnx.AttributeProto.TYPE_PROTO: "tp",
    onnx.AttributeProto.FLOATS: "floats",
    onnx.AttributeProto.INTS: "ints",
    onnx.AttributeProto.STRINGS: "strings",
    onnx.AttributeProto.TENSORS: "tensors",
    onnx.AttributeProto.GRAPHS: "graphs",
    onnx.AttributeProto.SPARSE_TENSORS: "sparse_tensors",
    onnx.AttributeProto.TYPE_PROTOS: "type_protos",
}
_VALUES = frozenset(_ATTRIBUTE_FIELD.values())
# A field of a plain type that is left out holds its zero.
_MUST_BE_PRESENT = frozenset({"t", "g", "sparse_tensor", "tp"})


def check_proto(proto: onnx.ModelProto, path: Path) -> None:
    """Raise `EdgecError` (`source/…`) for the first rule that the file breaks."""
    if not proto.HasField("graph") or not (proto.graph.node or proto.graph.output):  # rule 1
        raise EdgecError(
            "source/not-onnx",
            f"{path.name} holds no ONNX graph",
            where=str(path),
            hint="check that this is the model file; export the model to ONNX again",
        )
    if not proto.graph.output:
        raise _malformed("the graph has no output", proto.graph.name)
    if not proto.opset_import:
        raise _malformed("the file does not say which opset it uses", path.name)
    _check_text(proto)
    seen_domains: set[str] = set()
    for entry in proto.opset_import:
        domain = "" if entry.domain == "ai.onnx" else entry.domain
        if domain in seen_domains:
            raise _malformed(f"the opset of domain {domain!r} is given twice", path.name)
        seen_domains.add(domain)
    for tensor, where in tensors(proto):
        _check_tensor(tensor, where, path.parent)
    _check_graph(proto.graph, set(), 0)


def _check_text(message: Message) -> None:  # rule 1
    """Strings that are no UTF-8 come out of protobuf as bytes."""
    for field, value in message.ListFields():
        if field.type == FieldDescriptor.TYPE_STRING:
            texts = value if field.is_repeated else (value,)
            if any(isinstance(text, bytes) for text in texts):
                raise _malformed(f"a {field.name} is not valid text", field.full_name)
        elif field.type == FieldDescriptor.TYPE_MESSAGE:
            for inner in value if field.is_repeated else (value,):
                _check_text(inner)


def tensors(proto: onnx.ModelProto) -> Iterator[tuple[onnx.TensorProto, str]]:
    """Every tensor in the file with the name of what holds it."""
    yield from _graph_tensors(proto.graph, 0)
    for function in proto.functions:
        for node in function.node:
            yield from _node_tensors(node, 0)


def external_files(proto: onnx.ModelProto, folder: Path) -> list[Path]:
    """The external data files that the model names, sorted, each once."""
    names = {
        _external(tensor)["location"]
        for tensor, _ in tensors(proto)
        if tensor.data_location == onnx.TensorProto.EXTERNAL
    }
    return [folder / name for name in sorted(names)]


def _malformed(message: str, where: str) -> EdgecError:
    return EdgecError(
        "source/malformed",
        message,
        where=where,
        hint="check the file with onnx.checker.check_model, and export it again",
    )


def _graph_tensors(graph: onnx.GraphProto, depth: int) -> Iterator[tuple[onnx.TensorProto, str]]:
    if depth > _MAX_DEPTH:
        raise _malformed("subgraphs are nested too deeply", graph.name)
    for tensor in graph.initializer:
        yield tensor, tensor.name
    for node in graph.node:
        yield from _node_tensors(node, depth)


def _node_tensors(node: onnx.NodeProto, depth: int) -> Iterator[tuple[onnx.TensorProto, str]]:
    for attribute in node.attribute:
        where = node.name or node.op_type
        if attribute.HasField("t"):
            yield attribute.t, where
        for tensor in attribute.tensors:
            yield tensor, where
        if attribute.HasField("g"):
            yield from _graph_tensors(attribute.g, depth + 1)
        for graph in attribute.graphs:
            yield from _graph_tensors(graph, depth + 1)


def _check_tensor(tensor: onnx.TensorProto, where: str, folder: Path) -> None:  # rule 2
    bits = _PACKED_BITS.get(tensor.data_type)
    if bits is None:
        try:
            bits = 8 * helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize
        except (KeyError, TypeError, ValueError) as error:
            raise _malformed(f"tensor {where!r} has the unknown type {tensor.data_type}", where) from error
    if any(not 0 <= d <= MAX_DIMENSION for d in tensor.dims):
        raise _malformed(f"tensor {where!r} has an impossible shape {list(tensor.dims)}", where)
    elements = math.prod(tensor.dims)
    wanted = (elements * bits + 7) // 8
    if tensor.data_location == onnx.TensorProto.EXTERNAL:
        _check_external(tensor, where, folder, wanted)
        return
    if tensor.data_type == onnx.TensorProto.STRING:
        if len(tensor.string_data) != elements:
            raise _malformed(f"tensor {where!r} holds {len(tensor.string_data)} of {elements} strings", where)
        return
    if tensor.HasField("raw_data"):
        if len(tensor.raw_data) != wanted:
            raise _malformed(
                f"tensor {where!r} of shape {list(tensor.dims)} needs {wanted} bytes and has {len(tensor.raw_data)}",
                where,
            )
        return
    field = helper.tensor_dtype_to_field(tensor.data_type)
    held = len(getattr(tensor, field))
    needed = elements
    if tensor.data_type in (onnx.TensorProto.COMPLEX64, onnx.TensorProto.COMPLEX128):
        needed = 2 * elements
    elif tensor.data_type in _PACKED_BITS:
        needed = wanted
    if held != needed:
        raise _malformed(f"tensor {where!r} of shape {list(tensor.dims)} needs {needed} values and has {held}", where)


def _external(tensor: onnx.TensorProto) -> dict[str, str]:
    entries = {entry.key: entry.value for entry in tensor.external_data}
    if not entries.get("location"):
        raise _malformed(f"tensor {tensor.name!r} does not say where its external data is", tensor.name)
    return entries


def _check_external(tensor: onnx.TensorProto, where: str, folder: Path, wanted: int) -> None:  # rule 3
    entries = _external(tensor)
    location = entries["location"]
    parts = PurePosixPath(location.replace("\\", "/"))
    if parts.is_absolute() or ".." in parts.parts or Path(location).is_absolute():
        raise EdgecError(
            "source/external-data",
            f"tensor {where!r} points outside the model's folder: {location!r}",
            where=where,
            hint="save the model again with its data file beside it",
        )
    file = folder / location
    if not file.is_file():
        raise EdgecError(
            "source/external-data",
            f"the external data file {location!r} is missing",
            where=where,
            hint=f"copy it beside the model, into {folder}",
        )
    try:
        offset = int(entries.get("offset") or 0)
        length = int(entries.get("length") or wanted)
    except ValueError as error:
        raise _malformed(f"tensor {where!r} has external data at no valid place", where) from error
    size = file.stat().st_size
    if offset < 0 or length != wanted or offset + length > size:
        raise EdgecError(
            "source/external-data",
            f"tensor {where!r} needs {wanted} bytes at {offset} of {location!r}, which has {size} bytes",
            where=where,
            hint="the data file was cut short or belongs to another model: copy it again",
        )


def _check_graph(graph: onnx.GraphProto, outer: set[str], depth: int) -> None:  # rule 4
    if depth > _MAX_DEPTH:
        raise _malformed("subgraphs are nested too deeply", graph.name)
    known = set(outer)
    own: set[str] = set()
    for kind, entries in (("input", graph.input), ("initializer", graph.initializer)):
        names: set[str] = set()
        for entry in entries:
            if not entry.name or entry.name in names:
                raise _malformed(f"{kind} {entry.name!r} is nameless or there twice", entry.name)
            names.add(entry.name)
        own |= names
    for sparse in graph.sparse_initializer:
        own.add(sparse.values.name)
    known |= own
    produced = {name: node for node in graph.node for name in node.output if name}
    for node in graph.node:
        where = node.name or node.op_type
        if not node.op_type:
            raise _malformed("a node has no operator", where)
        for name in node.input:
            if name and name not in known:
                raise _undefined(name, node, produced, where)
        attribute_names: set[str] = set()
        for attribute in node.attribute:
            if not attribute.name or attribute.name in attribute_names:
                raise _malformed(f"attribute {attribute.name!r} of {where!r} is nameless or there twice", where)
            attribute_names.add(attribute.name)
            if not attribute.ref_attr_name:
                _check_attribute(attribute, where)
            for inner in [*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs]:
                _check_graph(inner, known, depth + 1)
        for name in node.output:
            if not name:
                continue
            if name in own:
                raise _malformed(f"value {name!r} is written twice", where)
            own.add(name)
            known.add(name)
    outputs = [output.name for output in graph.output]
    for name in outputs:
        if name not in known or (depth == 0 and not name):
            raise _malformed(f"output {name!r} is written by no node", name)
    if depth == 0 and len(set(outputs)) != len(outputs):
        raise _malformed("an output is listed twice", graph.name)


def _check_attribute(attribute: onnx.AttributeProto, where: str) -> None:  # rule 5
    field = _ATTRIBUTE_FIELD.get(attribute.type)
    held = {name for field_descriptor, _ in attribute.ListFields() if (name := field_descriptor.name) in _VALUES}
    if field is None or held - {field}:
        raise _malformed(f"attribute {attribute.name!r} of {where!r} holds another type than it says", where)
    if field in _MUST_BE_PRESENT and field not in held:
        raise _malformed(f"attribute {attribute.name!r} of {where!r} holds nothing", where)


def _undefined(name: str, node: onnx.NodeProto, produced: dict[str, onnx.NodeProto], where: str) -> EdgecError:
    if name in node.output:
        return _malformed(f"node {where!r} reads its own output {name!r}: the graph has a cycle", where)
    if name in produced:
        return _malformed(
            f"node {where!r} reads {name!r}, which a later node writes: the graph has a cycle or is out of order",
            where,
        )
    return _malformed(f"node {where!r} reads {name!r}, which nothing writes", where)
