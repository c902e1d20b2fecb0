"""The report that travels in a bundle: report.json and report.html, one page with nothing to fetch.

Both are made from the summary of a build, as `edgec build --json` prints it. What differs from run to run (`VOLATILE`:
times, memory, paths) stays out of a bundle, so that two builds of the same inputs are the same bytes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from edgec.bundle.frontier import frontier_picture
from edgec.bundle.manifest import to_json

Summary = Mapping[str, Any]

#: Keys of a summary that two builds of the same inputs do not share.
VOLATILE = frozenset(
    {
        "bundle",
        "output",
        "stages",
        "latency",
        "peak_memory_bytes",
        "validation",
        "calibration_cached",
        "race",
        "taken_up",
    }
)

#: Rows of the charts; the rest is summed up in the last.
SHOWN = 16

STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 60rem; padding: 0 1rem; color: #1c2733; }
h1 { font-size: 1.4rem; } h2 { font-size: 1.05rem; margin-top: 2rem; }
table { border-collapse: collapse; } th, td { text-align: left; padding: .2rem 1.2rem .2rem 0; vertical-align: top; }
th { font-weight: 600; color: #51606e; } svg text { font: 12px system-ui, sans-serif; fill: #1c2733; }
.error { color: #b3261e; } .warning { color: #8a5a00; }
"""


def stable(summary: Summary) -> dict[str, Any]:
    """The part of a summary that depends on the build's inputs alone."""
    return {key: value for key, value in summary.items() if key not in VOLATILE}


def report_json(summary: Summary) -> bytes:
    """report.json, canonical: the same bytes for the same summary."""
    return to_json(dict(summary))


def report_html(summary: Summary) -> bytes:
    """report.html: the facts, charts of operators, fidelity and stage times as far as the summary has them."""
    title = f"{summary.get('name', 'model')} for {summary.get('target', 'a target')}"
    parts = [
        "<!doctype html>\n<html lang=en>\n<meta charset=utf-8>\n",
        f"<title>{escape(title)}</title>\n<style>{STYLE}</style>\n<h1>{escape(title)}</h1>\n",
        _facts({key: value for key, value in summary.items() if isinstance(value, (str, int, float))}),
    ]
    for key, heading, unit in CHARTS:
        values = summary.get(key)
        if isinstance(values, Mapping) and values:
            parts.append(f"<h2>{heading}</h2>\n{bars(values, unit=unit)}\n")
    for key, heading in TABLES:
        records = summary.get(key)
        if records:
            picture = frontier_picture(records) if key == "frontier" else ""
            parts.append(f"<h2>{heading}</h2>\n{picture}{_table(_records(records))}")
    return ("".join(parts) + "</html>\n").encode()


CHARTS = (("operators", "Operators", ""), ("stages", "Seconds a stage", " s"))
TABLES = (
    ("inputs", "Inputs"),
    ("outputs", "Outputs"),
    ("fidelity", "Fidelity to the float model"),
    ("ladder", "Repairs of the quantization"),
    ("frontier", "Mixes of precisions that were tried: estimated latency on the target, accuracy"),
    ("latency", "Latency on the build machine"),
    ("transpose_reasons", "Transposes that are left"),
    ("findings", "Findings"),
)


def bars(values: Mapping[str, float], *, unit: str = "", width: int = 640) -> str:
    """A horizontal bar chart as SVG, longest bar first."""
    ranked = sorted(values.items(), key=lambda item: (-item[1], item[0]))
    if len(ranked) > SHOWN:
        ranked = [*ranked[: SHOWN - 1], ("others", sum(value for _, value in ranked[SHOWN - 1 :]))]
    longest = max((value for _, value in ranked), default=0) or 1
    label, room, row = 190, width - 190 - 80, 20
    size = f'width="{width}" height="{row * len(ranked)}"'
    font = 'font-family="system-ui, sans-serif" font-size="12"'
    lines = [f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img" {font}>']
    for index, (name, value) in enumerate(ranked):
        middle, length = index * row + 14, max(1.0, room * value / longest)
        text = f"{value:.3g}{unit}" if unit else f"{value:g}"
        lines += [
            f'<text x="{label - 8}" y="{middle}" text-anchor="end">{escape(str(name))}</text>',
            f'<rect x="{label}" y="{index * row + 4}" width="{length:.1f}" height="12" rx="2" fill="#2f6fb0"/>',
            f'<text x="{label + length + 6:.1f}" y="{middle}">{escape(text)}</text>',
        ]
    return "\n".join([*lines, "</svg>"])


def _facts(facts: Mapping[str, Any]) -> str:
    rows = [f"<tr><th>{escape(_words(key))}<td>{escape(_cell(value))}\n" for key, value in facts.items()]
    return f"<table>\n{''.join(rows)}</table>\n"


def _records(value: Any) -> list[Mapping[str, Any]]:
    """Whatever a section holds as rows: a table as it is, a list of sentences, or facts."""
    if isinstance(value, Mapping):
        return [{"what": key, "value": item} for key, item in value.items()]
    return [item if isinstance(item, Mapping) else {"what": item} for item in value]


def _table(records: Sequence[Mapping[str, Any]]) -> str:
    names = list(dict.fromkeys(key for record in records for key in record))
    head = "".join(f"<th>{escape(_words(name))}" for name in names)
    body = "".join(
        f'<tr class="{escape(str(record.get("severity", "")))}">'
        + "".join(f"<td>{escape(_cell(record.get(name)))}" for name in names)
        + "\n"
        for record in records
    )
    return f"<table>\n<tr>{head}\n{body}</table>\n"


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, Mapping):
        return ", ".join(f"{_words(str(key))} {_cell(item)}" for key, item in value.items())
    if isinstance(value, (list, tuple)):
        return "×".join(map(str, value)) if all(isinstance(v, int) for v in value) else ", ".join(map(_cell, value))
    return str(value)


def _words(key: str) -> str:
    return key.replace("_", " ")
