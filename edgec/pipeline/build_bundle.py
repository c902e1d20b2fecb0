"""Build: the whole road from a source model to a validated bundle, stage by stage."""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from edgec import __version__
from edgec.artifact import Artifact
from edgec.backends.base import Backend, CompileOptions, Precision, load_backend
from edgec.bundle.bundle import Bundle
from edgec.bundle.golden import Golden
from edgec.bundle.manifest import Provenance
from edgec.bundle.open import open_bundle
from edgec.bundle.pack import write_bundle
from edgec.bundle.report import report_html, report_json, stable
from edgec.errors import EdgecError, Finding, Severity
from edgec.frontends.base import load_source
from edgec.graph.model import Model
from edgec.passes.pipelines import canonicalize
from edgec.pipeline import measure
from edgec.pipeline.precision import (
    NEEDS_CALIBRATION,
    Candidates,
    backend_facts,
    candidates,
    keeps_accuracy,
    low_fidelity,
)
from edgec.pipeline.stages import Clock, Progress, check_stage, peak_memory_bytes
from edgec.pipeline.write import write_product
from edgec.quantization.apply import apply_plan, has_qdq
from edgec.quantization.calibrate import calibrate as run_calibration
from edgec.quantization.executor import Executor
from edgec.quantization.plan import make_plan, tensors_to_observe
from edgec.quantization.samples import SampleSource, open_samples
from edgec.quantization.types import QuantPlan, Statistics
from edgec.runners.base import agent_source, run_artifact
from edgec.runners.validate import validate_bundle
from edgec.targets.load import load_target
from edgec.targets.profile import BackendFacts, Target
from edgec.tensors import Array

#: Samples that judge a precision, and samples that travel in the bundle as goldens.
_JUDGE_SAMPLES = 32
_GOLDENS = 3

IoLayout = Literal["auto", "source", "nhwc"]


@dataclass(frozen=True, kw_only=True, slots=True)
class BuildResult:
    """What a build gave: the bundle (None after --stop-after), where it is, the JSON summary, all findings."""

    bundle: Bundle | None
    path: Path
    summary: dict[str, Any]
    findings: tuple[Finding, ...]


@dataclass(slots=True)
class _Form:
    """One precision tried: the legalized float model, its plan, its QDQ form and how that compares with float."""

    precision: Precision
    legal: Model
    plan: QuantPlan | None
    model: Model
    fidelity: dict[str, Any]


@dataclass(slots=True)
class _Build:
    """State of one build. Each method is a stage and leaves its product in a field."""

    target: Target
    backend_name: str
    facts: BackendFacts
    backend: Backend
    clock: Clock
    stop_after: str | None
    output: Path
    io_layout: IoLayout
    model: Model
    samples: SampleSource | None
    findings: list[Finding] = field(default_factory=list)
    why: str = ""
    statistics: Statistics | None = None
    feeds: list[dict[str, Array]] = field(default_factory=list)
    float_outputs: list[dict[str, Array]] = field(default_factory=list)

    def prepare_references(self) -> None:
        """The inputs that judge fidelity, and what the float model makes of them."""
        if self.samples is not None:
            self.feeds = list(itertools.islice(iter(self.samples), _JUDGE_SAMPLES))
        else:
            self.feeds = measure.random_feeds(self.model.inputs(), _GOLDENS)
        executor = Executor(self.model)
        self.float_outputs = [executor.run(feed) for feed in self.feeds]

    def form(self, precision: Precision) -> _Form:
        """Legalize, calibrate, plan and apply one precision."""
        with self.clock.stage("legalize"):
            legal = self.backend.legalize(self.model, self.target, precision)
        if has_qdq(legal):
            return _Form(precision, legal, None, legal, self._fidelity(legal))
        statistics = self._calibrate(legal, precision) if precision in NEEDS_CALIBRATION else None
        with self.clock.stage("quantize"):
            plan = make_plan(legal, statistics, self.target, self.backend_name, precision)
            quantized = apply_plan(legal, plan)
        fidelity = self._fidelity(quantized) if precision != "float32" else measure.fidelity([], [])
        return _Form(precision, legal, plan, quantized, fidelity)

    def _calibrate(self, legal: Model, precision: Precision) -> Statistics:
        assert self.samples is not None
        wanted = tensors_to_observe(legal, self.facts.scheme, precision=precision, backend=self.backend_name)
        with self.clock.stage("calibrate") as report:
            self.statistics = run_calibration(legal, self.samples, tensors=wanted, progress=report)
        self.findings += [f for f in self.statistics.findings if f not in self.findings]
        return self.statistics

    def _fidelity(self, quantized: Model) -> dict[str, Any]:
        with self.clock.stage("judge"):
            executor = Executor(quantized)
            outputs = [executor.run(feed) for feed in self.feeds]
        return measure.fidelity(self.float_outputs, outputs)

    def choose(self, options: Candidates) -> _Form:
        """The first candidate that keeps the accuracy; one that was asked for is taken as it is."""
        tried: list[str] = []
        for precision in options.precisions:
            form = self.form(precision)
            good, words = keeps_accuracy(form.fidelity)
            if len(options.precisions) == 1:
                self.why = options.why
                self.findings += low_fidelity(precision, form.fidelity)
                break
            if good or precision == options.precisions[-1]:
                self.why = "; ".join([*tried, f"{precision} keeps {words}" if precision != "float32" else "float32"])
                break
            tried.append(f"{precision} gives only {words}")
        if tried:
            self.findings.append(
                Finding(
                    code="quant/fell-back",
                    message=f"{'; '.join(tried)}: {form.precision} was taken",
                    severity=Severity.WARNING,
                    hint="more typical samples may bring int8 back; --precision int8 builds it all the same",
                )
            )
        if form.plan is not None:
            self.findings += form.plan.findings
        return form

    def goldens(self, form: _Form, artifact: Artifact) -> tuple[list[Golden], dict[str, Any], dict[str, Any]]:
        """Run the artifact on the judging inputs; goldens to keep, its fidelity, its agreement with the QDQ model."""
        executor = Executor(form.model)
        references = [executor.run(feed) for feed in self.feeds]
        raw_in = [{b.artifact.name: b.to_artifact(feed[b.source.name]) for b in artifact.inputs} for feed in self.feeds]
        raw_out = run_artifact(artifact, raw_in)
        outputs = [{b.source.name: b.to_source(raw[b.artifact.name]) for b in artifact.outputs} for raw in raw_out]
        kept = [
            Golden(inputs=i, raw_inputs=ri, raw_outputs=ro, reference_outputs=r, float_outputs=f)
            for i, ri, ro, r, f in zip(self.feeds, raw_in, raw_out, references, self.float_outputs, strict=True)
        ][:_GOLDENS]
        fidelity = measure.fidelity(self.float_outputs, outputs)
        fidelity["reference_sqnr_db"] = form.fidelity.get("sqnr_db")
        quantized = form.precision in NEEDS_CALIBRATION
        agreement = measure.agreement(references, outputs, output_steps(form)) if quantized else {}
        return kept, fidelity, agreement


def output_steps(form: _Form) -> dict[str, float]:
    """The quantization step of every output that comes straight from integers."""
    steps: dict[str, float] = {}
    for value in form.model.graph.outputs:
        producer = value.producer()
        if producer is not None and producer.op_type == "DequantizeLinear" and len(producer.inputs) > 1:
            scale = producer.inputs[1].const_value if producer.inputs[1] is not None else None
            if scale is not None and scale.size == 1:
                steps[value.name or ""] = float(scale.numpy().reshape(()))
    return steps


def run_build(
    source: str | Path,
    *,
    target: str,
    calibration: str | Path | None = None,
    samples: int | None = None,
    precision: str = "auto",
    backend: str | None = None,
    output: str | Path = ".",
    inputs: Mapping[str, Sequence[int]] | None = None,
    io_layout: IoLayout = "auto",
    stop_after: str | None = None,
    sign_key: str | Path | None = None,
    progress: Progress | None = None,
) -> BuildResult:
    """Build a bundle and validate it on this machine.

    `inputs` fixes input shapes by name; `stop_after` writes that stage's product into `output` and stops.
    Raises `EdgecError` with every finding that stands in the way; nothing half-written is left.
    """
    check_stage(stop_after)
    profile = load_target(target)
    name, facts = backend_facts(profile, backend)
    options = candidates(precision, profile, name, facts, calibrated=calibration is not None)
    clock = Clock(progress)
    with clock.stage("load"):
        loaded = load_source(source, inputs={k: tuple(v) for k, v in (inputs or {}).items()})
    with clock.stage("passes"):
        model = canonicalize(loaded.model)
    opened = None
    if calibration is not None:
        opened = open_samples(calibration, model.inputs(), count=samples)
    work = _Build(
        target=profile,
        backend_name=name,
        facts=facts,
        backend=load_backend(name),
        clock=clock,
        stop_after=stop_after,
        output=Path(output),
        io_layout=io_layout,
        model=model,
        samples=opened,
        findings=[*loaded.findings, *options.findings],
    )
    if stop_after in ("load", "passes"):
        return _stopped(work, loaded.model if stop_after == "load" else model)
    return _finish(work, options, sign_key)


def _finish(work: _Build, options: Candidates, sign_key: str | Path | None) -> BuildResult:
    if has_qdq(work.model):
        options = Candidates(("int8",), "the model comes quantized and is compiled as it is")
    with work.clock.stage("judge"):
        work.prepare_references()
    form = work.choose(options)
    if work.stop_after in ("legalize", "calibrate", "quantize"):
        product = {"legalize": form.legal, "calibrate": work.statistics, "quantize": form.model}[work.stop_after]
        return _stopped(work, product, form)
    with work.clock.stage("compile"):
        artifact = work.backend.compile(
            form.model, work.target, CompileOptions(precision=form.precision, io_layout=work.io_layout)
        )
    if work.stop_after == "compile":
        return _stopped(work, artifact, form)
    with work.clock.stage("goldens"):
        goldens, fidelity, agreement = work.goldens(form, artifact)
    summary = _summary(work, form, artifact, fidelity, agreement)
    path = work.output / f"{_slug(work.model.name)}-{work.target.id}.edgec"
    with work.clock.stage("bundle"):
        write_bundle(
            path,
            name=work.model.name,
            artifact=artifact,
            target=work.target,
            provenance=_provenance(work),
            goldens=goldens,
            agent=agent_source(),
            output_steps=output_steps(form),
            fidelity=fidelity,
            findings=work.findings,
            report_json=report_json(stable(summary)),
            report_html=report_html(stable(summary)),
            sign_key=None if sign_key is None else Path(sign_key),
        )
    bundle = open_bundle(path)
    if work.stop_after != "bundle":
        with work.clock.stage("validate"):
            validation = validate_bundle(bundle)
        work.findings += validation.findings
        summary["validation"] = {
            "passed": validation.passed,
            "device": validation.device,
            "runtime": validation.runtime,
        }
        if validation.latency:
            first = validation.latency[0]
            summary["latency"] = {"median_ms": first.median_ms, "p95_ms": first.p95_ms, "threads": first.threads}
    summary.update(
        bundle=str(path),
        stages={k: round(v, 4) for k, v in work.clock.seconds.items()},
        peak_memory_bytes=peak_memory_bytes(),
        findings=[f.as_dict() for f in work.findings],
    )
    return BuildResult(bundle=bundle, path=path, summary=summary, findings=tuple(work.findings))


def _summary(
    work: _Build, form: _Form, artifact: Artifact, fidelity: Mapping[str, Any], agreement: Mapping[str, Any]
) -> dict[str, Any]:
    summary: dict[str, Any] = {
        "name": work.model.name,
        "target": work.target.id,
        "backend": work.backend_name,
        "precision": form.precision,
        "why": work.why,
        "inputs": [_io(b.source.name, b.source.shape, str(b.source.dtype), b.artifact.shape) for b in artifact.inputs],
        "outputs": [
            _io(b.source.name, b.source.shape, str(b.source.dtype), b.artifact.shape) for b in artifact.outputs
        ],
        "operators": dict(artifact.operators),
        "operator_count": sum(artifact.operators.values()),
        "transposes": len(artifact.transposes),
        "transpose_reasons": [{"reason": reason} for reason in artifact.transposes],
        "size_bytes": artifact.size_bytes,
        "fidelity": dict(fidelity),
        "agreement": dict(agreement),
        "findings": [f.as_dict() for f in work.findings],
    }
    if form.plan is not None and form.plan.nodes:
        schemes: dict[str, int] = {}
        for node in form.plan.nodes.values():
            schemes[node.scheme] = schemes.get(node.scheme, 0) + 1
        summary["nodes"] = dict(sorted(schemes.items()))
    if work.samples is not None:
        summary["calibration"] = {"samples": work.samples.count, "data": work.samples.description}
    return summary


def _io(name: str, shape: Sequence[int], dtype: str, artifact: Sequence[int]) -> dict[str, str]:
    def text(dims: Sequence[int]) -> str:
        return "x".join(map(str, dims))

    return {"name": name, "shape": text(shape), "dtype": dtype, "in the artifact": text(artifact)}


def _provenance(work: _Build) -> Provenance:
    source, samples = work.model.source, work.samples
    return Provenance(
        source_name=source.name,
        source_kind=source.kind,
        source_digest=source.digest,
        calibration_name="" if samples is None else samples.description,
        calibration_digest="" if samples is None else samples.digest,
        samples=0 if samples is None else samples.count,
        tools={"edgec": __version__},
    )


def _stopped(work: _Build, product: Any, form: _Form | None = None) -> BuildResult:
    assert work.stop_after is not None
    path = write_product(work.output, _slug(work.model.name), work.stop_after, product, form.plan if form else None)
    summary: dict[str, Any] = {
        "name": work.model.name,
        "target": work.target.id,
        "backend": work.backend_name,
        "stopped_after": work.stop_after,
        "output": str(path),
        "stages": {k: round(v, 4) for k, v in work.clock.seconds.items()},
        "peak_memory_bytes": peak_memory_bytes(),
        "findings": [f.as_dict() for f in work.findings],
    }
    if form is not None:
        summary.update(precision=form.precision, why=work.why, fidelity=form.fidelity)
    return BuildResult(bundle=None, path=path, summary=summary, findings=tuple(work.findings))


def _slug(name: str) -> str:
    """A file name's stem from a model's name."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-.") or "model"


def build(source: str | Path, *, target: str, **options: Any) -> Bundle:
    """Build a bundle and open it; takes what `run_build` takes. The JSON summary is `bundle.summary`.

    Raises `EdgecError` (validate/failed) when the bundle does not compute what it should on this machine.
    """
    result = run_build(source, target=target, **options)
    if result.bundle is None:
        raise EdgecError(
            "cli/stopped",
            f"the build stopped as asked and wrote {result.path}",
            hint="leave out stop_after for a bundle",
        )
    failed = [f for f in result.findings if f.severity == Severity.ERROR]
    if failed:
        raise EdgecError("validate/failed", "the bundle does not pass validation here", findings=failed)
    result.bundle.summary = result.summary
    return result.bundle
