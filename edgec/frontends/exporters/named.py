"""Names of what a TensorFlow function gives."""

from __future__ import annotations

import re
from typing import Any


def named_outputs(made: Any, names: list[str] | None) -> dict[str, Any]:
    """What a call gave, by name: a dict's keys, the names given, or output_0, output_1…"""
    import tensorflow as tf

    if isinstance(made, dict) and names is None:
        flat = {str(key): value for key, value in made.items()}
        if all(tf.is_tensor(value) for value in flat.values()):
            return flat
    values = tf.nest.flatten(made)
    labels = names if names is not None and len(names) == len(values) else [f"output_{i}" for i in range(len(values))]
    return dict(zip(labels, values, strict=True))


def unique(names: list[str]) -> list[str]:
    """The same names, later equals numbered."""
    seen: dict[str, int] = {}
    result = []
    for name in names:
        seen[name] = seen.get(name, -1) + 1
        result.append(f"{name}_{seen[name]}" if seen[name] else name)
    return result


def natural(name: str) -> list[tuple[int, str]]:
    """A key that sorts output_10 behind output_9."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", name)]
