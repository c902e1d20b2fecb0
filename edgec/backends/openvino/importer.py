"""Read a model with OpenVINO's ONNX importer, and turn its complaints into findings that name the nodes.

The importer stops at the first kind of problem it meets. So when a model does not read, every node is tried
alone, in a model of its own, and all that fail are reported.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import onnx_ir as ir
import openvino as ov

from edgec.backends.openvino.stable import order_ties
from edgec.backends.openvino.text_ops import extensions
from edgec.errors import EdgecError, Finding
from edgec.graph.model import Model, label, origin

_NO_RULE = "No conversion rule found for operations"
_CONTEXT = re.compile(r"^(Exception from|Check '|FrontEnd API|While validating|Model wasn't|Summary|--|Conversion)")


@contextmanager
def imported(model: Model) -> Iterator[Any]:
    """The model as an `openvino.Model`. Weights of models over 2 GiB go through files that live as long as the context.

    Raises `EdgecError` (`backend/unsupported-op`, `backend/unsupported`) with all findings.
    """
    with tempfile.TemporaryDirectory(prefix="edgec-") as folder:
        try:
            network = _core(model).read_model(_content(model, Path(folder)))
        except RuntimeError as error:
            findings = explain(model, str(error))
            raise EdgecError(
                findings[0].code,
                f"{len(findings)} node(s) of {model.name!r} cannot be expressed in OpenVINO",
                where=model.name,
                hint="run `edgec check` for the list, or build with --backend tflite",
                findings=findings,
            ) from error
        order_ties(network)
        yield network


def _core(model: Model) -> Any:
    core = ov.Core()
    core.add_extension(extensions(model))
    return core


def _content(model: Model, folder: Path) -> bytes | str:
    try:
        return model.to_bytes()
    except EdgecError as error:
        if error.code != "graph/too-large":
            raise
    path = folder / "model.onnx"
    ir.save(model.ir.clone(), path, external_data="weights.bin")
    return str(path)


def explain(model: Model, message: str) -> list[Finding]:
    """Findings for all nodes that do not read on their own; the message as it is where each one does."""
    findings = [finding for node in model.nodes() if (finding := _try_alone(model, node)) is not None]
    return findings or [
        Finding(code="backend/unsupported", message=f"OpenVINO cannot read the model: {_essence(message)}")
    ]


def _try_alone(model: Model, node: ir.Node) -> Finding | None:
    if any(a.type in (ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS) for a in node.attributes.values()):
        return None  # its subgraphs read values from outside
    try:
        _core(model).read_model(_alone(model, node))
    except RuntimeError as error:
        missing = _NO_RULE in str(error)
        return Finding(
            code="backend/unsupported-op" if missing else "backend/unsupported",
            message=f"OpenVINO has no counterpart for {node.op_type}"
            if missing
            else f"OpenVINO cannot express this {node.op_type}: {_essence(str(error))}",
            where=label(node),
            source=origin(node),
            hint="build with --backend tflite, or replace the operator in the source model",
        )
    return None


def _alone(model: Model, node: ir.Node) -> bytes:
    """A model of one node. Constants stay constants, other inputs become graph inputs."""
    values: dict[str, ir.Value] = {}
    inputs: list[ir.Value | None] = []
    for value in node.inputs:
        if value is None:
            inputs.append(None)
            continue
        copy = ir.Value(name=value.name, shape=value.shape, type=value.type, const_value=value.const_value)
        inputs.append(values.setdefault(value.name or "", copy))
    outputs = [ir.Value(name=v.name, shape=v.shape, type=v.type) for v in node.outputs]
    attributes = dict(node.attributes)
    twin = ir.node(node.op_type, inputs, attributes, domain=node.domain, outputs=outputs, name=node.name)
    constants = [v for v in values.values() if v.const_value is not None]
    graph = ir.Graph(
        [v for v in values.values() if v.const_value is None],
        [v for v in outputs if v.name],
        nodes=[twin],
        initializers=constants,
        opset_imports=dict(model.ir.graph.opset_imports),
        name="alone",
    )
    content: bytes = ir.serde.serialize_model(ir.Model(graph, ir_version=10)).SerializeToString()
    return content


def _essence(message: str) -> str:
    """The line of OpenVINO's report that says what is wrong."""
    lines = [line.strip() for line in message.splitlines() if line.strip()]
    for line in lines:
        if not _CONTEXT.match(line) and len(line) > 8:
            return line[:300]
    return lines[-1][:300] if lines else "no reason given"
