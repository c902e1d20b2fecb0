"""Int8 accuracy against the peers: same model, same calibration samples, same evaluation samples.

`python -m tools.accuracy [--rows NAME…] [--ours] [--time] [--jobs 2] [--write]` makes what is missing and prints the
table; `--write` makes docs/accuracy.md of all rows that are there (`--rows` without a name runs none). Every part is
kept in .cache/accuracy: peers as long as model, samples and their version stay; ours until `--ours` finds that the
code which quantizes and emits has changed; `--fresh` makes everything again. `--time` then measures how long edgec and
NNCF take, one row at a time: it is for a quiet machine. `--draws 6` calibrates small labelled rows with other samples
too, and says how much of what is right is the draw's.
Samples are crops of the zoo's pictures, text or speech: the even ones calibrate, the odd ones evaluate, so the crops
are held out but the pictures are not. Of labelled data at most 100 samples calibrate, and all others evaluate.
All tools are given the canonical float model (fixed shapes, a recent opset).
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from tools.accuracy_draws import DRAWN, draw_row, drawn
from tools.accuracy_measure import measure
from tools.accuracy_page import PEERS, TARGETS, page
from tools.accuracy_part import NAMES, folder_of, load, material
from tools.accuracy_runs import (
    ROOT,
    code_digest,
    facts_of,
    hurried,
    make_material,
    make_ours,
    make_peer,
    material_digest,
    peer_key,
)
from tools.accuracy_samples import crops
from tools.accuracy_time import time_row

__all__ = ["Samples", "crops", "main", "material", "measure"]

#: The build says so when int8 misses the default budget of `--precision auto`.
_LOW = {"quant/low-fidelity", "quant/collapsed"}


class Samples:
    """Feeds in memory, as calibration takes them."""

    findings = ()

    def __init__(self, feeds: list[dict[str, Any]], digest: str) -> None:
        self.feeds, self.digest, self.count = feeds, digest, len(feeds)

    def __len__(self) -> int:
        return len(self.feeds)

    def __iter__(self) -> Any:
        return iter(self.feeds)


@dataclass(frozen=True, kw_only=True, slots=True)
class Wish:
    """What a run is to make: everything anew, ours where the code has changed, or only what is missing."""

    count: int
    effort: str
    peers: Sequence[str]
    fresh: bool
    ours: bool


def run_row(name: str, wish: Wish) -> None:
    """Make a row's parts that are missing or out of date, and say how each went."""
    if wish.fresh or facts_of(name, "material") is None:
        start = time.perf_counter()
        why = make_material(name, wish.count)
        _say(name, "material", why or "made", start)
        if why:
            return
    for peer in wish.peers:
        kept = facts_of(name, peer)
        if wish.fresh or kept is None or hurried(kept) or kept.get("key") != peer_key(name, peer):
            start = time.perf_counter()
            made = make_peer(name, peer)
            _say(name, peer, made.get("error", "made"), start)
    for target in TARGETS:
        built = _ours(name, target, "int8", wish)
        if _LOW & set(built.get("findings", ())):
            _ours(name, target, "auto", wish)


def _ours(name: str, target: str, precision: str, wish: Wish) -> dict[str, Any]:
    part = f"edgec-{target}-{precision}"
    kept = facts_of(name, part)
    if kept is not None and not wish.fresh and not hurried(kept) and kept["effort"] == wish.effort:
        same = kept["code"] == code_digest() and kept["material"] == material_digest(name)
        if same or not wish.ours:
            return kept
    start = time.perf_counter()
    made = make_ours(name, target, precision, wish.effort)
    _say(name, f"edgec {target} {precision}", made.get("error", made.get("why", "made")), start)
    return made


def _time(name: str) -> None:
    start = time.perf_counter()
    runs = (time_row(name) or {"runs": []})["runs"]
    told = "; ".join(f"{r['samples']} samples: {r['edgec_s']} s, nncf {r['nncf_s']} s" for r in runs)
    _say(name, "time", told or "no material", start)


def _say(name: str, what: str, how: str, start: float) -> None:
    print(f"{time.strftime('%H:%M:%S')} {name}: {what}, {time.perf_counter() - start:.0f} s: {how[:140]}", flush=True)


def assembled(name: str, effort: str) -> dict[str, Any] | None:
    """The figures of a row, from the outputs that are kept; None where there are none of ours at the effort."""
    facts = facts_of(name, "material")
    if facts is None or all((facts_of(name, f"edgec-{t}-int8") or {}).get("effort") != effort for t in TARGETS):
        return None
    folder = folder_of(name)
    reference, feeds = load(folder / "reference.npz"), load(folder / "evaluation.npz")
    judge = partial(measure, reference, labels=facts["labels"], view=facts["view"], feeds=feeds)
    row: dict[str, Any] = {"model": name, "samples": facts["samples"], "trained": facts["trained"]}
    row["time"] = facts_of(name, "time") or {}
    row["draws"] = drawn(name, effort)
    if facts["labels"]:
        row["float"] = judge(reference)["right"]
    parts = {f"edgec {t}": f"edgec-{t}-int8" for t in TARGETS} | {p: p for p in PEERS}
    parts |= {f"auto {t}": f"edgec-{t}-auto" for t in TARGETS}
    for column, part in parts.items():
        kept = facts_of(name, part)
        said = set(row.get(column.replace("auto", "edgec"), {}).get("findings", ()))
        if kept is None or kept.get("effort", effort) != effort or (column.startswith("auto") and not _LOW & said):
            continue
        if "error" in kept:
            row[column] = {"dB": None, "top-1": None, "right": None, **kept}
            continue
        found = load(folder / f"{part}.npz")
        if any(not np.isfinite(value).all() for output in found for value in output.values()):
            row[column] = {"dB": None, "top-1": None, "right": None, "error": "its outputs are not finite", **kept}
            continue
        row[column] = {**kept, **judge(found)}
    return row


def main() -> int:
    """Make what is missing, then print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rows", "--only", nargs="*", help="models whose name contains one of these")
    parser.add_argument("--ours", action="store_true", help="make ours again where the code has changed")
    parser.add_argument("--time", action="store_true", help="measure how long ours and NNCF's default take")
    parser.add_argument("--draws", type=int, default=0, help="as many draws of calibrating samples, on labelled rows")
    parser.add_argument("--fresh", action="store_true", help="make everything again")
    parser.add_argument("--jobs", type=int, default=1, help="rows at a time")
    parser.add_argument("--samples", type=int, default=50, help="to calibrate, and as many to evaluate, where not set")
    parser.add_argument("--effort", choices=("fast", "balanced", "max"), default="balanced")
    parser.add_argument("--peers", nargs="*", default=list(PEERS))
    parser.add_argument("--write", action="store_true", help="write docs/accuracy.md")
    arguments = parser.parse_args()
    chosen = [n for n in NAMES if arguments.rows is None or any(part in n for part in arguments.rows)]
    wish = Wish(
        count=arguments.samples,
        effort=arguments.effort,
        peers=arguments.peers,
        fresh=arguments.fresh,
        ours=arguments.ours,
    )
    code_digest()  # of the code as it is now, whatever is edited meanwhile
    with ThreadPoolExecutor(arguments.jobs) as pool:
        list(pool.map(partial(run_row, wish=wish), sorted(chosen, key=_usual_seconds, reverse=True)))
    for name in chosen if arguments.time else ():
        _time(name)
    for name in [n for n in chosen if n in DRAWN] if arguments.draws else ():
        draw_row(name, arguments.draws, arguments.effort, lambda n, how: _say(n, "draw", how, time.perf_counter()))
    shown = NAMES if arguments.write else chosen
    rows = [row for name in shown if (row := assembled(name, arguments.effort)) is not None]
    text = page(rows, shown, "make accuracy" if arguments.write else "python -m tools.accuracy", code_digest())
    print(text)
    if arguments.write:
        (ROOT / "docs" / "accuracy.md").write_text(text)
    return 0


def _usual_seconds(name: str) -> float:
    """How long ours took last time: the longest first, so that no job is left alone with it at the end."""
    return float(sum((facts_of(name, f"edgec-{t}-int8") or {}).get("seconds", 1e3) for t in TARGETS))


if __name__ == "__main__":
    sys.exit(main())
