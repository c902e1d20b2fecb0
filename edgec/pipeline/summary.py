"""What a build says about itself: the JSON summary, and where the bundle comes from."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from edgec import __version__
from edgec.artifact import Artifact
from edgec.bundle.manifest import Provenance
from edgec.pipeline.forms import Build, Form
from edgec.quantization.calibration.range_choice import ByTensor


def summarize(
    work: Build, form: Form, artifact: Artifact, fidelity: Mapping[str, Any], agreement: Mapping[str, Any]
) -> dict[str, Any]:
    """The JSON object of a build, as far as it is known before the bundle is written."""
    summary: dict[str, Any] = {
        "name": work.model.name,
        "target": work.target.id,
        "backend": work.backend_name,
        "precision": form.precision,
        "why": work.why,
        **artifact_facts(artifact),
        "fidelity": dict(fidelity),
        "agreement": dict(agreement),
        "findings": [f.as_dict() for f in work.findings],
    }
    summary.update(form_facts(work, form))
    if work.race is not None and work.race.ms:
        summary["race"] = work.race.as_dict()
    if work.samples is not None:
        summary["calibration"] = {"samples": work.samples.count, "data": work.samples.description}
    return summary


def form_facts(work: Build, form: Form) -> dict[str, Any]:
    """What a summary says of how a form was quantized: nodes by scheme, the ladder's rungs, what left int8."""
    facts: dict[str, Any] = {}
    if form.plan is not None and form.plan.nodes:
        facts["nodes"] = dict(sorted(Counter(node.scheme for node in form.plan.nodes.values()).items()))
    if form.ladder:
        facts["effort"] = work.effort
        facts["ranges"] = form.ranges.usual if isinstance(form.ranges, ByTensor) else form.ranges
        facts["ladder"] = [rung.as_dict() for rung in form.ladder]
    if form.mixed is not None:
        facts["mixed"] = form.mixed.as_dict()
        facts["frontier"] = facts["mixed"].pop("frontier")
        if form.mixed.taken_up:
            facts["taken_up"] = form.mixed.taken_up
    return facts


def artifact_facts(artifact: Artifact) -> dict[str, Any]:
    """What a summary says of the artifact itself."""
    return {
        "inputs": [_io(b.source.name, b.source.shape, str(b.source.dtype), b.artifact.shape) for b in artifact.inputs],
        "outputs": [
            _io(b.source.name, b.source.shape, str(b.source.dtype), b.artifact.shape) for b in artifact.outputs
        ],
        "operators": dict(artifact.operators),
        "operator_count": sum(artifact.operators.values()),
        "transposes": len(artifact.transposes),
        "transpose_reasons": [{"reason": reason} for reason in artifact.transposes],
        "size_bytes": artifact.size_bytes,
    }


def _io(name: str, shape: Sequence[int], dtype: str, artifact: Sequence[int]) -> dict[str, str]:
    def text(dims: Sequence[int]) -> str:
        return "x".join(map(str, dims))

    return {"name": name, "shape": text(shape), "dtype": dtype, "in the artifact": text(artifact)}


def provenance(work: Build) -> Provenance:
    """Digests of source and data, and the tools' versions."""
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
