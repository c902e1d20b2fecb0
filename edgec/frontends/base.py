"""Read a source model into a `Model`: the frontend is picked by looking at the file, not at its name alone.

A frontend is a module in this package with two functions, `accepts(path)` and `load(path, inputs)`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, cast

from edgec import frontends
from edgec.errors import EdgecError, Finding
from edgec.frontends._sniff import describe_file
from edgec.graph.model import Model
from edgec.registry import load_plugin, plugin_names


@dataclass(frozen=True, kw_only=True, slots=True)
class Loaded:
    """A model with static inputs at a supported opset, and what the user should know about how it was read."""

    model: Model
    findings: tuple[Finding, ...] = ()


class Frontend(Protocol):
    """The interface of a frontend module."""

    def accepts(self, path: Path) -> bool:
        """True when the path looks like this frontend's kind of source; cheap, and never raises."""

    def load(self, path: Path, inputs: Mapping[str, tuple[int, ...]]) -> Loaded:
        """Read it. Raises `EdgecError` (`source/…`) for everything that is wrong with it."""


def frontend_names() -> tuple[str, ...]:
    """Names of the frontends, without importing them."""
    return plugin_names(frontends)


def load_source(
    path: str | Path, *, inputs: Mapping[str, tuple[int, ...]] | None = None, kind: str | None = None
) -> Loaded:
    """Read a source model. `inputs` fixes input shapes by name; `kind` names the frontend when it cannot be seen.

    Raises `EdgecError` (`source/…`) when there is no such file or no frontend reads it.
    """
    path = Path(path)
    if not path.exists():
        raise EdgecError(
            "source/not-found",
            f"there is no file {str(path)!r}",
            where=str(path),
            hint="check the path; give the model file itself, such as model.onnx",
        )
    names = (kind,) if kind else frontend_names()
    for name in names:
        frontend = cast(Frontend, load_plugin(frontends, name, kind="frontend"))
        if kind or frontend.accepts(path):
            return frontend.load(path, dict(inputs or {}))
    found, remedy = describe_file(path)
    raise EdgecError(
        "source/unknown-format", f"{path.name} is {found}, not an ONNX model", where=str(path), hint=remedy
    )
