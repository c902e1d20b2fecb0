"""The answers of `edgec devices` as text for a person."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import RenderableType
from rich.text import Text

from edgec.report.tables import facts, outline, rows, section, text

Answer = Mapping[str, Any]


def render_devices(answer: Answer) -> str:
    """One row a device of the inventory."""
    parts: list[RenderableType] = [rows(answer["devices"])] if answer["devices"] else []
    place = answer["inventory"] or "no devices.toml here or in ~/.config/edgec"
    parts.append(facts({"inventory": place, "kinds of devices": answer["kinds"]}))
    return text(*parts, terminal=False)


def render_device(answer: Answer) -> str:
    """One entry of the inventory."""
    return text(*outline(answer), terminal=False)


def render_probe(answer: Answer) -> str:
    """Each device with what it is and the profile that fits it; what is not known is left out."""
    return text(*(section(row["name"], _probed(row)) for row in answer["devices"]), terminal=False)


def _probed(row: Mapping[str, Any]) -> RenderableType:
    if "facts" not in row:
        return Text("could not be asked")
    found = {key: value for key, value in row["facts"].items() if value not in ("", None, {}, [], 0)}
    target = row["target"]
    found["target"] = f"{target['name'] or 'none'}: {'as chosen' if target['chosen'] else target['why']}"
    return facts(found)
