"""`make bench`: seconds and peak memory of every stage of a build, against the bars that edgec holds itself to.

1. MobileNetV2 at 224, int8, 100 samples: the stages that compile take under 1 s in all.
2. Calibration takes at most 4 × what ONNX Runtime, optimiser off, needs to run the same 100 samples.
3. `edgec --help` takes under 0.3 s more than `python -c pass`, measured in turns.

A stage that runs the model (judge, goldens, validate) is listed, and belongs to no bar.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from edgec.report.tables import rows, text

ROOT = Path(__file__).resolve().parent.parent
SAMPLES, SIDE = 100, 224
COMPILE_STAGES = ("load", "passes", "legalize", "quantize", "compile", "bundle")
COMPILE_BAR_S, CALIBRATE_BAR, HELP_BAR_S = 1.0, 4.0, 0.3


@dataclass(slots=True)
class Watch:
    """The most memory that this process holds during each stage, looked at every few milliseconds."""

    peak_bytes: dict[str, int] = field(default_factory=dict)
    stage: str = "start"
    done: threading.Event = field(default_factory=threading.Event)

    def progress(self, stage: str, done: int, total: int) -> None:
        """What the pipeline calls: a stage begins with 0."""
        if done == 0:
            self.stage = stage
        elif done == total:
            self.look()

    def look(self) -> None:
        """Note the present size."""
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        size = pages * os.sysconf("SC_PAGE_SIZE")
        self.peak_bytes[self.stage] = max(size, self.peak_bytes.get(self.stage, 0))

    def run(self) -> None:
        """Look until `done` is set."""
        while not self.done.wait(0.005):
            self.look()


def samples(folder: Path) -> Path:
    """Smooth random images, the same every time, as one .npy file."""
    rng = np.random.default_rng(0)
    coarse = rng.standard_normal((SAMPLES, 3, 14, 14)).astype(np.float32)
    images = coarse.repeat(SIDE // 14, axis=2).repeat(SIDE // 14, axis=3)
    path = folder / "samples.npy"
    np.save(path, images + 0.1 * rng.standard_normal(images.shape).astype(np.float32))
    return path


def worker(model: str, data: str, output: str) -> None:
    """One build, and the reference for its calibration, in this process; prints JSON."""
    from edgec.frontends.base import load_source
    from edgec.passes.pipelines import canonicalize
    from edgec.pipeline import run_build
    from edgec.quantization.run.executor import Executor

    canonical = canonicalize(load_source(model).model)
    executor, name = Executor(canonical), canonical.inputs()[0].name
    feeds = [{name: sample[None]} for sample in np.load(data)]

    def reference_s() -> float:
        executor.run(feeds[0])
        start = time.perf_counter()
        for feed in feeds:
            executor.run(feed)
        return time.perf_counter() - start

    # Before and after, so that both see the machine that the build sees.
    before_s = reference_s()
    watch = Watch()
    thread = threading.Thread(target=watch.run)
    thread.start()
    try:
        built = run_build(
            model, target="raspberrypi", calibration=data, samples=SAMPLES, precision="int8", output=output,
            progress=watch.progress,
        )  # fmt: skip
    finally:
        watch.done.set()
        thread.join()
    stages, mean_s = built.summary["stages"], (before_s + reference_s()) / 2
    print(json.dumps({"stages": stages, "peak": watch.peak_bytes, "reference_s": mean_s}))


def build_measured(model: Path, runs: int) -> list[dict[str, Any]]:
    """Builds in fresh processes with an empty calibration cache."""
    answers = []
    for _ in range(runs):
        with tempfile.TemporaryDirectory() as folder:
            command = [sys.executable, "-m", "tools.bench", "--worker", str(model), str(samples(Path(folder))), folder]
            environment = {**os.environ, "EDGEC_CACHE": f"{folder}/cache"}
            done = subprocess.run(command, check=True, stdout=subprocess.PIPE, env=environment, cwd=ROOT)
            answers.append(json.loads(done.stdout.splitlines()[-1]))
    return answers


def help_seconds(runs: int = 9) -> tuple[float, float]:
    """The fastest of several: bare Python, and `edgec --help`; in turns, so that both see the same machine."""
    commands = ([sys.executable, "-c", "pass"], [sys.executable, "-m", "edgec.cli.app", "--help"])
    best = [float("inf"), float("inf")]
    for _ in range(runs):
        for index, command in enumerate(commands):
            start = time.perf_counter()
            subprocess.run(command, check=True, capture_output=True)
            best[index] = min(best[index], time.perf_counter() - start)
    return best[0], best[1]


def main() -> int:
    """Measure, print, and say whether the bars hold (exit code 1 when not)."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=3, help="builds; each stage and ratio counts with its best")
    parser.add_argument("--json", type=Path, help="write stages and bars there")
    parser.add_argument("--worker", nargs=3, metavar=("MODEL", "DATA", "OUTPUT"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        worker(*options.worker)
        return 0
    subprocess.run([sys.executable, "tools/export_models.py", "mobilenet_v2"], check=True, cwd=ROOT)
    answers = build_measured(ROOT / ".cache" / "models" / "mobilenet_v2.onnx", options.runs)
    stages = {name: min(answer["stages"][name] for answer in answers) for name in answers[0]["stages"]}
    peaks = {name: max(answer["peak"].get(name, 0) for answer in answers) for name in stages}
    ratio = min(answer["stages"]["calibrate"] / answer["reference_s"] for answer in answers)
    bare_s, help_s = help_seconds()
    compile_s = sum(stages.get(name, 0.0) for name in COMPILE_STAGES)
    bars = [
        ("compile stages, s", compile_s, COMPILE_BAR_S),
        (f"calibrate / ONNX Runtime on the same {SAMPLES} samples", ratio, CALIBRATE_BAR),
        (f"edgec --help over bare Python ({bare_s:.3f} s), s", help_s - bare_s, HELP_BAR_S),
    ]  # fmt: skip
    table = [{"stage": name, "seconds": round(s, 3), "peak_bytes": peaks[name] or None} for name, s in stages.items()]
    verdicts = [
        {"bar": bar, "measured": round(got, 3), "at most": most, "holds": got <= most} for bar, got, most in bars
    ]
    sys.stdout.write(
        text(f"MobileNetV2, {SIDE} × {SIDE}, int8, {SAMPLES} samples, best of {options.runs}", rows(table))
    )
    sys.stdout.write("\n" + text(rows(verdicts)))
    if options.json:
        options.json.write_text(json.dumps({"stages": table, "bars": verdicts}, indent=1) + "\n")
    return 0 if all(verdict["holds"] for verdict in verdicts) else 1


if __name__ == "__main__":
    sys.exit(main())
