"""Errors and findings: what went wrong, where, and what to do next, under a stable code.

A `Finding` is one statement about the user's model, data or target; many can be reported at once.
An `EdgecError` stops the work. Codes read `family/what`; `docs/errors.md` lists them all, and the
family decides the exit code of the command line (`EXIT_CODES`).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from enum import StrEnum


class Severity(StrEnum):
    """How much a finding matters: an error stops the build, a warning does not, info explains."""

    ERROR = "error"
    WARNING = "warning"
    INFO = "info"


#: Exit code of the command line for each family of codes; documented in docs/errors.md.
EXIT_CODES = {
    "internal": 1,
    "cli": 2,
    "source": 3,
    "calibration": 4,
    "graph": 5,
    "backend": 5,
    "target": 6,
    "quant": 7,
    "validate": 8,
    "io": 9,
    "env": 10,
    "bundle": 11,
    "device": 12,
    "flash": 13,
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Finding:
    """One statement about the model, the data or the target.

    `where` is the node, tensor or file; `source` the user's own layer and line where known;
    `rule` the rule that was broken; `hint` what to do next.
    """

    code: str
    message: str
    severity: Severity = Severity.ERROR
    where: str = ""
    source: str = ""
    rule: str = ""
    hint: str = ""

    def as_dict(self) -> dict[str, str]:
        """A JSON-ready dict; empty fields are left out."""
        return {key: str(value) for key, value in asdict(self).items() if value}

    def render(self) -> str:
        """The finding as the terminal shows it: what, where, what next."""
        lines = [f"{self.severity}[{self.code}]: {self.message}"]
        place = "   ".join(
            part
            for part in (
                self.where,
                f"({self.source})" if self.source else "",
                f"rule {self.rule}" if self.rule else "",
            )
            if part
        )
        if place:
            lines.append(f"  at   {place}")
        if self.hint:
            lines.append(f"  hint {self.hint}")
        return "\n".join(lines)


class EdgecError(Exception):
    """Work that cannot go on. Carries one finding for the user and, where there are several, all of them."""

    def __init__(
        self,
        code: str,
        message: str,
        *,
        where: str = "",
        source: str = "",
        rule: str = "",
        hint: str = "",
        findings: Iterable[Finding] = (),
    ) -> None:
        super().__init__(message)
        self.finding = Finding(code=code, message=message, where=where, source=source, rule=rule, hint=hint)
        self.findings: tuple[Finding, ...] = tuple(findings) or (self.finding,)

    @property
    def code(self) -> str:
        """The stable code, `family/what`."""
        return self.finding.code

    @property
    def exit_code(self) -> int:
        """The process exit code that belongs to the code's family."""
        return EXIT_CODES.get(self.code.partition("/")[0], 1)

    def render(self) -> str:
        """All findings, one after the other, the summary first when there are several."""
        said = (self.finding.code, self.finding.message)
        others = [f for f in self.findings if (f.code, f.message) != said]
        return "\n".join(f.render() for f in (self.finding, *others))
