"""Which precision is faster: raced in the target's runtime on this machine, else estimated from the target's profile.

1. Where the runtime is the same here as there, artifacts run in turns with one thread, and the fastest call counts.
2. Where this machine cannot tell (a microcontroller's kernels, an accelerator) the profile's coefficients decide.
3. A tie is no loss: what nobody would notice, and what noise may make of equals, does not count.
4. Artifacts of the same bytes are one racer: noise does not make one of them slower than itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from edgec.artifact import Artifact
from edgec.errors import Finding, Severity
from edgec.graph.model import Model
from edgec.pipeline.estimates import estimate_model
from edgec.runners.base import race
from edgec.targets.profile import BackendFacts, Target
from edgec.tensors import Array

#: Rule 3: relative, and in milliseconds.
_TIE, _TIE_MS = 1.05, 0.02


@dataclass(frozen=True, kw_only=True, slots=True)
class Speeds:
    """Milliseconds a run by precision, and whether they were measured here or estimated for the target."""

    kind: Literal["measured", "estimate"]
    ms: Mapping[str, float]

    def slower(self, precision: str, than: str) -> bool:
        """Whether a precision clearly takes longer than another; False where one of them is not known."""
        if precision not in self.ms or than not in self.ms:
            return False
        return self.ms[precision] > max(_TIE * self.ms[than], self.ms[than] + _TIE_MS)

    def rival(self, precision: str) -> str:
        """The fastest of all where that is clearly faster than a precision, else nothing."""
        fastest = min(self.ms, key=lambda name: self.ms[name], default="")
        return fastest if self.slower(precision, fastest) else ""

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return {"kind": self.kind, "ms": {name: round(ms, 4) for name, ms in self.ms.items()}}


def raceable(target: Target, facts: BackendFacts) -> bool:
    """Rule 1: whether this machine's runtime is the target's."""
    return not facts.runtime.engine and target.npu is None


def measured(artifacts: Mapping[str, Artifact], feed: Mapping[str, Array]) -> Speeds:
    """Rules 1 and 4. Raises `EdgecError` (validate/…)."""
    same: dict[str, list[str]] = {}
    for name, artifact in artifacts.items():
        same.setdefault(artifact.digest, []).append(name)
    found = race({names[0]: artifacts[names[0]] for names in same.values()}, feed)
    return Speeds(kind="measured", ms={name: found[names[0]] for names in same.values() for name in names})


def estimated(model: Model, target: Target, backend: str) -> Speeds:
    """Rule 2, for a canonical model; empty without coefficients."""
    rows = estimate_model(model, target, backend)
    return Speeds(kind="estimate", ms={row["precision"]: row["latency_ms"]["typical"] for row in rows})


def slower_than_float(precision: str, kind: str) -> Finding:
    """What to say of a precision that was asked for and gains nothing; the numbers stand in the summary."""
    return Finding(
        code="quant/slower-than-float",
        message=f"{precision} runs slower than float32 in this target's runtime ({kind}), and was asked for",
        severity=Severity.WARNING,
        hint="take --precision auto, which builds what is fastest within the accuracy asked for",
    )
