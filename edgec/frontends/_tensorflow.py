"""From a TensorFlow or Keras source to a `Model`, by way of the exporter in TensorFlow's own Python."""

from __future__ import annotations

import hashlib
import tempfile
from pathlib import Path
from typing import Literal

import onnx

from edgec.errors import Finding, Severity
from edgec.frontends._child import run_exporter
from edgec.frontends._environments import python_of
from edgec.frontends._onnx_model import from_proto
from edgec.frontends.base import Loaded, Request, existing
from edgec.graph.model import SourceInfo

_SCRIPTS = Path(__file__).parent / "exporters"
_CHUNK_BYTES = 1 << 20


def load_with_tensorflow(request: Request, kind: Literal["keras", "saved_model", "tflite"]) -> Loaded:
    """Export to ONNX in a process of its own, and read that. Raises `EdgecError` (`source/…`, `env/…`)."""
    path, options = existing(request), request.options
    python = python_of("tensorflow", where=str(path))
    with tempfile.TemporaryDirectory(prefix="edgec-") as folder:
        output = Path(folder) / "model.onnx"
        answer = run_exporter(
            _SCRIPTS / ("tflite_to_onnx.py" if kind == "tflite" else "tensorflow_to_onnx.py"),
            {
                "source": str(path.resolve()),
                "kind": kind,
                "output": str(output),
                "inputs": {name: list(shape) for name, shape in request.inputs.items()},
                "dtypes": dict(options.dtypes),
                "signature": options.signature,
                "trust": options.trust,
                "custom": list(options.custom),
                "factory": options.factory,
            },
            where=str(path),
            python=python,
        )
        proto = onnx.load(str(output))
    findings = tuple(Finding(**{**fields, "severity": Severity(fields["severity"])}) for fields in answer["findings"])
    source = SourceInfo(kind=kind, name=path.name, digest=_digest(path))
    loaded = from_proto(proto, source=source, name=path.stem, inputs=request.inputs)
    return Loaded(model=loaded.model, findings=(*findings, *loaded.findings))


def _digest(path: Path) -> str:
    """sha256 of a file, or of a folder's files in name order with their names."""
    sha = hashlib.sha256()
    for file in [path] if path.is_file() else sorted(p for p in path.rglob("*") if p.is_file()):
        if file != path:
            sha.update(file.relative_to(path).as_posix().encode() + b"\0")
        with file.open("rb") as stream:
            while chunk := stream.read(_CHUNK_BYTES):
                sha.update(chunk)
    return sha.hexdigest()
