"""Plain facts as terminal text: key and value, rows and columns, with units read from the keys' endings."""

from __future__ import annotations

import io
import shutil
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.markup import escape
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

#: Ending of a key → how its number is written.
UNITS: dict[str, Callable[[float], str]] = {
    "_bytes": lambda v: human_bytes(v),
    "_ms": lambda v: f"{v:.2f} ms",
    "_s": lambda v: f"{v:.2f} s",
    "_db": lambda v: f"{v:.1f} dB",
    "_share": lambda v: f"{100 * v:.2f} %",
}


def human_bytes(count: float) -> str:
    """`3565158` as `3.4 MiB`."""
    for unit in ("B", "KiB", "MiB"):
        if abs(count) < 1024:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} GiB"


def cell(key: str, value: Any) -> str:
    """One value as text: units from the key's ending, lists joined, nothing as a dash."""
    if value is None or value in ("", [], (), {}):
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, (int, float)):
        write = next((unit for ending, unit in UNITS.items() if key.endswith(ending)), None)
        return write(value) if write else f"{value:.6g}" if isinstance(value, float) else str(value)
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {cell(name, item)}" for name, item in value.items())
    if isinstance(value, (list, tuple)):
        if all(isinstance(item, int) for item in value):
            return "×".join(str(item) for item in value)
        return ", ".join(cell(key, item) for item in value)
    return str(value)


def facts(pairs: Mapping[str, Any]) -> Table:
    """Key and value, one a row; keys lose their unit's ending."""
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="bold", no_wrap=True)
    grid.add_column(overflow="fold")
    for key, value in pairs.items():
        grid.add_row(words(key), Text(cell(key, value)))
    return grid


def rows(records: Sequence[Mapping[str, Any]], columns: Iterable[str] = ()) -> Table:
    """Records as rows; the columns are the records' own keys in order of appearance unless given."""
    names = list(columns) or list(dict.fromkeys(key for record in records for key in record))
    table = Table(box=None, pad_edge=False, header_style="bold")
    for index, name in enumerate(names):
        numbers = all(isinstance(record.get(name), (int, float, type(None))) for record in records)
        widest = max((len(cell(name, record.get(name))) for record in records), default=0)
        # Numbers and names are never broken; a heading and long texts are.
        whole = widest if numbers or index == 0 else None
        table.add_column(words(name), justify="right" if numbers else "left", overflow="fold", min_width=whole)
    for record in records:
        table.add_row(*(Text(cell(name, record.get(name))) for name in names))
    return table


def words(key: str) -> str:
    """`size_bytes` as `size`, `default_backend` as `default backend`; names of operators (`CONV_2D`) as they are."""
    if key != key.lower():
        return key
    for ending in UNITS:
        key = key.removesuffix(ending)
    return key.replace("_", " ")


def section(title: str, body: RenderableType) -> RenderableType:
    """A heading with what belongs under it, indented."""
    return Group(Text(title, style="bold underline"), Padding(body, (0, 0, 0, 2)))


def text(*parts: RenderableType, terminal: bool | None = None) -> str:
    """Renderables as text, with colour only for a terminal, as wide as it is (160 elsewhere)."""
    coloured = sys.stderr.isatty() if terminal is None else terminal
    width = shutil.get_terminal_size((160, 24)).columns if coloured else 160
    stream = io.StringIO()
    console = Console(file=stream, force_terminal=coloured, width=width, highlight=False)
    for part in parts:
        console.print(escape(part) if isinstance(part, str) else part)
    return "\n".join(line.rstrip() for line in stream.getvalue().splitlines()) + "\n"


def outline(answer: Mapping[str, Any]) -> list[RenderableType]:
    """Any JSON-ready answer: its plain values first, then a section for each table in it."""
    plain = {key: value for key, value in answer.items() if not _is_table(value)}
    parts: list[RenderableType] = [facts(plain)] if plain else []
    for key, value in answer.items():
        if not _is_table(value):
            continue
        body = facts(value) if isinstance(value, Mapping) else rows(value)
        parts.append(section(words(key), body))
    return parts


def _is_table(value: Any) -> bool:
    if isinstance(value, Mapping):
        return bool(value)
    return isinstance(value, (list, tuple)) and bool(value) and all(isinstance(item, Mapping) for item in value)
