"""The data doctor: looks at what is fed to a model and says, with evidence, what seems wrong with it."""

from __future__ import annotations

from edgec.errors import Finding, Severity
from edgec.graph.model import Model
from edgec.quantization.collect import Halves, Samples
from edgec.quantization.range_choice import range_of
from edgec.quantization.types import Statistics

#: Two halves whose ranges differ by more than this in a tensor do not agree about it.
_HALVES_DIFFER = 0.25

#: Share of the tensors on which the halves may disagree.
_TENSORS_DIFFER = 0.1


def examine_halves(halves: Halves) -> tuple[Finding, ...]:
    """Too few samples: the ranges of two disjoint halves differ."""
    if halves.runs < 2:
        return (_few("there is one sample only", "a range seen once says little about the next input"),)
    differing = {}
    for name, (a, b) in halves.tensors.items():
        if a is None or b is None:
            continue
        (low_a, high_a), (low_b, high_b) = (range_of(s, "percentile") for s in (a, b))
        span = max(high_a, high_b) - min(low_a, low_b)
        gap = max(abs(low_a - low_b), abs(high_a - high_b))
        if span > 0 and gap / span > _HALVES_DIFFER:
            differing[name] = gap / span
    share = len(differing) / max(1, len(halves.tensors))
    if share <= _TENSORS_DIFFER:
        return ()
    worst = max(differing, key=lambda name: differing[name])
    evidence = (
        f"in {len(differing)} of {len(halves.tensors)} tensors the ranges of two halves of the samples differ by "
        f"more than {_HALVES_DIFFER:.0%}, most in {worst!r} ({differing[worst]:.0%})"
    )
    return (_few(f"{halves.runs} runs are too few", evidence),)


def _few(message: str, evidence: str) -> Finding:
    return Finding(
        code="calibration/few-samples",
        message=f"{message}: {evidence}",
        severity=Severity.WARNING,
        hint="give more and more varied samples; a hundred is usual",
    )


def examine(model: Model, samples: Samples, statistics: Statistics) -> tuple[Finding, ...]:
    """What is wrong with the inputs."""
    return ()
