"""The hardware profiles as plain data: the list, and one of them with what it accepts."""

from __future__ import annotations

from typing import Any

from edgec.targets.load import list_targets, load_target


def describe_targets() -> dict[str, Any]:
    """Every shipped target in one row: name, aliases, hardware, backends with their precisions."""
    return {"targets": [_row(name) for name in list_targets()]}


def _row(name: str) -> dict[str, Any]:
    target = load_target(name)
    return {
        "name": target.id,
        "aliases": list(target.aliases),
        "title": target.title,
        "memory_bytes": target.hardware.memory_bytes,
        "backends": [target.default_backend, *sorted(set(target.backends) - {target.default_backend})],
        "precisions": list(target.backends[target.default_backend].precisions),
    }


def describe_target(name: str) -> dict[str, Any]:
    """One target in full, JSON-ready, operator lists sorted. Raises `EdgecError` for an unknown one."""
    dumped: dict[str, Any] = load_target(name).model_dump(mode="json")
    for backend in dumped["backends"].values():
        scheme = backend["scheme"]
        backend["scheme"] = {
            key: sorted(value) if isinstance(value, list) and value and isinstance(value[0], str) else value
            for key, value in scheme.items()
        }
    return dumped
