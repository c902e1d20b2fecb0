"""Build: the whole road from a source model to a validated bundle, stage by stage."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from edgec.artifact import Artifact
from edgec.backends.base import load_backend
from edgec.bundle.bundle import Bundle
from edgec.errors import EdgecError, Severity
from edgec.frontends.base import SourceOptions, load_source
from edgec.passes.pipelines import canonicalize
from edgec.passes.random_numbers import drawn
from edgec.pipeline import kept_graphs
from edgec.pipeline.budget import BudgetOptions, check_options, open_budget
from edgec.pipeline.choose import choose
from edgec.pipeline.deliver import BuildResult, Delivery, deliver, slug
from edgec.pipeline.drift_reference import reference_files
from edgec.pipeline.forms import Build, Form, IoLayout, output_steps
from edgec.pipeline.io_facts import read_labels, recipe_facts
from edgec.pipeline.precision import Candidates, as_it_is, backend_facts, candidates, check_effort, check_ranges
from edgec.pipeline.ready import build_ready, check_lifted, ready_model, refuse_without_effect
from edgec.pipeline.stages import Clock, Progress, check_stage, peak_memory_bytes
from edgec.pipeline.summary import form_facts, provenance, summarize
from edgec.pipeline.write import write_product
from edgec.quantization.data.recipe import Recipe
from edgec.quantization.data.samples import open_samples
from edgec.quantization.run.apply import has_qdq, without_activation_pairs
from edgec.targets.load import load_target


def run_build(
    source: str | Path,
    *,
    target: str,
    calibration: str | Path | None = None,
    samples: int | None = None,
    precision: str = "auto",
    effort: str | None = None,
    ranges: str | None = None,
    min_sqnr: float | None = None,
    max_drop: str | None = None,
    metric: str | None = None,
    evaluation: str | Path | None = None,
    ship_anyway: bool = False,
    backend: str | None = None,
    output: str | Path = ".",
    inputs: Mapping[str, Sequence[int]] | None = None,
    io_layout: IoLayout = "auto",
    reading: SourceOptions | None = None,
    stop_after: str | None = None,
    sign_key: str | Path | None = None,
    keep_graphs: bool = False,
    packaging: Sequence[str] = (),
    labels: str | Path | None = None,
    progress: Progress | None = None,
) -> BuildResult:
    """Build a bundle and validate it on this machine.

    `effort` (fast, balanced unless said, max) is how far the repair ladder is climbed where there is calibration data;
    `ranges` (auto, minmax, percentile, mse, entropy) fixes how those of 8-bit values are chosen, where the ladder else
    tries more than one. `min_sqnr` (dB) and `max_drop` (of a `metric` on labelled data: that of `evaluation`, or of the
    calibration) are the budget: as few nodes as it takes leave int8 for what the target offers, and nothing is shipped
    that misses it, unless `ship_anyway`.
    `inputs` fixes input shapes by name; `reading` says how to read the source where its looks do not tell.
    `stop_after` writes that stage's product into `output` and stops. `keep_graphs` puts the float and the QDQ model
    into the bundle, for `edgec compare` on other machines; this one keeps them in its cache.
    `packaging` names steps beyond the target's own, such as `openvino_cache`; `labels` is a file with the names of the
    classes, one a line.
    Raises `EdgecError` with every finding that stands in the way; nothing half-written is left.
    """
    check_stage(stop_after)
    wanted = check_effort(effort or "balanced")
    method = check_ranges(ranges)
    profile = load_target(target)
    ready = ready_model(source, profile, backend=backend, precision=precision, inputs=inputs, reading=reading)
    if ready is not None:
        refuse_without_effect(
            ready,
            {
                "--min-sqnr": min_sqnr is not None,
                "--max-drop": max_drop is not None,
                "--metric": metric is not None,
                "--evaluation": evaluation is not None,
                "--effort": effort is not None,
                "--ranges": ranges is not None,
                "--ship-anyway": ship_anyway,
                "--io-layout": io_layout != "auto",
                "--keep-graphs": keep_graphs,
                "--labels": labels is not None,
            },
        )
        return build_ready(
            ready,
            output=Path(output),
            calibration=calibration,
            samples=samples,
            clock=Clock(progress),
            packaging=packaging,
            sign_key=sign_key,
            stop_after=stop_after,
        )
    asked = BudgetOptions(
        min_sqnr=min_sqnr, max_drop=max_drop, metric=metric, evaluation=evaluation, ship_anyway=ship_anyway
    )
    check_options(asked)
    name, facts = backend_facts(profile, backend)
    options = candidates(precision, profile, name, facts, calibrated=True)  # refused before anything is read
    clock = Clock(progress)
    with clock.stage("load"):
        loaded = load_source(source, inputs=inputs, options=reading)
    model = loaded.model
    if stop_after != "load":
        with clock.stage("passes"):
            model = canonicalize(model)
            if model.source.kind == "tflite":
                check_lifted(source, model, profile)
        if has_qdq(model):
            options = as_it_is(model, precision, options)
        elif calibration is None:
            options = candidates(precision, profile, name, facts, calibrated=False)
    opened = None
    if calibration is not None:
        opened = open_samples(calibration, model.inputs(), count=samples, usual=loaded.recipe)
    with clock.stage("judge"):
        budget = open_budget(asked, model, calibration, loaded.recipe)
    work = Build(
        target=profile,
        backend_name=name,
        facts=facts,
        backend=load_backend(name),
        clock=clock,
        stop_after=stop_after,
        output=Path(output),
        io_layout=io_layout,
        effort=wanted,
        ranges=method,
        budget=budget,
        model=model,
        samples=opened,
        findings=[*loaded.findings, *drawn(model), *options.findings, *budget.findings],
        labels=loaded.labels if labels is None else read_labels(labels),
        preprocessing=loaded.preprocessing or ({} if opened is None else recipe_facts(opened.recipe)),
    )
    if stop_after in ("load", "passes"):
        return _stopped(work, model)
    if stop_after in ("legalize", "calibrate"):
        return _stopped(work, work.part_way(options, stop_after))
    return _finish(work, options, sign_key, keep_graphs, packaging)


def _finish(
    work: Build, options: Candidates, sign_key: str | Path | None, keep_graphs: bool, packaging: Sequence[str]
) -> BuildResult:
    with work.clock.stage("judge"):
        work.prepare_references()
    form = choose(work, options)
    if work.stop_after == "quantize":
        return _stopped(work, form.model, form)
    artifact = work.compile(form)
    if work.stop_after == "compile":
        return _stopped(work, artifact, form)
    with work.clock.stage("goldens"):
        goldens, fidelity, agreement = work.goldens(form, artifact)

    def graphs(packaged: Artifact) -> Mapping[str, bytes]:
        kept = _keep_graphs(form, packaged, work.samples.recipe if work.samples else None)
        return kept if keep_graphs else {}

    return deliver(
        Delivery(
            name=work.model.name,
            artifact=artifact,
            target=work.target,
            output=work.output,
            goldens=goldens,
            provenance=provenance(work),
            clock=work.clock,
            findings=work.findings,
            summarize=lambda packaged: summarize(work, form, packaged, fidelity, agreement),
            graphs=graphs,
            fidelity=fidelity,
            output_steps=output_steps(form),
            output_kinds=work.kinds,
            labels=work.labels,
            preprocessing=work.preprocessing,
            packaging=packaging,
            extras=reference_files(work.model.inputs(), work.statistics, work.samples),
            sign_key=sign_key,
            validates=work.stop_after != "bundle",
        )
    )


def _keep_graphs(form: Form, artifact: Artifact, recipe: Recipe | None) -> Mapping[str, bytes]:
    """The two graphs of a quantized form, kept in the cache with how its samples were read; none for a float one, or
    for models too large."""
    if form.precision == "float32":
        return {}
    # A model that came quantized is compared with itself without rounding of activations.
    plain = form.legal if form.plan is not None else without_activation_pairs(form.legal)
    graphs = kept_graphs.graphs_of(plain, form.model)
    if graphs is None:
        return {}
    files = {name: kept_graphs.sha256_of(data) for name, data in artifact.files.items()}
    kept_graphs.keep(kept_graphs.key_of(files), graphs, recipe)
    return graphs


def _stopped(work: Build, product: Any, form: Form | None = None) -> BuildResult:
    assert work.stop_after is not None
    path = write_product(work.output, slug(work.model.name), work.stop_after, product, form.plan if form else None)
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
        summary.update(precision=form.precision, why=work.why, fidelity=form.fidelity, **form_facts(work, form))
    return BuildResult(bundle=None, path=path, summary=summary, findings=tuple(work.findings))


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
