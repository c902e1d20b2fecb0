"""`make bench-int8`: our int8 and `auto` builds against our float one and the peers' int8, paired in one run.

TFLite: LiteRT's quantizer on the float files of onnx2tf and of litert-torch. OpenVINO: NNCF. All files of a model and
a runtime run in one process in turns, with 1 thread; the fastest call counts. Samples are smooth random inputs: 24
calibrate, 8 others give the SQNR to the float model.

The files are kept in .cache/bench-int8 and are made again when the code of edgec changes, or with `--fresh`; `--make`
makes them and times nothing (`--jobs` models at a time), `--race` times what is there, whatever code made it, and makes
nothing. Times are never kept: all of them are of this run, and the page says how busy the machine was. They are the
processor's, with one thread, which other work stretches less than the wall's. Where `auto` is int8 throughout, it is
the int8 build, and one file stands for both.

LiteRT's quantizer makes files whose inputs and outputs are integers: their callers convert. Ours take and give floats,
as the source does; what is raced against such a file is ours with integers at its border too.

Bars: ours at least as fast as every peer, the less accurate ones too, at no worse accuracy (1 dB); faster than our own
float, and `auto` too.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import hashlib
import itertools
import json
import multiprocessing
import os
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
from tools.peers.cases import CACHE, CASES, ROOT, Case, source
from tools.peers.convert import theirs
from tools.peers.envs import PEERS, PeerMissing, peer_python
from tools.peers.int8_page import INTEGERS, misses, page

FOLDER = CACHE / "bench-int8"
SKIPPED = ("gru", "lstm_bi2")  # loops in float on both sides: nothing to quantize fast
CALIBRATE, EVALUATE = 24, 8
PRECISIONS = ("float32", "auto", "int8")
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


def ours(case: Case, target: str, calibration: Path, folder: Path, effort: str) -> dict[str, dict[str, Any]]:
    """Our builds of a case by name: their files, and what was chosen."""
    found: dict[str, dict[str, Any]] = {}
    for precision in PRECISIONS:
        if precision == "int8" and found["edgec auto"]["whole"]:
            found["edgec int8"] = {**found["edgec auto"]}
            continue
        built = run_build(
            source(case),
            target=target,
            precision=precision,
            calibration=calibration,
            inputs=case.inputs,
            output=folder / f"{target}-{precision}",
            effort=effort,
            stop_after="compile",
        )
        said = built.summary
        mixed = bool(said.get("mixed", {}).get("reverted"))
        found[f"edgec {precision}"] = {
            "path": str(built.path),
            "precision": said["precision"] + (" and float" if mixed else ""),
            "why": said["why"],
            "whole": said["precision"] == "int8" and not mixed,
        }
    return found


def with_integers(case: Case, calibration: Path, folder: Path, effort: str) -> dict[str, dict[str, Any]]:
    """Our int8 build whose inputs and outputs are integers, as the peers' are."""
    try:
        built = run_build(
            source(case),
            target=str(Path(__file__).with_name("raspberrypi-integers.toml")),
            precision="int8",
            calibration=calibration,
            inputs=case.inputs,
            output=folder / "raspberrypi-integers",
            effort=effort,
            stop_after="compile",
        )
    except EdgecError as error:
        return {INTEGERS: {"why": str(error)}}
    return {INTEGERS: {"path": str(built.path), "precision": "int8"}}


def gives_integers(path: str) -> bool:
    """True for a .tflite some of whose outputs are integers with a scale."""
    from ai_edge_litert.interpreter import Interpreter

    return any(d["quantization"][0] for d in Interpreter(model_path=path).get_output_details())


def quantized_by_litert(case: Case, calibration: Path, folder: Path) -> dict[str, dict[str, Any]]:
    """LiteRT's quantizer on each peer's float file."""
    found: dict[str, dict[str, Any]] = {}
    for peer in PEERS:
        name = f"{peer.name} + litert-quantizer"
        made = theirs(peer, case)
        if made.path is None:
            found[name] = {"why": made.why}
            continue
        path = folder / f"{peer.name}-{made.path.stem}-int8.tflite"
        if path.exists():  # the samples and the quantizer are always the same
            found[name] = {"path": str(path)}
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

    from tools.peers.race import _inputs, plain

    interpreter = Interpreter(model_path=path, num_threads=1)
    interpreter.allocate_tensors()
    rows: list[list[Array]] = []
    for feed in feeds:
        for index, value in _inputs(interpreter, case, feed):
            interpreter.set_tensor(index, value)
        interpreter.invoke()
        rows.append([plain(interpreter.get_tensor(d["index"]), d) for d in interpreter.get_output_details()])
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


def tflite_files(
    case: Case, calibration: Path, evaluation: Path, folder: Path, effort: str
) -> dict[str, dict[str, Any]]:
    """Every TFLite file with its dB."""
    from edgec.frontends.base import load_source
    from edgec.quantization.run.executor import Executor

    files = ours(case, "raspberrypi", calibration, folder, effort)
    files |= with_integers(case, calibration, folder, effort)
    files |= quantized_by_litert(case, calibration, folder)
    with np.load(evaluation) as data:
        stacked = dict(data)
    feeds = [{k: v[i] for k, v in stacked.items()} for i in range(EVALUATE)]
    executor = Executor(load_source(source(case), inputs=case.inputs).model)
    reference = [list(executor.run(feed).values()) for feed in feeds]
    for name, entry in files.items():
        if "path" not in entry:
            continue
        try:
            entry["sqnr_db"] = fidelity(case, entry["path"], reference, feeds)
            entry["integers"] = gives_integers(entry["path"])
        except (RuntimeError, ValueError) as error:  # a file that its runtime refuses is no rival
            files[name] = {"why": f"does not run: {error}"}
    return files


def openvino_files(
    case: Case, calibration: Path, evaluation: Path, folder: Path, effort: str
) -> dict[str, dict[str, Any]]:
    """Every OpenVINO model of ours; NNCF's is made on the way."""
    files = ours(case, "intel-cpu", calibration, folder, effort)
    _openvino(case, calibration, evaluation, folder, {})
    return files


def tflite_times(case: Case, files: dict[str, dict[str, Any]], _: Path) -> None:
    """Milliseconds of every TFLite file, into its entry."""
    runnable = [entry for entry in files.values() if "path" in entry]
    paths = [entry["path"] for entry in runnable]
    command = [sys.executable, "-m", "tools.peers.race", case.name, str(source(case)), "race-one", *paths]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT, timeout=_TIMEOUT_S)
    if done.returncode:
        raise RuntimeError((done.stderr.strip().splitlines() or ["the race failed"])[-1])
    for entry, figures in zip(runnable, json.loads(done.stdout.splitlines()[-1])["1"], strict=True):
        entry["ms"] = round(figures["min_ms"], 4)


def openvino_times(case: Case, files: dict[str, dict[str, Any]], folder: Path) -> None:
    """Milliseconds and dB of every OpenVINO model, into its entry."""
    found, said = _openvino(case, folder / "calibration.npz", folder / "evaluation.npz", folder, files)
    for name, figures in found.items():
        files[name] = {**files.get(name, {}), **figures}
    if "nncf" not in files:
        files["nncf"] = {"why": (said.splitlines() or ["it failed"])[-1][-160:]}


def _openvino(
    case: Case, calibration: Path, evaluation: Path, folder: Path, files: dict[str, dict[str, Any]]
) -> tuple[dict[str, dict[str, Any]], str]:
    """What the race of OpenVINO's models found, and what it said."""
    python = CACHE / "venvs" / "peers" / "bin" / "python"
    if not python.exists():
        from tools.accuracy_runs import install as _install

        _install(python)
    model = source(case)
    kept = folder / f"nncf-{hashlib.sha256(model.read_bytes()).hexdigest()[:12]}.xml"
    named = [f"{name}={entry['path']}" for name, entry in files.items() if "path" in entry]
    script = ROOT / "tools" / "peers" / "openvino_race.py"
    command = [str(python), str(script), str(model), str(calibration), str(evaluation), str(kept), *named]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=_TIMEOUT_S)
    if done.returncode:
        raise RuntimeError((done.stderr.strip().splitlines() or ["it failed"])[-1][-200:])
    return dict(json.loads(done.stdout.splitlines()[-1])), done.stderr.strip()


RUNTIMES = {"TFLite": (tflite_files, tflite_times), "OpenVINO": (openvino_files, openvino_times)}


def code_digest() -> str:
    """Changes with every change of edgec's code or of a target."""
    sha = hashlib.sha256()
    for path in sorted([*(ROOT / "edgec").rglob("*.py"), *(ROOT / "targets").rglob("*.toml")]):
        sha.update(path.read_bytes())
    return sha.hexdigest()[:16]


def files_of(case: Case, code: str | None, fresh: bool, effort: str) -> dict[str, Any]:
    """The files of a model by runtime, kept until the code changes; `code` None takes what is there, and makes none."""
    folder = FOLDER / case.name
    record = folder / "files.json"
    if record.exists() and not fresh:
        kept: dict[str, Any] = json.loads(record.read_text())
        if code is None or (kept["code"], kept.get("effort", "balanced")) == (code, effort):
            return kept
    if code is None:
        return {runtime: {"files": {}, "why": "its files were not made"} for runtime in RUNTIMES}
    calibration, evaluation = samples(case, folder)
    made: dict[str, Any] = {"code": code, "effort": effort}
    for runtime, (make, _) in RUNTIMES.items():
        try:
            made[runtime] = {"files": make(case, calibration, evaluation, folder, effort)}
        except (EdgecError, RuntimeError, OSError, subprocess.TimeoutExpired) as error:
            made[runtime] = {"files": {}, "why": str(error)}
    record.write_text(json.dumps(made))
    told = (f"{name}: {r.get('why') or ', '.join(r['files'])}" for name in RUNTIMES for r in (made[name],))
    print(case.name, *told, sep="\n  ", file=sys.stderr, flush=True)
    return made


def files_of_all(
    cases: Sequence[Case], code: str | None, *, fresh: bool, effort: str, jobs: int
) -> list[dict[str, Any]]:
    """The files of every case, `jobs` cases at a time, each in a process of its own."""
    rest: list[list[Any]] = [[code] * len(cases), [fresh] * len(cases), [effort] * len(cases)]
    if jobs < 2 or code is None:
        return list(map(files_of, cases, *rest))
    spawn = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(jobs, mp_context=spawn, max_tasks_per_child=1) as pool:
        return list(pool.map(files_of, cases, *rest))


def row(case: Case, made: dict[str, Any]) -> dict[str, Any]:
    """All figures of one model, timed now."""
    found: dict[str, Any] = {"model": case.name, "effort": made.get("effort", "balanced")}
    for runtime, (_, measure) in RUNTIMES.items():
        files = made[runtime]["files"]
        try:
            if not files:
                raise RuntimeError(made[runtime]["why"])
            measure(case, files, FOLDER / case.name)
            found[runtime] = {"files": files, "misses": misses(files)}
        except (RuntimeError, subprocess.TimeoutExpired) as error:
            found[runtime] = {"files": {}, "misses": [f"no figures: {error}"]}
    return {**found, "load": round(os.getloadavg()[0], 1)}


def main() -> int:
    """Rows as they come, then the page."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rows", nargs="*", help="models whose name contains one of these")
    parser.add_argument("--fresh", action="store_true", help="make the files again that are there")
    parser.add_argument("--make", action="store_true", help="make files, time nothing")
    parser.add_argument("--jobs", type=int, default=1, help="how many models' files are made at a time")
    parser.add_argument("--effort", default="balanced", help="how far our builds climb the ladder of repairs")
    parser.add_argument("--race", action="store_true", help="time the files that are there, whatever code made them")
    parser.add_argument("--page", type=Path, help="write the table there")
    arguments = parser.parse_args()
    chosen = [c for c in CASES if c.name not in SKIPPED]
    if arguments.rows is not None:
        chosen = [c for c in chosen if any(part in c.name for part in arguments.rows)]
    code = None if arguments.race else code_digest()
    made = files_of_all(chosen, code, fresh=arguments.fresh, effort=arguments.effort, jobs=arguments.jobs)
    if arguments.make:
        return 0
    files = {case.name: entry for case, entry in zip(chosen, made, strict=True)}
    done = []
    for case in chosen:  # one after the other, once nothing is built any more
        done.append(row(case, files[case.name]))
        print(json.dumps(done[-1]), flush=True)
    text = page(done, "\n".join((__doc__ or "").strip().splitlines()[2:]))
    print(text)
    if arguments.page:
        arguments.page.write_text(text)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
