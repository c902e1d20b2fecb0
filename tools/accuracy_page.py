"""docs/accuracy.md: the rows of the accuracy table, each against its best peer, and the bars that are missed."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from statistics import mean, stdev
from typing import Any

from tools.accuracy_measure import mcnemar

PEERS = ("onnxruntime", "nncf", "nncf-transformer", "litert-quantizer")
TARGETS = ("raspberrypi", "intel-cpu")
Row = dict[str, Any]

#: Bars: no less than the best peer (a tenth is rounding), this much above it in the mean, and for some models a figure.
ROW_BAR_DB, MEAN_BAR_DB = -0.1, 5.0
MODEL_BARS_DB = {"efficientnet_lite0": 21.0}
#: What counts as collapsed: points of what is right, or dB where nothing says what is right.
POINTS_BAR, COLLAPSED_DB = 5.0, 10.0
_SAID = {"quant/low-fidelity", "quant/collapsed"}
NOTES = {
    "mnist_lstm": "each sample begins with an empty state. LiteRT keeps it from call to call unless told otherwise: of "
    "500 samples its float file has 91.0 % right with the state kept and 99.0 % with it reset.",
    "minilm": "judged by the sentence's embedding: the mean over its tokens, of unit length.",
    "yolo": "boxes and scores are judged apart, the worse counts: boxes in pixels would drown scores from 0 to 1.",
    "captcha_boxes": "boxes and scores are judged apart, as in yolo.",
    "page_layout": "eight outputs, scores and boxes at four sizes: the worst counts. This model, captcha, "
    "captcha_boxes and voice came when the quantizer was made. page_layout then showed what a range a channel is "
    "worth, which the quantizer chooses since (`ranges: channel by channel`).",
    "efficientnet_b0": "one of the 24 samples gives outputs thirty times as large as the others' (weights are drawn) "
    "and holds 94 % of the signal: the pooled dB are that sample's, under every tool.",
}
_HEAD = """\
SQNR in dB to the float model in ONNX Runtime, over all samples at once and (in brackets) the median of the samples'
own; then top-1 agreement with float in percent where the output is classes; on labelled data also the percentage that
is right, which `float` gives for the float model. Crops of the zoo's pictures, text, speech: the even ones calibrate,
the odd ones evaluate (pairs where text is upright and upside down by turns); of labelled data up to 100 samples
calibrate and all others evaluate; `samples` says how many of each. Weights of rows with ° are drawn from a seed,
because trained ones are not to be had here: their figures compare tools with each other, no more.

edgec's figures are of what `edgec build --precision int8` makes, in the target's runtime (LiteRT with XNNPACK,
OpenVINO). `nncf` is its default, `nncf-transformer` needs a flag of the user's; `litert-quantizer` is LiteRT's own
(ai-edge-quantizer, static int8) on the float file that onnx2tf makes, in LiteRT with XNNPACK."""

_DRAWS = """\
Percent right where other samples calibrate: the mean of the draws, and the standard deviation of one. The first draw is
the table's; the others calibrate with samples that evaluate there, and evaluate with the rest. A few undecided samples
fall to one side or the other: int8 that is nearer to float is not above float by luck as often."""


def page(rows: Sequence[Row], names: Sequence[str], command: str, code: str = "") -> str:
    """The table as Markdown; `code` is the digest of the code that rows are expected to come from."""
    columns = [f"edgec {t}" for t in TARGETS] + list(PEERS)
    lines = [
        "# Int8 accuracy against the peers",
        "",
        f"Written by `{command}` on {dt.datetime.now(dt.UTC):%Y-%m-%d}; do not edit.{_older(rows, code)}",
        "",
        *_HEAD.splitlines(),
        "",
        "| model | samples | float | " + " | ".join(columns) + " |",
        "|---" * (len(columns) + 3) + "|",
    ]
    for r in rows:
        right = f"{r['float']} %" if r.get("float") is not None else "–"
        counts = "/".join(str(n) for n in r.get("samples", ()))
        lines.append(f"| {_named(r)} | {counts} | {right} | " + " | ".join(_cell(r.get(c)) for c in columns) + " |")
    lines += ["", "## Against the best peer", "", *_summary(rows, names)]
    if draws := _draws(rows):
        lines += ["", "## Labels over several draws of the calibrating samples", "", *_DRAWS.splitlines(), "", *draws]
    lines += ["", "## What `--precision auto` makes where int8 alone is not enough", "", *_autos(rows)]
    lines += ["", "## How long it takes", "", *_times(rows, code)]
    return "\n".join([*lines, "", "## What the repair ladder did", "", *_ladders(rows)]) + "\n"


def _draws(rows: Sequence[Row]) -> list[str]:
    """Percent right as a mean over the draws, with the standard deviation of one; nothing where none was made."""
    known = [r for r in rows if r.get("draws")]
    columns = ["float", *(f"edgec {t}" for t in TARGETS), *PEERS]
    lines = ["| model | draws | " + " | ".join(columns) + " |", "|---|---" + "|--:" * len(columns) + "|"]
    for row in known:
        count = len(row["draws"]["float"])
        found = [row["draws"].get(column, []) for column in columns]
        cells = [f"{mean(v):.2f} ± {stdev(v):.2f}" if len(v) == count > 1 else "–" for v in found]
        lines.append(f"| {row['model']} | {count} | " + " | ".join(cells) + " |")
    return lines if known else []


def _older(rows: Sequence[Row], code: str) -> str:
    """Which rows come from other code than that of today."""
    entries = {r["model"]: [e["code"] for t in TARGETS if "code" in (e := r.get(f"edgec {t}", {}))] for r in rows}
    old = [name for name, codes in entries.items() if any(c != code for c in codes)] if code else []
    return f" {len(old)} of {len(rows)} rows are of an earlier state of the code." if old else ""


def _named(row: Row) -> str:
    return f"{row['model']}{'' if row.get('trained', True) else ' °'}"


def _summary(rows: Sequence[Row], names: Sequence[str]) -> list[str]:
    """Each row against the best peer, the means, and the bars that are missed."""
    lines = ["| model | best peer | " + " | ".join(f"edgec {t}" for t in TARGETS) + " |", "|---|---" + "|--:" * 2 + "|"]
    for r in rows:
        name, db = _best_peer(r)
        told = [f"{d:+.1f} dB" if (d := _ahead(r, t)) is not None else "–" for t in TARGETS]
        lines.append(f"| {_named(r)} | {name} {db if db is not None else ''} | " + " | ".join(told) + " |")
    for target in TARGETS:
        for what, chosen in (("", rows), (" of trained models", [r for r in rows if r.get("trained", True)])):
            known = [d for r in chosen if (d := _ahead(r, target)) is not None]
            if not known or (what and len(chosen) == len(rows)):
                continue
            ahead = mean(known)
            bar = "" if what else f" (bar {MEAN_BAR_DB:+.0f} dB: {'holds' if ahead >= MEAN_BAR_DB else 'missed'})"
            lines += ["", f"Mean difference, {target}: **{ahead:+.1f} dB** over {len(known)} rows{what}{bar}."]
    for target in TARGETS:
        below = [f"{_named(r)} ({d:+.1f} dB)" for r in rows if (d := _default_ahead(r, target)) is not None and d < 0]
        where = f"Rows on which the default build (`--precision auto`) is below the best peer, {target}"
        lines += ["", f"{where}: {', '.join(below) or 'none'}."]
    missing = [n for n in names if n not in {r["model"] for r in rows}]
    lines += ["", "Bars missed:", "", *([f"- {text}" for r in rows for text in misses(r)] or ["- none"])]
    notes = [f"- {n}: {NOTES[n]}" for n in names if n in NOTES and n in {r["model"] for r in rows}]
    lines += ["", "Notes:", "", *notes] if notes else []
    return [*lines, *(["", f"Not run: {', '.join(missing)}."] if missing else [])]


def misses(row: Row) -> list[str]:
    """The bars that a row misses, each with its figures."""
    found = []
    for target in TARGETS:
        entry, where = row.get(f"edgec {target}", {}), f"{row['model']}, {target}"
        if entry.get("dB") is None:
            found.append(f"{where}: {entry.get('error', 'no figures')}")
            continue
        if (ahead := _ahead(row, target)) is not None and ahead < ROW_BAR_DB:
            found.append(f"{where}: {-ahead:.1f} dB below {_best_peer(row)[0]}")
        found += [f"{where}: {text}" for text in _more_right(row, entry)]
        found += [f"{where}: {text}{_offered(row, target, entry)}" for text in _collapse(row, entry)]
    return found


def _more_right(row: Row, entry: Row) -> list[str]:
    """Each peer that has more of the labelled samples right, and whether that may be chance."""
    found = []
    for peer in PEERS:
        mine, other = entry.get("correct") or [], row.get(peer, {})
        theirs = other.get("correct") or []
        if sum(theirs) <= sum(mine):
            continue
        ahead, behind, chance = mcnemar(mine, theirs)
        counts = f"of {len(mine)} samples edgec alone has {ahead} right, {peer} alone {behind}"
        found.append(f"{entry['right']} % right, {peer} {other['right']} % ({counts}: McNemar's exact p {chance:.2g})")
    return found


def _collapse(row: Row, entry: Row) -> list[str]:
    """How far a row is below float, where that is too far."""
    found = []
    if entry.get("right") is not None and row["float"] - entry["right"] > POINTS_BAR:
        found.append(f"{row['float'] - entry['right']:.1f} points below float")
    bar = MODEL_BARS_DB.get(row["model"], COLLAPSED_DB)
    if entry["dB"] < bar:
        found.append(f"{entry['dB']} dB, bar {bar:.0f}")
    return found


def _offered(row: Row, target: str, entry: Row) -> str:
    """Whether the build said so, and what it offers instead."""
    if not _SAID & set(entry.get("findings", ())):
        return " (the build does not say so)"
    auto = row.get(f"auto {target}", {})
    offer = f"; auto: {_chosen(auto)}, {auto['dB']} dB" if auto.get("dB") is not None else ""
    return f" (the build says so{offer})"


def _chosen(auto: Row) -> str:
    """What `auto` built, in a word or two."""
    nodes = auto.get("nodes", {})
    mixed = ", ".join(f"{count} {scheme}" for scheme, count in nodes.items() if scheme != auto["precision"])
    return f"{auto['precision']} ({mixed})" if auto.get("mixed") and mixed else str(auto["precision"])


def _autos(rows: Sequence[Row]) -> list[str]:
    """One line a row whose int8 build misses 20 dB or 99 % on its calibration samples and says so."""
    found = []
    for r in rows:
        for target in TARGETS:
            auto, plain = r.get(f"auto {target}"), r.get(f"edgec {target}", {})
            if auto is None:
                continue
            told = _cell(auto) if auto.get("dB") is None else f"{_chosen(auto)}: {_cell(auto)}"
            found.append(f"- {r['model']}, {target}: int8 {_cell(plain)}; {told}")
    return found or ["- no row needs it"]


_TIME_HEAD = """\
Seconds to quantize for OpenVINO: edgec's calibration, plan and repair ladder, then NNCF's default, one right after the
other with the same model and samples, a row at a time. Once with the samples that calibrate the table above; once with
300, which NNCF takes unless told otherwise, or with as many as the row's data has, or as NNCF is expected to take in
five minutes. Reading the model and judging the result are in neither's seconds. The last column is edgec's for LiteRT
in the build of the table above, whatever else ran then. `python -m tools.accuracy --time` measures this part alone.

| model | samples | edgec | nncf | edgec / nncf | samples | edgec | nncf | edgec / nncf | edgec raspberrypi |
|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|"""


def _times(rows: Sequence[Row], code: str = "") -> list[str]:
    """Seconds of calibration, plan and ladder beside NNCF's, with two numbers of samples, and the verdict for each."""
    lines = _TIME_HEAD.splitlines()
    ratios: tuple[list[float], list[float]] = ([], [])
    for r in rows:
        told: list[str] = []
        for place, run in enumerate([*r.get("time", {}).get("runs", []), {}, {}][:2]):
            mine, theirs = run.get("edgec_s"), run.get("nncf_s")
            ratio = mine / theirs if mine and theirs else None
            ratios[place].extend([ratio] if ratio else [])
            told += [str(run.get("samples", "–")), *map(_tenth, (mine, theirs, ratio))]
        lines.append(f"| {r['model']} | " + " | ".join([*told, _tenth(_quantize_s(r, "raspberrypi"))]) + " |")
    for what, found in zip(("the table's samples", "up to 300 samples"), ratios, strict=True):
        within = sum(ratio <= 1 for ratio in found)
        lines += ["", f"No longer than NNCF with {what} on {within} of {len(found)} rows (bar: all)."] if found else []
    old = sum(r["time"]["code"] != code for r in rows if r.get("time")) if code else 0
    return [*lines, "", f"The seconds of {old} rows are of an earlier state of the code."] if old else lines


def _tenth(value: float | None) -> str:
    return "–" if value is None else f"{value:.1f}"


def _quantize_s(row: Row, target: str) -> float | None:
    stages = row.get(f"edgec {target}", {}).get("stages")
    return None if not stages else float(sum(stages.get(s, 0.0) for s in ("calibrate", "quantize", "repair")))


def _ladders(rows: Sequence[Row]) -> list[str]:
    lines = ["dB on the judging samples after each rung; (…) was not kept. Behind it, what the nodes run in.", ""]
    for r in rows:
        for target in TARGETS:
            entry = r.get(f"edgec {target}", {})
            if entry.get("dB") is None or not entry.get("ladder"):
                continue
            told = [(f"{x['rung']} {x['after_db']}", x["kept"]) for x in entry["ladder"]]
            nodes = ", ".join(f"{count} {scheme}" for scheme, count in entry.get("nodes", {}).items())
            rungs = ", ".join(t if kept else f"({t})" for t, kept in told)
            lines.append(f"- {r['model']}, {target}: {rungs}{'; ' if nodes else ''}{nodes}")
    return lines


def _best_peer(row: Row) -> tuple[str, float | None]:
    """The peer with the most dB; "–" where none has a figure."""
    known = {peer: row[peer]["dB"] for peer in PEERS if row.get(peer, {}).get("dB") is not None}
    best = max(known, key=lambda peer: float(known[peer]), default="–")
    return best, known.get(best)


def _ahead(row: Row, target: str) -> float | None:
    """dB of the artifact above the best peer; None where one of them has no figure."""
    best, mine = _best_peer(row)[1], row.get(f"edgec {target}", {}).get("dB")
    return None if best is None or mine is None else float(mine - best)


def _default_ahead(row: Row, target: str) -> float | None:
    """The same of what `--precision auto` builds: int8 where that keeps the budget, else what it falls back to."""
    auto = row.get(f"auto {target}")
    best = _best_peer(row)[1]
    if auto is None or best is None:
        return _ahead(row, target)
    return None if auto.get("dB") is None else float(auto["dB"] - best)


def _cell(entry: Row | None) -> str:
    if entry is None:
        return "–"
    if entry.get("dB") is None:
        return f"fails: {str(entry['error'])[:60]}".replace("|", "/")
    words = f"{entry['dB']}" + (f" ({entry['median dB']})" if "median dB" in entry else "")
    words += f" / {entry['top-1']}" if entry.get("top-1") is not None else ""
    words += f" / {entry['right']} % right" if entry.get("right") is not None else ""
    return words + (f" / cosine {entry['cosine']}, Spearman {entry['Spearman']}" if "Spearman" in entry else "")
