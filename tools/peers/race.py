"""Runs .tflite files of one model against each other: `python -m tools.peers.race CASE MODEL probe|race FILE …`.

`probe` runs one file on the case's inputs and compares with ONNX Runtime (optimiser off): a file that aborts the
runtime takes only this process along. `race` holds all files in one process and times them in turns, in blocks: the
first call of a block warms the caches up and is not counted. With 1 thread the clock is the process's CPU time, which
other work on the machine does not stretch; with 2 it is the wall's. Prints JSON.
"""

from __future__ import annotations

import itertools
import json
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from ai_edge_litert.interpreter import Interpreter

from edgec.backends.tflite.reader import describe
from tools.peers.cases import Case, case_named

#: Seconds that each file gets per number of threads; a block is this long or one call.
_BUDGET_S, _BLOCK_S = 4.0, 0.02
_MIN_ROUNDS, _MAX_ROUNDS = 12, 150
_THREADS = {"race": (1, 2), "race-one": (1,)}


def reference(case: Case, model: str) -> list[Any]:
    """What ONNX Runtime computes without its optimiser."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    return list(session.run(None, case.feeds()))


def load(path: str, case: Case, threads: int) -> Interpreter:
    """An interpreter with the case's inputs set."""
    interpreter = Interpreter(model_path=path, num_threads=threads)
    interpreter.allocate_tensors()
    for index, value in _inputs(interpreter, case):
        interpreter.set_tensor(index, value)
    return interpreter


def _inputs(interpreter: Interpreter, case: Case, feed: dict[str, Any] | None = None) -> Iterator[tuple[int, Any]]:
    """Every input's index and value, in whatever order of axes and of inputs the file has them."""
    left = dict(feed or case.feeds())
    for detail in sorted(interpreter.get_input_details(), key=lambda d: str(d["name"])):
        shape = tuple(int(d) for d in detail["shape"])
        fitting = [n for n in left if _perm(left[n].shape, shape)]
        if not fitting:
            raise ValueError(f"input {detail['name']} of shape {shape} is none of {case.inputs}")
        value = left.pop(next((n for n in fitting if n in detail["name"]), fitting[0]))
        perm = _perm(value.shape, shape)
        yield detail["index"], _stored(np.ascontiguousarray(value.transpose(perm)), detail)


def _stored(value: Any, detail: dict[str, Any]) -> Any:
    """A value as the file's input takes it: in its integers where it has a scale."""
    scale, zero = detail["quantization"]
    if not scale:
        return value.astype(detail["dtype"])
    limits = np.iinfo(detail["dtype"])
    return np.clip(np.rint(value / scale) + zero, limits.min, limits.max).astype(detail["dtype"])


def plain(value: Any, detail: dict[str, Any]) -> Any:
    """An output of the file in numbers."""
    scale, zero = detail["quantization"]
    return (value.astype(np.float32) - np.float32(zero)) * np.float32(scale) if scale else value


def _perm(have: tuple[int, ...], want: tuple[int, ...]) -> tuple[int, ...] | None:
    """How to permute axes of sizes `have` to get `want`; the identity where it fits, channels last before others."""
    if len(have) != len(want):
        return None
    last = (0, *range(2, len(have)), 1) if len(have) > 2 else ()
    for perm in (tuple(range(len(have))), last, *itertools.permutations(range(len(have)))):
        if perm and tuple(have[p] for p in perm) == want:
            return perm
    return None


def probe(case: Case, model: str, path: str) -> dict[str, Any]:
    """Largest error of a file, its operators, and how many pieces the delegate took of it."""
    facts: dict[str, Any] = {"operators": describe(Path(path).read_bytes())["operators"]}
    interpreter = load(path, case, 1)
    wanted = reference(case, model)
    details = interpreter._get_ops_details()
    facts["partitions"] = sum(d["op_name"] == "DELEGATE" for d in details)
    errors = []
    for _ in range(2):  # a second call must give the same: ONNX keeps no state between calls
        interpreter.invoke()
        outputs = [interpreter.get_tensor(d["index"]) for d in interpreter.get_output_details()]
        errors.append(max(_error(value, outputs) for value in wanted))
        for index, value in _inputs(interpreter, case):
            interpreter.set_tensor(index, value)
    facts["max_error"] = max(errors)
    facts["stateful"] = errors[1] > 10 * errors[0] + 1e-5
    return facts


def _error(wanted: Any, outputs: list[Any]) -> float:
    """The largest error relative to the largest value (or to 1), under the order of axes and outputs that fits best."""
    errors = [float("inf")]
    for value in outputs:
        if value.size != wanted.size:
            continue
        errors += [
            float(np.abs(value.transpose(perm) - wanted).max())
            for perm in itertools.permutations(range(value.ndim))
            if tuple(value.shape[p] for p in perm) == wanted.shape
        ]
    return min(errors) / max(float(np.abs(wanted).max()), 1.0)


def race(case: Case, paths: list[str], threads: int) -> list[dict[str, Any]]:
    """Milliseconds of each file: the fastest call, the median of the blocks' fastest, and those blocks."""
    clock = time.process_time if threads == 1 else time.perf_counter
    runners = [load(path, case, threads) for path in paths]
    calls = []
    for runner in runners:
        runner.invoke()
        start = clock()
        runner.invoke()
        calls.append(max(1, int(_BLOCK_S / (clock() - start))))
    blocks: list[list[float]] = [[] for _ in runners]
    deadline = time.perf_counter() + _BUDGET_S * len(runners)
    order = list(range(len(runners)))
    for number in range(_MAX_ROUNDS):
        if number >= _MIN_ROUNDS and time.perf_counter() > deadline:
            break
        for index in order:
            blocks[index].append(1e3 * _block(runners[index], calls[index], clock))
        order = order[1:] + order[:1]
    return [{"min_ms": min(b), "median_ms": statistics.median(b), "blocks": [round(ms, 5) for ms in b]} for b in blocks]


def _block(runner: Interpreter, calls: int, clock: Callable[[], float]) -> float:
    runner.invoke()
    best = float("inf")
    for _ in range(calls):
        start = clock()
        runner.invoke()
        best = min(best, clock() - start)
    return best


def main(name: str, model: str, what: str, *paths: str) -> None:
    """Probe one file, or race all: with 1 thread (`race-one`), or with 1 and 2 (`race`)."""
    case = case_named(name)
    if what == "probe":
        print(json.dumps(probe(case, model, paths[0])))
    else:
        print(json.dumps({str(n): race(case, list(paths), n) for n in _THREADS[what]}))


if __name__ == "__main__":
    main(*sys.argv[1:])
