"""`make bench-graphs`: our float TFLite files against other converters' of the same models, in one run.

1. Never slower than the fastest peer by more than 2 %, with 1 thread and with 2; in the geometric mean 1.1 × faster.
2. Never more operators than the leanest peer.
3. A compile without calibration takes under 1 s, imports warm, and under 3 × the model's weights + 200 MB of memory.
4. No transpose is left in a convolutional model.

All files of a model run in one process, in turns. The machine may be busy with other work: the fastest call of each
counts, in CPU time with 1 thread, and in the wall's with 2.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

from tools.peers.cases import CACHE, CASES, ROOT, Case, source
from tools.peers.convert import Made, ours, theirs
from tools.peers.envs import PEERS
from tools.peers.page import page

OURS = "edgec"
THREADS = ("1", "2")
SLOWER_BAR, MEAN_BAR, COMPILE_BAR_S = 1.02, 1.1, 1.0
MEMORY_FACTOR, MEMORY_EXTRA = 3, 200e6
#: What a file may differ from ONNX Runtime by, relative to the largest value, to take part.
ERROR_BAR = 1e-3


def run_case(case: Case, peers: list[str]) -> dict[str, Any]:
    """Convert, probe and race one model."""
    made: dict[str, Made] = {OURS: ours(case)}
    for peer in PEERS:
        if peer.name in peers:
            made[peer.name] = theirs(peer, case)
    row: dict[str, Any] = {"model": case.name, "convolutional": case.convolutional, "files": {}}
    for name, product in made.items():
        entry = row["files"][name] = {"why": product.why, **product.facts}
        if product.path is not None:
            entry.update(_worker(case, "probe", product.path))
    runnable = {n: p.path for n, p in made.items() if p.path is not None and "max_error" in row["files"][n]}
    if OURS in runnable:
        times = _worker(case, "race", *runnable.values())
        for threads in THREADS:
            for name, figures in zip(runnable, times.get(threads, ()), strict=False):
                row["files"][name][f"threads_{threads}"] = figures
    row["misses"] = judge(row)
    return row


def _worker(case: Case, what: str, *paths: Path) -> dict[str, Any]:
    command = [sys.executable, "-m", "tools.peers.race", case.name, str(source(case)), what, *map(str, paths)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT, timeout=1200)
    if done.returncode:
        lines = done.stderr.strip().splitlines() or [f"the process ended with {done.returncode}"]
        return {"why": f"does not run: {lines[-1][:200]}"}
    return dict(json.loads(done.stdout.splitlines()[-1]))


def takes_part(entry: dict[str, Any]) -> bool:
    """Whether a file computes what the model does, at every call."""
    return bool("max_error" in entry and entry["max_error"] < ERROR_BAR)


def ratios(row: dict[str, Any], threads: str) -> dict[str, float]:
    """Each right peer's time over ours: above 1, we are faster.

    By the fastest calls, or by the median of the paired blocks where that is kinder: on a busy machine a bar
    counts as missed when both say so.
    """
    key = f"threads_{threads}"
    mine = row["files"][OURS].get(key)
    found = {}
    for name, entry in row["files"].items():
        if mine and name != OURS and key in entry and takes_part(entry):
            pairs = [b / a for a, b in zip(mine["blocks"], entry[key]["blocks"], strict=True)]
            found[name] = max(entry[key]["min_ms"] / mine["min_ms"], statistics.median(pairs))
    return found


def fastest_ratio(row: dict[str, Any], threads: str) -> float | None:
    """The fastest right peer's fastest call over ours."""
    key = f"threads_{threads}"
    mine = row["files"][OURS].get(key)
    theirs = [e[key]["min_ms"] for n, e in row["files"].items() if n != OURS and key in e and takes_part(e)]
    return min(theirs) / mine["min_ms"] if mine and theirs else None


def judge(row: dict[str, Any]) -> list[str]:
    """The bars that a row misses, in words."""
    mine = row["files"][OURS]
    if "max_error" not in mine:
        return [f"no file: {mine['why']}"]
    misses = []
    if mine["max_error"] > ERROR_BAR:
        misses.append(f"error {mine['max_error']:.1e}")
    for threads in THREADS:
        slower = {n: r for n, r in ratios(row, threads).items() if r * SLOWER_BAR < 1}
        misses += [f"{100 / r - 100:.0f} % slower than {n} ({threads} threads)" for n, r in slower.items()]
    count = sum(mine["operators"].values())
    for name, entry in row["files"].items():
        if takes_part(entry) and sum(entry["operators"].values()) < count:
            misses.append(f"{count} operators, {name} {sum(entry['operators'].values())}")
    if mine["warm_s"] > COMPILE_BAR_S:
        misses.append(f"compile takes {mine['warm_s']:.2f} s")
    if mine["peak_bytes"] > MEMORY_FACTOR * mine["weights_bytes"] + MEMORY_EXTRA:
        misses.append(f"compile holds {mine['peak_bytes'] / 1e6:.0f} MB")
    if row["convolutional"] and mine["operators"].get("TRANSPOSE"):
        misses.append(f"{mine['operators']['TRANSPOSE']} transposes left")
    return misses


def geometric_mean(rows: list[dict[str, Any]], threads: str) -> float | None:
    """How much faster ours is than the fastest peer, over the models that a peer runs."""
    best = [ratio for row in rows if (ratio := fastest_ratio(row, threads)) is not None]
    return math.exp(sum(map(math.log, best)) / len(best)) if best else None


def main() -> int:
    """Measure, print, write; 1 when a bar is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", help="only models whose name contains one of these (a,b); others as measured before")
    parser.add_argument("--peers", default=",".join(p.name for p in PEERS), help="converters to compare with")
    parser.add_argument("--json", type=Path, default=CACHE / "bench-graphs.json", help="where the figures go")
    parser.add_argument("--page", type=Path, help="write a page for the documentation there")
    options = parser.parse_args()
    kept = {row["model"]: row for row in json.loads(options.json.read_text())} if options.json.exists() else {}
    rows = []
    for case in CASES:
        if options.only and not any(part in case.name for part in options.only.split(",")):
            # each model is a race of its own: the page may take another model's from an earlier run
            rows += [kept[case.name]] if case.name in kept else []
            continue
        try:
            rows.append(run_case(case, options.peers.split(",")))
        except FileNotFoundError as error:
            print(f"{case.name:20} not run: {error}", flush=True)
            continue
        print(line(rows[-1]), flush=True)
    means = {threads: geometric_mean(rows, threads) for threads in THREADS}
    for threads, mean in means.items():
        if mean is not None:
            print(f"geometric mean against the fastest peer, {threads} threads: {mean:.3f} × (bar {MEAN_BAR})")
    options.json.parent.mkdir(parents=True, exist_ok=True)
    options.json.write_text(json.dumps(rows, indent=1) + "\n")
    if options.page:
        options.page.write_text(page(rows, means, MEAN_BAR))
    missed = any(row["misses"] for row in rows) or any(mean is not None and mean < MEAN_BAR for mean in means.values())
    return 1 if missed else 0


def line(row: dict[str, Any]) -> str:
    """One row for the terminal."""
    parts = [f"{row['model']:19}"]
    for name, entry in row["files"].items():
        if "max_error" not in entry:
            parts.append(f"{name}: {entry['why'][:60] or 'none'}")
            continue
        times = "/".join(f"{entry.get(f'threads_{t}', {}).get('min_ms', float('nan')):.3f}" for t in THREADS)
        moves = entry["operators"].get("TRANSPOSE", 0)
        count = sum(entry["operators"].values())
        parts.append(f"{name}: {count} ops {moves} tr {entry['partitions']} part {times} ms {entry['max_error']:.0e}")
    mine = row["files"][OURS]
    if "warm_s" in mine:
        parts.append(f"compile {mine['warm_s']:.2f} s {mine['peak_bytes'] / 1e6:.0f} MB")
    return " | ".join(parts) + "".join(f"\n    MISS {miss}" for miss in row["misses"])


if __name__ == "__main__":
    sys.exit(main())
