"""The backend interface: check, legalize, compile."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass

import onnx.defs

from edgec.artifact import Artifact, IoBinding, OpWork
from edgec.backends.base import CompileOptions
from edgec.backends.tflite.control import CONTROL
from edgec.backends.tflite.fuse import flatten_into_fully_connected, fuse, fuse_bias, merge_reshapes
from edgec.backends.tflite.fusions.siblings import merge_products
from edgec.backends.tflite.fusions.splits import regroup
from edgec.backends.tflite.half import halve_weights
from edgec.backends.tflite.kernels import check_kernels, faster_in_float, kernels_of
from edgec.backends.tflite.layout import assign_layout
from edgec.backends.tflite.layout.perms import Perm, identity
from edgec.backends.tflite.legalize import legalize
from edgec.backends.tflite.limits import check_limits
from edgec.backends.tflite.lower import lower
from edgec.backends.tflite.narrow_io import narrow_io
from edgec.backends.tflite.ops import all_lowerings
from edgec.backends.tflite.pairs import QUANTIZERS
from edgec.backends.tflite.tir import Graph, Tensor
from edgec.backends.tflite.types import assign_types
from edgec.backends.tflite.versions import op_version, stored
from edgec.backends.tflite.wide import join_in_steps
from edgec.backends.tflite.work import peak_bytes, work_of
from edgec.backends.tflite.writer import ordered_tensors, unique_names, write
from edgec.errors import EdgecError, Finding, Severity
from edgec.graph.model import MAX_OPSET, Model
from edgec.passes.decompose import can_decompose
from edgec.quantization.run.apply import has_float16_weights
from edgec.targets.profile import Target
from edgec.tensors import DType, TensorSpec

MODEL_FILE = "model.tflite"


@dataclass(frozen=True, slots=True)
class Lowered:
    """A finished TIR graph with the orders of its inputs and outputs and what was found on the way."""

    graph: Graph
    inputs: list[Perm]
    outputs: list[Perm]
    transposes: tuple[str, ...]
    findings: tuple[Finding, ...]


def supported_ops() -> dict[str, str]:
    """ONNX operator types that can be built for TFLite, each with a line about how."""
    said = {name: (fn.__doc__ or "").strip().partition("\n")[0] for name, fn in all_lowerings().items()}
    said |= dict.fromkeys(CONTROL, "decided or written out when compiling, else IF or WHILE")
    said |= dict.fromkeys(QUANTIZERS, "how a tensor is stored, else arithmetic")
    parts = {schema.name for schema in onnx.defs.get_all_schemas() if schema.domain == ""} - said.keys()
    said |= {name: "taken apart into the others" for name in parts if can_decompose(name, MAX_OPSET)}
    return dict(sorted(said.items()))


def lower_model(model: Model, target: Target, options: CompileOptions) -> Lowered:
    """ONNX to finished TIR. Findings of severity error mean that the graph must not be written."""
    graph, findings = lower(model, narrow=bool(kernels_of(target)))
    if any(f.severity == Severity.ERROR for f in findings):
        return Lowered(graph, [], [], (), tuple(findings))
    names = [t.name for t in graph.outputs]
    merge_reshapes(graph)
    fuse_bias(graph)
    merge_products(graph)
    regroup(graph)
    merge_reshapes(graph)
    narrow_io(graph)
    flatten_into_fully_connected(graph)
    graph.prune()
    _finish_subgraphs(graph)
    layout = assign_layout(graph, options.io_layout)
    halves = options.precision == "float16" or has_float16_weights(model)
    fuse(graph, exact=options.precision == "float16")
    assign_types(
        graph,
        integer_io=target.io_dtype == "int8",
        kernels=kernels_of(target),
        in_float=faster_in_float(target),
    )
    if halves:
        halve_weights(graph)
    join_in_steps(graph, target.limits.max_inputs)
    for t, name in zip(graph.outputs, names, strict=True):
        _name_output(graph, t, name)
    findings += [*check_limits(graph, target), *check_kernels(graph, target)]
    return Lowered(graph, layout.inputs, layout.outputs, tuple(layout.transposes), tuple(findings))


def _finish_subgraphs(graph: Graph) -> None:
    """Layout and fusions inside of branches and loop bodies, whose inputs and outputs stay as they are."""
    for inner in list(graph.graphs())[1:]:
        if any(op.kind == "TRANSPOSE" for op in inner.ops):
            assign_layout(inner, "source")
        fuse(inner)


def _name_output(graph: Graph, t: Tensor, name: str) -> None:
    for op in graph.ops:
        for other in op.outputs:
            if other is not t and other.name == name:
                other.name = f"{name}/stored"
    t.name = name


def check(model: Model, target: Target) -> list[Finding]:
    """Everything that stands in the way of a TFLite build, and every transpose that would be left."""
    legal = legalize(model, target, "float32")
    lowered = lower_model(legal, target, CompileOptions())
    notes = [Finding(code="backend/transpose", message=reason, severity=Severity.INFO) for reason in lowered.transposes]
    return [*lowered.findings, *notes]


def survey(model: Model, target: Target) -> tuple[tuple[OpWork, ...], int] | None:
    """The work of a canonical model in float32 and the peak of its values; None when it cannot be lowered."""
    lowered = lower_model(legalize(model, target, "float32"), target, CompileOptions())
    graph = lowered.graph
    if not graph.ops or not graph.outputs or not lowered.outputs:
        return None
    return work_of(graph), peak_bytes(graph)


def compile(model: Model, target: Target, options: CompileOptions) -> Artifact:
    """Emit the FlatBuffer of a legalized float or QDQ model."""
    lowered = lower_model(model, target, options)
    errors = [f for f in lowered.findings if f.severity == Severity.ERROR]
    if errors:
        raise EdgecError(
            errors[0].code if len(errors) == 1 else "backend/unsupported",
            f"{len(errors)} node(s) of {model.name!r} cannot be expressed in TFLite",
            where=model.name,
            hint="run `edgec check` for the list, or build with --backend openvino",
            findings=errors,
        )
    graph = lowered.graph
    runtime = target.backends["tflite"].runtime if "tflite" in target.backends else None
    metadata = {
        "min_runtime_version": b"1.5.0".ljust(16, b"\0"),
        "edgec.provenance": json.dumps(
            {"source": model.source.name, "sha256": model.source.digest, "kind": model.source.kind}, sort_keys=True
        ).encode(),
    }
    versions, work, peak = _versions(graph), work_of(graph), peak_bytes(graph)  # look at constants; `write` frees them
    data = write(graph, description=f"edgec {model.name}", metadata=metadata, release=True)
    return Artifact(
        backend="tflite",
        precision=options.precision,
        files={MODEL_FILE: data},
        main=MODEL_FILE,
        inputs=_bindings(model.source_inputs(), graph, graph.inputs, lowered.inputs),
        outputs=_bindings(model.source_outputs(), graph, graph.outputs, lowered.outputs),
        requirements={} if runtime is None else {runtime.package: runtime.min_version},
        op_versions=versions,
        operators=dict(sorted(Counter(op.kind for op in graph.every_op()).items())),
        transposes=lowered.transposes,
        engine="" if runtime is None else runtime.engine,
        work=work,
        peak_bytes=peak,
    )


def _versions(graph: Graph) -> dict[str, int]:
    table: dict[str, int] = {}
    for op in graph.every_op():
        table[op.kind] = max(table.get(op.kind, 0), op_version(op))
    return dict(sorted(table.items()))


def _bindings(
    specs: tuple[TensorSpec, ...], graph: Graph, tensors: list[Tensor], perms: list[Perm]
) -> tuple[IoBinding, ...]:
    everything = ordered_tensors(graph)
    names = dict(zip(everything, unique_names(everything), strict=True))
    result = []
    for spec, t, perm in zip(specs, tensors, perms, strict=True):
        artifact = TensorSpec(
            name=names[t],
            shape=t.shape,
            dtype=stored(t) or DType.FLOAT32,
            qparams=None if t.storage is None else t.storage.qparams,
        )
        moved = None if perm == identity(len(perm)) else perm
        result.append(IoBinding(source=spec, artifact=artifact, perm=moved))
    return tuple(result)
