"""What every backend offers. A backend is a module in this package with these functions (see `Backend`)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol, cast

from edgec import backends
from edgec.artifact import Artifact
from edgec.errors import EdgecError, Finding, Severity
from edgec.graph.model import Model
from edgec.registry import load_plugin, plugin_names
from edgec.targets.profile import Target

Precision = Literal["int8", "int16x8", "dynamic", "float16", "float32"]


@dataclass(frozen=True, kw_only=True, slots=True)
class CompileOptions:
    """How to compile: the precision that the model carries, and the layout of the artifact's own I/O.

    `io_layout` "auto" lets inputs and outputs take the layout the runtime likes (recorded in the artifact's
    bindings), "source" keeps the source model's. `as_given` is a model that came quantized: what it computes in float
    is rounded nowhere.
    """

    precision: Precision = "float32"
    io_layout: Literal["auto", "source", "nhwc"] = "auto"
    as_given: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class Adopted:
    """A ready model as an artifact, its bytes as they are, and what there is to say about it.

    `digest` is the sha256 of what was read. A quantized input or output is float32 on the source's side.
    """

    artifact: Artifact
    digest: str
    findings: tuple[Finding, ...] = ()


def refuse_ready(findings: Sequence[Finding], path: Path, target: Target) -> None:
    """Raise one `EdgecError` with all findings when one of them keeps a ready file from running on the target."""
    errors = [f for f in findings if f.severity == Severity.ERROR]
    if errors:
        raise EdgecError(
            errors[0].code,
            f"{len(errors)} thing(s) stand between {path.name} and {target.id}",
            where=str(path),
            hint=errors[0].hint,
            findings=errors,
        )


class Backend(Protocol):
    """The interface of a backend module."""

    def check(self, model: Model, target: Target) -> list[Finding]:
        """All findings about a canonical model on a target: what cannot be expressed, and what runs badly."""

    def legalize(self, model: Model, target: Target, precision: Precision) -> Model:
        """A new model with what the runtime lacks (or runs badly in this precision) decomposed, in plain ONNX."""

    def compile(self, model: Model, target: Target, options: CompileOptions) -> Artifact:
        """Emit a legalized float or QDQ model. Raises `EdgecError` with all findings when it cannot."""

    def adopt(
        self, path: Path, target: Target, *, inputs: Mapping[str, tuple[int, ...]], signature: str | None = None
    ) -> Adopted:
        """Take a ready model as it is, checked against the target. `inputs` fixes free shapes by name.

        Raises `EdgecError` with all findings when the target does not run it.
        """


def backend_names() -> tuple[str, ...]:
    """Names of the backends, without importing them."""
    return plugin_names(backends)


def load_backend(name: str) -> Backend:
    """The backend of that name. Raises `EdgecError` for an unknown one."""
    return cast(Backend, load_plugin(backends, name, kind="backend"))
