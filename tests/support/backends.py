"""Build a model with any backend in float32, and run it there in the source model's names and types."""

from __future__ import annotations

import tempfile
from pathlib import Path

from edgec.backends.base import CompileOptions, load_backend
from edgec.graph.model import Model
from edgec.passes.pipelines import canonicalize
from edgec.runners import agent
from edgec.targets.load import load_target
from edgec.tensors import Array


def answers(model: Model, backend: str, **feeds: Array) -> dict[str, Array]:
    """The outputs by the source's names, as the device's own agent computes them."""
    plugin, target = load_backend(backend), load_target("linux-x86_64")
    legal = plugin.legalize(canonicalize(model), target, "float32")
    artifact = plugin.compile(legal, target, CompileOptions(precision="float32"))
    with tempfile.TemporaryDirectory() as folder:
        for name, data in artifact.files.items():
            Path(folder, name).write_bytes(data)
        runtime = agent.load(str(Path(folder, artifact.main)), backend, 1)
        raw = runtime.run({b.artifact.name: b.to_artifact(feeds[b.source.name]) for b in artifact.inputs})
    return {b.source.name: b.to_source(raw[b.artifact.name]) for b in artifact.outputs}
