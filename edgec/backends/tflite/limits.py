"""Check finished TIR against the target's limits."""

from __future__ import annotations

from edgec.backends.tflite.tir import Graph
from edgec.backends.tflite.versions import op_version
from edgec.errors import Finding
from edgec.targets.profile import Target
from edgec.tensors import DType

#: Kernels that walk over the elements, whatever the rank.
_ANY_RANK = frozenset({"RESHAPE", "CAST", "BITCAST"})
#: Kernels that take strings and of which the result is right; TRANSPOSE, CONCATENATION and others fail when they run.
_TEXT = frozenset({"EQUAL", "RESHAPE", "SLICE"})


def check_limits(graph: Graph, target: Target) -> list[Finding]:
    """Ranks beyond the runtime's, operator versions newer than the target's runtime, files that grow too large."""
    findings = _check_size(graph, target)
    facts = target.backends.get("tflite")
    newest = facts.runtime.max_op_version if facts is not None else {}
    for op in graph.every_op():
        if op.kind not in _TEXT and any(t.dtype == DType.STRING for t in (*op.inputs, *op.outputs) if t is not None):
            findings.append(_no_text(op.kind, op.origin))
        ranks = [t.rank for t in (*op.inputs, *op.outputs) if t is not None]
        if max(ranks, default=0) > target.limits.max_rank and op.kind not in _ANY_RANK:
            findings.append(
                Finding(
                    code="backend/rank",
                    message=f"{op.kind} works on {max(ranks)} axes, {target.id} takes {target.limits.max_rank}",
                    where=op.origin,
                    rule="limits.max_rank",
                    hint="reshape to fewer axes in the source model",
                )
            )
        if len(op.inputs) > target.limits.max_inputs.get(op.kind, len(op.inputs)):
            findings.append(
                Finding(
                    code="backend/inputs",
                    message=f"{op.kind} of {len(op.inputs)} tensors, {target.id} takes "
                    f"{target.limits.max_inputs[op.kind]}",
                    where=op.origin,
                    rule="limits.max_inputs",
                    hint="join them in steps in the source model",
                )
            )
        if op.kind in newest and op_version(op) > newest[op.kind]:
            findings.append(
                Finding(
                    code="backend/op-version",
                    message=f"{op.kind} version {op_version(op)}: {target.id}'s runtime has {newest[op.kind]}",
                    where=op.origin,
                    rule="runtime.max_op_version",
                    hint="update the runtime on the device",
                )
            )
    return [*findings, *(_no_text("an output", t.name) for t in graph.outputs if t.dtype == DType.STRING)]


def _no_text(what: str, where: str) -> Finding:
    return Finding(
        code="backend/unsupported",
        message=f"strings are compared in TFLite, and {what} cannot hold them",
        where=where,
        rule="tflite/text",
        hint="replace text by numbers in the source model, or build with --backend openvino",
    )


def _check_size(graph: Graph, target: Target) -> list[Finding]:
    constants = {id(t.data): t.data.nbytes for op in graph.every_op() for t in op.inputs if t and t.data is not None}
    size, limit = sum(constants.values()), target.limits.max_model_bytes
    if not limit or size <= limit:
        return []
    return [
        Finding(
            code="backend/too-large",
            message=f"the constants take {size / 2**30:.2f} GiB, {target.id} takes {limit / 2**30:.2f}",
            rule="limits.max_model_bytes",
            hint="take int8 or dynamic precision, which needs a quarter, or --backend openvino",
        )
    ]
