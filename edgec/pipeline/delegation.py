"""Which operators the target's delegate takes, and which break the model into pieces: asked of the runtime itself.

The delegate decides by rules of its own (types, ranks, constant weights) that change with its version; the one that
is installed here decides as the device's does, because those rules do not look at the processor.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edgec.artifact import Artifact
from edgec.backends.base import CompileOptions, load_backend
from edgec.bundle.worker import Worker
from edgec.errors import EdgecError
from edgec.graph.model import Model
from edgec.targets.profile import Target


def delegation_of_model(model: Model, target: Target, backend: str) -> dict[str, Any] | None:
    """For a canonical model in float32; None where the target has no delegate, or the model cannot be built or run."""
    if backend != "tflite" or not target.backends["tflite"].runtime.delegate:
        return None
    emitter = load_backend(backend)
    try:
        artifact = emitter.compile(emitter.legalize(model, target, "float32"), target, CompileOptions())
        return delegation_of(artifact)
    except EdgecError:  # the findings say why it cannot be built; a check is no place to fail for want of a runtime
        return None


def delegation_of(artifact: Artifact) -> dict[str, Any]:
    """Partitions, operators inside and outside. Raises `EdgecError` (validate/…) when the runtime is not here."""
    with tempfile.TemporaryDirectory(prefix="edgec-") as folder:
        path = Path(folder, artifact.main)
        path.write_bytes(artifact.files[artifact.main])
        with Worker(path, artifact.runner) as worker:
            kernels = worker.kernels()
            return {**plain(kernels), "runtime": worker.runtime}


def plain(kernels: Mapping[str, Any]) -> dict[str, Any]:
    """What a person wants to know of the agent's answer; empty where the runtime has no delegates."""
    if "partitions" not in kernels:
        return {}
    outside = dict(kernels["outside"])
    return {
        "delegate": kernels["delegate"],
        "partitions": kernels["partitions"],
        "inside": kernels["delegated"],
        "outside": outside,
        "breaks": [{"operator": op, "tensor": tensor} for op, tensor in kernels.get("first_outside", ())],
    }
