"""Read a hardware profile: one TOML file, laid over the bases that it extends, checked key by key.

1. `extends` names one base or several, later ones over earlier ones, the file itself over all of them: a profile beside
   the file, a shipped one, or an alias of one.
2. Tables merge, everything else (lists too) replaces.
3. Files that begin with `_` are bases: parts of a profile, never a target themselves.
4. A target is named by its file, by one of its aliases, or by the path of a user's own file.
5. `id` is the file's own name unless it says otherwise; neither `id` nor `aliases` is inherited.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel, ValidationError

from edgec.errors import EdgecError, Finding
from edgec.registry import data_folder, did_you_mean
from edgec.targets.profile import Target

Table = dict[str, Any]


@dataclass(frozen=True, kw_only=True, slots=True)
class _Layer:
    """One file as it stands on disk."""

    path: Path
    table: Table


def list_targets() -> tuple[str, ...]:
    """Names of the shipped targets, sorted; bases and aliases are left out."""
    return tuple(sorted(path.stem for path in _shipped()))


def load_target(name: str) -> Target:
    """The target of that name, alias or TOML path.

    Raises `EdgecError`: `target/unknown`, `target/syntax`, `target/unknown-key`, `target/invalid`, `target/extends`.
    """
    path = _find(name)
    layers = list(_layers(path, seen=()))
    merged: Table = {}
    for layer in layers:
        merged = _merge(merged, layer.table)
    own = layers[-1].table
    merged |= {"id": own.get("id", path.stem), "aliases": own.get("aliases", ())}  # rule 5
    try:
        target = Target.model_validate(merged)
    except ValidationError as error:
        raise _explain(error, layers) from None
    if target.default_backend not in target.backends:
        raise EdgecError(
            "target/invalid",
            f"{path.name}: default_backend: {target.default_backend!r} has no table under backends",
            where=str(path),
            hint=did_you_mean(target.default_backend, target.backends),
        )
    return target


def _shipped() -> Iterator[Path]:
    # rule 3
    return (path for path in data_folder("targets").glob("*.toml") if not path.name.startswith("_"))


def _find(name: str) -> Path:
    # rule 4
    if name.endswith(".toml") or "/" in name:
        path = Path(name)
        if not path.is_file():
            raise EdgecError("target/unknown", f"there is no target file {name!r}", hint="give an existing .toml file")
        return path
    path = data_folder("targets") / f"{name}.toml"
    if path in set(_shipped()):
        return path
    aliases = _aliases()
    if name in aliases:
        return aliases[name]
    raise EdgecError(
        "target/unknown",
        f"there is no target named {name!r}",
        hint=did_you_mean(name, (*list_targets(), *aliases)),
    )


def _aliases() -> dict[str, Path]:
    return {alias: path for path in _shipped() for alias in _read(path).get("aliases", ())}


def _read(path: Path) -> Table:
    try:
        return tomllib.loads(path.read_text("utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise EdgecError("target/syntax", f"{path.name} is not valid TOML: {error}", where=str(path)) from error
    except OSError as error:
        raise EdgecError("io/unreadable", f"{path.name} cannot be read: {error.strerror}", where=str(path)) from error


def _layers(path: Path, *, seen: tuple[Path, ...]) -> Iterator[_Layer]:
    # rule 1
    path = path.resolve()
    if path in seen:
        chain = " → ".join(p.stem for p in (*seen, path))
        raise EdgecError("target/extends", f"targets extend each other in a circle: {chain}", where=str(path))
    table = _read(path)
    bases = table.pop("extends", [])
    bases = [bases] if isinstance(bases, str) else bases
    if not isinstance(bases, list) or not all(isinstance(base, str) for base in bases):
        raise EdgecError("target/invalid", f"{path.name}: extends: must be a name or a list of names", where=str(path))
    for base in bases:
        yield from _layers(_base(base, path), seen=(*seen, path))
    yield _Layer(path=path, table=table)


def _base(name: str, child: Path) -> Path:
    """A base beside the file that names it, or a shipped one; a file may have the name of the one that it extends."""
    folders = (child.parent, data_folder("targets").resolve())
    for path in (folder / f"{name}.toml" for folder in folders):
        if path.is_file() and path != child:
            return path
    aliases = _aliases()
    if name in aliases:
        return aliases[name]
    known = {path.stem for folder in folders for path in folder.glob("*.toml") if path != child} | aliases.keys()
    raise EdgecError(
        "target/extends",
        f"{child.name}: extends: there is no profile named {name!r}",
        where=str(child),
        hint=did_you_mean(name, known),
    )


def _merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> Table:
    # rule 2
    merged = dict(base)
    for key, value in over.items():
        old = merged.get(key)
        merged[key] = _merge(old, value) if isinstance(old, dict) and isinstance(value, dict) else value
    return merged


def _explain(error: ValidationError, layers: list[_Layer]) -> EdgecError:
    """All faults of a profile as findings, each with the file and the key path it stands at."""
    findings = [_fault(dict(detail), layers) for detail in error.errors(include_url=False)]
    if len(findings) == 1:
        only = findings[0]
        return EdgecError(only.code, only.message, where=only.where, hint=only.hint)
    return EdgecError(
        "target/invalid",
        f"the profile {layers[-1].path.name} has {len(findings)} faults",
        where=str(layers[-1].path),
        findings=findings,
    )


def _fault(detail: Table, layers: list[_Layer]) -> Finding:
    keys = [str(part) for part in detail["loc"] if part != "[key]"]
    origin = next((layer for layer in reversed(layers) if _holds(layer.table, keys)), layers[-1])
    place = f"{origin.path.parent.name}/{origin.path.name}: {'.'.join(keys)}"
    unknown_key = detail["type"] == "extra_forbidden" or detail["loc"][-1:] == ("[key]",)
    if not unknown_key:
        own = detail["type"] == "value_error"  # a rule of the profile's, in its own words
        why = detail["msg"].removeprefix("Value error, ") if own else detail["msg"].lower()
        return Finding(code="target/invalid", message=f"{place}: {why}", where=str(origin.path))
    hint = did_you_mean(keys[-1], _known_keys(keys[:-1]))
    near = hint.split("?")[0] + "?" if "?" in hint else hint
    return Finding(
        code="target/unknown-key", message=f"{place}: unknown key, {near}", where=str(origin.path), hint=hint
    )


def _holds(table: object, keys: list[str]) -> bool:
    for key in keys:
        if not isinstance(table, dict) or key not in table:
            return False
        table = table[key]
    return True


def _known_keys(parents: list[str]) -> tuple[str, ...]:
    """The keys that may stand under a key path, read from the profile's own types."""
    annotation: Any = Target
    for parent in parents:
        if isinstance(annotation, type) and issubclass(annotation, BaseModel):
            annotation = annotation.model_fields[parent].annotation
        else:  # a dict: its values
            annotation = get_args(annotation)[1]
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return tuple(annotation.model_fields)
    return tuple(str(name) for name in get_args(get_args(annotation)[0]))
