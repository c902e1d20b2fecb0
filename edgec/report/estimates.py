"""Estimates as terminal text: ranges, with no more digits than they have, and once what they rest on."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from rich.console import RenderableType

from edgec.report.tables import facts, rows, section

Answer = Mapping[str, Any]

_UNITS = (("GB", 1e9), ("MB", 1e6), ("kB", 1e3), ("B", 1.0))


def estimate_table(entries: Sequence[Answer]) -> list[RenderableType]:
    """A row a precision, and the coefficients' source; nothing without entries."""
    if not entries:
        return []
    title = "estimates, not measurements (one thread)"
    basis = {"coefficients": f"{entries[0]['basis']}: {entries[0]['source']}"}
    return [section(title, rows([_row(entry) for entry in entries])), facts(basis)]


def estimate_line(entry: Answer | None) -> str:
    """The estimate of a build in one line; empty without one."""
    if not entry:
        return ""
    row = _row(entry)
    ranges = f"latency {row['latency']}; RAM {row['RAM']}; flash {row['flash']}"
    return f"{ranges} (an estimate, from {entry['basis']} coefficients)"


def _row(entry: Answer) -> dict[str, str]:
    return {
        "precision": entry["precision"],
        "latency": _range(entry["latency_ms"], lambda value: f"{value:g} ms"),
        "RAM": _range(entry["ram_bytes"], _size),
        "flash": _range(entry["flash_bytes"], _size),
    }


def _range(found: Mapping[str, float], write: Callable[[float], str]) -> str:
    return f"{write(found['low'])} to {write(found['high'])}, typically {write(found['typical'])}"


def _size(value: float) -> str:
    """Two digits and a unit."""
    name, unit = next((entry for entry in _UNITS if value >= entry[1]), _UNITS[-1])
    return f"{float(f'{value / unit:.2g}'):g} {name}"
