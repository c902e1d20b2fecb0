"""`make bench-calibration`: what 1000 samples at 224 × 224 through MobileNetV2 cost, in time and in memory.

1. Calibration takes at most 2.5 × what plain ONNX Runtime (optimiser off) needs for the same samples; the aim is 1.3 ×.
2. Peak memory does not depend on their number: 1000 take at most 1.05 × what 100 do.

Plain inference is both the loop that a user would write (one session with its default threads, one sample after the
other) and the fastest that we know (a sample a core, each with one thread). The bar holds for the cheaper of the two.
Samples are made one at a time from their number, so that no file of them is in memory. All take turns in one process,
and CPU seconds are compared, so that other work on the machine counts for none (seconds on the clock are printed too);
the memory is measured in processes that calibrate and do nothing else.
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
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort

from edgec.backends.base import load_backend
from edgec.frontends.base import load_source
from edgec.graph.model import Model
from edgec.passes.pipelines import canonicalize
from edgec.quantization.calibration.calibrate import calibrate
from edgec.quantization.planning.plan import scheme_of, tensors_to_observe
from edgec.quantization.run.executor import Executor
from edgec.targets.load import load_target
from edgec.tensors import Array

ROOT = Path(__file__).resolve().parent.parent
SIDE, TURNS = 224, 4
TIME_BAR, TIME_AIM, MEMORY_BAR = 2.5, 1.3, 1.05


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


def timed(path: str, count: int) -> dict[str, list[float]]:
    """CPU seconds and seconds on the clock of the loop, of a sample a core and of calibration, in turns."""
    model, tensors, name = prepared(path)
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = ort.InferenceSession(model.to_bytes(), options, providers=["CPUExecutionProvider"])
    executor = Executor(model)
    ways: dict[str, Callable[[Samples], object]] = {
        "loop": lambda samples: deque((session.run(None, feed) for feed in samples), maxlen=0),
        "a core each": lambda samples: deque(executor.run_all(samples), maxlen=0),
        "calibration": lambda samples: calibrate(model, samples, tensors=tensors),
    }
    seconds = {way: [0.0, 0.0] for way in ways}
    turn = -(-count // TURNS)
    for start in range(0, count, turn):
        samples = Samples(name, start, min(turn, count - start))
        for way, run in ways.items():
            cpu, clock = time.process_time(), time.perf_counter()
            run(samples)
            seconds[way][0] += time.process_time() - cpu
            seconds[way][1] += time.perf_counter() - clock
    return seconds


def memory(path: str, count: int) -> float:
    """The most memory that one calibration holds, in bytes."""
    model, tensors, name = prepared(path)
    calibrate(model, Samples(name, 0, count), tensors=tensors)
    return float(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)


def apart(what: str, path: Path, count: int) -> Any:
    """One measurement in a process of its own, with an empty cache."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "tools.bench_calibration", "--worker", what, str(path), str(count)]
        environment = {**os.environ, "EDGEC_CACHE": folder}
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, env=environment, cwd=ROOT)
    return json.loads(done.stdout.splitlines()[-1])


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
    seconds = apart("timed", model, options.samples)
    calibration, loop, each = (seconds[way] for way in ("calibration", "loop", "a core each"))
    for which, what in enumerate(("CPU seconds", "on the clock")):
        print(
            f"{what}: calibration {calibration[which]:.1f}, the loop {loop[which]:.1f}, a core each {each[which]:.1f}: "
            f"{calibration[which] / loop[which]:.2f} × and {calibration[which] / each[which]:.2f} ×"
        )
    print(f"peak memory: {few / 1e6:.0f} MB with {options.few} samples, {many / 1e6:.0f} MB with {options.samples}")
    ratio, growth = calibration[0] / min(loop[0], each[0]), many / few
    holds = ratio <= TIME_BAR and growth <= MEMORY_BAR
    print(f"bars: {ratio:.2f} × of {TIME_BAR}, memory {growth:.3f} of {MEMORY_BAR}: {'hold' if holds else 'MISSED'}")
    print(f"the aim of {TIME_AIM} ×: {'reached' if ratio <= TIME_AIM else 'not reached'}")
    return 0 if holds else 1


if __name__ == "__main__":
    sys.exit(main())
