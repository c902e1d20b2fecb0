"""Read calibration samples from a .jsonl file: one object a line, input name → nested lists."""

from __future__ import annotations

import json
from array import array
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from edgec.errors import EdgecError, Finding
from edgec.quantization.data.readers.base import cast, channel_axis, constants_of, fit, normalise, steps_of
from edgec.quantization.data.recipe import Recipe
from edgec.tensors import Array, TensorSpec

SUFFIXES = frozenset({".jsonl", ".ndjson"})


class JsonlReader:
    """One sample a line; only the lines' offsets are kept in memory."""

    def __init__(self, path: Path, inputs: Sequence[TensorSpec], recipe: Recipe) -> None:
        self.findings: tuple[Finding, ...] = ()
        self._path = path
        self._recipe_steps = recipe.inputs
        self._constants = constants_of(inputs, recipe.inputs)
        self._inputs = [spec for spec in inputs if spec.name not in self._constants]
        self._lines = _line_starts(path)

    def __len__(self) -> int:
        return len(self._lines) // 2

    def close(self) -> None:
        """Nothing stays open."""

    def content(self, index: int) -> bytes:
        """The line's bytes."""
        with self._path.open("rb") as handle:
            handle.seek(self._lines[2 * index])
            return handle.readline()

    def read(self, index: int) -> dict[str, Array]:
        """Line `index` as arrays."""
        where = f"{self._path}:{self._lines[2 * index + 1]}"
        table = self._parse(index, where)
        return {**{spec.name: self._value(table, spec, where) for spec in self._inputs}, **self._constants}

    def _parse(self, index: int, where: str) -> dict[str, object]:
        try:
            table = json.loads(self.content(index))
        except (ValueError, RecursionError) as error:
            raise EdgecError("calibration/unreadable", f"not valid JSON: {error}", where=where) from error
        if isinstance(table, dict):
            return table
        if len(self._inputs) == 1:
            return {self._inputs[0].name: table}
        raise EdgecError(
            "calibration/inputs",
            "a line must be an object: input name → values",
            where=where,
            hint=f"the model takes: {', '.join(spec.name for spec in self._inputs)}",
        )

    def _value(self, table: dict[str, object], spec: TensorSpec, where: str) -> Array:
        steps = steps_of(spec, self._recipe_steps)
        key = steps.key or spec.name
        if key not in table:
            raise EdgecError(
                "calibration/inputs",
                f"no value for input {key!r} (found: {', '.join(table) or 'nothing'})",
                where=where,
                hint="give every input in every line",
            )
        try:
            value = np.asarray(table[key], np.float64 if spec.dtype.is_float else spec.dtype.numpy)
        except (ValueError, TypeError, OverflowError) as error:
            raise EdgecError(
                "calibration/unreadable", f"the values of input {key!r} are no array of numbers: {error}", where=where
            ) from error
        if value.shape and value.shape[0] == 1 and value.ndim == len(spec.shape):
            value = value[0]
        if steps.transpose is not None:
            value = value.transpose(steps.transpose)
        value = fit(value, spec, where=where)
        return cast(normalise(value, steps, channel_axis(spec, steps)), spec, steps) if spec.dtype.is_float else value


def _line_starts(path: Path) -> array[int]:
    """Byte offset and number of every line that is not empty, one after the other."""
    lines = array("q")
    offset = 0
    with path.open("rb") as handle:
        for number, line in enumerate(handle, 1):
            if line.strip():
                lines.extend((offset, number))
            offset += len(line)
    return lines
