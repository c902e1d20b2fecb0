"""docs/accuracy.md: the rows of the accuracy table, each against its best peer, and the bars that are missed."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from typing import Any

PEERS = ("onnxruntime", "nncf", "nncf-transformer")
TARGETS = ("raspberrypi", "intel-cpu")

#: Bars: no less than the best peer (a tenth is rounding), this much above it in the mean, and for some models a figure.
ROW_BAR_DB, MEAN_BAR_DB = -0.1, 5.0
MODEL_BARS_DB = {"efficientnet_lite0": 21.0}
#: What counts as collapsed: points of what is right, or dB where nothing says what is right.
POINTS_BAR, COLLAPSED_DB = 5.0, 10.0
NOTES = {
    "mnist_lstm": "each sample begins with an empty state. LiteRT keeps it from call to call unless told otherwise: of "
    "500 samples its float file has 91.0 % right with the state kept and 99.0 % with it reset.",
    "mtcnn_rnet": "TFLite fixes the scale of an int8 Softmax's output to 1/256, so a certain 1 becomes 255/256: "
    "48.2 dB is the most that an answer of 0 and 1 can have there.",
}


def page(rows: Sequence[dict[str, Any]], names: Sequence[str], command: str) -> str:
    """The table as Markdown."""
    columns = [f"edgec {t}" for t in TARGETS] + list(PEERS)
    lines = [
        "# Int8 accuracy against the peers",
        "",
        f"Written by `{command}` on {dt.datetime.now(dt.UTC):%Y-%m-%d}; do not edit. Each row is kept once it is done.",
        "",
        "SQNR in dB to the float model in ONNX Runtime, then top-1 agreement with it in percent where the output is",
        "classes; on labelled data also the percentage that is right, which `float` gives for the float model.",
        "Crops of the zoo's pictures, text, speech, clips: the even ones calibrate, the odd ones evaluate. edgec's",
        "figures are of the artifact's outputs in the target's runtime (LiteRT with XNNPACK, OpenVINO);",
        "`nncf` is its default, `nncf-transformer` needs a flag of the user's.",
        "",
        "| model | float | " + " | ".join(columns) + " |",
        "|---" * (len(columns) + 2) + "|",
    ]
    for r in rows:
        right = f"{r['float']} %" if r.get("float") is not None else "–"
        lines.append(f"| {r['model']} | {right} | " + " | ".join(_cell(r.get(c)) for c in columns) + " |")
    lines += ["", "## Against the best peer", "", *_summary(rows, names)]
    lines += [
        "",
        "## What the repair ladder did",
        "",
        "dB on the judging samples after each rung; (…) was not kept.",
        "",
    ]
    for r in rows:
        for target in TARGETS:
            entry = r.get(f"edgec {target}", {})
            if entry.get("dB") is None:
                continue
            rungs = entry["ladder"]
            said = [f"{x['rung']} {x['after_db']}" for x in rungs]
            kept = [text if x["kept"] else f"({text})" for text, x in zip(said, rungs, strict=True)]
            lines.append(f"- {r['model']}, {target}: {', '.join(kept)}; {entry['seconds']} s in all")
    return "\n".join(lines) + "\n"


def _summary(rows: Sequence[dict[str, Any]], names: Sequence[str]) -> list[str]:
    """Each row against the best peer in the same runtime's terms, the means, and the bars that are missed."""
    lines = ["| model | best peer | " + " | ".join(f"edgec {t}" for t in TARGETS) + " |", "|---|---" + "|--:" * 2 + "|"]
    for r in rows:
        name, db = _best_peer(r)
        told = [f"{d:+.1f} dB" if (d := _ahead(r, t)) is not None else "–" for t in TARGETS]
        lines.append(f"| {r['model']} | {name} {db if db is not None else ''} | " + " | ".join(told) + " |")
    for target in TARGETS:
        known = [d for r in rows if (d := _ahead(r, target)) is not None]
        if known:
            mean = sum(known) / len(known)
            verdict = "holds" if mean >= MEAN_BAR_DB else "missed"
            bar = f"bar {MEAN_BAR_DB:+.0f} dB: {verdict}"
            lines += ["", f"Mean difference, {target}: **{mean:+.1f} dB** over {len(known)} rows ({bar})."]
    missing = [n for n in names if n not in {r["model"] for r in rows}]
    lines += ["", "Bars missed:", "", *([f"- {text}" for r in rows for text in misses(r)] or ["- none"])]
    notes = [f"- {n}: {NOTES[n]}" for n in names if n in NOTES and n in {r["model"] for r in rows}]
    lines += ["", "Notes:", "", *notes] if notes else []
    return [*lines, *(["", f"Not run: {', '.join(missing)}."] if missing else [])]


def misses(row: dict[str, Any]) -> list[str]:
    """The bars that a row misses, each with its figures."""
    found = []
    for target in TARGETS:
        entry, where = row.get(f"edgec {target}", {}), f"{row['model']}, {target}"
        if entry.get("dB") is None:
            found.append(f"{where}: {entry.get('error', 'no figures')}")
            continue
        if (ahead := _ahead(row, target)) is not None and ahead < ROW_BAR_DB:
            found.append(f"{where}: {-ahead:.1f} dB below {_best_peer(row)[0]}")
        best_right = max((row[p].get("right") or 0 for p in PEERS if p in row), default=0)
        if entry.get("right") is not None and entry["right"] < best_right:
            found.append(f"{where}: {entry['right']} % right, a peer {best_right} %")
        if entry.get("right") is not None and row["float"] - entry["right"] > POINTS_BAR:
            found.append(f"{where}: {row['float'] - entry['right']:.1f} points below float")
        bar = MODEL_BARS_DB.get(row["model"], COLLAPSED_DB)
        if entry["dB"] < bar:
            found.append(f"{where}: {entry['dB']} dB, bar {bar:.0f}")
    return found


def _best_peer(row: dict[str, Any]) -> tuple[str, float | None]:
    """The peer with the most dB; "–" where none has a figure."""
    known = {peer: row[peer]["dB"] for peer in PEERS if row.get(peer, {}).get("dB") is not None}
    best = max(known, key=lambda peer: float(known[peer]), default="–")
    return best, known.get(best)


def _ahead(row: dict[str, Any], target: str) -> float | None:
    """dB of the artifact above the best peer; None where one of them has no figure."""
    best, mine = _best_peer(row)[1], row.get(f"edgec {target}", {}).get("dB")
    return None if best is None or mine is None else float(mine - best)


def _cell(entry: dict[str, Any] | None) -> str:
    if entry is None:
        return "–"
    if entry["dB"] is None:
        return f"fails: {entry['error'][:60]}"
    words = f"{entry['dB']}" + (f" / {entry['top-1']}" if entry["top-1"] is not None else "")
    return words + (f" / {entry['right']} % right" if entry.get("right") is not None else "")
