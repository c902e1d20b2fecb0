"""Open calibration data, whatever its form, as a re-iterable stream of model inputs.

Samples are read one at a time, in a fixed order; of a larger set, N are taken evenly spread over all of it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from edgec.errors import EdgecError, Finding, Severity
from edgec.quantization.data.readers.base import Reader, list_files
from edgec.quantization.data.recipe import ANY_INPUT, Recipe, load_recipe, shipped_recipes
from edgec.registry import did_you_mean
from edgec.tensors import Array, DType, TensorSpec

if TYPE_CHECKING:
    from collections.abc import Callable

#: How many samples are used when neither the user nor the recipe says so.
DEFAULT_COUNT = 128

#: Part of the digest; raise it when a reader begins to give other values for the same file.
_READER_VERSION = 1

_FORMS = "a recipe (.toml), a folder of images, .npy, .npz, .jsonl, .csv, .txt, or audio files"


@dataclass(frozen=True, slots=True)
class Grouping:
    """How samples become a feed: `size` of them, stacked for the inputs named in `batched`."""

    size: int
    batched: frozenset[str]


class SampleSource:
    """Feeds for a model: iterate as often as needed, each time the same dictionaries in the same order.

    `count` is the number of samples, `len()` the number of feeds (a feed of a model with batch B holds B samples).
    `findings` grow while iterating: unreadable files are left out and named there.
    """

    def __init__(
        self,
        reader: Reader,
        grouping: Grouping,
        *,
        indices: Sequence[int],
        description: str,
        key: str,
        place: Path = Path(),
        recipe: Recipe = Recipe(),  # noqa: B008  it cannot be changed
    ) -> None:
        self._reader = reader
        self._grouping = grouping
        self._indices = tuple(indices)
        self._key = key
        self._skipped: dict[str, Finding] = {}
        self.description = description
        self.place, self.recipe = place, recipe

    def __len__(self) -> int:
        return max(1, len(self._indices) // self._grouping.size)

    @property
    def count(self) -> int:
        """How many samples a run over all feeds uses."""
        return len(self._indices)

    @property
    def findings(self) -> tuple[Finding, ...]:
        """What the reader assumed, and which files could not be read so far."""
        return (*self._reader.findings, *self._skipped.values())

    @cached_property
    def digest(self) -> str:
        """sha256 over the contents of the samples, how they are prepared, and for which inputs."""
        sha = hashlib.sha256(self._key.encode())
        try:
            for index in self._indices:
                content = self._reader.content(index)
                sha.update(len(content).to_bytes(8, "little") + content)
        finally:
            self._reader.close()
        return sha.hexdigest()

    @property
    def total(self) -> int:
        """How many samples there are, of which `count` are used."""
        return len(self._reader)

    @property
    def files(self) -> tuple[Path, ...]:
        """The file of each of the `total` samples, where each one is a file; else none."""
        return tuple(getattr(self._reader, "files", ()))

    def __iter__(self) -> Iterator[dict[str, Array]]:
        return (feed for _, feed in self.numbered())

    def numbered(self) -> Iterator[tuple[tuple[int, ...], dict[str, Array]]]:
        """Feeds, each with the numbers (of `total`) of the samples in it."""
        group: list[tuple[int, dict[str, Array]]] = []
        feeds = 0
        for entry in self._samples():
            group.append(entry)
            if len(group) == self._grouping.size:
                yield tuple(i for i, _ in group), self._stack([sample for _, sample in group])
                feeds += 1
                group = []
        if feeds:
            return  # an incomplete last batch is left out
        if not group:
            raise EdgecError(
                "calibration/unreadable",
                f"none of the {self.count} samples can be read",
                where=self.description,
                hint="; ".join(f"{f.where}: {f.message}" for f in list(self._skipped.values())[:3]),
            )
        # Fewer samples than one batch: repeat them, which changes no range.
        group = [group[i % len(group)] for i in range(self._grouping.size)]
        yield tuple(i for i, _ in group), self._stack([sample for _, sample in group])

    def _samples(self) -> Iterator[tuple[int, dict[str, Array]]]:
        try:
            for index in self._indices:
                try:
                    yield index, self._reader.read(index)
                except EdgecError as error:
                    if error.code != "calibration/unreadable":
                        raise
                    finding = replace(error.finding, severity=Severity.WARNING)
                    self._skipped.setdefault(finding.where, finding)
        finally:
            self._reader.close()

    def _stack(self, group: Sequence[Mapping[str, Array]]) -> dict[str, Array]:
        return {
            name: np.stack([sample[name] for sample in group]) if name in self._grouping.batched else value
            for name, value in group[0].items()
        }


def open_samples(
    path: str | Path, inputs: Sequence[TensorSpec], *, count: int | None = None, usual: Recipe | None = None
) -> SampleSource:
    """Open calibration data for a model's inputs; `path` may also be `recipe:data`.

    `usual` is what the model's own source says of its preprocessing: it holds for data of its kind that comes
    without a recipe. Raises `EdgecError` (`calibration/…`): nothing there, unknown kind, wrong shape, or a bad recipe.
    """
    recipe, data, label = _locate(str(path))
    _check_inputs(recipe, inputs)
    kind = recipe.reader or _kind_of(data)
    if kind == "text" and recipe.text.tokenizer is None and any(spec.dtype is DType.STRING for spec in inputs):
        kind = "table"  # texts as they are, a line a sample
    if recipe == Recipe() and usual is not None and usual.reader == kind:
        recipe = usual
    reader, grouping = _open_reader(kind, data, inputs, recipe)
    if len(reader) == 0:
        raise EdgecError("calibration/empty", "there are no samples", where=str(data), hint=f"give {_FORMS}")
    wanted = count or recipe.count or DEFAULT_COUNT
    indices = choose(len(reader), wanted, seed=recipe.seed)
    shown = f"{len(indices)} of {len(reader)}" if len(indices) < len(reader) else str(len(reader))
    return SampleSource(
        reader,
        grouping,
        indices=indices,
        description=f"{shown} {kind} sample{'s' if len(reader) != 1 else ''} from {label}",
        key=_key(recipe, kind, inputs),
        place=data,
        recipe=recipe,
    )


def choose(total: int, count: int, *, seed: int | None = None) -> tuple[int, ...]:
    """`count` of `total` indices in rising order: evenly spread from the first to the last, or drawn with a seed."""
    if count >= total:
        return tuple(range(total))
    if seed is not None:
        drawn = np.random.default_rng(seed).choice(total, size=count, replace=False)
        return tuple(int(i) for i in np.sort(drawn))
    if count == 1:
        return (total // 2,)
    return tuple(i * (total - 1) // (count - 1) for i in range(count))


def _locate(text: str) -> tuple[Recipe, Path, str]:
    """(recipe, data, label) of a path, a recipe, or `recipe:data`."""
    path = Path(text)
    if path.exists():
        if path.suffix.lower() != ".toml":
            return Recipe(), path, path.name or text
        return _with_data(path, None)
    name, colon, data = text.partition(":")
    shipped = shipped_recipes()
    if not colon and name not in shipped:
        raise EdgecError(
            "calibration/not-found",
            "there is no such file or folder",
            where=text,
            hint=f"give {_FORMS}, or recipe:data",
        )
    recipe = shipped.get(name) or Path(name)
    if not recipe.is_file() or recipe.suffix == ".py":
        raise EdgecError(
            "calibration/not-found",
            f"there is no recipe {name!r}: before the colon stands a recipe, after it the data",
            where=text,
            hint=f"{did_you_mean(name, shipped)}; functions are not called: save the samples they give as .npy or .npz",
        )
    return _with_data(recipe, data or None)


def _with_data(recipe_path: Path, data: str | None) -> tuple[Recipe, Path, str]:
    recipe = load_recipe(recipe_path)
    if recipe.text.tokenizer is not None:
        tokenizer = recipe_path.parent / recipe.text.tokenizer
        digest = hashlib.sha256(tokenizer.read_bytes()).hexdigest() if tokenizer.is_file() else None
        text = recipe.text.model_copy(update={"tokenizer": str(tokenizer), "digest": digest})
        recipe = recipe.model_copy(update={"text": text})
    if data is not None:
        place = Path(data)
    elif recipe.data is not None:
        place = recipe_path.parent / recipe.data
    else:
        raise EdgecError(
            "calibration/no-data",
            "the recipe does not say where the data is",
            where=str(recipe_path),
            hint=f'use --calibration {recipe_path.stem}:FOLDER, or set data = "FOLDER" in it',
        )
    if not place.exists():
        raise EdgecError("calibration/not-found", "there is no such file or folder", where=str(place))
    return recipe, place, f"{recipe_path.stem}:{place.name}"


def _check_inputs(recipe: Recipe, inputs: Sequence[TensorSpec]) -> None:
    names = [spec.name for spec in inputs]
    for name in recipe.inputs:
        if name != ANY_INPUT and name not in names:
            raise EdgecError(
                "calibration/recipe",
                f"inputs.{name}: the model has no such input",
                hint=f'{did_you_mean(name, names)}; inputs."*" stands for any',
            )


def _readers() -> dict[str, tuple[frozenset[str], Callable[[Path, Sequence[TensorSpec], Recipe], Reader]]]:
    """Suffixes and reader of each kind."""
    from edgec.quantization.data.readers import arrays, audio, images, jsonl, table, text

    return {
        "image": (images.SUFFIXES, images.ImageReader),
        "array": (arrays.SUFFIXES, arrays.ArrayReader),
        "jsonl": (jsonl.SUFFIXES, jsonl.JsonlReader),
        "audio": (audio.SUFFIXES, audio.AudioReader),
        "text": (text.SUFFIXES, text.TextReader),
        "table": (table.SUFFIXES, table.TableReader),
    }


def _kind_of(data: Path) -> str:
    """The kind of reader that knows the file's suffix, or most of a folder's files."""
    counts = {
        kind: int(data.suffix.lower() in suffixes) if data.is_file() else len(list_files(data, suffixes))
        for kind, (suffixes, _) in _readers().items()
        if data.is_file() or kind != "jsonl"
    }
    kind = max(counts, key=lambda name: counts[name])
    if counts[kind] == 0:
        raise EdgecError(
            "calibration/unknown-kind",
            "there is nothing here that can be read as calibration data",
            where=str(data),
            hint=f"give {_FORMS}",
        )
    return kind


def _open_reader(kind: str, data: Path, inputs: Sequence[TensorSpec], recipe: Recipe) -> tuple[Reader, Grouping]:
    """The reader, and how its samples become feeds: batched, or each one whole when the data only fits that.

    A reader sees every input as (batch, sample…); an input without a batch axis gets one in front.
    """
    make = _readers()[kind][1]
    batch = max(1, inputs[0].shape[0]) if inputs and inputs[0].shape else 1
    batched = frozenset(s.name for s in inputs if s.shape and max(1, s.shape[0]) == batch)
    whole = [replace(spec, shape=(1, *spec.shape)) for spec in inputs]
    split = [spec if spec.name in batched else w for spec, w in zip(inputs, whole, strict=True)]
    try:
        return _probed(make(data, split, recipe)), Grouping(batch, batched)
    except EdgecError as error:
        if error.code != "calibration/shape" or batch == 1:
            raise
        try:
            return _probed(make(data, whole, recipe)), Grouping(1, frozenset())
        except EdgecError:
            raise error from None


def _probed(reader: Reader) -> Reader:
    """The reader, once its first sample has shown that shapes fit; damaged files are dealt with while iterating."""
    try:
        if len(reader):
            reader.read(0)
    except EdgecError as error:
        if error.code != "calibration/unreadable":
            raise
    finally:
        reader.close()
    return reader


def _key(recipe: Recipe, kind: str, inputs: Sequence[TensorSpec]) -> str:
    """Everything but the contents that decides what is fed."""
    steps = recipe.model_dump(mode="json", exclude={"description", "data", "count", "seed", "labels"})
    steps["text"].pop("tokenizer")  # where it lies; its digest says what it is
    specs = [[spec.name, list(spec.shape), spec.dtype.value] for spec in inputs]
    return json.dumps([_READER_VERSION, kind, steps, specs], sort_keys=True)
