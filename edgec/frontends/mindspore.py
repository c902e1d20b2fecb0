"""Read a MindSpore model (`.mindir`) by MindSpore's own ONNX export, in a process and an environment of its own."""

from __future__ import annotations

import hashlib
import tempfile
from pathlib import Path

import onnx

from edgec.frontends._child import run_exporter
from edgec.frontends._environments import python_of
from edgec.frontends._onnx_model import from_proto
from edgec.frontends.base import Loaded, Request, existing
from edgec.graph.model import SourceInfo

_SCRIPT = Path(__file__).parent / "exporters" / "mindspore_to_onnx.py"


def accepts(request: Request) -> bool:
    """True for files of that name: a MindIR has no mark of its own."""
    return request.path is not None and request.path.is_file() and request.path.suffix == ".mindir"


def load(request: Request) -> Loaded:
    """Read it. Raises `EdgecError` (`source/…`, `env/missing-environment`)."""
    path = existing(request)
    python = python_of("mindspore", where=str(path))
    with tempfile.TemporaryDirectory(prefix="edgec-") as folder:
        output = Path(folder) / "model.onnx"
        run_exporter(
            _SCRIPT,
            {
                "source": str(path.resolve()),
                "output": str(output),
                "inputs": {name: list(shape) for name, shape in request.inputs.items()},
            },
            where=str(path),
            python=python,
        )
        proto = onnx.load(str(output))
    source = SourceInfo(kind="mindspore", name=path.name, digest=hashlib.sha256(path.read_bytes()).hexdigest())
    return from_proto(proto, source=source, name=path.stem, inputs={})
