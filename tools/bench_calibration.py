"""`make bench-calibration`: what 1000 samples at 224 × 224 through MobileNetV2 cost, in time and in memory.

1. Calibration takes at most 2.5 × what plain ONNX Runtime (optimiser off) needs to run the same samples.
2. Peak memory does not depend on their number: 1000 take at most 1.05 × what 100 do.

Samples are made one at a time from their number, so that no file of them is in memory. Calibration and inference take
turns of 50 samples in one process, and CPU seconds are compared, so that other work on the machine counts for neither
(seconds on the clock are printed too); the memory is measured in processes that calibrate and do nothing else.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from edgec.backends.base import load_backend
from edgec.frontends.base import load_source
from edgec.graph.model import Model
from edgec.passes.pipelines import canonicalize
from edgec.quantization.calibrate import calibrate
from edgec.quantization.executor import Executor
from edgec.quantization.plan import scheme_of, tensors_to_observe
from edgec.targets.load import load_target
from edgec.tensors import Array

ROOT = Path(__file__).resolve().parent.parent
SIDE, TURN = 224, 50
TIME_BAR, MEMORY_BAR = 2.5, 1.05


class Samples:
    """Smooth random images, each made from its number."""

    findings = ()

    def __init__(self, name: str, start: int, count: int) -> None:
        self.name, self.start, self.count, self.digest = name, start, count, f"made-up {start} {count}"

    def __len__(self) -> int:
        return self.count

    def __iter__(self) -> Iterator[dict[str, Array]]:
        for number in range(self.start, self.start + self.count):
            coarse = np.random.default_rng(number).standard_normal((1, 3, 14, 14)).astype(np.float32)
            yield {self.name: coarse.repeat(SIDE // 14, axis=2).repeat(SIDE // 14, axis=3)}


def prepared(path: str) -> tuple[Model, tuple[str, ...], str]:
    """The legalized model, what calibration observes in it, and its input's name."""
    target = load_target("raspberrypi")
    legal = load_backend("tflite").legalize(canonicalize(load_source(path).model), target, "int8")
    return legal, tensors_to_observe(legal, scheme_of(target, "tflite")), legal.inputs()[0].name


def timed(path: str, count: int) -> dict[str, float]:
    """CPU seconds of calibration and of plain inference, in turns, and what the clock says of both."""
    model, tensors, name = prepared(path)
    executor = Executor(model)
    executor.run(next(iter(Samples(name, 0, 1))))
    seconds = {"calibrate": 0.0, "inference": 0.0, "calibrate clock": 0.0, "inference clock": 0.0}
    for start in range(0, count, TURN):
        batch = Samples(name, start, min(TURN, count - start))
        began, clock = time.process_time(), time.perf_counter()
        for feed in batch:
            executor.run(feed)
        middle, middle_clock = time.process_time(), time.perf_counter()
        calibrate(model, batch, tensors=tensors)
        seconds["inference"] += middle - began
        seconds["calibrate"] += time.process_time() - middle
        seconds["inference clock"] += middle_clock - clock
        seconds["calibrate clock"] += time.perf_counter() - middle_clock
    return seconds


def memory(path: str, count: int) -> dict[str, float]:
    """The most memory that one calibration holds, and its CPU seconds."""
    model, tensors, name = prepared(path)
    began = time.process_time()
    calibrate(model, Samples(name, 0, count), tensors=tensors)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return {"peak_bytes": float(peak), "seconds": time.process_time() - began}


def apart(what: str, path: Path, count: int) -> dict[str, Any]:
    """One measurement in a process of its own, with an empty cache."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "tools.bench_calibration", "--worker", what, str(path), str(count)]
        environment = {**os.environ, "EDGEC_CACHE": folder}
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, env=environment, cwd=ROOT)
    return dict(json.loads(done.stdout.splitlines()[-1]))


def main() -> int:
    """Measure, print, and say whether the bars hold (exit code 1 when not)."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--samples", type=int, default=1000)
    parser.add_argument("--few", type=int, default=100, help="what the memory is compared with")
    parser.add_argument("--worker", nargs=3, metavar=("WHAT", "MODEL", "COUNT"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        what, path, count = options.worker
        print(json.dumps({"timed": timed, "memory": memory}[what](path, int(count))))
        return 0
    subprocess.run([sys.executable, "tools/export_models.py", "mobilenet_v2"], check=True, cwd=ROOT)
    model = ROOT / ".cache" / "models" / "mobilenet_v2.onnx"
    few, many = (apart("memory", model, count) for count in (options.few, options.samples))
    turns = apart("timed", model, min(options.samples, 4 * TURN))
    whole = many["seconds"] / options.samples / (turns["inference"] / min(options.samples, 4 * TURN))
    clock = turns["calibrate clock"] / turns["inference clock"]
    ratio, growth = turns["calibrate"] / turns["inference"], many["peak_bytes"] / few["peak_bytes"]
    print(f"calibration: {ratio:.2f} × inference in turns, {whole:.2f} × over {options.samples} samples in one go")
    print(f"on the clock: {clock:.2f} × inference in turns")
    print(f"peak memory: {few['peak_bytes'] / 1e6:.0f} MB with {options.few}, {many['peak_bytes'] / 1e6:.0f} MB in all")
    holds = min(ratio, whole) <= TIME_BAR and growth <= MEMORY_BAR
    print(f"bars: {TIME_BAR} ×, memory {growth:.3f} of {MEMORY_BAR}: {'hold' if holds else 'MISSED'}")
    return 0 if holds else 1


if __name__ == "__main__":
    sys.exit(main())
