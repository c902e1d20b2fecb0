"""The same net saved in every format that torch has: the artifacts answer as torch does, on both backends."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgec.backends.base import CompileOptions, load_backend
from edgec.frontends._onnx_model import from_ir
from edgec.frontends._torch.job import Job, run
from edgec.frontends.base import load_source
from edgec.graph.model import Model, SourceInfo
from edgec.passes.pipelines import canonicalize
from edgec.runners.agent import OpenvinoRuntime, TfliteRuntime
from edgec.targets.load import load_target
from tests.support.torch_nets import NETS, save

ABSOLUTE = 1e-5  # of values about one
RUNTIMES: dict[str, Callable[[str, int], Any]] = {"tflite": TfliteRuntime, "openvino": OpenvinoRuntime}
TARGETS = {"tflite": "raspberrypi", "openvino": "intel-cpu"}
KINDS = ("factory", "program", "script", "trace", "state", "onnx")
SOURCES = [
    (name, kind) for name, net in NETS.items() for kind in KINDS if net.scripts or kind not in ("script", "trace")
]


def _read(name: str, kind: str, folder: Path) -> Model:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's, while it saves in formats that it wants to be rid of
        spec = save(name, kind, folder)
    if kind == "onnx":
        return load_source(spec).model
    inputs = {name: shape for name, (shape, _) in NETS[name].inputs.items()}
    job = Job(
        kind="script" if kind == "trace" else kind,
        spec=spec,
        inputs={} if kind == "program" else inputs,
        dtypes={n: dtype for n, (_, dtype) in NETS[name].inputs.items()},
        factory=f"tests/support/torch_nets.py:{name}" if kind == "state" else None,
    )
    exported = run(job)
    return from_ir(exported.model, source=SourceInfo(kind="torch", name=name, digest=""), name=name, inputs={}).model


@pytest.mark.parametrize(("name", "kind"), SOURCES)
def test_artifacts_answer_as_torch_does(name: str, kind: str, tmp_path: Path) -> None:
    model = canonicalize(_read(name, kind, tmp_path))
    wanted = NETS[name].answers()
    feeds = {key: value.numpy() for key, value in NETS[name].feeds().items()}
    assert [spec.name for spec in model.source_inputs()] == list(feeds)
    for backend_name, target_name in TARGETS.items():
        backend, target = load_backend(backend_name), load_target(target_name)
        legal = backend.legalize(model, target, "float32")
        artifact = backend.compile(legal, target, CompileOptions(precision="float32"))
        raw = {b.artifact.name: b.to_artifact(feeds[b.source.name]) for b in artifact.inputs}
        for file, data in artifact.files.items():
            (tmp_path / file).write_bytes(data)
        given = RUNTIMES[backend_name](str(tmp_path / artifact.main), 1).run(raw)
        for (output, reference), binding in zip(wanted.items(), artifact.outputs, strict=True):
            value = binding.to_source(given[binding.artifact.name])
            assert binding.source.name in (output, f"{output}_out")  # what goes in under a name comes out under another
            assert value.shape == reference.shape
            np.testing.assert_allclose(value, reference, rtol=0, atol=ABSOLUTE, err_msg=f"{backend_name} {output}")
