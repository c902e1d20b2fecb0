"""Bring a model from any older opset to the pinned opset, in place: only nodes whose meaning changed are touched.

ONNX's own converter lacks adapters, drops node metadata (and with it the user's source lines) and cannot take
models over 2 GB; the operators whose *form* changed are few, and stand as a table in `upgrade_adapters`.
Opsets newer than ONNX Runtime runs are the business of `lower_opset`.
"""

from __future__ import annotations

import onnx.defs
import onnx_ir as ir

from edgec.errors import EdgecError, Finding
from edgec.graph.edit import Editor
from edgec.graph.model import MIN_OPSET, Model, label, origin
from edgec.passes.old_form import NoNewForm
from edgec.passes.shapes import infer_node, schema_of
from edgec.passes.upgrade_adapters import ADAPTERS
from edgec.passes.upgrade_ancient import ANCIENT

OLDEST = 1
_ALL = {op: (*ANCIENT.get(op, ()), *ADAPTERS.get(op, ())) for op in ANCIENT.keys() | ADAPTERS.keys()}


def upgrade_opset(model: Model) -> bool:
    """Raise the model's opset to MIN_OPSET at least; True when nodes or the number changed.

    Raises `EdgecError`: `source/opset` for opsets out of reach, `source/unknown-operator` with all nodes whose
    operator its opset does not have.
    """
    opsets = model.ir.opset_imports
    version = opsets.get("", MIN_OPSET)
    newest = onnx.defs.onnx_opset_version()
    if not OLDEST <= version <= newest:
        raise EdgecError(
            "source/opset",
            f"the model is at opset {version}; edgec reads opsets {OLDEST} to {newest}",
            where=model.source.name,
            hint="export it again with a newer opset" if version < OLDEST else "export it at opset 21",
        )
    _known_operators(model, version)
    if version >= MIN_OPSET:
        opsets[""] = version
        return False
    _raise(model, version)
    return True


def _raise(model: Model, version: int) -> None:
    opsets = dict(model.ir.opset_imports)
    for node in list(model.ir.graph):
        infer_node(node, opsets)  # adapters want types and ranks
    editor = Editor(model)
    for graph in list(model.ir.graphs()):
        for node in list(graph):
            adapt(node, version, editor)
    model.ir.opset_imports[""] = MIN_OPSET


def adapt(node: ir.Node, version: int, editor: Editor) -> None:
    """Bring one node from opset `version` to MIN_OPSET; raises `EdgecError` (`source/opset`) when it cannot."""
    if node.domain != "":
        return
    for since, adapter in _ALL.get(node.op_type, ()):
        if not version < since <= MIN_OPSET:
            continue
        try:
            adapter(node, editor)
        except NoNewForm as error:
            raise EdgecError(
                "source/opset",
                f"{node.op_type} of opset {version} cannot be brought to opset {MIN_OPSET}: {error}",
                where=label(node),
                source=origin(node),
                hint=f"export the model again at opset {MIN_OPSET}",
            ) from error


def _known_operators(model: Model, version: int) -> None:
    findings = []
    for node in model.ir.graph.all_nodes():
        if node.domain != "":
            continue
        schema = schema_of("", node.op_type, version)
        if schema is None or (schema.deprecated and node.op_type not in _ALL):
            findings.append(
                Finding(
                    code="source/unknown-operator",
                    message=f"opset {version} has no operator {node.op_type!r}",
                    where=label(node),
                    source=origin(node),
                    hint="check the model with onnx.checker; a custom operator needs a domain of its own",
                )
            )
    if findings:
        raise EdgecError(
            "source/unknown-operator",
            f"{len(findings)} nodes use operators that ONNX opset {version} does not have",
            where=findings[0].where,
            hint=findings[0].hint,
            findings=findings,
        )
