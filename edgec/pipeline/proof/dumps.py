"""What an application did to each sample, written down: by the agent that ran it, or by the application itself.

For a sample `a.jpg` there are, any of them:

    a.jpg.pre.npy     what the model was fed, as it was fed (or a.pre.npy; several inputs: .pre.0.npy, .pre.1.npy)
    a.jpg.raw.npy     what the model gave, untouched               (likewise)
    a.jpg.post.json   the application's answer
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from edgec.artifact import IoBinding
from edgec.errors import EdgecError
from edgec.tensors import Array

NOTHING = object()


@dataclass(frozen=True, kw_only=True, slots=True)
class Dump:
    """One sample's stages; empty, or `NOTHING`, where the application wrote none. `problem` is where it failed."""

    name: str
    pre: Sequence[Array] = ()
    raw: Sequence[Array] = ()
    post: Any = NOTHING
    problem: dict[str, str] = field(default_factory=dict)


def read_dumps(
    folder: Path, names: Sequence[str], inputs: Sequence[IoBinding], outputs: Sequence[IoBinding]
) -> list[Dump]:
    """The dumps of the samples of these names (paths below the data's folder).

    Raises `EdgecError` (validate/dump): no folder, nothing in it for any sample, or a file that is none.
    """
    if not folder.is_dir():
        raise EdgecError("validate/dump", "there is no such folder", where=str(folder), hint=_HINT)
    found = [_read(folder, name, len(inputs), len(outputs)) for name in names]
    if not any(d.pre or d.raw or d.post is not NOTHING or d.problem for d in found):
        hint = f"write {names[0]}.pre.npy, {names[0]}.raw.npy and {names[0]}.post.json" if names else _HINT
        raise EdgecError(
            "validate/dump", f"nothing here belongs to any of the {len(names)} samples", where=str(folder), hint=hint
        )
    return found


_HINT = "docs/validation.md has the lines that write it"


def _read(folder: Path, name: str, inputs: int, outputs: int) -> Dump:
    place = next((p for p in (folder / name, (folder / name).with_suffix("")) if _any(p)), folder / name)
    answer = place.with_name(place.name + ".post.json")
    error = place.with_name(place.name + ".error.json")
    return Dump(
        name=name,
        pre=_arrays(place, "pre", inputs),
        raw=_arrays(place, "raw", outputs),
        post=_json(answer) if answer.is_file() else NOTHING,
        problem=_json(error) if error.is_file() else {},
    )


def _any(place: Path) -> bool:
    endings = (".pre.npy", ".raw.npy", ".pre.0.npy", ".raw.0.npy", ".post.json", ".error.json")
    return any(place.with_name(place.name + ending).is_file() for ending in endings)


def _arrays(place: Path, stage: str, count: int) -> tuple[Array, ...]:
    """One array for each input or output; none where any of them is missing."""
    alone = place.with_name(f"{place.name}.{stage}.npy")
    files = [alone] if count == 1 and alone.is_file() else [
        place.with_name(f"{place.name}.{stage}.{i}.npy") for i in range(count)
    ]  # fmt: skip
    if not all(file.is_file() for file in files):
        return ()
    return tuple(_array(file) for file in files)


def _array(file: Path) -> Array:
    try:
        return np.asarray(np.load(file, allow_pickle=False))
    except (OSError, ValueError, EOFError) as error:
        raise EdgecError("validate/dump", f"not a .npy file: {error}", where=str(file), hint=_HINT) from error


def _json(file: Path) -> Any:
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise EdgecError("validate/dump", f"not a JSON file: {error}", where=str(file), hint=_HINT) from error
