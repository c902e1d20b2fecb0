"""Read calibration samples from .npy and .npz files row by row, so that memory does not grow with their number."""

from __future__ import annotations

import io
import math
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import numpy as np

from edgec.errors import EdgecError, Finding, Severity
from edgec.quantization.data.readers.base import (
    cast,
    channel_axis,
    constants_of,
    fit,
    fits,
    list_files,
    normalise,
    sample_shape,
    shape_error,
    steps_of,
)
from edgec.quantization.data.recipe import Recipe
from edgec.tensors import Array, QParams, TensorSpec

SUFFIXES = frozenset({".npy", ".npz"})

#: In a folder of arrays: the right answers, which are no samples.
LABELS_FILE = "labels.npy"

#: Arrays of a .npz that describe the others.
_SIDE_ARRAYS = ("scale", "zero_point")


@dataclass(slots=True)
class RowFile:
    """One array on disk, read a row (a slice along the first axis) at a time.

    Rows of a compressed array are cheap in rising order: going back starts over. An array in Fortran order has no rows
    on disk, so it is held in memory, in C order, while it is open.
    """

    name: str
    open: Callable[[], IO[bytes]]
    shape: tuple[int, ...] = ()
    dtype: np.dtype[Any] = field(default_factory=lambda: np.dtype(np.float32))
    _start: int = 0
    _fortran: bool = False
    _handle: IO[bytes] | None = None

    def __post_init__(self) -> None:
        with _unreadable(self.name), self.open() as handle:
            version = np.lib.format.read_magic(handle)
            read_header = (
                np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
            )
            shape, fortran, dtype = read_header(handle)
            self.shape, self.dtype, self._start = tuple(shape), dtype, handle.tell()
            self._fortran = fortran and len(shape) > 1
        if dtype.hasobject or dtype.names:
            raise EdgecError(
                "calibration/unreadable",
                f"the array holds values of type {dtype}, which are no plain numbers or texts",
                where=self.name,
                hint="save values of one type: x.astype('float32'), or x.astype(str) for text",
            )

    def row(self, index: int) -> Array:
        """Row `index` of the first axis."""
        return self._read(self.shape[1:], index)

    def whole(self) -> Array:
        """The whole array."""
        return self._read(self.shape, 0)

    def close(self) -> None:
        """Let go of the file; the next read opens it again."""
        if self._handle is not None:
            self._handle.close()
        self._handle = None

    def _read(self, shape: tuple[int, ...], index: int) -> Array:
        size = int(np.prod(shape)) * self.dtype.itemsize
        with _unreadable(self.name):
            if self._handle is None or self._handle.closed:
                self._handle = self._rows()
            self._handle.seek(self._start + index * size)
            data = self._handle.read(size)
            if len(data) != size:
                raise ValueError("the file ends too early")
        return np.frombuffer(data, self.dtype).reshape(shape)

    def _rows(self) -> IO[bytes]:
        if not self._fortran:
            return self.open()
        with self.open() as handle:
            header, data = handle.read(self._start), handle.read()
        array = np.frombuffer(data, self.dtype).reshape(self.shape, order="F")
        return io.BytesIO(header + array.tobytes("C"))


class _unreadable:  # noqa: N801 - a context manager reads as a phrase
    """Damage found while reading becomes `calibration/unreadable` with the file's name."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, (OSError, ValueError, EOFError, zipfile.BadZipFile, KeyError)) or (
            error is not None and type(error).__module__ == "zlib"
        ):
            raise EdgecError(
                "calibration/unreadable", f"cannot read the array: {error}", where=self._name, hint="save it again"
            ) from error


@dataclass(frozen=True, slots=True)
class _Block:
    """Arrays of one file (or of files side by side) that hold `count` samples together."""

    columns: Mapping[str, RowFile]
    count: int
    stacked: bool
    side: Mapping[str, Array]


class ArrayReader:
    """Samples of one .npy or .npz file, of a folder of them, or of a folder with one .npy an input."""

    findings: tuple[Finding, ...]

    def __init__(self, path: Path, inputs: Sequence[TensorSpec], recipe: Recipe) -> None:
        self._open: _Block | None = None
        self._recipe_steps = recipe.inputs
        self._labels = recipe.labels
        self._constants = constants_of(inputs, recipe.inputs)
        self._inputs = [spec for spec in inputs if spec.name not in self._constants]
        self._blocks = [self._block(*tables) for tables in self._tables(path)]
        self._ends = np.cumsum([block.count for block in self._blocks])
        self.findings = self._unused_scale(path)

    def __len__(self) -> int:
        return int(self._ends[-1]) if len(self._ends) else 0

    def close(self) -> None:
        """Close the arrays of the block that was read last: no other is open."""
        if self._open is not None:
            for column in self._open.columns.values():
                column.close()
        self._open = None

    def content(self, index: int) -> bytes:
        """Raw bytes of the sample's rows, with the file's scale and zero point."""
        block, row = self._locate(index)
        parts = [_sample(block, name, row).tobytes() for name in sorted(block.columns)]
        return b"".join([*parts, *(block.side[key].tobytes() for key in sorted(block.side))])

    def read(self, index: int) -> dict[str, Array]:
        """Sample `index`, dequantized and transposed as the recipe says."""
        block, row = self._locate(index)
        sample = {spec.name: self._prepare(block, spec, row) for spec in self._inputs}
        return {**sample, **self._constants}

    def _unused_scale(self, path: Path) -> tuple[Finding, ...]:
        """Integers with a scale beside them, fed to a float input as they are, are probably meant to be dequantized."""
        for block in self._blocks:
            for spec in self._inputs:
                integer = np.issubdtype(block.columns[spec.name].dtype, np.integer)
                if not (integer and spec.dtype.is_float and "scale" in block.side):
                    continue
                if not steps_of(spec, self._recipe_steps).dequantize:
                    return (
                        Finding(
                            code="calibration/scale-unused",
                            message=f"{path.name} holds integers with a scale, which is not applied to {spec.name!r}",
                            severity=Severity.WARNING,
                            where=block.columns[spec.name].name,
                            hint="set dequantize = true in a recipe, e.g. --calibration kws-mfcc:FILE",
                        ),
                    )
        return ()

    def _locate(self, index: int) -> tuple[_Block, int]:
        number = int(np.searchsorted(self._ends, index, side="right"))
        block = self._blocks[number]
        if block is not self._open:
            self.close()
            self._open = block
        return block, index - (int(self._ends[number]) - block.count)

    def _prepare(self, block: _Block, spec: TensorSpec, row: int) -> Array:
        steps = steps_of(spec, self._recipe_steps)
        value = _sample(block, spec.name, row)
        if steps.dequantize:
            value = _dequantize(value, block, spec.name)
        if steps.transpose is not None:
            value = value.transpose(steps.transpose)
        value = fit(value, spec, where=block.columns[spec.name].name)
        if steps.scale is not None or steps.mean != (0.0,) or steps.std != (1.0,):
            value = normalise(value, steps, channel_axis(spec, steps))
        return cast(value, spec, steps)

    def _tables(self, path: Path) -> list[tuple[dict[str, RowFile], dict[str, Array]]]:
        """(array of each input, side arrays) of each file or group of files."""
        if path.is_file():
            return [self._file(path)]
        found = list_files(path, SUFFIXES)
        files = [file for file in found if file.name not in (LABELS_FILE, self._labels)] or found
        names = {spec.name: spec for spec in self._inputs}
        stems = {file.stem: file for file in files if file.suffix.lower() == ".npy"}
        if len(names) > 1 and set(names) <= set(stems):
            return [({name: RowFile(str(stems[name]), _opener(stems[name])) for name in names}, {})]
        return [self._file(file) for file in files]

    def _file(self, file: Path) -> tuple[dict[str, RowFile], dict[str, Array]]:
        if file.suffix.lower() == ".npy":
            members = {"": RowFile(str(file), _opener(file))}
        else:
            with _unreadable(str(file)), zipfile.ZipFile(file) as archive:
                keys = [name.removesuffix(".npy") for name in archive.namelist() if name.endswith(".npy")]
            wanted = {self._steps_key(spec) for spec in self._inputs} | set(_SIDE_ARRAYS)
            # Arrays that nobody asks for (labels, names) may hold anything, so they are not opened.
            chosen = [key for key in keys if key in wanted] if wanted & set(keys) else keys
            members = {key: RowFile(f"{file}: {key}", _member_opener(file, key)) for key in chosen}
            members |= {key: RowFile(f"{file}: {key}", _member_opener(file, key)) for key in self._lone(keys, chosen)}
        side = {key: _all_of(members[key]) for key in _SIDE_ARRAYS if key in members and key not in self._names()}
        return self._columns({k: v for k, v in members.items() if k not in side}, file), side

    def _names(self) -> set[str]:
        return {self._steps_key(spec) for spec in self._inputs}

    def _steps_key(self, spec: TensorSpec) -> str:
        return steps_of(spec, self._recipe_steps).key or spec.name

    def _lone(self, keys: Sequence[str], chosen: Sequence[str]) -> list[str]:
        """For a model with one input: the one array that is not named like it, nor a side array."""
        if len(self._inputs) != 1 or self._names() & set(chosen):
            return []
        return [key for key in keys if key not in _SIDE_ARRAYS]

    def _columns(self, members: Mapping[str, RowFile], file: Path) -> dict[str, RowFile]:
        """The array of each input. Raises `calibration/inputs` when one has none."""
        columns = {s.name: members[self._steps_key(s)] for s in self._inputs if self._steps_key(s) in members}
        if len(columns) == len(self._inputs):
            return columns
        if len(self._inputs) == 1:
            wanted = sample_shape(self._inputs[0])
            fitting = [m for m in members.values() if fits(m.shape[1:], wanted) or fits(m.shape, wanted)]
            if len(fitting) == 1:
                return {self._inputs[0].name: fitting[0]}
            if members and not fitting:  # blame the shape of the one that looks most like data
                return {self._inputs[0].name: max(members.values(), key=lambda m: math.prod(m.shape))}
        missing = ", ".join(s.name for s in self._inputs if s.name not in columns)
        raise EdgecError(
            "calibration/inputs",
            f"no array for input {missing} (found: {', '.join(k or 'one unnamed array' for k in members) or 'none'})",
            where=str(file),
            hint="name the arrays of a .npz like the model's inputs, or set inputs.NAME.key in a recipe",
        )

    def _block(self, columns: dict[str, RowFile], side: dict[str, Array]) -> _Block:
        """How many samples the arrays hold: N rows each, or one sample each."""
        rows = {self._row_count(spec, columns[spec.name]) for spec in self._inputs}
        if len(rows) > 1:
            counts = ", ".join(f"{name}: {column.shape}" for name, column in columns.items())
            raise EdgecError(
                "calibration/shape",
                f"the arrays hold different numbers of samples ({counts})",
                where=next(iter(columns.values())).name,
                hint="give every input the same number of samples",
            )
        count = rows.pop() if rows else 1
        return _Block(columns, 1 if count is None else count, stacked=count is not None, side=side)

    def _row_count(self, spec: TensorSpec, column: RowFile) -> int | None:
        """Number of samples stacked along the first axis; None for a single sample without one."""
        steps = steps_of(spec, self._recipe_steps)
        wanted = sample_shape(spec)
        rows, single = column.shape[1:], column.shape
        if steps.transpose is not None:
            rows, single = (_reorder(shape, steps.transpose, column.name) for shape in (rows, single))
        if column.shape and fits(rows, wanted):
            return column.shape[0]
        if fits(single, wanted):
            return None
        raise shape_error(column.shape, wanted, spec.name, column.name)


def _reorder(shape: tuple[int, ...], order: tuple[int, ...], where: str) -> tuple[int, ...]:
    if sorted(order) != list(range(len(order))):
        raise EdgecError("calibration/recipe", f"transpose = {list(order)} is no order of axes", where=where)
    return tuple(shape[axis] for axis in order) if len(shape) == len(order) else (0,)


def _sample(block: _Block, name: str, row: int) -> Array:
    column = block.columns[name]
    return column.row(row) if block.stacked else column.whole()


def _dequantize(value: Array, block: _Block, name: str) -> Array:
    """x = (q − zero_point)·scale with the file's own parameters."""
    if "scale" not in block.side:
        raise EdgecError(
            "calibration/recipe",
            f"dequantize is set for input {name!r}, but the file has no array called scale",
            where=block.columns[name].name,
        )
    zero_point = block.side.get("zero_point", np.zeros(1))
    return QParams.per_tensor(float(block.side["scale"].reshape(-1)[0]), int(zero_point.reshape(-1)[0])).dequantize(
        value
    )


def _all_of(array: RowFile) -> Array:
    try:
        return array.whole()
    finally:
        array.close()


def _opener(file: Path) -> Callable[[], IO[bytes]]:
    return lambda: file.open("rb")


def _member_opener(file: Path, key: str) -> Callable[[], IO[bytes]]:
    return lambda: zipfile.ZipFile(file).open(f"{key}.npy")
