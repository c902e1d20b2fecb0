"""Package for Android: metadata into the model, inputs and outputs as JSON, labels, how to benchmark over adb.

1. The model's own format holds images as height, width, channels; anything else is features.
2. The recipe's value = (x · scale − mean) / std is written as (x − mean / scale) / (std / scale), the metadata's form.
3. Labels belong to an output with as many values in its last axis as there are labels.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from edgec.artifact import IoBinding
from edgec.backends.tflite.metadata import add_metadata
from edgec.packaging.android.metadata import ENTRY, LABELS_FILE, TensorFacts, associated_files, metadata_bytes
from edgec.packaging.base import Job, Package
from edgec.tensors import DType

_BENCHMARK = """\
# @NAME@ on an Android phone

The model is `@MODEL@`. Its metadata holds what app/io.json says too, for Android Studio and the task library.

Latency with LiteRT's own tool (benchmark_model, built from LiteRT's sources for android_arm64):

    adb push @MODEL@ /data/local/tmp/
    adb push benchmark_model /data/local/tmp/ && adb shell chmod +x /data/local/tmp/benchmark_model
    adb shell /data/local/tmp/benchmark_model --graph=/data/local/tmp/@MODEL@ --num_threads=1 --use_xnnpack=true \\
        --warmup_runs=5 --num_runs=50

Where a Python with LiteRT is on the phone (Termux, or a chroot), the whole check of this bundle:

    adb push . /data/local/tmp/edgec && adb shell 'cd /data/local/tmp/edgec && python3 agent.py check .'

In an app: `implementation 'com.google.ai.edge.litert:litert:@VERSION@'` or newer, the file under src/main/assets, the
input prepared as app/io.json says.
"""


def package(job: Job) -> Package:
    """The artifact with metadata in its model, and the app's files. Other backends' artifacts are left alone."""
    artifact = job.artifact
    if artifact.backend != "tflite":
        return Package()
    labels = _labels(job.labels)
    inputs = [_input(b, _steps(job.preprocessing, b.source.name)) for b in artifact.inputs]
    outputs = [_output(b, job.labels) for b in artifact.outputs]
    names = (job.name, f"{job.name} for {job.target.title}, {artifact.precision}")
    model = add_metadata(artifact.files[artifact.main], ENTRY, metadata_bytes(*names, inputs, outputs))
    if any(facts.labels for facts in outputs):
        model += associated_files({LABELS_FILE: labels})
    files = {"app/io.json": _io_json(job, inputs), "app/BENCHMARK.md": _benchmark(job)}
    if job.labels:
        files[f"app/{LABELS_FILE}"] = labels
    return Package(
        files=files,
        facts={"metadata": True, "labels": len(job.labels), "normalised": sum(bool(facts.mean) for facts in inputs)},
        artifact=replace(artifact, files={**artifact.files, artifact.main: model}),
    )


def _labels(labels: Sequence[str]) -> bytes:
    return "".join(" ".join(label.split()) + "\n" for label in labels).encode()


def _steps(preprocessing: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """What the manifest says of one input's preparation."""
    tables = preprocessing.get("inputs")
    if isinstance(tables, Mapping):
        found = tables.get(name, tables.get("*", {}))
        return found if isinstance(found, Mapping) else {}
    recipe = preprocessing.get("recipe")
    mine = preprocessing.get("input", name) == name
    return recipe if mine and isinstance(recipe, Mapping) else {}


def _input(binding: IoBinding, steps: Mapping[str, Any]) -> TensorFacts:
    spec = binding.artifact
    shape = spec.shape
    image = len(shape) == 4 and shape[3] in (1, 3)  # rule 1
    scale = float(steps.get("scale") or 1.0)
    mean = tuple(float(v) / scale for v in steps.get("mean", (0.0,)))  # rule 2
    std = tuple(float(v) / scale for v in steps.get("std", (1.0,)))
    known = bool(steps) and binding.source.dtype.is_float
    return TensorFacts(
        name=binding.source.name,
        description=_description(binding),
        size=(shape[1], shape[2]) if image else None,
        gray=image and shape[3] == 1,
        mean=mean if known else (),
        std=std if known else (),
    )


def _output(binding: IoBinding, labels: Sequence[str]) -> TensorFacts:
    shape = binding.artifact.shape
    return TensorFacts(
        name=binding.source.name,
        description=_description(binding),
        labels=bool(labels) and bool(shape) and shape[-1] == len(labels),  # rule 3
    )


def _description(binding: IoBinding) -> str:
    spec = binding.artifact
    text = f"{spec.dtype} [{', '.join(map(str, spec.shape))}]"
    return (
        text
        if spec.qparams is None
        else f"{text}, real = (q - {spec.qparams.zero_point[0]}) * {spec.qparams.scale[0]:g}"
    )


def _io_json(job: Job, inputs: Sequence[TensorFacts]) -> bytes:
    def tensor(binding: IoBinding) -> dict[str, Any]:
        spec = binding.artifact
        entry: dict[str, Any] = {"name": spec.name, "shape": list(spec.shape), "dtype": str(spec.dtype)}
        if spec.qparams is not None:
            entry["scale"], entry["zero_point"] = spec.qparams.scale[0], spec.qparams.zero_point[0]
        if spec.dtype == DType.FLOAT32 and spec.name != binding.source.name:
            entry["source_name"] = binding.source.name
        return entry

    rows = []
    for binding, facts in zip(job.artifact.inputs, inputs, strict=True):
        row = tensor(binding)
        if facts.mean:
            row["normalise"] = {"mean": list(facts.mean), "std": list(facts.std), "formula": "(x - mean) / std"}
        steps = _steps(job.preprocessing, binding.source.name)
        rows.append({**row, **({"preparation": dict(steps)} if steps else {})})
    document = {
        "model": job.artifact.main,
        "inputs": rows,
        "outputs": [tensor(binding) for binding in job.artifact.outputs],
        "labels": list(job.labels),
    }
    return (json.dumps(document, indent=1, sort_keys=True) + "\n").encode()


def _benchmark(job: Job) -> bytes:
    values = {"NAME": job.name, "MODEL": job.artifact.main, "VERSION": "2.0.0"}
    text = _BENCHMARK
    for key, value in values.items():
        text = text.replace(f"@{key}@", value)
    return text.encode()
