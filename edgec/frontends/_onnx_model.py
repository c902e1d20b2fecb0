"""From an ONNX model, wherever it came from, to a `Model` with static inputs at a supported opset.

Every frontend ends here: what an exporter wrote is checked as strictly as a file from a stranger.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import onnx
import onnx_ir as ir
from onnx_ir.passes.common import (
    InlinePass,
    LiftSubgraphInitializersToMainGraphPass,
    RemoveInitializersFromInputsPass,
)

from edgec.errors import EdgecError, Finding, Severity
from edgec.frontends.base import Loaded
from edgec.graph.edit import Editor, remove_dead
from edgec.graph.model import Model, SourceInfo
from edgec.graph.names import name_everything
from edgec.graph.verify import verify
from edgec.passes.contrib.standard import claim_strayed, standard_forms
from edgec.passes.decompose.ml_features import normalizer
from edgec.passes.fix_inputs import fix_inputs
from edgec.passes.lower_opset import lower_opset
from edgec.passes.plain_labels import plain_labels
from edgec.passes.upgrade_opset import upgrade_opset

_SHOWN_LABELS = 5

#: Element types whose arrays are what the file holds.
_PLAIN = frozenset({"FLOAT", "DOUBLE", "FLOAT16", "INT8", "UINT8", "INT16", "UINT16", "INT32", "INT64", "BOOL"})


def from_proto(
    proto: onnx.ModelProto,
    *,
    source: SourceInfo,
    name: str,
    inputs: Mapping[str, tuple[int, ...]],
    folder: Path | None = None,
) -> Loaded:
    """A loaded model; `name` becomes the bundle's stem, `folder` holds external data, `inputs` fixes shapes.

    Raises `EdgecError` (`source/…`).
    """
    try:
        onnx_model = ir.serde.deserialize_model(proto)
    except Exception as error:  # whatever onnx_ir raises on a file that parses but is no graph
        raise EdgecError(
            "source/malformed",
            f"{source.name} holds no valid graph: {_first_line(error)}",
            where=str(folder / source.name) if folder else source.name,
            hint="check it with onnx.checker.check_model, and export it again",
        ) from error
    if folder is not None:
        ir.external_data.set_base_dir(onnx_model.graph, folder)
    _as_arrays(onnx_model.graph)
    return from_ir(onnx_model, source=source, name=name, inputs=inputs)


def from_ir(onnx_model: ir.Model, *, source: SourceInfo, name: str, inputs: Mapping[str, tuple[int, ...]]) -> Loaded:
    """As `from_proto`, from a model in memory, which is edited in place."""
    model = Model(ir=onnx_model, source=source, name=name)
    findings, labels = _prepare(model, inputs)
    return Loaded(model=model, findings=findings, labels=labels)


def _as_arrays(graph: ir.Graph) -> None:
    """Hold weights as arrays: read from the message, they would be copied out of it at every look."""
    for name, value in graph.initializers.items():
        tensor = value.const_value
        if isinstance(tensor, ir.serde.TensorProtoTensor) and tensor.dtype.name in _PLAIN:
            value.const_value = ir.Tensor(tensor.numpy(), dtype=tensor.dtype, name=name)


def _prepare(model: Model, inputs: Mapping[str, tuple[int, ...]]) -> tuple[tuple[Finding, ...], tuple[str, ...]]:
    onnx_model = model.ir
    try:
        InlinePass()(onnx_model)
        RemoveInitializersFromInputsPass()(onnx_model)
        LiftSubgraphInitializersToMainGraphPass()(onnx_model)
    except Exception as error:  # recursive functions and the like: onnx_ir raises several types
        raise EdgecError(
            "source/malformed",
            f"the model's functions or initializers do not fit together: {_first_line(error)}",
            where=model.source.name,
            hint="check it with onnx.checker.check_model, and export it again",
        ) from error
    name_everything(onnx_model)
    _unknown_lengths(onnx_model)
    labels = plain_labels(onnx_model, Editor(model))
    remove_dead(onnx_model)
    verify(onnx_model)
    claim_strayed(model)
    findings = fix_inputs(model, inputs)
    upgrade_opset(model)
    findings = (*findings, *standard_forms(model))
    lower_opset(model)
    _plain_normalizers(model)
    onnx_model = model.ir
    onnx_model.ir_version = max(onnx_model.ir_version, 10)
    verify(onnx_model)
    return (*findings, *_numbered(labels)), labels


def _unknown_lengths(onnx_model: ir.Model) -> None:
    """A negative length, as Paddle's exporter declares it, is one that the file does not know."""
    for graph in (onnx_model.graph, *onnx_model.graph.subgraphs()):
        for value in (*graph.inputs, *(v for node in graph for v in node.outputs)):
            if value.shape is not None and any(isinstance(d, int) and d < 0 for d in value.shape):
                value.shape = ir.Shape([None if isinstance(d, int) and d < 0 else d for d in value.shape])


def _plain_normalizers(model: Model) -> None:
    """ONNX Runtime may compute ai.onnx.ml's Normalizer in place, and then loses signs: it is no reference for it."""
    editor = Editor(model)
    for node in model.nodes():
        if (node.domain, node.op_type) == ("ai.onnx.ml", "Normalizer"):
            normalizer(node, editor)


def _numbered(labels: tuple[str, ...]) -> tuple[Finding, ...]:
    if not labels:
        return ()
    shown = ", ".join(f"{i} = {text}" for i, text in enumerate(labels[:_SHOWN_LABELS]))
    more = ", …" if len(labels) > _SHOWN_LABELS else ""
    return (
        Finding(
            code="source/labels-numbered",
            message=f"labels that are text become numbers, as devices have no text: {shown}{more}",
            severity=Severity.INFO,
            hint="the whole list is `labels` in the bundle's manifest",
        ),
    )


def _first_line(error: Exception) -> str:
    cause = error
    while cause.__cause__ is not None and isinstance(cause.__cause__, Exception):
        cause = cause.__cause__
    lines = str(cause).strip().splitlines()
    return lines[0][:300] if lines else type(cause).__name__
