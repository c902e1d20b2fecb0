"""Take a ready OpenVINO model as it is, or a .tflite file by OpenVINO's own reader.

1. An IR keeps its bytes. Inputs and outputs that its writer did not name go by their layers' names.
2. A .tflite file becomes an IR with static shapes, tidied as `openvino.convert_model` does.
3. A free first axis becomes 1, which is said; other free axes must be given.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import openvino as ov

from edgec.artifact import Artifact, IoBinding
from edgec.backends.base import Adopted, Precision, refuse_ready
from edgec.backends.openvino.backend import MODEL_FILE, WEIGHTS_FILE
from edgec.backends.openvino.serialize import operators, serialize, tidy
from edgec.errors import EdgecError, Finding, Severity
from edgec.registry import did_you_mean
from edgec.targets.profile import Target
from edgec.tensors import DType, TensorSpec

_TYPES = {
    "f32": DType.FLOAT32, "f16": DType.FLOAT16, "f64": DType.FLOAT64, "i8": DType.INT8, "u8": DType.UINT8,
    "i16": DType.INT16, "u16": DType.UINT16, "i32": DType.INT32, "u32": DType.UINT32, "i64": DType.INT64,
    "u64": DType.UINT64, "boolean": DType.BOOL,
}  # fmt: skip
_NARROW = ("i8", "u8", "i4", "u4")
_CONTEXT = ("Exception from", "Check '", "FrontEnd API")


def adopt(
    path: Path, target: Target, *, inputs: Mapping[str, tuple[int, ...]], signature: str | None = None
) -> Adopted:
    """See the module. Raises `EdgecError` with all findings when the target does not run the file."""
    if signature is not None:
        raise EdgecError("source/unknown-signature", f"{path.name} has no signatures", where=str(path))
    ir = not _is_tflite(path)
    contents = _contents(path, ir=ir)
    network = _read(path)
    findings: list[Finding] = []
    shapes = _shapes(network, inputs, findings)
    findings += _limits(contents, target) + _types(network)
    refuse_ready(findings, path, target)
    if not ir:  # rule 2
        network.reshape(shapes)
        tidy(network)
        contents = dict(zip((MODEL_FILE, WEIGHTS_FILE), serialize(network), strict=True))
    runtime = target.backends["openvino"].runtime if "openvino" in target.backends else None
    found = operators(network)
    artifact = Artifact(
        backend="openvino",
        precision=precision_of(network),
        files=contents,
        main=MODEL_FILE,
        inputs=tuple(_binding(port, shapes[port.get_any_name()]) for port in network.inputs),
        outputs=tuple(_binding(port, _shape(port)) for port in network.outputs),
        requirements={} if runtime is None else {runtime.package: runtime.min_version},
        op_versions={op: version for op, (_, version) in found.items()},
        operators={op: count for op, (count, _) in found.items()},
        transposes=tuple(
            f"{op.get_friendly_name()}: the file transposes here"
            for op in network.get_ordered_ops()
            if op.get_type_name() == "Transpose"
        ),
        engine="" if runtime is None else runtime.engine,
    )
    return Adopted(artifact=artifact, digest=_digest(path, ir=ir), findings=tuple(findings))


def _is_tflite(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            return file.read(8)[4:] == b"TFL3"
    except OSError:
        return False


def precision_of(network: Any) -> Precision:
    """What narrows the values most: int8 activations, int8 or float16 weights, nothing."""
    ops = network.get_ordered_ops()
    if any(op.get_type_name() == "FakeQuantize" for op in ops):
        return "int8"
    stored = {op.get_element_type().get_type_name() for op in ops if op.get_type_name() == "Constant" and _large(op)}
    if stored & set(_NARROW):
        return "dynamic"
    return "float16" if "f16" in stored else "float32"


def _large(op: Any) -> bool:
    """Weights, not the bytes of a shape or a scale."""
    return bool(op.get_output_size() and op.output(0).get_partial_shape().get_min_shape() and op.data.size > 64)


def _contents(path: Path, *, ir: bool) -> dict[str, bytes]:
    """The files of an IR under the names that a bundle gives them. Raises `EdgecError` for missing weights."""
    weights = path.with_suffix(".bin")
    if ir and not weights.is_file():
        raise EdgecError(
            "source/external-data",
            f"the weights {weights.name} are not beside {path.name}",
            where=str(path),
            hint="an OpenVINO model is two files, NAME.xml and NAME.bin: keep them together",
        )
    try:
        return {MODEL_FILE: path.read_bytes(), WEIGHTS_FILE: weights.read_bytes()} if ir else {}
    except OSError as error:
        raise EdgecError(
            "source/unreadable", f"{path.name} cannot be read: {error.strerror}", where=str(path)
        ) from error


def _read(path: Path) -> Any:
    try:
        return ov.Core().read_model(str(path))
    except RuntimeError as error:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        words = [line for line in lines if not line.startswith(_CONTEXT)] or lines
        raise EdgecError(
            "source/malformed",
            f"OpenVINO cannot read {path.name}: {' '.join(words)[:300]}",
            where=str(path),
            hint="convert it anew with openvino.convert_model"
            if path.suffix != ".tflite"
            else "build with --backend tflite, which takes the file as it is",
        ) from error


def _shapes(network: Any, given: Mapping[str, tuple[int, ...]], findings: list[Finding]) -> dict[str, tuple[int, ...]]:
    """Rule 3: the shape of each input by its name."""
    known = {name: port for port in network.inputs for name in port.get_names()}
    for name in given:
        if name not in known:
            raise EdgecError(
                "source/unknown-input",
                f"the model has no input {name!r}",
                where=name,
                hint=did_you_mean(name, known),
            )
    shapes: dict[str, tuple[int, ...]] = {}
    for port in network.inputs:
        name = port.get_any_name()
        wanted = next((given[other] for other in port.get_names() if other in given), None)
        partial = port.get_partial_shape()
        if wanted is not None:
            if any(size < 1 for size in wanted) or not partial.compatible(ov.PartialShape(list(wanted))):
                raise EdgecError(
                    "source/input-shape",
                    f"shape {'x'.join(map(str, wanted))} does not fit input {name!r}, which is {partial}",
                    where=name,
                    hint="change only the free dimensions",
                )
            shapes[name] = wanted
            continue
        sizes = [] if partial.rank.is_dynamic else [-1 if d.is_dynamic else d.get_length() for d in partial]
        if partial.rank.is_dynamic or -1 in sizes[1:]:
            letters = "x".join("?" if size < 0 else str(size) for size in sizes) or "?"
            findings.append(
                Finding(
                    code="source/free-dimension",
                    message=f"the shape of input {name!r} ({letters}) is not fixed, and cannot be guessed",
                    where=name,
                    hint=f"give it, with numbers for the ?: --input {name}:{letters}",
                )
            )
        elif sizes and sizes[0] < 0:
            sizes[0] = 1
            findings.append(
                Finding(
                    code="source/default-shape",
                    severity=Severity.INFO,
                    message=f"input {name!r} dimension 0 fixed to 1",
                    where=name,
                    hint=f"another batch: --input {name}:{'x'.join(map(str, [2, *sizes[1:]]))}",
                )
            )
        shapes[name] = tuple(sizes)
    return shapes


def _types(network: Any) -> list[Finding]:
    return [
        Finding(
            code="graph/unsupported-type",
            message=f"{port.get_any_name()!r} has the element type {kind}, which no target takes",
            where=port.get_any_name(),
            hint="export the part of the model that takes and gives numbers",
        )
        for port in (*network.inputs, *network.outputs)
        if (kind := port.get_element_type().get_type_name()) not in _TYPES
    ]


def _limits(contents: Mapping[str, bytes], target: Target) -> list[Finding]:
    size, limit = sum(len(data) for data in contents.values()), target.limits.max_model_bytes
    if limit is None or size <= limit:
        return []
    return [
        Finding(
            code="backend/too-large",
            message=f"the model takes {size / 2**20:.1f} MiB, {target.id} takes {limit / 2**20:.1f}",
            rule="limits.max_model_bytes",
            hint="quantize it before, or take a smaller model",
        )
    ]


def _binding(port: Any, shape: tuple[int, ...]) -> IoBinding:
    spec = TensorSpec(
        name=port.get_any_name(), shape=shape, dtype=_TYPES[port.get_element_type().get_type_name()], qparams=None
    )
    return IoBinding(source=spec, artifact=spec)


def _shape(port: Any) -> tuple[int, ...]:
    """The static shape; a free axis is -1, and no axes where the rank is unknown: a run tells."""
    partial = port.get_partial_shape()
    return () if partial.rank.is_dynamic else tuple(-1 if d.is_dynamic else d.get_length() for d in partial)


def _digest(path: Path, *, ir: bool) -> str:
    sha = hashlib.sha256(path.read_bytes())
    if ir:
        sha.update(path.with_suffix(".bin").read_bytes())
    return sha.hexdigest()
