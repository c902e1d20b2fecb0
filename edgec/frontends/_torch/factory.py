"""From `package.module:factory` or `file.py:factory` to the module that it makes: the user's own code runs here."""

from __future__ import annotations

import ast
import contextlib
import importlib
import importlib.util
import inspect
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

from torch import nn

from edgec.errors import EdgecError
from edgec.frontends._torch_errors import first_line, own_line
from edgec.registry import did_you_mean


def stem(spec: str) -> str:
    """What a factory's product is called: the name after the colon."""
    return spec.rpartition(":")[2].rpartition(".")[2]


def make(spec: str, where: str) -> nn.Module:
    """The module that `spec` makes, or is. Raises `EdgecError` (`source/…`); `where` names the source in it."""
    place, colon, attribute = spec.rpartition(":")
    if not colon:
        raise _no_attribute(spec, where)
    with importable(place):
        found = _attribute(_import(place, where), attribute, where)
        module = found if isinstance(found, nn.Module) else _call(found, spec, where)
    if not isinstance(module, nn.Module):
        raise EdgecError(
            "source/factory-failed",
            f"{spec} gives {type(module).__name__}, not a torch.nn.Module",
            where=where,
            hint="return the module itself",
        )
    return module


@contextlib.contextmanager
def importable(place: str) -> Iterator[None]:
    """The working folder, and a file's own, are searched first, as `python` would."""
    before = list(sys.path)
    folders = [str(Path.cwd())]
    if Path(place).is_file():
        folders.insert(0, str(Path(place).resolve().parent))
    sys.path[:0] = folders
    try:
        yield
    finally:
        sys.path[:] = before


def _import(place: str, where: str) -> ModuleType:
    try:
        if not place.endswith(".py"):
            return importlib.import_module(place)
        return _import_file(Path(place), where)
    except EdgecError:
        raise
    except ModuleNotFoundError as error:
        raise _not_importable(error, place, where) from error
    except (Exception, SystemExit) as error:  # whatever the user's own code raises
        raise EdgecError(
            "source/factory-failed",
            f"{place} cannot be imported: {type(error).__name__}: {first_line(error)}",
            where=where,
            source=own_line(error),
            hint="it must be importable without side effects: put what trains or parses arguments under "
            "if __name__ == '__main__'",
        ) from error


def _import_file(path: Path, where: str) -> ModuleType:
    if not path.is_file():
        raise EdgecError(
            "source/not-found", f"there is no file {str(path)!r}", where=where, hint="check the path before the colon"
        )
    name = path.stem if path.stem.isidentifier() and path.stem not in sys.modules else "edgec_source"
    made = importlib.util.spec_from_file_location(name, path.resolve())
    assert made is not None and made.loader is not None  # a .py file always has a loader
    module = importlib.util.module_from_spec(made)
    sys.modules[name] = module  # dataclasses and pickles look their module up
    try:
        made.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def _not_importable(error: ModuleNotFoundError, place: str, where: str) -> EdgecError:
    missing = error.name or place
    if place == missing or place.startswith(missing + "."):
        return EdgecError(
            "source/not-found",
            f"there is no Python module {missing!r} in {Path.cwd()} or among the installed packages",
            where=where,
            hint="run edgec in the folder that holds it, or give the file: path/to/file.py:factory",
        )
    return EdgecError(
        "source/factory-failed",
        f"{place} needs the Python package {missing!r}, which is not installed beside edgec",
        where=where,
        source=own_line(error),
        hint=f"install it with {sys.executable} -m pip install …",
    )


def _attribute(module: ModuleType, dotted: str, where: str) -> Any:
    found: Any = module
    for name in dotted.split("."):
        if not hasattr(found, name):
            public = [key for key, value in vars(found).items() if _could_make(key, value)]
            raise EdgecError(
                "source/not-found",
                f"{getattr(found, '__name__', dotted)} has no {name!r}",
                where=where,
                hint=did_you_mean(name, public),
            )
        found = getattr(found, name)
    return found


def _could_make(name: str, value: Any) -> bool:
    return not name.startswith("_") and (isinstance(value, nn.Module) or callable(value))


def _call(factory: Any, spec: str, where: str) -> Any:
    if not callable(factory):
        return factory
    needed = _required(factory)
    if needed:
        raise EdgecError(
            "source/factory-failed",
            f"{spec} needs arguments ({', '.join(needed)}); a factory is called without any",
            where=where,
            hint=f"write a function that calls it: def make(): return {stem(spec)}(…)",
        )
    try:
        return factory()
    except (Exception, SystemExit) as error:  # whatever the user's own code raises
        raise EdgecError(
            "source/factory-failed",
            f"{spec} fails: {type(error).__name__}: {first_line(error)}",
            where=where,
            source=own_line(error),
            hint="try it in Python: it must give the module when called without arguments",
        ) from error


def _required(factory: Any) -> list[str]:
    try:
        parameters = inspect.signature(factory).parameters.values()
    except (TypeError, ValueError):
        return []
    skipped = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    return [p.name for p in parameters if p.default is p.empty and p.kind not in skipped]


def _no_attribute(spec: str, where: str) -> EdgecError:
    names: list[str] = []
    with contextlib.suppress(OSError, SyntaxError, ValueError):
        tree = ast.parse(Path(spec).read_text())
        names = [n.name for n in tree.body if isinstance(n, (ast.FunctionDef, ast.ClassDef)) and n.name[0] != "_"]
    return EdgecError(
        "source/needs-factory",
        f"which part of {spec} makes the module is not said",
        where=where,
        hint="add its name: " + " or ".join(f"{spec}:{name}" for name in names or ["factory"]),
    )
