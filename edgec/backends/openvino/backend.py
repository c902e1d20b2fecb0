"""The backend interface: check, legalize, compile."""

from __future__ import annotations

from collections import Counter
from typing import Any

from edgec.artifact import Artifact, IoBinding
from edgec.backends.base import CompileOptions, Precision
from edgec.backends.openvino.importer import imported
from edgec.backends.openvino.legalize import fold_biases, take_apart
from edgec.backends.openvino.serialize import (
    keep_data_in_float,
    name_layers,
    operators,
    restore_inputs,
    serialize,
    tidy,
    to_float16,
)
from edgec.backends.openvino.wrong import narrow_integers, wrong_nodes
from edgec.errors import EdgecError, Finding, Severity
from edgec.graph.model import Model
from edgec.quantization.run.apply import has_float16_weights
from edgec.targets.profile import Target
from edgec.tensors import DType, TensorSpec

MODEL_FILE = "model.xml"
WEIGHTS_FILE = "model.bin"


def check(model: Model, target: Target) -> list[Finding]:  # noqa: ARG001 # the backend interface: OpenVINO has one operator set
    """Everything that stands in the way of an OpenVINO build, all nodes at once."""
    model = take_apart(model)
    findings = [*wrong_nodes(model), *_free_shapes(model), *narrow_integers(model)]
    try:
        with imported(model) as network:
            tidy(network)
            findings += _other_shapes(network, model)
            findings += [
                Finding(code="backend/transpose", message=reason, severity=Severity.INFO)
                for reason in _transposes(network, model)
            ]
    except EdgecError as error:
        findings += error.findings
    return findings


def legalize(model: Model, target: Target, precision: Precision) -> Model:  # noqa: ARG001 # the backend interface
    """A new model in which what OpenVINO lacks or computes wrongly is taken apart, as far as that is possible."""
    return take_apart(model)


def compile(model: Model, target: Target, options: CompileOptions) -> Artifact:  # noqa: A001 # the backend interface
    """Emit the IR of a legalized float or QDQ model: the same inputs and outputs as the source, in name and layout."""
    errors = wrong_nodes(model)
    if errors:
        raise EdgecError(
            "backend/unsupported",
            f"{len(errors)} node(s) of {model.name!r} would be computed wrongly by OpenVINO",
            where=model.name,
            hint="run `edgec check` for the list, or build with --backend tflite",
            findings=errors,
        )
    work = model.clone()
    fold_biases(work)
    with imported(work) as network:
        tidy(network)
        _check_shapes(network, model)
        restore_inputs(network, model)
        if options.precision == "float16" or has_float16_weights(model):
            to_float16(network)
        name_layers(network, model)
        if options.as_given:
            keep_data_in_float(network)
        xml, weights = serialize(network)
        runtime = target.backends["openvino"].runtime if "openvino" in target.backends else None
        return Artifact(
            backend="openvino",
            precision=options.precision,
            files={MODEL_FILE: xml, WEIGHTS_FILE: weights},
            main=MODEL_FILE,
            inputs=_bindings(model.source_inputs(), model.inputs()),
            outputs=_bindings(model.source_outputs(), model.outputs()),
            requirements={} if runtime is None else {runtime.package: runtime.min_version},
            op_versions={op: version for op, (_, version) in operators(network).items()},
            operators={op: count for op, (count, _) in operators(network).items()},
            transposes=tuple(_transposes(network, model)),
            engine="" if runtime is None else runtime.engine,
        )


def _bindings(source: tuple[TensorSpec, ...], specs: tuple[TensorSpec, ...]) -> tuple[IoBinding, ...]:
    return tuple(IoBinding(source=own, artifact=spec) for own, spec in zip(source, specs, strict=True))


def _transposes(network: Any, model: Model) -> list[str]:
    own = Counter(n.op_type for n in model.nodes())["Transpose"]
    found = [op.get_friendly_name() for op in network.get_ordered_ops() if op.get_type_name() == "Transpose"]
    why = "the source model transposes here" if own else "OpenVINO's importer put it in"
    return [f"{name}: {why}" for name in found]


def _check_shapes(network: Any, model: Model) -> None:
    """Raise when OpenVINO infers another shape for an output than ONNX does (its rounding of pool sizes differs)."""
    findings = _other_shapes(network, model)
    if findings:
        raise EdgecError(findings[0].code, findings[0].message, where=findings[0].where, findings=findings)


def _other_shapes(network: Any, model: Model) -> list[Finding]:
    found: list[Finding] = []
    for port, spec in zip(network.outputs, model.outputs(), strict=False):
        shape = port.get_partial_shape()
        if shape.rank.is_dynamic:
            found.append(
                Finding(
                    code="backend/dynamic-shape",
                    message=f"OpenVINO cannot tell how many dimensions output {spec.name!r} has",
                    where=spec.name,
                    hint="make axes and shapes constants in the source model, or build with --backend tflite",
                )
            )
            continue
        if shape.is_dynamic or -1 in spec.shape or tuple(shape.to_shape()) == spec.shape:
            continue
        found.append(
            Finding(
                code="backend/unsupported",
                message=f"OpenVINO gives output {spec.name!r} shape {tuple(shape.to_shape())} instead of {spec.shape}",
                where=spec.name,
                hint="build with --backend tflite; pool sizes that round up (ceil_mode) are a known difference",
            )
        )
    return found


def _free_shapes(model: Model) -> list[Finding]:
    return [
        Finding(
            code="backend/dynamic-shape",
            message=f"{kind} {spec.name!r} has a free dimension: {spec.shape}",
            where=spec.name,
            hint=f"fix it with --input {spec.name}:" + "x".join(str(d) if d > 0 else "N" for d in spec.shape),
        )
        for kind, specs in (("input", model.inputs()), ("output", model.outputs()))
        for spec in specs
        if any(d < 0 for d in spec.shape) and spec.dtype is not DType.STRING
    ]
