"""The int8 races as a page, and the bars that a row misses."""

from __future__ import annotations

import os
import platform
from collections.abc import Sequence
from typing import Any

#: What noise of a machine may make of a tie.
TIE = 1.03
#: Decibels that a row's few samples do not tell apart.
NO_WORSE_DB = 1.0
#: Our build whose inputs and outputs are integers.
INTEGERS = "edgec int8, integers in and out"


def misses(files: dict[str, dict[str, Any]]) -> list[str]:
    """The bars that a row misses: against every peer, however accurate it is, and against our own float."""
    own = [files[n] for n in ("edgec int8", "edgec auto") if "ms" in files.get(n, {})]
    if not own or "ms" not in files.get("edgec float32", {}):
        return ["ours was not timed"]
    mine = min(own, key=lambda e: float(e["ms"]))
    alike = [files[INTEGERS]] if "ms" in files.get(INTEGERS, {}) else []
    found = []
    for name, entry in files.items():
        if "ms" not in entry or name.startswith("edgec") or name == "float32":
            continue
        rivals = [*own, *(alike if entry.get("integers") else [])]
        accurate = [e["ms"] for e in rivals if (e["sqnr_db"] or 300) >= (entry["sqnr_db"] or 300) - NO_WORSE_DB]
        if not accurate:
            found.append(f"less accurate than {name}")
        elif min(accurate) > TIE * entry["ms"]:
            found.append(f"{100 * min(accurate) / entry['ms'] - 100:.0f} % slower than {name}")
    if mine["ms"] > TIE * files["edgec float32"]["ms"]:
        found.append("slower than our float")
    auto = files.get("edgec auto", {})
    if auto.get("precision") != "float32" and auto.get("ms", 0) > TIE * files["edgec float32"]["ms"]:
        found.append("auto is slower than our float")
    return found


def page(rows: Sequence[dict[str, Any]], said: str) -> str:
    """The table as Markdown; `said` is how it was made."""
    loads = [made["load"] for made in rows] or [0.0]
    effort = " and ".join(sorted({made["effort"] for made in rows})) or "balanced"
    lines = [
        "# int8 against float and the peers",
        "",
        f"Made by `make bench-int8` on {platform.processor() or platform.machine()}, {os.cpu_count()} cores;",
        f"the machine's load was {min(loads)} to {max(loads)} after the rows (1 is this benchmark alone).",
        f"Ours are built at `--effort {effort}`, which changes the dB more than the times.",
    ]
    lines += ["", *said.splitlines(), ""]
    lines += ["| model | runtime | file | runs in | ms | dB |", "|---|---|---|---|--:|--:|"]
    for made in rows:
        for runtime in ("TFLite", "OpenVINO"):
            for name, entry in made[runtime]["files"].items():
                figures = (
                    f"{entry['ms']:.3f} | {entry.get('sqnr_db') or '–'}"
                    if "ms" in entry
                    else f"– | {entry['why'][:60]}"
                )
                lines.append(f"| {made['model']} | {runtime} | {name} | {entry.get('precision', '')} | {figures} |")
    lines += ["", "## Bars missed", ""]
    told = [
        f"- {m['model']}, {r}: {'; '.join(m[r]['misses'])}"
        for m in rows
        for r in ("TFLite", "OpenVINO")
        if m[r]["misses"]
    ]
    return "\n".join([*lines, *(told or ["none"])]) + "\n"
