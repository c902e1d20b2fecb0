"""Compile one model to float TFLite and measure it: `python -m tools.peers.compile_one MODEL INPUTS-JSON FILE`.

Prints JSON: CPU seconds of the first and of the fastest of three further compiles (everything imported by then; CPU
seconds, because a busy machine stretches the wall's and one thread does the work), the most memory this process held,
and what is said of each transpose that is left.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

from edgec.artifact import Artifact
from edgec.backends.base import CompileOptions, load_backend
from edgec.frontends.base import load_source
from edgec.graph.model import Model
from edgec.passes.pipelines import canonicalize
from edgec.targets.load import load_target


def compile_model(path: str, inputs: dict[str, tuple[int, ...]]) -> tuple[Artifact, Model]:
    """Load, canonicalize, legalize, emit: a build without data."""
    backend, target = load_backend("tflite"), load_target("raspberrypi")
    model = canonicalize(load_source(path, inputs=inputs).model)
    legal = backend.legalize(model, target, "float32")
    return backend.compile(legal, target, CompileOptions()), model


def _peak_bytes() -> int:
    """This process's own high-water mark: getrusage's also counts what the parent held when it forked."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))


def _seconds(path: str, inputs: dict[str, tuple[int, ...]]) -> float:
    start = time.process_time()
    compile_model(path, inputs)
    return time.process_time() - start


def main(path: str, shapes: str, out: str) -> None:
    """Compile, write, measure."""
    inputs = {name: tuple(shape) for name, shape in json.loads(shapes).items()}
    start = time.process_time()
    artifact, model = compile_model(path, inputs)
    first_s = time.process_time() - start
    peak_bytes = _peak_bytes()
    Path(out).write_bytes(artifact.files[artifact.main])
    weights = sum(v.const_value.nbytes for v in model.graph.initializers.values() if v.const_value is not None)
    bindings = [
        [{"source": b.source.name, "artifact": b.artifact.name, "perm": b.perm} for b in group]
        for group in (artifact.inputs, artifact.outputs)
    ]
    facts = {
        "first_s": first_s,
        "warm_s": min(_seconds(path, inputs) for _ in range(3)),
        "peak_bytes": peak_bytes,
        "weights_bytes": weights,
        "transposes": artifact.transposes,
        "inputs": bindings[0],
        "outputs": bindings[1],
    }
    print(json.dumps(facts))


if __name__ == "__main__":
    main(*sys.argv[1:4])
