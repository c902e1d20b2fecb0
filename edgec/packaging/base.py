"""What every packaging step offers. A step is a module here with a function `package`; targets name theirs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol, cast

from edgec import packaging
from edgec.artifact import Artifact
from edgec.bundle.golden import Golden
from edgec.errors import EdgecError, Finding, Severity
from edgec.registry import load_plugin, merge_unique
from edgec.targets.profile import Target


@dataclass(frozen=True, kw_only=True, slots=True)
class Job:
    """What a step works on. `labels` and `preprocessing` are the manifest's."""

    artifact: Artifact
    target: Target
    name: str
    goldens: Sequence[Golden] = ()
    labels: Sequence[str] = ()
    preprocessing: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True, slots=True)
class Package:
    """What a step made: files beside the model, facts for manifest and report, what there is to say.

    `artifact` is the artifact to go on with where the step changed it without changing what it computes.
    """

    files: Mapping[str, bytes] = field(default_factory=dict)
    facts: Mapping[str, Any] = field(default_factory=dict)
    findings: tuple[Finding, ...] = ()
    artifact: Artifact | None = None


class Step(Protocol):
    """The interface of a step's module."""

    def package(self, job: Job) -> Package:
        """Raises `EdgecError` when the artifact cannot become what the target takes."""


def steps_of(target: Target, backend: str) -> tuple[str, ...]:
    """The packaging steps of a target's backend."""
    return next((facts.packaging for name, facts in target.backends.items() if name == backend), ())


def package(job: Job, steps: Sequence[str]) -> Package:
    """Run the steps in order, each on the artifact that the one before left.

    Raises `EdgecError` with all findings of a step when one of them is an error; facts stand under the step's name.
    """
    artifact = job.artifact
    files: list[Mapping[str, bytes]] = []
    facts: dict[str, Any] = {}
    findings: list[Finding] = []
    for name in steps:
        made = cast(Step, load_plugin(packaging, name, kind="packaging")).package(replace(job, artifact=artifact))
        errors = [f for f in made.findings if f.severity == Severity.ERROR]
        if errors:
            raise EdgecError(
                errors[0].code,
                f"{job.name!r} does not fit {job.target.id}",
                where=job.target.id,
                hint=errors[0].hint,
                findings=errors,
            )
        artifact = made.artifact or artifact
        files.append(made.files)
        findings += made.findings
        if made.facts:
            facts[name] = dict(made.facts)
    return Package(files=merge_unique(files, kind="file"), facts=facts, findings=tuple(findings), artifact=artifact)
