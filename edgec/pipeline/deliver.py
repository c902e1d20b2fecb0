"""The last steps of every build: package, bundle, validate here, and say how it went."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edgec.artifact import Artifact
from edgec.bundle.bundle import Bundle
from edgec.bundle.golden import Golden
from edgec.bundle.manifest import Provenance
from edgec.bundle.open import open_bundle
from edgec.bundle.pack import write_bundle
from edgec.bundle.report import report_html, report_json, stable
from edgec.errors import Finding
from edgec.packaging.base import Job, package, steps_of
from edgec.pipeline.delegation import plain as plain_delegation
from edgec.pipeline.estimates import estimate_artifact
from edgec.pipeline.stages import Clock, peak_memory_bytes
from edgec.runners.base import agent_source
from edgec.runners.validate import validate_bundle
from edgec.service.pack import service_files
from edgec.targets.profile import Target
from edgec.tensors import Kind

_BARE_METAL = ("armv7e-m", "armv8.1-m", "xtensa")


@dataclass(frozen=True, kw_only=True, slots=True)
class BuildResult:
    """What a build gave: the bundle (None after --stop-after), where it is, the JSON summary, all findings."""

    bundle: Bundle | None
    path: Path
    summary: dict[str, Any]
    findings: tuple[Finding, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Delivery:
    """An artifact and all that goes into its bundle beside it.

    `findings` grows on the way. `summarize` gives the summary of the artifact as packaging left it, `graphs` the
    ONNX graphs to put into the bundle, `extras` other files. `validates` is False where the bundle is wanted and
    nothing more.
    """

    name: str
    artifact: Artifact
    target: Target
    output: Path
    goldens: Sequence[Golden]
    provenance: Provenance
    clock: Clock
    findings: list[Finding]
    summarize: Callable[[Artifact], dict[str, Any]]
    graphs: Callable[[Artifact], Mapping[str, bytes]] = lambda _: {}
    fidelity: Mapping[str, Any] = field(default_factory=dict)
    output_steps: Mapping[str, float] = field(default_factory=dict)
    output_kinds: Mapping[str, Sequence[Kind]] = field(default_factory=dict)
    labels: Sequence[str] = ()
    preprocessing: Mapping[str, Any] = field(default_factory=dict)
    packaging: Sequence[str] = ()
    extras: Mapping[str, bytes] = field(default_factory=dict)
    sign_key: str | Path | None = None
    validates: bool = True


def deliver(job: Delivery) -> BuildResult:
    """Write the bundle and validate it. Raises `EdgecError`; nothing half-written is left."""
    findings, clock = job.findings, job.clock
    with clock.stage("bundle"):
        work = Job(
            artifact=job.artifact,
            target=job.target,
            name=job.name,
            goldens=job.goldens,
            labels=job.labels,
            preprocessing=job.preprocessing,
        )
        packed = package(work, (*steps_of(job.target, job.artifact.backend), *job.packaging))
    artifact = packed.artifact or job.artifact
    findings += packed.findings
    summary = job.summarize(artifact)
    if packed.facts:
        summary["packaging"] = dict(packed.facts)
    expected = estimate_artifact(artifact, job.target)
    if expected is not None:
        summary["estimate"] = expected
    graphs = job.graphs(artifact)
    path = job.output / f"{slug(job.name)}-{job.target.id}.edgec"
    with clock.stage("bundle"):
        write_bundle(
            path,
            name=job.name,
            artifact=artifact,
            target=job.target,
            provenance=job.provenance,
            goldens=job.goldens,
            agent=agent_source(),
            output_steps=job.output_steps,
            output_kinds=job.output_kinds,
            labels=job.labels,
            preprocessing=job.preprocessing,
            fidelity=job.fidelity,
            packaging=packed.facts,
            packaged={**packed.files, **job.extras, **_service(job.target, artifact)},
            findings=findings,
            report_json=report_json(stable(summary)),
            report_html=report_html(stable(summary)),
            sign_key=None if job.sign_key is None else Path(job.sign_key),
            graphs=graphs,
        )
    bundle = open_bundle(path)
    if job.validates:
        _validate(bundle, summary, job)
    summary.update(
        bundle=str(path),
        stages={k: round(v, 4) for k, v in clock.seconds.items()},
        peak_memory_bytes=peak_memory_bytes(),
        findings=[f.as_dict() for f in findings],
    )
    return BuildResult(bundle=bundle, path=path, summary=summary, findings=tuple(findings))


def _validate(bundle: Bundle, summary: dict[str, Any], job: Delivery) -> None:
    with job.clock.stage("validate"):
        # How long reference kernels take here says nothing about a microcontroller.
        validation = validate_bundle(bundle, runs=0 if job.artifact.engine == "tflite-micro" else 50)
    job.findings.extend(validation.findings)
    summary["validation"] = {
        "passed": validation.passed,
        "device": validation.device,
        "runtime": validation.runtime,
        "delegation": plain_delegation(validation.kernels),
    }
    if validation.latency:
        first = validation.latency[0]
        summary["latency"] = {"median_ms": first.median_ms, "p95_ms": first.p95_ms, "threads": first.threads}


def _service(target: Target, artifact: Artifact) -> dict[str, bytes]:
    """The service, for devices that have processes."""
    return {} if target.hardware.arch in _BARE_METAL else service_files(artifact.runner)


def slug(name: str) -> str:
    """A file name's stem from a model's name."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-.") or "model"
