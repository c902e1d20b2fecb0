"""Plugins of one kind live in one package; each is a module, found by name and imported when asked for.

Discovery reads the folder, never the code, so listing costs no imports.
"""

from __future__ import annotations

import difflib
import importlib
import pkgutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import ModuleType
from typing import TypeVar

from edgec.errors import EdgecError

T = TypeVar("T")


def data_folder(kind: str) -> Path:
    """Where data files of a kind (`targets`, `calibration`) are: in the installed package, or the checkout's folder."""
    package = Path(__file__).resolve().parent
    installed = package / "_data" / kind
    return installed if installed.is_dir() else package.parent / kind


def plugin_names(package: ModuleType, exclude: Iterable[str] = ("base",)) -> tuple[str, ...]:
    """Names of the plugin modules in a package, sorted; `base` and private modules are not plugins."""
    skip = set(exclude)
    return tuple(
        sorted(
            info.name
            for info in pkgutil.iter_modules(package.__path__)
            if info.name not in skip and not info.name.startswith("_")
        )
    )


def load_plugin(package: ModuleType, name: str, *, kind: str) -> ModuleType:
    """Import plugin `name` of `package`. Raises `EdgecError` (`cli/unknown-<kind>`) with a did-you-mean."""
    names = plugin_names(package)
    if name not in names:
        raise EdgecError(
            f"cli/unknown-{kind}",
            f"there is no {kind} named {name!r}",
            hint=did_you_mean(name, names),
        )
    return importlib.import_module(f"{package.__name__}.{name}")


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """A hint with the nearest known name, or the list of all of them."""
    names = sorted(known)
    near = difflib.get_close_matches(name, names, n=1)
    listing = "known: " + ", ".join(names)
    return f"did you mean {near[0]!r}? {listing}" if near else listing


def merge_unique(tables: Iterable[Mapping[str, T]], *, kind: str) -> dict[str, T]:
    """One table out of many; a key that two of them define is a programming error."""
    merged: dict[str, T] = {}
    for table in tables:
        for key, value in table.items():
            if key in merged:
                raise EdgecError("internal/duplicate", f"{kind} {key!r} is defined twice")
            merged[key] = value
    return merged
