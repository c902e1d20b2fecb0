"""The options that several commands share, and how their values are read."""

from __future__ import annotations

import re
from collections.abc import Iterable
from enum import StrEnum
from typing import Annotated

import typer

from edgec.errors import EdgecError


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


class Backend(StrEnum):
    """Choices of --backend."""

    tflite = "tflite"
    openvino = "openvino"


class IoLayout(StrEnum):
    """Choices of --io-layout."""

    auto = "auto"
    source = "source"
    nhwc = "nhwc"


Source = Annotated[str, typer.Argument(help="The trained model: an ONNX file.", show_default=False)]
TargetName = Annotated[
    str, typer.Option("--target", metavar="NAME", help="Hardware profile; `edgec targets` lists them.")
]
Calibration = Annotated[
    str | None,
    typer.Option(
        "--calibration",
        metavar="PATH",
        help="Real data: a folder of images, .npy, .npz, .jsonl, audio, or a recipe (.toml, or NAME:PATH).",
    ),
]
Samples = Annotated[
    int | None, typer.Option("--samples", min=1, metavar="N", help="How many samples to use; default: the recipe's.")
]
Inputs = Annotated[
    list[str] | None,
    typer.Option("--input", metavar="NAME:SHAPE", help="Fix an input's shape, as in image:1x3x224x224. Repeatable."),
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
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout and nothing else there.")]
Debug = Annotated[bool, typer.Option("--debug", help="Show tracebacks.")]
Quiet = Annotated[bool, typer.Option("--quiet", help="No progress and no tables; problems are still shown.")]

_SHAPE = re.compile(r"\d+(x\d+)*")


def parse_inputs(texts: Iterable[str] | None) -> dict[str, tuple[int, ...]] | None:
    """`["image:1x3x224x224"]` as `{"image": (1, 3, 224, 224)}`; nothing after the colon is a scalar.

    Raises `EdgecError` (`cli/input-shape`).
    """
    shapes: dict[str, tuple[int, ...]] = {}
    for text in texts or ():
        name, colon, shape = text.rpartition(":")  # a name may hold colons, as TensorFlow's do
        if not colon or not name or (shape and not _SHAPE.fullmatch(shape)):
            raise EdgecError("cli/input-shape", f"cannot read --input {text!r}", hint="write it as name:1x3x224x224")
        if name in shapes:
            raise EdgecError("cli/input-shape", f"--input gives a shape for {name!r} twice", hint="give it once")
        shapes[name] = tuple(int(size) for size in shape.split("x")) if shape else ()
    return shapes or None
