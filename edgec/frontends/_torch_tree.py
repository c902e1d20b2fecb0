"""What a module takes and gives as a flat list with names: dicts, tuples, dataclasses and objects with fields.

A path is a tuple of keys; `dotted` writes it as a name: `past.0.key`. Nested arguments are given in the same
names, so `state.0` and `state.1` are the two members of the tuple `state`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

Path = tuple[str, ...]


def leaves(value: Any, path: Path = ()) -> Iterator[tuple[Path, Any]]:
    """Every leaf of a structure, in order, with its path. None is no leaf: an output that is not there."""
    if value is None:
        return
    members = _members(value)
    if members is None:
        yield path, value
        return
    for key, member in members:
        yield from leaves(member, (*path, str(key)))


def _members(value: Any) -> list[tuple[Any, Any]] | None:
    if isinstance(value, Mapping):
        return list(value.items())
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return list(zip(value._fields, value, strict=True))
    if isinstance(value, (list, tuple)):
        return list(enumerate(value))
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return [(field.name, getattr(value, field.name)) for field in dataclasses.fields(value)]
    return None


def dataclass_types(value: Any) -> set[type]:
    """The plain dataclasses that occur in a structure (mappings that are dataclasses too have their own rules)."""
    found = set()
    if dataclasses.is_dataclass(value) and not isinstance(value, (type, Mapping)):
        found.add(type(value))
    for _, member in _members(value) or ():
        found |= dataclass_types(member)
    return found


def dotted(path: Path, alone: str) -> str:
    """A path as a name; `alone` names what has none, and begins the name of what has only a number."""
    if not path:
        return alone
    return "_".join((alone, path[0])) + "".join(f".{key}" for key in path[1:]) if path[0].isdigit() else ".".join(path)


def nest(flat: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments from dotted names: `{"state.0": a, "state.1": b}` → `{"state": (a, b)}`."""
    tree: dict[str, Any] = {}
    for name, value in flat.items():
        *parents, last = name.split(".")
        place = tree
        for parent in parents:
            place = place.setdefault(parent, {})
        place[last] = value
    return {name: _numbered(value) for name, value in tree.items()}


def _numbered(value: Any) -> Any:
    if not isinstance(value, dict):
        return value
    members = {key: _numbered(member) for key, member in value.items()}
    if members and set(members) == {str(index) for index in range(len(members))}:
        return tuple(members[str(index)] for index in range(len(members)))
    return members


def unique(names: Sequence[str], taken: Sequence[str]) -> list[str]:
    """The names with a suffix where one is taken: a state that goes in as `h` comes out as `h_out`."""
    used, result = set(taken), []
    for name in names:
        free, count = name, 1
        while free in used:
            free = f"{name}_out" if count == 1 else f"{name}_out{count}"
            count += 1
        used.add(free)
        result.append(free)
    return result
