"""Shapes and types of a node's outputs from its inputs, by ONNX's own inference, one node at a time.

One call a node (some 50 µs) instead of one a model: a shape that does not fit names its node, weights are
never serialized, and a rewrite infers only what it made.
"""

from __future__ import annotations

import functools
import math

import onnx
import onnx.defs
import onnx_ir as ir
from onnx import checker, shape_inference

from edgec.errors import EdgecError
from edgec.graph.model import label, origin
from edgec.passes.ml_shapes import infer_ml

#: Constants up to this many elements are shown to the inference (shapes, axes, pads, repeats).
SMALL_CONSTANT = 1024
#: Elements that a tensor may have; 16 GiB in float32.
MAX_ELEMENTS = 2**32


@functools.cache
def schema_of(domain: str, op_type: str, opset: int) -> onnx.defs.OpSchema | None:
    """The operator's definition, or None for operators that ONNX does not define."""
    try:
        return onnx.defs.get_schema(op_type, opset, domain)
    except onnx.defs.SchemaError:
        return None


def infer_node(node: ir.Node, opsets: dict[str, int]) -> None:
    """Set types and shapes of the node's outputs as far as they follow from its inputs.

    What is known already stays when the inference knows nothing better. Raises `EdgecError`
    (`graph/shape-mismatch`) when the inputs do not fit the operator.
    """
    schema = schema_of(node.domain, node.op_type, opsets.get(node.domain, 1))
    if schema is None:
        return
    types: dict[str, onnx.TypeProto] = {}
    data: dict[str, onnx.TensorProto] = {}
    for value in _inputs(node):
        name = value.name or ""
        if value.type is None:
            return
        types[name] = type_proto(value)
        tensor = value.const_value
        if tensor is not None and tensor.size <= SMALL_CONSTANT and value.dtype != ir.DataType.STRING:
            data[name] = ir.serde.serialize_tensor(tensor)
        elif tensor is None and value.shape is not None and value.shape.is_static() and value.shape.numpy() == (0,):
            data[name] = _no_elements(name, value)
    proto = _node_proto(node)
    try:
        inferred = _infer(schema, node, proto, types, data, opsets)
    except checker.ValidationError as error:
        raise EdgecError(
            "graph/invalid-node",
            f"{node.op_type} is not written as ONNX defines it: {_reason(error)}",
            where=label(node),
            source=origin(node),
            hint="check the file with onnx.checker.check_model, and export it again",
        ) from error
    except (shape_inference.InferenceError, RuntimeError, TypeError, ValueError, OverflowError) as error:
        if any(_length_unknown(value) for value in node.inputs):
            return  # ONNX takes a list of sizes whose length it does not know for one of another length
        raise EdgecError(
            "graph/shape-mismatch",
            f"{node.op_type} cannot take its inputs: {_reason(error)}",
            where=label(node),
            source=origin(node),
            hint=f"its inputs are {_describe(node)}",
        ) from error
    for output in node.outputs:
        found = inferred.get(output.name or "")
        if found is not None:
            _merge(output, found)
            _possible(output, node)
    if node.domain == "ai.onnx.ml":
        infer_ml(node)


def _length_unknown(value: ir.Value | None) -> bool:
    """A list of axes, sizes or pads that is still to be computed, and that may have any length."""
    if value is None or value.const_value is not None or value.dtype != ir.DataType.INT64 or value.shape is None:
        return False
    return len(value.shape) == 1 and not value.shape.is_static()


def _no_elements(name: str, value: ir.Value) -> onnx.TensorProto:
    """An input without elements is known, whatever computes it: no axes, no pads."""
    code = value.dtype.value if value.dtype is not None else onnx.TensorProto.INT64
    return onnx.TensorProto(name=name, dims=(0,), data_type=code)


def _infer(
    schema: onnx.defs.OpSchema,
    node: ir.Node,
    proto: onnx.NodeProto,
    types: dict[str, onnx.TypeProto],
    data: dict[str, onnx.TensorProto],
    opsets: dict[str, int],
) -> dict[str, onnx.TypeProto]:
    """ONNX's inference; element types that only a newer form of the operator takes are taken as that form does."""
    versions = _opset_protos(tuple(sorted(opsets.items())))
    try:
        return shape_inference.infer_node_outputs(schema, proto, types, data, None, versions)
    except checker.ValidationError as error:
        newest = schema_of(node.domain, node.op_type, onnx.defs.onnx_opset_version())
        if "unsupported type" not in str(error) or newest is None or newest.since_version == schema.since_version:
            raise
        return shape_inference.infer_node_outputs(newest, proto, types, data, None, versions)


def _node_proto(node: ir.Node) -> onnx.NodeProto:
    proto = ir.serde.serialize_node(node)
    # The metadata can be long (stack traces) and means nothing here.
    del proto.metadata_props[:]
    return proto


def _inputs(node: ir.Node) -> list[ir.Value]:
    """What the node reads, and what its subgraphs read from outside."""
    values = [value for value in node.inputs if value is not None]
    for attribute in node.attributes.values():
        graphs = (
            [attribute.as_graph()]
            if attribute.type == ir.AttributeType.GRAPH
            else attribute.as_graphs()
            if attribute.type == ir.AttributeType.GRAPHS
            else []
        )
        for graph in graphs:
            own = {id(value) for inner in [graph, *graph.subgraphs()] for value in _defined(inner)}
            for inner in graph.all_nodes():
                values += [v for v in inner.inputs if v is not None and id(v) not in own]
            values += [v for v in graph.outputs if id(v) not in own]
    return values


def _defined(graph: ir.Graph) -> list[ir.Value]:
    outputs = [output for node in graph for output in node.outputs]
    return [*graph.inputs, *graph.initializers.values(), *outputs]


def type_proto(value: ir.Value) -> onnx.TypeProto:
    """The value's type and shape as ONNX writes them."""
    proto = onnx.TypeProto()
    if value.type is not None:
        ir.serde.serialize_type_into(proto, value.type)
        if value.shape is not None:
            ir.serde.serialize_shape_into(proto, value.shape)
    return proto


@functools.cache
def _opset_protos(opsets: tuple[tuple[str, int], ...]) -> list[onnx.OperatorSetIdProto]:
    return [onnx.OperatorSetIdProto(domain=domain, version=version) for domain, version in opsets]


def _merge(value: ir.Value, proto: onnx.TypeProto) -> None:
    found = ir.serde.deserialize_type_proto_for_type(proto)
    if found is not None:
        value.type = found
    shape = ir.serde.deserialize_type_proto_for_shape(proto)
    if shape is None:
        return
    known = value.shape
    if known is None or len(known) != len(shape) or shape.is_static():
        value.shape = shape
        return
    value.shape = ir.Shape([new if isinstance(new, int) else old for new, old in zip(shape, known, strict=True)])


def _possible(value: ir.Value, node: ir.Node) -> None:
    """No tensor of a real model is bigger: such sizes come from damaged shapes, and overflow in the runtimes."""
    dims = [d for d in value.shape or () if isinstance(d, int)]
    if any(d < 0 for d in dims) or math.prod(dims) > MAX_ELEMENTS:
        raise EdgecError(
            "graph/shape-mismatch",
            f"{node.op_type} would give a tensor of shape {dims}",
            where=label(node),
            source=origin(node),
            hint=f"its inputs are {_describe(node)}",
        )


def _reason(error: Exception) -> str:
    text = str(error).strip().splitlines()
    return text[0] if text else type(error).__name__


def _describe(node: ir.Node) -> str:
    return ", ".join(
        f"{value.name}: {value.dtype.name if value.dtype else '?'}{value.shape if value.shape else ''}"
        for value in node.inputs
        if value is not None
    )
