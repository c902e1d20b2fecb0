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
from edgec.graph.model import Model
from edgec.registry import load_plugin, plugin_names

#: offset, magic bytes, what it is, what to do
_MAGIC = (
    (4, b"TFL3", "a TFLite model", "edgec compiles to TFLite: give it the ONNX model that this one came from"),
    (0, b"PK\x03\x04", "a zip archive (a PyTorch checkpoint or a .keras file?)", "export it to ONNX first"),
    (0, b"\x80\x02", "a Python pickle (a PyTorch checkpoint?)", "export it with torch.onnx.export"),
    (0, b"\x89HDF\r\n\x1a\n", "an HDF5 file (a Keras model?)", "export it to ONNX first"),
    (0, b"\x1f\x8b", "a gzip archive", "unpack it first"),
    (0, b"<?xml", "an XML file (an OpenVINO model?)", "give the ONNX model that it came from"),
    (0, b"\x89PNG", "a PNG image", "give a model; images go to --calibration"),
    (0, b"\xff\xd8\xff", "a JPEG image", "give a model; images go to --calibration"),
    (0, b"version https://git-lfs", "a Git LFS pointer, not the file itself", "run `git lfs pull` first"),
    (0, b"<!DOCTYPE", "an HTML page, not the file itself", "download the file itself"),
    (0, b"<html", "an HTML page, not the file itself", "download the file itself"),
)


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


def known_magic(path: Path) -> tuple[str, str] | None:
    """What the file is and what to do, when its first bytes are well known and not ONNX."""
    with path.open("rb") as file:
        head = file.read(32)
    for offset, magic, found, remedy in _MAGIC:
        if head[offset : offset + len(magic)] == magic:
            return found, remedy
    return None


def describe_file(path: Path) -> tuple[str, str]:
    """What a path is, in words, and what to do about it."""
    if path.is_dir():
        models = sorted(p.name for p in path.glob("*.onnx"))
        if models:
            return "a folder", f"give the file itself: {path / models[0]}"
        if (path / "saved_model.pb").exists():
            return "a TensorFlow SavedModel", "convert it with tf2onnx, then give the .onnx file"
        return "a folder", "give the model file itself"
    if path.stat().st_size == 0:
        return "empty", "export or copy the model again"
    known = known_magic(path)
    if known is not None:
        return known
    return "of an unknown format", "export the model to ONNX (for PyTorch: torch.onnx.export)"
