"""Read a source model into a `Model`: the frontend is picked by looking at the file, not at its name alone.

A frontend is a module in this package with two functions, `accepts(request)` and `load(request)`. Modules whose names
start with an underscore are what several of them need.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, cast

from edgec import frontends
from edgec.errors import EdgecError, Finding
from edgec.graph.model import Model
from edgec.quantization.data.recipe import Recipe
from edgec.registry import load_plugin, plugin_names

#: offset, magic bytes, what it is, what to do
_MAGIC = (
    (4, b"TFL3", "a TFLite model", "give it as it is, named .tflite"),
    (
        4,
        b"ORTM",
        "ONNX Runtime's own form of a model (.ort)",
        "give the .onnx that it was made of, or write one back: SessionOptions().optimized_model_filepath = 'm.onnx'",
    ),
    # A zip's first file is named at byte 30, and a bundle's is its agent.
    (
        30,
        b"agent.py",
        "a bundle, built already",
        "`edgec validate` runs it, `edgec flash` sends it to a device",
    ),
    (
        0,
        b"PK\x03\x04",
        "a zip archive (a PyTorch checkpoint or a .keras file?)",
        "name it .pt, .pt2 or .keras, or say what it is by --source",
    ),
    (0, b"\x80\x02", "a Python pickle (a PyTorch checkpoint?)", "name it .pt or .pkl, or say what it is by --source"),
    (0, b"\x89HDF\r\n\x1a\n", "an HDF5 file (a Keras model?)", "name it .h5, or say --source keras"),
    (0, b"\x1f\x8b", "a gzip archive", "unpack it first"),
    (0, b"<?xml", "an XML file (an OpenVINO model?)", "an OpenVINO model is named .xml and has its .bin beside it"),
    (0, b"\x89PNG", "a PNG image", "give a model; images go to --calibration"),
    (0, b"\xff\xd8\xff", "a JPEG image", "give a model; images go to --calibration"),
    (0, b"version https://git-lfs", "a Git LFS pointer, not the file itself", "run `git lfs pull` first"),
    (0, b"<!DOCTYPE", "an HTML page, not the file itself", "download the file itself"),
    (0, b"<html", "an HTML page, not the file itself", "download the file itself"),
)


@dataclass(frozen=True, kw_only=True, slots=True)
class SourceOptions:
    """How to read a source, where looking at it is not enough.

    `kind` names the frontend. `trust` allows formats that run code while they are read (pickles). `custom` are
    `module:name` of the user's own layers, `signature` picks one of a SavedModel's, `factory` (`module:callable`)
    makes the module that a state dict belongs to. `dtypes` gives the types of inputs that the source leaves open.
    """

    kind: str | None = None
    trust: bool = False
    custom: tuple[str, ...] = ()
    signature: str | None = None
    factory: str | None = None
    dtypes: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True, slots=True)
class Request:
    """One source to read: as the user wrote it, and the path where that is one that exists."""

    spec: str
    path: Path | None
    inputs: Mapping[str, tuple[int, ...]]
    options: SourceOptions


@dataclass(frozen=True, kw_only=True, slots=True)
class Loaded:
    """A model with static inputs at a supported opset, and what the user should know about how it was read.

    Where the source says it: `labels` of the classes, `preprocessing` as facts for the manifest, and a `recipe` that
    prepares calibration data in that way.
    """

    model: Model
    findings: tuple[Finding, ...] = ()
    labels: tuple[str, ...] = ()
    preprocessing: Mapping[str, Any] = field(default_factory=dict)
    recipe: Recipe | None = None


class Frontend(Protocol):
    """The interface of a frontend module. It imports its framework only inside `load`."""

    def accepts(self, request: Request) -> bool:
        """True when this looks like the frontend's kind of source; cheap, imports nothing heavy, and never raises."""

    def load(self, request: Request) -> Loaded:
        """Read it. Raises `EdgecError` (`source/…`) for everything that is wrong with it."""


def frontend_names() -> tuple[str, ...]:
    """Names of the frontends, without importing them."""
    return plugin_names(frontends)


def load_source(
    source: str | Path,
    *,
    inputs: Mapping[str, Sequence[int]] | None = None,
    options: SourceOptions | None = None,
) -> Loaded:
    """Read a source model: a file, a folder, or `package.module:factory`. `inputs` fixes input shapes by name.

    Raises `EdgecError` (`source/…`) when there is no such file or no frontend reads it.
    """
    options = options or SourceOptions()
    path = Path(source)
    request = Request(
        spec=str(source),
        path=path if path.exists() else None,
        inputs={name: tuple(shape) for name, shape in (inputs or {}).items()},
        options=options,
    )
    for name in (options.kind,) if options.kind else frontend_names():
        frontend = cast(Frontend, load_plugin(frontends, name, kind="frontend"))
        if options.kind or frontend.accepts(request):
            return frontend.load(request)
    if request.path is None:
        raise not_found(request)
    found, remedy = describe_file(path)
    raise EdgecError(
        "source/unknown-format", f"{path.name} is {found}, which no frontend reads", where=str(path), hint=remedy
    )


def not_found(request: Request) -> EdgecError:
    """The error for a source that is no file."""
    return EdgecError(
        "source/not-found",
        f"there is no file {request.spec!r}",
        where=request.spec,
        hint="check the path; give the model file itself, such as model.onnx",
    )


def existing(request: Request) -> Path:
    """The path of a source that must be a file or a folder. Raises `EdgecError` (`source/not-found`)."""
    if request.path is None:
        raise not_found(request)
    return request.path


def known_magic(path: Path) -> tuple[str, str] | None:
    """What the file is and what to do, when its first bytes are well known and not ONNX."""
    with path.open("rb") as file:
        head = file.read(64)
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
