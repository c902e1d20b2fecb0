"""What the manifest says of inputs and outputs beside shapes: how samples are prepared, how classes are called."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edgec.errors import EdgecError
from edgec.quantization.data.recipe import ANY_INPUT, Recipe


def recipe_facts(recipe: Recipe) -> dict[str, Any]:
    """The preparation that a calibration recipe describes, input by input; empty where it says nothing."""
    inputs = {
        name: steps.model_dump(mode="json", exclude_none=True, exclude_defaults=True)
        for name, steps in recipe.inputs.items()
    }
    told = {name: steps for name, steps in inputs.items() if steps}
    if not told:
        return {}
    return {"kind": recipe.reader or "", "inputs": told}


def manifest_recipe(preprocessing: Mapping[str, Any]) -> Recipe | None:
    """The preparation that a manifest tells of, as a recipe; None where it tells none that we can do."""
    kind = preprocessing.get("kind") or None
    reader = kind if kind in ("image", "array", "jsonl", "audio", "text", "table") else None
    tables = preprocessing.get("inputs")
    if not isinstance(tables, Mapping):
        recipe = preprocessing.get("recipe")
        if not isinstance(recipe, Mapping):
            return None
        tables = {ANY_INPUT: recipe}
    try:
        return Recipe.model_validate({"reader": reader, "inputs": dict(tables)})
    except ValueError:  # written by hand, or by another version
        return None


def read_labels(path: str | Path) -> tuple[str, ...]:
    """Names of the classes, one a line. Raises `EdgecError` (io/unreadable, cli/labels)."""
    try:
        lines = [line.strip() for line in Path(path).read_text("utf-8").splitlines()]
    except OSError as error:
        raise EdgecError("io/unreadable", f"cannot read the labels: {error.strerror}", where=str(path)) from error
    except UnicodeDecodeError as error:
        raise EdgecError("cli/labels", "the labels are not UTF-8 text", where=str(path)) from error
    while lines and not lines[-1]:
        lines.pop()
    if not lines or not all(lines):
        empty = "has no lines" if not lines else f"has an empty line {lines.index('') + 1}"
        raise EdgecError("cli/labels", f"the file of labels {empty}", where=str(path), hint="write one label a line")
    return tuple(lines)
