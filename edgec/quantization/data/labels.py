"""Labels: the right answer to each sample, read from wherever data sets keep it.

1. A recipe's `labels`: a file (.npy, .npz, .txt, .csv, .jsonl) beside the data, or the name of an array or field in it.
2. Images in one folder a class: the class is the folder's place in alphabetical order. Where all folders are called by
   numbers, that number is the class.
3. An array `labels`, `label`, `targets`, `target` or `y` in the .npz, or `labels.npy` beside a .npy or in the folder.
4. A field of one of these names in each line of a .jsonl; lists and objects (boxes) are labels too.
5. A column of numbers with such a heading in a table (.csv, .tsv).
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from edgec.errors import EdgecError
from edgec.quantization.data.readers import table
from edgec.quantization.data.readers.arrays import LABELS_FILE
from edgec.quantization.data.readers.base import list_files
from edgec.quantization.data.samples import SampleSource
from edgec.tensors import Array

#: Names that data sets give to labels.
NAMES = table.LABELS

Label = Any

_HINT = (
    "give images in one folder a class, an array called labels in the .npz, labels.npy beside the data, a field label "
    'in each line of the .jsonl, a column label of the .csv, or labels = "FILE" in a recipe'
)


def labels_of(source: SampleSource) -> Sequence[Label]:
    """The label of each of the source's `total` samples. Raises `EdgecError` (calibration/no-labels, …/labels)."""
    found = _from_recipe(source) or _from_data(source)
    if found is None:
        raise EdgecError(
            "calibration/no-labels", "the data has no labels to measure the metric on", where=str(source.place),
            hint=_HINT,
        )  # fmt: skip
    labels, where = found
    if len(labels) != source.total:
        raise EdgecError(
            "calibration/labels",
            f"there are {len(labels)} labels for {source.total} samples",
            where=where,
            hint="give one label for each sample, in the same order",
        )
    return labels


_Found = tuple[Sequence[Label], str]


def _from_recipe(source: SampleSource) -> _Found | None:
    """Rule 1."""
    name = source.recipe.labels
    if name is None:
        return None
    beside = source.place if source.place.is_dir() else source.place.parent
    for path in (beside / name, beside.parent / name, Path(name)):
        if path.is_file():
            return _file(path, NAMES), str(path)
    found = _named(source.place, (name,))
    if found is None:
        raise EdgecError(
            "calibration/labels", f"labels = {name!r} is no file beside the data, and no array or field in it",
            where=str(source.place), hint=_HINT,
        )  # fmt: skip
    return found


def _from_data(source: SampleSource) -> _Found | None:
    """Rules 2 to 5."""
    place = source.place
    if source.files and place.is_dir():
        beside = next(
            (place / name for name in (LABELS_FILE, "labels.txt", "labels.csv") if (place / name).is_file()), None
        )
        if beside is not None:
            return _file(beside, NAMES), str(beside)
        return _folders(source.files, place)
    return _named(place, NAMES)


def _folders(files: Sequence[Path], place: Path) -> _Found | None:
    """Rule 2."""
    classes = [file.relative_to(place).parts[0] if file.parent != place else "" for file in files]
    if "" in classes or len(set(classes)) < 2:
        return None
    names = sorted(set(classes))
    if all(name.isdecimal() for name in names):
        return [int(name) for name in classes], str(place)
    order = {name: number for number, name in enumerate(names)}
    return [order[name] for name in classes], str(place)


def _named(place: Path, names: Sequence[str]) -> _Found | None:
    """Rules 3 to 5."""
    if place.is_dir():
        beside = place / LABELS_FILE
        if beside.is_file():
            return _file(beside, names), str(beside)
        parts = [_npz(file, names) for file in list_files(place, frozenset({".npz"}))]
        found = [part for part in parts if part is not None]
        return ([label for part in found for label in part], str(place)) if found and len(found) == len(parts) else None
    if place.suffix == ".npz":
        labels = _npz(place, names)
        return None if labels is None else (labels, str(place))
    if place.suffix in (".jsonl", ".ndjson"):
        lines = _jsonl(place, names)
        return None if lines is None else (lines, str(place))
    if place.suffix in table.SUFFIXES and (column := _column(place, names)) is not None:
        return column, str(place)
    for beside in (place.with_name(LABELS_FILE), place.with_name(f"{place.stem}_labels.npy")):
        if beside.is_file() and beside != place:
            return _file(beside, names), str(beside)
    return None


def _file(path: Path, names: Sequence[str]) -> Sequence[Label]:
    """Labels of a file of their own."""
    if path.suffix == ".npy":
        return _listed(_array(path), str(path))
    found = {".npz": _npz, ".jsonl": _jsonl, ".ndjson": _jsonl}.get(path.suffix, _text)(path, names)
    if found is None:
        raise EdgecError(
            "calibration/labels", f"no {' or '.join(names)} in the file", where=str(path), hint="name the array labels"
        )
    return found


def _listed(labels: Array, where: str) -> Sequence[Label]:
    if labels.ndim == 0:
        raise EdgecError(
            "calibration/labels", f"the labels are a single {labels.dtype} value", where=where,
            hint="give one label for each sample, in the same order",
        )  # fmt: skip
    return list(labels)


def _array(path: Path) -> Array:
    try:
        return np.asarray(np.load(path, allow_pickle=False))
    except (OSError, ValueError, EOFError) as error:
        raise _unreadable(path, error) from error


def _npz(path: Path, names: Sequence[str]) -> Sequence[Label] | None:
    try:
        with np.load(path, allow_pickle=False) as archive:
            name = next((n for n in names if n in archive.files), None)
            return None if name is None else _listed(archive[name], f"{path}: {name}")
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise _unreadable(path, error) from error


def _jsonl(path: Path, names: Sequence[str]) -> Sequence[Label] | None:
    try:
        lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    except (OSError, ValueError) as error:
        raise _unreadable(path, error) from error
    found = [next((line[n] for n in names if n in line), None) if isinstance(line, dict) else None for line in lines]
    return None if any(label is None for label in found) else found


def _column(path: Path, names: Sequence[str]) -> Sequence[Label] | None:
    """Rule 5; whole numbers are classes."""
    heading, lines = table.read_table(path)
    places = [i for i, cell in enumerate(heading or ()) if cell.lower() in names]
    if not places:
        return None
    try:
        found = [float(line[places[0]]) for line in lines]
    except ValueError as error:
        raise _unreadable(path, error) from error
    return [int(value) for value in found] if all(value.is_integer() for value in found) else found


def _text(path: Path, _names: Sequence[str]) -> Sequence[Label] | None:
    """A number a line, or `file,number`; a first line without a number is a heading."""
    try:
        cells = [line.split(",")[-1].strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
        start = 0 if cells and _is_number(cells[0]) else 1
        return [float(c) if "." in c else int(c) for c in cells[start:]]
    except (OSError, ValueError) as error:
        raise _unreadable(path, error) from error


def _is_number(text: str) -> bool:
    return text.removeprefix("-").replace(".", "", 1).isdecimal()


def _unreadable(path: Path, error: Exception) -> EdgecError:
    return EdgecError("calibration/labels", f"the labels cannot be read: {error}", where=str(path), hint=_HINT)
