"""`make bench-int8`: our int8 and `auto` builds against our float one and the peers' int8, paired in one run.

TFLite: LiteRT's quantizer on the float files of onnx2tf and of litert-torch. OpenVINO: NNCF. All files of a model and
a runtime run in one process in turns, with 1 thread; the fastest call counts. Samples are smooth random inputs: 24
calibrate, 8 others give the SQNR to the float model. Each model's row is kept in .cache/bench-int8, so the table can be
made in pieces (`--rows NAME…`); `--fresh` makes rows again.

Bars: ours at least as fast as the fastest peer that is no less accurate, and faster than our own float.
"""

from __future__ import annotations

import argparse
import datetime as dt
import itertools
import json
import os
import platform
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from edgec.errors import EdgecError
from edgec.metrics import sqnr_db
from edgec.pipeline import run_build
from edgec.tensors import Array
from tools.peers.cases import CACHE, CASES, ROOT, Case, case_named, source
from tools.peers.convert import theirs
from tools.peers.envs import PEERS, PeerMissing, peer_python

FOLDER = CACHE / "bench-int8"
SKIPPED = ("gru", "lstm_bi2")  # loops in float on both sides: nothing to quantize fast
CALIBRATE, EVALUATE = 24, 8
#: What noise of a machine may make of a tie.
TIE = 1.03
_TIMEOUT_S = 900


def samples(case: Case, folder: Path) -> tuple[Path, Path]:
    """Calibration and evaluation data as .npz, the inputs stacked by name."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for name, seeds in (("calibration", range(CALIBRATE)), ("evaluation", range(100, 100 + EVALUATE))):
        rows = [case.feeds(seed) for seed in seeds]
        paths.append(folder / f"{name}.npz")
        np.savez(paths[-1], **{k: np.stack([row[k] for row in rows]) for k in rows[0]})  # type: ignore[arg-type]  # names
    return paths[0], paths[1]


def ours(case: Case, precision: str, target: str, calibration: Path, folder: Path) -> dict[str, Any]:
    """One build of ours: its file, and what it chose."""
    built = run_build(
        source(case),
        target=target,
        precision=precision,
        calibration=calibration,
        inputs=case.inputs,
        output=folder / f"{target}-{precision}",
        stop_after="compile",
    )
    return {"path": str(built.path), "precision": built.summary["precision"], "why": built.summary["why"]}


def quantized_by_litert(case: Case, calibration: Path, folder: Path) -> dict[str, dict[str, Any]]:
    """LiteRT's quantizer on each peer's float file."""
    found: dict[str, dict[str, Any]] = {}
    for peer in PEERS:
        name = f"{peer.name} + litert-quantizer"
        made, path = theirs(peer, case), folder / f"{peer.name}-int8.tflite"
        if made.path is None:
            found[name] = {"why": made.why}
            continue
        try:
            python = peer_python(next(p for p in PEERS if p.name == "litert-torch"))
        except PeerMissing as missing:
            found[name] = {"why": str(missing)}
            continue
        script = ROOT / "tools" / "peers" / "litert_quantize_one.py"
        why = _run([str(python), str(script), str(made.path), str(calibration), str(path)])
        found[name] = {"path": str(path)} if path.exists() and not why else {"why": why or "it wrote nothing"}
    return found


def _run(command: list[str]) -> str:
    """What went wrong, or nothing."""
    environment = {**os.environ, "JAX_PLATFORMS": "cpu"}
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=_TIMEOUT_S, env=environment)
    except subprocess.TimeoutExpired:
        return f"not done after {_TIMEOUT_S} s"
    return "" if done.returncode == 0 else (done.stderr.strip().splitlines() or ["it failed"])[-1][-160:]


def fidelity(case: Case, path: str, reference: Sequence[list[Array]], feeds: Sequence[dict[str, Array]]) -> float:
    """dB of a .tflite's outputs, in whatever order of axes they are; the worst output counts."""
    from ai_edge_litert.interpreter import Interpreter

    from tools.peers.race import _inputs

    interpreter = Interpreter(model_path=path, num_threads=1)
    interpreter.allocate_tensors()
    rows: list[list[Array]] = []
    for feed in feeds:
        for index, value in _inputs(interpreter, case, feed):
            interpreter.set_tensor(index, value)
        interpreter.invoke()
        rows.append([interpreter.get_tensor(d["index"]) for d in interpreter.get_output_details()])
    worst = 300.0
    for place in range(len(reference[0])):
        wanted = np.stack([row[place] for row in reference])
        best = -300.0
        for other in range(len(rows[0])):
            got = np.stack([row[other] for row in rows])
            if got.size != wanted.size:
                continue
            orders = itertools.permutations(range(1, got.ndim))
            same = [o for o in orders if tuple(got.shape[i] for i in (0, *o)) == wanted.shape]
            best = max([best, *(sqnr_db(wanted, got.transpose(0, *o)) for o in same)])
        worst = min(worst, best)
    return round(worst, 1)


def tflite_row(case: Case, calibration: Path, evaluation: Path, folder: Path) -> dict[str, dict[str, Any]]:
    """Milliseconds and dB of every TFLite file."""
    from edgec.frontends.base import load_source
    from edgec.quantization.executor import Executor

    files: dict[str, dict[str, Any]] = {}
    for precision in ("float32", "int8", "auto"):
        files[f"edgec {precision}"] = ours(case, precision, "raspberrypi", calibration, folder)
    files |= quantized_by_litert(case, calibration, folder)
    with np.load(evaluation) as data:
        stacked = dict(data)
    feeds = [{k: v[i] for k, v in stacked.items()} for i in range(EVALUATE)]
    executor = Executor(load_source(source(case), inputs=case.inputs).model)
    reference = [list(executor.run(feed).values()) for feed in feeds]
    runnable = {name: entry for name, entry in files.items() if "path" in entry}
    for entry in runnable.values():
        entry["sqnr_db"] = fidelity(case, entry["path"], reference, feeds)
    paths = [entry["path"] for entry in runnable.values()]
    command = [sys.executable, "-m", "tools.peers.race", case.name, str(source(case)), "race", *paths]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT, timeout=_TIMEOUT_S)
    if done.returncode:
        raise RuntimeError(done.stderr.strip().splitlines()[-1])
    for entry, figures in zip(runnable.values(), json.loads(done.stdout.splitlines()[-1])["1"], strict=True):
        entry["ms"] = round(figures["min_ms"], 4)
    return files


def openvino_row(case: Case, calibration: Path, evaluation: Path, folder: Path) -> dict[str, dict[str, Any]]:
    """Milliseconds and dB of every OpenVINO model."""
    python = CACHE / "venvs" / "peers" / "bin" / "python"
    if not python.exists():
        from tools.accuracy import _install

        _install(python)
    files = {
        f"edgec {precision}": ours(case, precision, "intel-cpu", calibration, folder)
        for precision in ("float32", "int8", "auto")
    }
    named = [f"{name}={entry['path']}" for name, entry in files.items()]
    script = ROOT / "tools" / "peers" / "openvino_race.py"
    command = [str(python), str(script), str(source(case)), str(calibration), str(evaluation), *named]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=_TIMEOUT_S)
    if done.returncode:
        raise RuntimeError((done.stderr.strip().splitlines() or ["it failed"])[-1][-200:])
    for name, figures in json.loads(done.stdout.splitlines()[-1]).items():
        files[name] = {**files.get(name, {}), **figures}
    if "nncf" not in files:
        files["nncf"] = {"why": (done.stderr.strip().splitlines() or ["it failed"])[-1][-160:]}
    return files


def misses(files: dict[str, dict[str, Any]]) -> list[str]:
    """The bars that a row misses: against peers no less accurate (by a decibel), and against our own float."""
    mine = min((files[n] for n in ("edgec int8", "edgec auto") if "ms" in files[n]), key=lambda e: float(e["ms"]))
    found = []
    for name, entry in files.items():
        if "ms" not in entry or name.startswith("edgec") or name == "float32":
            continue
        if entry["ms"] * TIE < mine["ms"] and (entry["sqnr_db"] or 300) >= (mine["sqnr_db"] or 300) - 1:
            found.append(f"{100 * mine['ms'] / entry['ms'] - 100:.0f} % slower than {name}")
    if mine["ms"] > TIE * files["edgec float32"]["ms"]:
        found.append("slower than our float")
    return found


def row(case: Case) -> dict[str, Any]:
    """All figures of one model."""
    folder = FOLDER / case.name
    calibration, evaluation = samples(case, folder)
    made: dict[str, Any] = {"model": case.name, "date": f"{dt.datetime.now(dt.UTC):%Y-%m-%d}"}
    for runtime, measure in (("TFLite", tflite_row), ("OpenVINO", openvino_row)):
        try:
            files = measure(case, calibration, evaluation, folder)
            made[runtime] = {"files": files, "misses": misses(files)}
        except (EdgecError, RuntimeError, subprocess.TimeoutExpired) as error:
            made[runtime] = {"files": {}, "misses": [f"no figures: {error}"]}
    return made


def page(rows: Sequence[dict[str, Any]]) -> str:
    """The table as Markdown."""
    lines = [
        "# int8 against float and the peers",
        "",
        f"Made by `make bench-int8` on {platform.processor() or 'x86-64'}.",
    ]
    lines += ["", *(__doc__ or "").strip().splitlines()[2:], ""]
    lines += ["| model | runtime | file | runs in | ms | dB |", "|---|---|---|---|--:|--:|"]
    for made in rows:
        for runtime in ("TFLite", "OpenVINO"):
            for name, entry in made[runtime]["files"].items():
                figures = f"{entry['ms']:.3f} | {entry['sqnr_db']}" if "ms" in entry else f"– | {entry['why'][:60]}"
                lines.append(f"| {made['model']} | {runtime} | {name} | {entry.get('precision', '')} | {figures} |")
    lines += ["", "## Bars missed", ""]
    told = [
        f"- {m['model']}, {r}: {'; '.join(m[r]['misses'])}"
        for m in rows
        for r in ("TFLite", "OpenVINO")
        if m[r]["misses"]
    ]
    return "\n".join([*lines, *(told or ["none"])]) + "\n"


def main() -> int:
    """Rows as they come, then the page."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rows", nargs="*", help="models whose name contains one of these")
    parser.add_argument("--fresh", action="store_true", help="make rows again that are there")
    parser.add_argument("--page", type=Path, help="write the table there")
    arguments = parser.parse_args()
    done = []
    for case in CASES:
        if case.name in SKIPPED or (arguments.rows and not any(part in case.name for part in arguments.rows)):
            continue
        kept = FOLDER / f"{case.name}.json"
        if not kept.exists() or arguments.fresh:
            FOLDER.mkdir(parents=True, exist_ok=True)
            kept.write_text(json.dumps(row(case_named(case.name))))
        done.append(json.loads(kept.read_text()))
        print(json.dumps(done[-1]), flush=True)
    text = page(done)
    print(text)
    if arguments.page:
        arguments.page.write_text(text)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
