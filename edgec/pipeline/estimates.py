"""Estimates for `check` and for the summary of a build: the work of a model on a target, precision by precision."""

from __future__ import annotations

from typing import Any, cast

from edgec.artifact import Artifact
from edgec.backends import tflite
from edgec.estimate import estimate, in_precision
from edgec.graph.model import Model
from edgec.targets.profile import PrecisionName, Target

#: Precisions in the order in which a person reads them.
_ORDER: tuple[PrecisionName, ...] = ("int8", "int16x8", "dynamic", "float16", "float32")


def estimate_model(model: Model, target: Target, backend: str) -> list[dict[str, Any]]:
    """One estimate for each precision that the target takes; none without coefficients, or when nothing can be lowered.

    The work is counted on TFLite's operators, whichever backend builds: they are the same multiplications.
    """
    if target.estimate is None:
        return []
    offered = {p for name, facts in target.backends.items() if name == backend for p in facts.precisions}
    found = tflite.survey(model, target)
    if found is None:
        return []
    rows = []
    for precision in _ORDER:
        if precision not in offered:
            continue
        work, peak = in_precision(*found, precision)
        made = estimate(work, target, precision=precision, peak_bytes=peak)
        if made is not None:
            rows.append(made.as_dict())
    return rows


def estimate_artifact(artifact: Artifact, target: Target) -> dict[str, Any] | None:
    """The estimate for what was built; None where the backend does not know its work, or the target no coefficients."""
    if not artifact.work:
        return None
    made = estimate(
        artifact.work,
        target,
        precision=cast(PrecisionName, artifact.precision),
        peak_bytes=artifact.peak_bytes,
        model_bytes=len(artifact.files[artifact.main]),
    )
    return None if made is None else made.as_dict()
