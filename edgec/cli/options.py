"""The options that several commands share, and how their values are read."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from edgec.errors import EdgecError

if TYPE_CHECKING:
    from edgec.frontends.base import SourceOptions


class Precision(StrEnum):
    """Choices of --precision."""

    auto = "auto"
    int8 = "int8"
    int16x8 = "int16x8"
    dynamic = "dynamic"
    float16 = "float16"
    float32 = "float32"


class Effort(StrEnum):
    """Choices of --effort."""

    fast = "fast"
    balanced = "balanced"
    max = "max"


class Ranges(StrEnum):
    """Choices of --ranges."""

    auto = "auto"
    minmax = "minmax"
    percentile = "percentile"
    mse = "mse"
    entropy = "entropy"


class Backend(StrEnum):
    """Choices of --backend."""

    tflite = "tflite"
    openvino = "openvino"


class IoLayout(StrEnum):
    """Choices of --io-layout."""

    auto = "auto"
    source = "source"
    nhwc = "nhwc"


class TravelingRuntime(StrEnum):
    """Choices of --with-runtime."""

    auto = "auto"
    always = "always"
    never = "never"


class Kernels(StrEnum):
    """Choices of --kernels."""

    default = "default"
    builtin = "builtin"
    reference = "reference"


Metric = Annotated[
    str | None,
    typer.Option("--metric", metavar="NAME", help="On labelled --data: top1, f1, auc, map, module:function."),
]
Source = Annotated[
    str, typer.Argument(help="The trained model: a file, a folder, or package.module:factory.", show_default=False)
]
TargetName = Annotated[
    str, typer.Option("--target", "-t", metavar="NAME", help="Hardware profile; `edgec targets` lists them.")
]
Calibration = Annotated[
    str | None,
    typer.Option(
        "--calibration",
        metavar="PATH",
        help="Real data: a folder of images, .npy, .npz, .jsonl, .csv, text, audio, or a recipe (.toml, or NAME:PATH).",
    ),
]
Samples = Annotated[
    int | None, typer.Option("--samples", min=1, metavar="N", help="How many samples to use; default: the recipe's.")
]
Inputs = Annotated[
    list[str] | None,
    typer.Option(
        "--input",
        metavar="NAME:SHAPE[:TYPE]",
        help="Fix an input's shape (and type), as in image:1x3x224x224 or ids:1x128:int64. Repeatable.",
    ),
]
SourceKind = Annotated[
    str | None, typer.Option("--source", metavar="KIND", help="What SOURCE is, where its looks do not tell.")
]
Trust = Annotated[bool, typer.Option("--trust", help="Read a format that runs code, such as a pickle.")]
Custom = Annotated[
    list[str] | None,
    typer.Option("--custom", metavar="MODULE:NAME", help="A layer or function of your own that SOURCE uses."),
]
Signature = Annotated[str | None, typer.Option("--signature", metavar="NAME", help="Which one of a SavedModel's.")]
Factory = Annotated[
    str | None, typer.Option("--factory", metavar="MODULE:NAME", help="Makes the module that a state dict fills.")
]
BackendName = Annotated[
    Backend | None, typer.Option("--backend", help="Instead of the target's own.", show_default=False)
]
#: The pipeline's stages; importing them from it would import the compiler for `--help`.
STAGES = "load, passes, legalize, calibrate, quantize, compile, goldens, bundle, validate"
StopAfter = Annotated[
    str | None,
    typer.Option("--stop-after", metavar="STAGE", help=f"Write a stage's product and stop: {STAGES}."),
]
Devices = Annotated[
    list[str] | None,
    typer.Option("--device", metavar="NAME", help="A device: local, ssh:user@host, adb:SERIAL, a name. Repeatable."),
]
Group = Annotated[str | None, typer.Option("--group", metavar="NAME", help="A group of the inventory.")]
InventoryFile = Annotated[
    str | None, typer.Option("--inventory", metavar="FILE", help="Instead of ./devices.toml or the user's own.")
]
Root = Annotated[
    str, typer.Option("--root", metavar="FOLDER", help="Where releases are kept on the device.", show_default=False)
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout and nothing else there.")]
Debug = Annotated[bool, typer.Option("--debug", help="Show tracebacks.")]
Quiet = Annotated[bool, typer.Option("--quiet", help="No progress and no tables; problems are still shown.")]

_INPUT = re.compile(r"(?P<name>.+?):(?P<shape>(\d+(x\d+)*)?)(:(?P<dtype>[a-z]+\d*))?")


def parse_counts(text: str, option: str) -> tuple[int, ...]:
    """`1,2,4` as numbers from 1 on. Raises `EdgecError` (`cli/count`)."""
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isdecimal() and int(part) > 0 for part in parts):
        raise EdgecError("cli/count", f"cannot read {option} {text!r}", hint=f"write it as {option} 1,2,4")
    return tuple(int(part) for part in parts)


@dataclass(frozen=True, kw_only=True, slots=True)
class GivenInputs:
    """What --input said: shapes by name in the order given, and types where one was."""

    shapes: dict[str, tuple[int, ...]]
    dtypes: dict[str, str]


def parse_inputs(texts: Iterable[str] | None) -> GivenInputs:
    """`["image:1x3x224x224", "ids:1x128:int64"]` as shapes and types; nothing after the colon is a scalar.

    Raises `EdgecError` (`cli/input-shape`).
    """
    given = GivenInputs(shapes={}, dtypes={})
    for text in texts or ():
        match = _INPUT.fullmatch(text)  # a name may hold colons, as TensorFlow's do
        if match is None:
            raise EdgecError("cli/input-shape", f"cannot read --input {text!r}", hint="write it as name:1x3x224x224")
        name, shape, dtype = match["name"], match["shape"], match["dtype"]
        if name in given.shapes:
            raise EdgecError("cli/input-shape", f"--input gives a shape for {name!r} twice", hint="give it once")
        given.shapes[name] = tuple(int(size) for size in shape.split("x")) if shape else ()
        if dtype:
            given.dtypes[name] = dtype
    return given


def reading_of(
    given: GivenInputs,
    *,
    kind: str | None,
    trust: bool,
    custom: Iterable[str] | None,
    signature: str | None,
    factory: str | None,
) -> SourceOptions:
    """The options that say how to read the source."""
    from edgec.frontends.base import SourceOptions

    return SourceOptions(
        kind=kind, trust=trust, custom=tuple(custom or ()), signature=signature, factory=factory, dtypes=given.dtypes
    )
