"""Read calibration samples from a folder of images with Pillow: colour, resize, normalise, layout."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from edgec.errors import EdgecError, Finding, Severity
from edgec.quantization.data.readers.base import (
    cast,
    channel_axis,
    constants_of,
    fit,
    list_files,
    normalise,
    sample_shape,
    steps_of,
)
from edgec.quantization.data.recipe import InputSteps, Recipe
from edgec.tensors import Array, TensorSpec

if TYPE_CHECKING:
    from PIL import Image

SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".webp", ".gif", ".tif", ".tiff", ".ppm", ".pgm"})


class ImageReader:
    """One sample an image file; the files below a folder in the order of their names."""

    def __init__(self, path: Path, inputs: Sequence[TensorSpec], recipe: Recipe) -> None:
        _pillow()
        self.files = [path] if path.is_file() else list_files(path, SUFFIXES)
        self._constants = constants_of(inputs, recipe.inputs)
        self._input = _image_input([spec for spec in inputs if spec.name not in self._constants], path)
        self._steps = steps_of(self._input, recipe.inputs)
        # A uint8 input takes pixels as they are; a float one 0..1 unless the recipe says otherwise.
        self._scale = 1 / 255 if self._input.dtype.is_float and recipe.steps(self._input.name) is None else 1.0
        self._axis = channel_axis(self._input, self._steps)
        self._size, channels = _geometry(self._input, self._steps, self._axis)
        self._color = self._steps.color or ("gray" if channels == 1 else "rgb")
        self.findings: tuple[Finding, ...] = () if recipe.inputs else (self._announcement(),)

    def __len__(self) -> int:
        return len(self.files)

    def close(self) -> None:
        """Nothing stays open."""

    def content(self, index: int) -> bytes:
        """The image file's bytes."""
        return self.files[index].read_bytes()

    def read(self, index: int) -> dict[str, Array]:
        """Image `index`, resized, normalised and laid out."""
        file = self.files[index]
        pixels = self._pixels(file)
        value = normalise(pixels, self._steps, pixels.ndim - 1, scale=self._scale)
        if self._axis == 0:
            value = np.moveaxis(value, -1, 0)
        if self._steps.transpose is not None:
            value = value.transpose(self._steps.transpose)
        value = fit(value, self._input, where=str(file))
        return {self._input.name: cast(value, self._input, self._steps), **self._constants}

    def _pixels(self, file: Path) -> Array:
        """Height × width × channels, 0..255, before normalisation."""
        from PIL import Image

        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # notes about odd metadata; what fails raises
                with Image.open(file) as image:
                    image.load()
                    picture = _eight_bits(image).convert("L" if self._color == "gray" else "RGB")
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
            raise EdgecError(
                "calibration/unreadable",
                f"cannot read the image: {error}",
                where=str(file),
                hint="remove or replace it",
            ) from error
        pixels = np.asarray(_resize(picture, self._size, self._steps))
        if pixels.ndim == 2:
            return pixels[:, :, None]
        return pixels[:, :, ::-1] if self._color == "bgr" else pixels

    def _announcement(self) -> Finding:
        height, width = self._size
        layout = {0: "channels first", None: "no channel axis"}.get(self._axis, "channels last")
        values = "0..1 (x/255)" if self._scale != 1.0 else "0..255"
        return Finding(
            code="calibration/image-defaults",
            message=f"images are scaled and centre-cropped to {height}×{width}, {self._color}, {values}, {layout}",
            severity=Severity.INFO,
            where=self._input.name,
            hint="if the model was trained otherwise use a recipe, e.g. --calibration imagenet:FOLDER",
        )


def _pillow() -> None:
    try:
        import PIL.Image  # noqa: F401  - only whether it is there
    except ImportError:
        raise EdgecError(
            "env/missing-extra", "reading images needs Pillow", hint="pip install 'edgec[image]'"
        ) from None


def _image_input(inputs: Sequence[TensorSpec], path: Path) -> TensorSpec:
    """The one input that takes pictures."""
    hint = "give .npz files or a .jsonl with a value for each input, or constants for the others in a recipe"
    if len(inputs) != 1:
        names = ", ".join(spec.name for spec in inputs)
        raise EdgecError(
            "calibration/inputs", f"a folder of images feeds one input, the model has {len(inputs)}: {names}",
            where=str(path), hint=hint,
        )  # fmt: skip
    rank = len(inputs[0].shape)
    if rank not in (3, 4):
        raise EdgecError(
            "calibration/inputs",
            f"input {inputs[0].name!r} of shape {inputs[0].shape} does not take images",
            where=str(path),
            hint="give the samples as .npy, .npz or .jsonl",
        )
    return inputs[0]


def _geometry(spec: TensorSpec, steps: InputSteps, axis: int | None) -> tuple[tuple[int, int], int]:
    """(height, width) to resize to, and the number of channels."""
    shape = list(sample_shape(spec))
    channels = 1 if axis is None else shape.pop(axis)
    if steps.resize.size is not None:
        return steps.resize.size, channels
    if min(shape) < 1:
        raise EdgecError(
            "calibration/inputs",
            f"input {spec.name!r} has a free height or width",
            hint=f"fix it with --input {spec.name}:1x3x224x224, or give resize.size in a recipe",
        )
    return (shape[0], shape[1]), channels


def _eight_bits(image: Image.Image) -> Image.Image:
    """16-bit grey as 8-bit: Pillow's own conversion would clip it."""
    if image.mode.startswith("I"):
        from PIL import Image

        return Image.fromarray((np.asarray(image).astype(np.int64) >> 8).clip(0, 255).astype(np.uint8))
    return image


def _resize(image: Image.Image, size: tuple[int, int], steps: InputSteps) -> Image.Image:
    """Resize as the recipe says; `size` is (height, width), Pillow's is the other way round."""
    from PIL import Image

    resample: Any = getattr(Image.Resampling, steps.resize.filter.upper())
    height, width = size
    if steps.resize.mode == "stretch":
        return image.resize((width, height), resample)
    if steps.resize.mode == "letterbox":
        return _letterbox(image, size, resample, steps.resize.fill)
    # The shorter side becomes size/crop; the middle of that is kept.
    factor = max(width / image.width, height / image.height) / steps.resize.crop
    scaled = (max(width, round(image.width * factor)), max(height, round(image.height * factor)))
    left, top = (scaled[0] - width) // 2, (scaled[1] - height) // 2
    return image.resize(scaled, resample).crop((left, top, left + width, top + height))


def _letterbox(image: Image.Image, size: tuple[int, int], resample: Any, fill: int) -> Image.Image:
    from PIL import Image

    height, width = size
    factor = min(width / image.width, height / image.height)
    scaled = (max(1, round(image.width * factor)), max(1, round(image.height * factor)))
    canvas = Image.new(image.mode, (width, height), fill if image.mode == "L" else (fill, fill, fill))
    canvas.paste(image.resize(scaled, resample), ((width - scaled[0]) // 2, (height - scaled[1]) // 2))
    return canvas
