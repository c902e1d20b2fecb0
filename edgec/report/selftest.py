"""Try one runtime on y = x + x, in a process of its own: `python -m edgec.report.selftest onnxruntime|tflite|openvino`.

Prints one JSON object, {"ok": true, …} or {"ok": false, "why": …}; a runtime that dies takes only this process with it.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

MODEL = '<ir_version: 10, opset_import: ["" : 21]> double (float[1,8] x) => (float[1,8] y) { y = Add (x, x) }'
NAMES = ("onnxruntime", "tflite", "openvino")


def _model() -> Any:
    import onnx.parser
    import onnx_ir as ir

    from edgec.graph.model import Model, SourceInfo
    from edgec.graph.names import name_everything

    parsed = ir.from_proto(onnx.parser.parse_model(MODEL))
    name_everything(parsed)
    return Model(ir=parsed, source=SourceInfo(kind="onnx", name="double", digest=""), name="double")


def run_onnxruntime(x: Any) -> Any:
    """The reference that goldens come from."""
    from edgec.quantization.run.executor import Executor

    return Executor(_model()).run({"x": x})["y"]


def run_backend(name: str, x: Any) -> Any:
    """Compile with a backend, run in its runtime as a bundle would."""
    from edgec.backends.base import CompileOptions, load_backend
    from edgec.bundle.worker import Worker
    from edgec.targets.load import load_target

    backend, target = load_backend(name), load_target("linux-x86_64")
    artifact = backend.compile(backend.legalize(_model(), target, "float32"), target, CompileOptions())
    with tempfile.TemporaryDirectory() as folder:
        for file, data in artifact.files.items():
            (Path(folder) / file).write_bytes(data)
        with Worker(Path(folder) / artifact.main, name, timeout_s=60) as worker:
            source, raw = artifact.inputs[0], artifact.outputs[0]
            outputs = worker.run({source.artifact.name: source.to_artifact(x)})
            return raw.to_source(outputs[raw.artifact.name])


def probe(name: str) -> dict[str, Any]:
    """The JSON object for one runtime."""
    x = np.arange(8, dtype=np.float32).reshape(1, 8)
    try:
        y = run_onnxruntime(x) if name == "onnxruntime" else run_backend(name, x)
    except Exception as error:  # noqa: BLE001  whatever a broken installation raises is the answer
        return {"ok": False, "why": f"{type(error).__name__}: {error}"}
    return {"ok": True} if np.array_equal(y, x + x) else {"ok": False, "why": f"it computes {y.tolist()} for x + x"}


if __name__ == "__main__":
    answer_fd = os.dup(1)
    os.dup2(2, 1)  # what native libraries print is no part of the answer
    os.write(answer_fd, json.dumps(probe(sys.argv[1])).encode())
