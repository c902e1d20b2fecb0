"""A calibration recipe: one TOML file that says how samples are read, preprocessed, and how many there are.

    value = (x · scale − mean) / std        in the model's own layout and element type

Recipes that ship with the package are called by name: `imagenet:photos/` is `calibration/imagenet.toml` on `photos/`.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, PositiveFloat, ValidationError

from edgec.errors import EdgecError
from edgec.registry import did_you_mean
from edgec.tensors import DType

#: Stands for every input that has no table of its own.
ANY_INPUT = "*"


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Resize(_Table):
    """How an image reaches the model's height and width.

    `size` is (height, width), by default the model's. `center-crop` scales the shorter side to size/`crop`
    and cuts the middle out; `letterbox` keeps the whole image and fills the rest with `fill`.
    """

    size: tuple[int, int] | None = None
    mode: Literal["stretch", "center-crop", "letterbox"] = "center-crop"
    crop: float = Field(default=0.875, gt=0, le=1)
    filter: Literal["nearest", "bilinear", "bicubic", "lanczos"] = "bilinear"
    fill: int = Field(default=114, ge=0, le=255)


class InputSteps(_Table):
    """What happens to one input's values: dequantize, resize, color, scale, mean, std, transpose, dtype.

    `layout` is the layout that the model's input has (default: read off its shape). `transpose` reorders the
    axes of one sample, batch not counted. `dequantize` reads `scale` and `zero_point` beside the array:
    x = (q − zero_point)·scale.
    `constant` gives the input's value itself; `key` names the array in the file when it is not called like the input.
    """

    resize: Resize = Resize()
    color: Literal["rgb", "bgr", "gray"] | None = None
    scale: float | None = None
    mean: tuple[float, ...] = (0.0,)
    std: tuple[PositiveFloat, ...] = (1.0,)
    layout: Literal["nchw", "nhwc"] | None = None
    dtype: DType | None = None
    transpose: tuple[int, ...] | None = None
    dequantize: bool = False
    constant: float | list[Any] | None = None
    key: str | None = None


class AudioSteps(_Table):
    """How audio becomes windows: rate in Hz (default: the file's), window and hop in samples (default: the model's).

    `normalize` gives each window mean 0 and variance 1.
    """

    sample_rate: int | None = Field(default=None, gt=0)
    window: int | None = Field(default=None, gt=0)
    hop: int | None = Field(default=None, gt=0)
    normalize: bool = False


class TextSteps(_Table):
    """How a line of text becomes tokens: `tokenizer` is a tokenizer.json, relative to the recipe's folder.

    Texts are cut or padded to the model's length. `digest` is the file's sha256 where somebody wants to be sure of it.
    """

    tokenizer: str | None = None
    digest: str | None = None
    pad_token: str | None = None
    padding_side: Literal["left", "right"] = "right"


class Recipe(_Table):
    """A whole recipe. `data` is relative to the recipe's folder; a `seed` draws samples at random instead of evenly.

    `labels` is a file with the right answer to each sample, or the name of an array or field in the data.
    """

    description: str = ""
    reader: Literal["image", "array", "jsonl", "audio", "text", "table"] | None = None
    data: str | None = None
    count: int | None = Field(default=None, gt=0)
    seed: int | None = None
    labels: str | None = None
    audio: AudioSteps = AudioSteps()
    text: TextSteps = TextSteps()
    inputs: dict[str, InputSteps] = Field(default_factory=dict)

    def steps(self, name: str) -> InputSteps | None:
        """The steps of one input, or those for any input, or None."""
        return self.inputs.get(name, self.inputs.get(ANY_INPUT))


def shipped_recipes() -> Mapping[str, Path]:
    """Recipes that come with the package, by name: inside it in a wheel, at the top of the checkout otherwise."""
    package = Path(__file__).resolve().parent.parent.parent
    for folder in (package / "_data" / "calibration", package.parent / "calibration"):
        if folder.is_dir():
            return {path.stem: path for path in sorted(folder.glob("*.toml"))}
    return {}


def load_recipe(path: Path) -> Recipe:
    """Read and check one recipe. Raises `EdgecError` (`calibration/recipe`) with the key path of every mistake."""
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise EdgecError("calibration/unreadable", f"cannot read the recipe: {error}", where=str(path)) from error
    except tomllib.TOMLDecodeError as error:
        raise EdgecError("calibration/recipe", f"not valid TOML: {error}", where=str(path)) from error
    try:
        return Recipe.model_validate(table)
    except ValidationError as error:
        problems = error.errors()
        raise EdgecError(
            "calibration/recipe",
            "; ".join(f"{_key_path(p['loc'])}: {p['msg']}" for p in problems),
            where=str(path),
            hint="; ".join(filter(None, (_suggest(p["loc"], p["type"]) for p in problems))),
        ) from error


def _key_path(location: tuple[int | str, ...]) -> str:
    return ".".join(str(part) for part in location)


def _suggest(location: tuple[int | str, ...], kind: str) -> str:
    """Did-you-mean for a key that the table at its place does not have."""
    if kind != "extra_forbidden":
        return ""
    tables: dict[int, type[BaseModel]] = {1: Recipe, 2: AudioSteps, 3: InputSteps, 4: Resize}
    return did_you_mean(str(location[-1]), tables.get(len(location), Recipe).model_fields)
