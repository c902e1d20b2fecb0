"""Bring a model from an opset newer than any runtime knows to the newest that they do, in place.

An operator that is too new is replaced by the body that ONNX defines for it; where all that is left also exists in
the older opset, only the number changes.
"""

from __future__ import annotations

import onnx_ir as ir

from edgec.errors import EdgecError, Finding
from edgec.graph.model import MAX_OPSET, Model, label, origin
from edgec.passes.decompose import decompose
from edgec.passes.shapes import infer_node, schema_of


def lower_opset(model: Model) -> bool:
    """Set the model's opset to MAX_OPSET at most; True when it was higher.

    Raises `EdgecError` (`source/opset`) with all nodes that have no older form.
    """
    if model.opset <= MAX_OPSET:
        return False
    if any(_too_new(node) for node in model.ir.graph.all_nodes()):
        opsets = dict(model.ir.opset_imports)
        for node in list(model.ir.graph):
            infer_node(node, opsets)  # bodies are written for types and ranks
        model.ir = decompose(model, lambda node: bool(_too_new(node))).ir
    findings = [
        Finding(code="source/opset", message=reason, where=label(node), source=origin(node))
        for node in model.ir.graph.all_nodes()
        if (reason := _too_new(node))
    ]
    if findings:
        raise EdgecError(
            "source/opset",
            f"{len(findings)} nodes need an opset newer than {MAX_OPSET}, which no runtime has",
            where=findings[0].where,
            hint=f"export the model at opset {MAX_OPSET} or lower",
            findings=findings,
        )
    model.ir.opset_imports[""] = MAX_OPSET
    return True


def _too_new(node: ir.Node) -> str:
    """Why the node does not exist in MAX_OPSET; empty when it does."""
    if node.domain != "":
        return ""
    schema = schema_of("", node.op_type, MAX_OPSET)
    if schema is None:
        return f"opset {MAX_OPSET} has no {node.op_type}"
    extra = [name for name in node.attributes if name not in schema.attributes]
    if extra:
        return f"{node.op_type} of opset {MAX_OPSET} has no attribute {extra[0]!r}"
    if len(node.inputs) > schema.max_input or len(node.outputs) > schema.max_output:
        return f"{node.op_type} of opset {MAX_OPSET} has fewer inputs or outputs"
    return ""
