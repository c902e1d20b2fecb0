"""Ready models: a .tflite or OpenVINO file is checked, bundled and validated as it is; nothing is compiled.

1. It runs in its own runtime where the target has that, else (or with --backend) OpenVINO reads it, and LiteRT on the
   original file gives the reference.
2. Another precision than the file's own means that it is to be quantized: then it is no ready model but a source.
3. The outputs' shapes are those of a run: files say them only roughly.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from edgec import __version__
from edgec.artifact import Artifact, IoBinding
from edgec.backends.base import load_backend
from edgec.bundle.golden import Golden
from edgec.bundle.manifest import Provenance
from edgec.errors import EdgecError, Finding, Severity
from edgec.frontends.base import SourceOptions
from edgec.graph.model import Model
from edgec.metrics import relative_error
from edgec.pipeline import measure
from edgec.pipeline.deliver import BuildResult, Delivery, deliver
from edgec.pipeline.drift_reference import reference_files
from edgec.pipeline.precision import backend_facts
from edgec.pipeline.stages import Clock
from edgec.pipeline.summary import artifact_facts
from edgec.quantization.data.samples import SampleSource, open_samples
from edgec.quantization.run.executor import Executor
from edgec.runners.base import run_artifact
from edgec.targets.profile import Target
from edgec.tensors import Array, DType, TensorSpec

#: Offset, magic bytes, the backend whose runtime takes the file as it is.
_MAGIC = ((4, b"TFL3", "tflite"), (0, b"<?xml", "openvino"), (0, b"<net", "openvino"))
_GOLDENS = 3
#: Relative to the largest value: what a model lifted from a file may differ from the file.
_LIFTED = 1e-3
_QUANTIZED = ("int8", "int16x8", "dynamic")


_NO_MODEL = ("source/not-found", "source/not-tflite", "source/not-onnx")


@dataclass(frozen=True, kw_only=True, slots=True)
class Ready:
    """A ready model on a target: its artifact, and the one that gives the reference where that is another."""

    path: Path
    target: Target
    artifact: Artifact
    reference: Artifact
    digest: str
    findings: tuple[Finding, ...]

    @property
    def converted(self) -> bool:
        """Whether another runtime than the file's own computes it."""
        return self.artifact is not self.reference


def ready_kind(source: str | Path) -> str | None:
    """The backend whose runtime takes this file as it is, or None."""
    path = Path(source)
    if not path.is_file():
        return None
    try:
        with path.open("rb") as file:
            head = file.read(16)
    except OSError:
        return None
    return next((kind for at, magic, kind in _MAGIC if head[at : at + len(magic)] == magic), None)


def ready_model(
    source: str | Path,
    target: Target,
    *,
    backend: str | None,
    precision: str = "auto",
    inputs: Mapping[str, Sequence[int]] | None = None,
    reading: SourceOptions | None = None,
) -> Ready | None:
    """The source as a ready model, or None when it is to be compiled. Raises `EdgecError` with all findings."""
    kind = ready_kind(source)
    if kind is None or (reading is not None and reading.kind is not None):
        return None
    name, _ = backend_facts(target, backend or (kind if kind in target.backends else None))
    path = Path(source)
    if kind == "openvino" and name != kind:
        raise EdgecError(
            "target/no-backend",
            f"{path.name} is an OpenVINO model, which {target.id} has no runtime for"
            if backend is None
            else f"{path.name} is an OpenVINO model, which {name} does not run",
            where=str(path),
            hint="build from the source model, or for a target with OpenVINO",
        )
    shapes = {key: tuple(shape) for key, shape in (inputs or {}).items()}
    signature = None if reading is None else reading.signature
    # What is to be rebuilt in another precision need not run on the target as it is.
    wanted = target if precision == "auto" else _in_litert(target)
    own = load_backend(kind).adopt(path, wanted, inputs=shapes, signature=signature)
    if precision not in ("auto", own.artifact.precision):
        if own.artifact.precision in _QUANTIZED:
            raise EdgecError(
                "source/already-quantized",
                f"{path.name} is {own.artifact.precision} already, and cannot become {precision}",
                where=str(path),
                hint="leave --precision out to take it as it is, or build from the float model",
            )
        return None
    if wanted is not target:
        own = load_backend(kind).adopt(path, target, inputs=shapes, signature=signature)
    if name == kind:
        return Ready(
            path=path,
            target=target,
            artifact=own.artifact,
            reference=own.artifact,
            digest=own.digest,
            findings=own.findings,
        )
    by_tensor = {b.artifact.name: b.artifact.shape for b in own.artifact.inputs}
    other = load_backend(name).adopt(path, target, inputs=by_tensor)
    artifact = replace(
        other.artifact,
        precision=own.artifact.precision,
        inputs=_rebound(other.artifact.inputs, own.artifact.inputs),
        outputs=_rebound(other.artifact.outputs, own.artifact.outputs),
    )
    note = Finding(
        code="source/converted",
        severity=Severity.INFO,
        message=f"{path.name} is read by OpenVINO's own TFLite reader, and compared with LiteRT on the file itself",
        where=str(path),
    )
    findings = (note, *own.findings, *(f for f in other.findings if f not in own.findings))
    return Ready(
        path=path, target=target, artifact=artifact, reference=own.artifact, digest=own.digest, findings=findings
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class Checked:
    """What stands between a ready model and a target, and the backend it was checked for."""

    backend: str
    findings: tuple[Finding, ...]


def check_ready(
    source: str | Path,
    target: Target,
    *,
    backend: str | None,
    inputs: Mapping[str, Sequence[int]] | None = None,
    reading: SourceOptions | None = None,
) -> Checked | None:
    """All findings about a ready model, its transposes among them; None for a source that is to be compiled."""
    kind = ready_kind(source)
    try:
        ready = ready_model(source, target, backend=backend, inputs=inputs, reading=reading)
    except EdgecError as error:
        if error.code in _NO_MODEL or error.code.startswith("target/"):  # nothing there to have findings about
            raise
        return Checked(backend=backend or kind or target.default_backend, findings=error.findings)
    if ready is None:
        return None
    notes = [
        Finding(code="backend/transpose", message=why, severity=Severity.INFO) for why in ready.artifact.transposes
    ]
    return Checked(backend=ready.artifact.backend, findings=(*ready.findings, *notes))


def _rebound(bindings: Sequence[IoBinding], own: Sequence[IoBinding]) -> tuple[IoBinding, ...]:
    """Bindings of the converted model, with what the original file says of the same tensors."""
    known = {b.artifact.name: b for b in own}
    result = []
    for b in bindings:
        original = known[b.artifact.name]
        spec = replace(b.artifact, qparams=original.artifact.qparams)
        result.append(IoBinding(source=replace(original.source, shape=b.artifact.shape), artifact=spec))
    return tuple(result)


def refuse_without_effect(ready: Ready, given: Mapping[str, bool]) -> None:
    """Raises `EdgecError` (cli/no-effect) with every option that was given and means nothing for a ready model."""
    names = [option for option, was_given in given.items() if was_given]
    if names:
        raise EdgecError(
            "cli/no-effect",
            f"{', '.join(names)} {'has' if len(names) == 1 else 'have'} no effect on {ready.path.name}, "
            "a ready model that is taken as it is",
            where=str(ready.path),
            hint="leave it out, or build from the float model, or give --precision to have a float file quantized",
        )


def build_ready(
    ready: Ready,
    *,
    output: Path,
    calibration: str | Path | None,
    samples: int | None,
    clock: Clock,
    packaging: Sequence[str] = (),
    sign_key: str | Path | None = None,
    stop_after: str | None = None,
) -> BuildResult:
    """Bundle and validate. `calibration` gives real inputs to the goldens. Raises `EdgecError`."""
    if stop_after not in (None, "bundle", "validate"):
        raise EdgecError(
            "cli/no-product",
            f"stage {stop_after} has no product: {ready.path.name} is ready and nothing is compiled",
            where=str(ready.path),
            hint="leave out --stop-after",
        )
    specs = [b.source for b in ready.artifact.inputs]
    opened = None if calibration is None else open_samples(calibration, specs, count=samples)
    with clock.stage("goldens"):
        goldens, artifact, fidelity = _goldens(ready, opened)
    findings = list(ready.findings)

    def summarize(packaged: Artifact) -> dict[str, Any]:
        return {
            "name": ready.path.stem,
            "target": ready.target.id,
            "backend": packaged.backend,
            "precision": packaged.precision,
            "why": "a ready model is taken as it is",
            **artifact_facts(packaged),
            "fidelity": fidelity,
            "agreement": {},
            "findings": [f.as_dict() for f in findings],
        }

    return deliver(
        Delivery(
            name=ready.path.stem,
            artifact=artifact,
            target=ready.target,
            output=output,
            goldens=goldens,
            provenance=_provenance(ready, opened),
            clock=clock,
            findings=findings,
            summarize=summarize,
            fidelity=fidelity,
            packaging=packaging,
            extras=reference_files(specs, None, opened),
            sign_key=sign_key,
            validates=stop_after != "bundle",
        )
    )


def _in_litert(target: Target) -> Target:
    """The target with LiteRT for its TFLite files, which runs what TensorFlow Lite Micro has no kernels for."""
    facts = target.backends.get("tflite")
    if facts is None or not (facts.kernels or facts.runtime.engine):
        return target
    runtime = facts.runtime.model_copy(update={"engine": ""})
    full = facts.model_copy(update={"kernels": {}, "runtime": runtime})
    return target.model_copy(update={"backends": {**target.backends, "tflite": full}})


def check_lifted(source: str | Path, model: Model, target: Target) -> None:
    """Compare a model that was lifted from a .tflite file with LiteRT on the file itself.

    Raises `EdgecError` (source/lifted-differs).
    """
    shapes = {spec.name: spec.shape for spec in model.inputs()}
    own = load_backend("tflite").adopt(Path(source), _in_litert(target), inputs=shapes).artifact
    feeds = _feeds(own.inputs)
    raw = run_artifact(own, [{b.artifact.name: b.to_artifact(f[b.source.name]) for b in own.inputs} for f in feeds])
    executor = Executor(model)
    for feed, expected in zip(feeds, raw, strict=True):
        lifted = list(executor.run(feed).values())
        for value, binding in zip(lifted, own.outputs, strict=True):
            error = relative_error(binding.to_source(expected[binding.artifact.name]), value)
            if not error <= _LIFTED:
                raise EdgecError(
                    "source/lifted-differs",
                    f"lifted to ONNX, {Path(source).name} no longer computes the same: "
                    f"output {binding.source.name!r} is off by {error:.2g}, relative to its largest value",
                    where=str(source),
                    hint="take the file as it is (leave --precision out), or build from the model it was made from",
                )


def _goldens(ready: Ready, opened: SampleSource | None) -> tuple[list[Golden], Artifact, dict[str, Any]]:
    """Goldens, the artifact with the shapes that its outputs have (rule 3), and fidelity to the reference."""
    feeds = list(itertools.islice(opened, _GOLDENS)) if opened is not None else _feeds(ready.artifact.inputs)
    raw_in = [{b.artifact.name: b.to_artifact(feed[b.source.name]) for b in ready.artifact.inputs} for feed in feeds]
    raw_out = run_artifact(ready.artifact, raw_in)
    artifact = replace(ready.artifact, outputs=tuple(_shaped(b, raw_out) for b in ready.artifact.outputs))
    outputs = [_to_source(artifact.outputs, raw) for raw in raw_out]
    expected = outputs
    if ready.converted:
        expected = [_to_source(ready.reference.outputs, raw) for raw in run_artifact(ready.reference, raw_in)]
    goldens = [
        Golden(inputs=i, raw_inputs=ri, raw_outputs=ro, reference_outputs=e, float_outputs=e)
        for i, ri, ro, e in zip(feeds, raw_in, raw_out, expected, strict=True)
    ]
    return goldens, artifact, measure.fidelity(expected, outputs) if ready.converted else {}


def _feeds(bindings: Sequence[IoBinding]) -> list[dict[str, Array]]:
    """Seeded inputs: all over a quantized input's range, else as for any model."""
    rng = np.random.default_rng(0)
    feeds = measure.random_feeds([b.source for b in bindings], _GOLDENS)
    for feed, b in itertools.product(feeds, bindings):
        if b.artifact.qparams is not None:
            low, high = b.artifact.dtype.limits
            stored = rng.integers(low, high, b.artifact.shape, endpoint=True)
            feed[b.source.name] = b.artifact.qparams.dequantize(stored)
        elif b.source.dtype == DType.UINT8:  # a picture, not an index
            feed[b.source.name] = rng.integers(0, 256, b.source.shape).astype(np.uint8)
    return feeds


def _to_source(bindings: Sequence[IoBinding], raw: Mapping[str, Array]) -> dict[str, Array]:
    return {b.source.name: b.to_source(raw[b.artifact.name]) for b in bindings}


def _shaped(binding: IoBinding, runs: Sequence[Mapping[str, Array]]) -> IoBinding:
    """The binding with the shape that all runs gave; an axis in which they differ is free."""
    shapes = [run[binding.artifact.name].shape for run in runs]
    shape = tuple(sizes[0] if len(set(sizes)) == 1 else -1 for sizes in zip(*shapes, strict=True))

    def with_shape(spec: TensorSpec) -> TensorSpec:
        return replace(spec, shape=shape)

    return replace(binding, source=with_shape(binding.source), artifact=with_shape(binding.artifact))


def _provenance(ready: Ready, opened: SampleSource | None) -> Provenance:
    return Provenance(
        source_name=ready.path.name,
        source_kind=ready.reference.backend,
        source_digest=ready.digest,
        calibration_name="" if opened is None else opened.description,
        calibration_digest="" if opened is None else opened.digest,
        samples=0 if opened is None else opened.count,
        tools={"edgec": __version__},
    )
