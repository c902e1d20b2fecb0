"""The benchmark's page for the documentation: what was measured, on what, and which bars are missed."""

from __future__ import annotations

import platform
from importlib import metadata
from pathlib import Path
from typing import Any

from tools.peers.envs import PEERS

_HEAD = """# Emitted graphs, compared

Made by `make bench-graphs`. {machine}; LiteRT {litert}, peers {peers}.

Float32 files of the same models, converted by each tool with its defaults; all files of a model run in one process, in
turns. Milliseconds are the fastest call with 1 thread (CPU time) / 2 threads (wall): the machine is shared, and those
are what other work on it disturbs least. "max error" is against ONNX Runtime with its optimiser off, relative to the
largest value (or to 1), the larger of two calls in a row: ONNX models keep no state between calls. A peer whose file is
wrong or does not run is shown and takes no part in the comparison.

| model | tool | operators | transposes | delegate pieces | ms, 1 / 2 threads | max error |
|---|---|--:|--:|--:|--:|--:|
"""


def page(rows: list[dict[str, Any]], means: dict[str, float | None], mean_bar: float) -> str:
    """Markdown of the whole run; the geometric means should reach `mean_bar`."""
    text = _HEAD.format(
        machine=_machine(),
        litert=metadata.version("ai-edge-litert"),
        peers=", ".join(f"{p.name} {p.version}" for p in PEERS),
    )
    for row in rows:
        for name, entry in row["files"].items():
            text += _line(row["model"], name, entry)
    text += "\n## Compiling\n\nWithout calibration, imports warm; memory is the most the process held.\n\n"
    text += "| model | seconds | MB held | MB of weights |\n|---|--:|--:|--:|\n"
    for row in rows:
        mine = row["files"]["edgec"]
        if "warm_s" in mine:
            sizes = f"{mine['peak_bytes'] / 1e6:.0f} | {mine['weights_bytes'] / 1e6:.1f}"
            text += f"| {row['model']} | {mine['warm_s']:.2f} | {sizes} |\n"
    text += "\n## Against the fastest peer\n\n"
    for threads, mean in means.items():
        if mean is not None:
            text += f"- geometric mean, {threads} thread(s): {mean:.3f} × faster\n"
    missed = [f"- {row['model']}: {miss}\n" for row in rows for miss in row["misses"]]
    missed += [f"- geometric mean, {n} thread(s): under {mean_bar}\n" for n, m in means.items() if m and m < mean_bar]
    return text + "\n## Bars missed\n\n" + ("".join(missed) or "none\n")


def _line(model: str, name: str, entry: dict[str, Any]) -> str:
    if "max_error" not in entry:
        return f"| {model} | {name} | | | | {entry['why'].replace('|', '/')[:90]} | |\n"
    times = " / ".join(f"{entry[f'threads_{t}']['min_ms']:.3f}" if f"threads_{t}" in entry else "" for t in "12")
    count, moves = sum(entry["operators"].values()), entry["operators"].get("TRANSPOSE", 0)
    return f"| {model} | {name} | {count} | {moves} | {entry['partitions']} | {times} | {entry['max_error']:.1e} |\n"


def _machine() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    name = names[0] if names else platform.processor()
    return f"{len(names) or 1} cores of {name}"
