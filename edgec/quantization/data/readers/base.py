"""What every reader of calibration data is: a counted list of samples that are read one at a time."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np

from edgec.errors import EdgecError, Finding
from edgec.quantization.data.recipe import InputSteps
from edgec.tensors import Array, TensorSpec


class Reader(Protocol):
    """Samples by number. One sample is one item of the batch, without the batch axis."""

    findings: tuple[Finding, ...]

    def __len__(self) -> int:
        """How many samples there are."""
        ...

    def read(self, index: int) -> dict[str, Array]:
        """Sample `index` of every input, preprocessed, in the sample's shape and element type.

        Raises `EdgecError`: `calibration/unreadable` for a damaged file, `calibration/shape` for one that does not fit.
        """
        ...

    def content(self, index: int) -> bytes:
        """Bytes that change whenever the sample changes."""
        ...

    def close(self) -> None:
        """Close the files that are still open; reading on opens them again."""
        ...


def sample_shape(spec: TensorSpec) -> tuple[int, ...]:
    """The shape of one sample: the input's without its batch axis."""
    return spec.shape[1:]


def list_files(folder: Path, suffixes: frozenset[str]) -> list[Path]:
    """Files below a folder with one of the suffixes, in the order of their names; hidden ones left out."""
    found = [
        path
        for path in folder.rglob("*")
        if path.suffix.lower() in suffixes
        and path.is_file()
        and not any(part.startswith(".") for part in path.relative_to(folder).parts)
    ]
    return sorted(found, key=lambda path: path.relative_to(folder).as_posix())


def channel_axis(spec: TensorSpec, steps: InputSteps) -> int | None:
    """Axis of the channels in one sample: as the recipe says, or as the shape shows; None where there is none."""
    shape = sample_shape(spec)
    if steps.layout is not None:
        return 0 if steps.layout == "nchw" else len(shape) - 1
    if len(shape) < 3:
        return None
    return len(shape) - 1 if shape[-1] in (1, 3, 4) and shape[0] not in (1, 3, 4) else 0


def normalise(value: Array, steps: InputSteps, axis: int | None, *, scale: float = 1.0) -> Array:
    """(x·scale − mean)/std in float32; mean and std are scalars or run along `axis`."""
    result = value.astype(np.float32)
    factor = steps.scale if steps.scale is not None else scale
    if factor != 1.0:
        result *= np.float32(factor)
    result -= _along(steps.mean, result, axis)
    result /= _along(steps.std, result, axis)
    return result


def _along(numbers: tuple[float, ...], value: Array, axis: int | None) -> Array:
    array = np.asarray(numbers, np.float32)
    if array.size == 1:
        return array.reshape(())
    if axis is None or value.shape[axis] != array.size:
        raise EdgecError(
            "calibration/recipe",
            f"mean or std has {array.size} entries, the samples of shape {value.shape} have no axis of that length",
            hint="give one number, or one for each channel (and set layout)",
        )
    shape = [1] * value.ndim
    shape[axis] = -1
    return array.reshape(shape)


def cast(value: Array, spec: TensorSpec, steps: InputSteps) -> Array:
    """The input's element type; integers are rounded and saturated, not wrapped."""
    dtype = (steps.dtype or spec.dtype).numpy
    if np.issubdtype(dtype, np.integer) and np.issubdtype(value.dtype, np.floating):
        limits = np.iinfo(dtype)
        value = np.clip(np.rint(value), limits.min, limits.max)
    return np.asarray(value, dtype, order="C")


def fit(value: Array, spec: TensorSpec, *, where: str) -> Array:
    """The array in the sample's shape; axes of length 1 may be missing or extra. Raises `calibration/shape`."""
    wanted = sample_shape(spec)
    if matches(value.shape, wanted):
        return value
    if -1 not in wanted and _squeezed(value.shape) == _squeezed(wanted):
        return value.reshape(wanted)
    raise shape_error(value.shape, wanted, spec.name, where)


def matches(shape: Sequence[int], wanted: Sequence[int]) -> bool:
    """Equal, where -1 in `wanted` stands for any length."""
    return len(shape) == len(wanted) and all(w in (-1, s) for s, w in zip(shape, wanted, strict=True))


def fits(shape: Sequence[int], wanted: Sequence[int]) -> bool:
    """`matches`, or equal but for axes of length 1."""
    return matches(shape, wanted) or (-1 not in wanted and _squeezed(shape) == _squeezed(wanted))


def _squeezed(shape: Sequence[int]) -> tuple[int, ...]:
    return tuple(d for d in shape if d != 1)


def shape_error(got: Sequence[int], wanted: Sequence[int], name: str, where: str) -> EdgecError:
    """What was got and wanted, and how to get from one to the other where that is clear."""
    hint = "give one sample in the shape of the model's input, or N of them stacked along a new first axis"
    order = _axis_order(got, wanted)
    if order is not None:
        hint = f"the axes are in another order: set transpose = {list(order)} in a recipe, or transpose the data"
    elif len(got) == len(wanted) + 1 and (order := _axis_order(got[1:], wanted)) is not None:
        hint = (
            f"each sample's axes are in another order: set transpose = {list(order)} in a recipe, or transpose the data"
        )
    elif math.prod(got) == math.prod(wanted) and -1 not in wanted:
        hint = f"the number of values is right: reshape the samples to {tuple(wanted)}"
    return EdgecError(
        "calibration/shape",
        f"input {name!r} takes samples of shape {tuple(wanted)}, this one has {tuple(got)}",
        where=where,
        hint=hint,
    )


def _axis_order(got: Sequence[int], wanted: Sequence[int]) -> tuple[int, ...] | None:
    """The transpose that makes `got` into `wanted`; the layout change NHWC to NCHW (or back) is tried first."""
    rank = len(wanted)
    if len(got) != rank or rank < 2 or rank > 5 or sorted(got) != sorted(wanted):
        return None
    usual = [(rank - 1, *range(rank - 1)), (*range(1, rank), 0)]
    for order in itertools.chain(usual, itertools.permutations(range(rank))):
        if tuple(got[axis] for axis in order) == tuple(wanted):
            return tuple(order)
    return None


def steps_of(spec: TensorSpec, recipe_steps: Mapping[str, InputSteps]) -> InputSteps:
    """The steps of an input, or none at all."""
    return recipe_steps.get(spec.name) or recipe_steps.get("*") or InputSteps()


def constants_of(inputs: Sequence[TensorSpec], recipe_steps: Mapping[str, InputSteps]) -> dict[str, Array]:
    """Inputs that the recipe gives as constants, in a sample's shape."""
    constants: dict[str, Array] = {}
    for spec in inputs:
        steps = recipe_steps.get(spec.name)
        if steps is None or steps.constant is None:
            continue
        value = np.asarray(steps.constant, spec.dtype.numpy)
        shape = tuple(max(d, 1) for d in sample_shape(spec))
        try:
            constants[spec.name] = np.broadcast_to(value, shape).copy() if value.size == 1 else value.reshape(shape)
        except ValueError:
            raise shape_error(value.shape, shape, spec.name, "the recipe's constant") from None
    return constants
