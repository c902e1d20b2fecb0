"""Emit a model as TFLite and run it in LiteRT, in the source model's names and layout."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
from ai_edge_litert import schema_py_generated as fb

from edgec.artifact import Artifact
from edgec.backends.base import CompileOptions, Precision, load_backend
from edgec.backends.tflite.backend import MODEL_FILE
from edgec.graph.model import Model
from edgec.passes.pipelines import canonicalize
from edgec.runners.agent import TfliteRuntime
from edgec.targets.load import load_target
from edgec.tensors import Array
from tests.support.graphs import random_feeds, run_ort


def emit(
    model: Model,
    *,
    precision: Precision = "float32",
    io_layout: Literal["auto", "source", "nhwc"] = "auto",
    target: str = "linux-x86_64",
) -> Artifact:
    """Canonicalize, legalize and compile."""
    backend, profile = load_backend("tflite"), load_target(target)
    legal = backend.legalize(canonicalize(model), profile, precision)
    return backend.compile(legal, profile, CompileOptions(precision=precision, io_layout=io_layout))


def emit_qdq(model: Model, *, precision: Precision = "int8", target: str = "linux-x86_64") -> Artifact:
    """Compile a model that already is what the backend takes."""
    return load_backend("tflite").compile(model, load_target(target), CompileOptions(precision=precision))


def run_raw(artifact: Artifact, feeds: Mapping[str, Array]) -> dict[str, Array]:
    """The artifact's own inputs and outputs."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, artifact.main)
        path.write_bytes(artifact.files[artifact.main])
        return TfliteRuntime(str(path), 1).run(dict(feeds))


def run(artifact: Artifact, feeds: Mapping[str, Array]) -> dict[str, Array]:
    """The source model's inputs and outputs."""
    raw = run_raw(artifact, {b.artifact.name: b.to_artifact(feeds[b.source.name]) for b in artifact.inputs})
    return {b.source.name: b.to_source(raw[b.artifact.name]) for b in artifact.outputs}


def assert_equal_to_ort(
    model: Model, artifact: Artifact, *, relative: float, feeds: Mapping[str, Array] | None = None
) -> None:
    """Every output is within `relative` of its largest magnitude of what ONNX Runtime computes."""
    given = random_feeds(model) if feeds is None else feeds
    wanted, got = run_ort(model, given), run(artifact, given)
    assert wanted.keys() == got.keys()
    for name, reference in wanted.items():
        value = got[name]
        assert value.shape == reference.shape and value.dtype == reference.dtype, name
        magnitude = float(np.max(np.abs(reference), initial=0.0))
        error = float(np.max(np.abs(value.astype(np.float64) - reference), initial=0.0))
        assert error <= relative * max(magnitude, 1e-6), f"{name}: error {error:g} at magnitude {magnitude:g}"


def unpacked(artifact: Artifact) -> Any:
    """The file's object tree."""
    return fb.ModelT.InitFromPackedBuf(artifact.files[MODEL_FILE], 0)
