"""Read calibration samples from a table (.csv, .tsv): a line a sample, a cell a value.

1. The first line is a heading where a column of numbers begins with a text; with texts alone, where none of its cells
   comes again below. A .txt has none: its lines are texts.
2. A column headed as `LABELS` says is no input, unless the model takes as many columns as there are. Columns that are
   headed like the model's inputs are theirs; otherwise columns of numbers go to the input of numbers and the others to
   that of texts, in their order.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from edgec.errors import EdgecError, Finding
from edgec.quantization.data.readers.base import (
    cast,
    channel_axis,
    constants_of,
    list_files,
    normalise,
    sample_shape,
    steps_of,
)
from edgec.quantization.data.recipe import Recipe
from edgec.tensors import Array, DType, TensorSpec

SUFFIXES = frozenset({".csv", ".tsv"})
_FILES = SUFFIXES | {".txt"}

#: Headings of columns that hold the right answer.
LABELS = ("labels", "label", "targets", "target", "y")


class TableReader:
    """One sample a line; the files of a folder one after the other, each with the columns of the first."""

    def __init__(self, path: Path, inputs: Sequence[TensorSpec], recipe: Recipe) -> None:
        self.findings: tuple[Finding, ...] = ()
        self._steps = recipe.inputs
        self._constants = constants_of(inputs, recipe.inputs)
        self._inputs = [spec for spec in inputs if spec.name not in self._constants]
        self._path = path
        tables = [read_table(file) for file in ([path] if path.is_file() else list_files(path, _FILES))]
        self._lines = [line for _, lines in tables for line in lines]
        self._columns = self._assigned(tables[0][0]) if self._lines else {}

    def __len__(self) -> int:
        return len(self._lines)

    def close(self) -> None:
        """Nothing stays open."""

    def content(self, index: int) -> bytes:
        """The line's cells."""
        return "\0".join(self._lines[index]).encode()

    def read(self, index: int) -> dict[str, Array]:
        """Line `index` as arrays."""
        return {**{spec.name: self._value(spec, index) for spec in self._inputs}, **self._constants}

    def _value(self, spec: TensorSpec, index: int) -> Array:
        steps = steps_of(spec, self._steps)
        cells = [self._lines[index][column] for column in self._columns[spec.name]]
        if spec.dtype is DType.STRING:
            return np.asarray(cells, spec.dtype.numpy).reshape(sample_shape(spec))
        values = np.asarray([_number(cell) for cell in cells]).reshape(sample_shape(spec))
        if not spec.dtype.is_float and np.isnan(values).any():
            raise EdgecError(
                "calibration/unreadable", "whole numbers are asked for, and one is missing", where=f"sample {index + 1}"
            )
        return cast(normalise(values, steps, channel_axis(spec, steps)) if spec.dtype.is_float else values, spec, steps)

    def _assigned(self, heading: Sequence[str] | None) -> dict[str, list[int]]:
        """Rule 2: the columns of each input. Raises `calibration/shape` where there are more or fewer."""
        width = len(self._lines[0])
        names = heading or [""] * width
        keys = {steps_of(spec, self._steps).key or spec.name: spec for spec in self._inputs}
        if heading and all(heading.count(key) == math.prod(sample_shape(spec)) for key, spec in keys.items()):
            return {spec.name: [i for i, name in enumerate(names) if name == key] for key, spec in keys.items()}
        size = sum(math.prod(sample_shape(spec)) for spec in self._inputs)
        columns = [i for i in range(width) if width == size or names[i].lower() not in LABELS]
        texts = [spec for spec in self._inputs if spec.dtype is DType.STRING]
        numbers = [spec for spec in self._inputs if spec.dtype is not DType.STRING]
        of_numbers = [i for i in columns if all(_is_number(line[i]) for line in self._lines)] if numbers else []
        left = {"numbers": (numbers, of_numbers), "text": (texts, [i for i in columns if i not in of_numbers])}
        found: dict[str, list[int]] = {}
        for kind, (specs, places) in left.items():
            wanted = sum(math.prod(sample_shape(spec)) for spec in specs)
            if len(specs) > 1 or len(places) != wanted:
                raise self._misfit(kind, specs, wanted, len(places))
            found.update({spec.name: places for spec in specs})
        return found

    def _misfit(self, kind: str, specs: Sequence[TensorSpec], wanted: int, given: int) -> EdgecError:
        listing = ", ".join(f"{spec.name} {spec.shape}" for spec in specs) or "none"
        return EdgecError(
            "calibration/shape",
            f"the table has {given} columns of {kind}, the model takes {wanted} (inputs: {listing})",
            where=str(self._path),
            hint="give the columns of training in their order, and no others but one headed label; columns of several "
            "inputs are headed like those; numbers that are categories go into a .jsonl",
        )


def read_table(file: Path) -> tuple[list[str] | None, list[list[str]]]:
    """The heading, where there is one (rule 1), and the lines of a table."""
    try:
        with file.open(encoding="utf-8-sig", newline="") as handle:
            first = handle.readline()
            handle.seek(0)
            lines = [[cell.strip() for cell in line] for line in csv.reader(handle, delimiter=_mark(file, first))]
            lines = [line for line in lines if any(line)]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise EdgecError(
            "calibration/unreadable", f"cannot read the table: {error}", where=str(file), hint="save it as UTF-8"
        ) from error
    for number, line in enumerate(lines, 1):
        if len(line) != len(lines[0]):
            raise EdgecError(
                "calibration/unreadable",
                f"line {number} has {len(line)} cells, the first has {len(lines[0])}",
                where=str(file),
                hint="give every line the same columns",
            )
    heading = file.suffix.lower() in SUFFIXES and _has_heading(lines)
    return (lines[0], lines[1:]) if heading else (None, lines)


def _mark(file: Path, line: str) -> str:
    """What stands between cells; the lines of a .txt are sentences, in which commas mean nothing."""
    return max("\t" if file.suffix.lower() == ".txt" else "\t;,", key=line.count)


def _has_heading(lines: Sequence[Sequence[str]]) -> bool:
    """Rule 1."""
    if len(lines) < 2:
        return False
    below = list(zip(*lines[1:], strict=True))
    numeric = [all(map(_is_number, cells)) for cells in below]
    if any(numeric):
        return any(is_n and not _is_number(cell) for cell, is_n in zip(lines[0], numeric, strict=True))
    return all(cell not in cells for cell, cells in zip(lines[0], below, strict=True))


def _is_number(cell: str) -> bool:
    try:
        _number(cell)
    except ValueError:
        return False
    return True


def _number(cell: str) -> float:
    """What is missing is no number, as in training."""
    return float(cell) if cell else math.nan
