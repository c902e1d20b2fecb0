"""Look without building: what stands in the way of a target, and what calibration data does to a model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from edgec.backends.base import load_backend
from edgec.errors import Finding
from edgec.frontends.base import SourceOptions, load_source
from edgec.graph.model import Model
from edgec.passes.pipelines import canonicalize
from edgec.passes.random_numbers import drawn
from edgec.pipeline.delegation import delegation_of_model
from edgec.pipeline.estimates import estimate_model
from edgec.pipeline.precision import backend_facts
from edgec.pipeline.ready import check_ready
from edgec.pipeline.stages import Progress
from edgec.quantization.calibration.calibrate import calibrate as run_calibration
from edgec.quantization.calibration.summary import summarize
from edgec.quantization.data.samples import open_samples
from edgec.quantization.planning.plan import tensors_to_observe
from edgec.quantization.types import Statistics
from edgec.targets.load import list_targets, load_target
from edgec.targets.profile import Target

Inputs = Mapping[str, Sequence[int]] | None


def check(
    source: str | Path,
    *,
    target: str,
    backend: str | None = None,
    inputs: Inputs = None,
    reading: SourceOptions | None = None,
) -> list[Finding]:
    """All findings about a source model on a target; nothing is built."""
    profile = load_target(target)
    found = check_ready(source, profile, backend=backend, inputs=inputs, reading=reading)
    if found is not None:
        return list(found.findings)
    name, _ = backend_facts(profile, backend)
    return _check(source, profile, name, inputs, reading)[0]


def _check(
    source: str | Path, profile: Target, backend: str, inputs: Inputs, reading: SourceOptions | None
) -> tuple[list[Finding], Model]:
    loaded = load_source(source, inputs=inputs, options=reading)
    model = canonicalize(loaded.model)
    return [*loaded.findings, *drawn(model), *load_backend(backend).check(model, profile)], model


def run_check(
    source: str | Path,
    *,
    target: str,
    backend: str | None = None,
    inputs: Inputs = None,
    reading: SourceOptions | None = None,
) -> dict[str, Any]:
    """`check` as the JSON object of the command line."""
    profile = load_target(target)
    found = check_ready(source, profile, backend=backend, inputs=inputs, reading=reading)
    if found is not None:
        return {
            "source": Path(source).name,
            "target": profile.id,
            "backend": found.backend,
            "findings": [f.as_dict() for f in found.findings],
        }
    name, _ = backend_facts(profile, backend)
    findings, model = _check(source, profile, name, inputs, reading)
    return {
        "source": Path(source).name,
        "target": profile.id,
        "backend": name,
        "delegation": delegation_of_model(model, profile, name),
        "estimates": estimate_model(model, profile, name),
        "findings": [f.as_dict() for f in findings],
    }


def calibrate(
    source: str | Path,
    *,
    calibration: str | Path,
    samples: int | None = None,
    inputs: Inputs = None,
    target: str | None = None,
    reading: SourceOptions | None = None,
    progress: Progress | None = None,
) -> Statistics:
    """Statistics of a model over a data set, from the cache where it has them, and kept there for `build`.

    What is observed is what an int8 build for `target` would observe, so that the build finds it; without a target,
    what builds for any of the shipped ones would. Returned are the statistics of the first.
    """
    loaded = load_source(source, inputs=inputs, options=reading)
    model = canonicalize(loaded.model)
    data = open_samples(calibration, model.inputs(), count=samples, usual=loaded.recipe)
    kinds: dict[tuple[str, str], Target] = {}
    for known in [target] if target is not None else list_targets():
        profile = load_target(known)
        name, facts = backend_facts(profile, None)
        kinds.setdefault((name, facts.scheme.model_dump_json()), profile)

    def report(done: int, total: int) -> None:
        if progress is not None:
            progress("calibrate", done, total)

    runs = []
    for (name, _), profile in kinds.items():
        legal = load_backend(name).legalize(model, profile, "int8")
        _, facts = backend_facts(profile, name)
        wanted = tensors_to_observe(legal, facts.scheme, precision="int8", backend=name)
        runs.append(run_calibration(legal, data, tensors=wanted, progress=report))
    return runs[0]


def run_calibrate(source: str | Path, *, calibration: str | Path, **options: Any) -> dict[str, Any]:
    """`calibrate` as the JSON object of the command line: coverage and saturation, the worst tensors first."""
    statistics = calibrate(source, calibration=calibration, **options)
    summary = summarize(statistics)
    return {
        "source": Path(source).name,
        "digest": statistics.digest,
        "tensor_count": len(summary.tensors),
        **summary.as_dict(),
        "tensors": [tensor.as_dict() for tensor in summary.worst(len(summary.tensors))],
    }
