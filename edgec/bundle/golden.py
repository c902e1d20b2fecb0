"""Goldens: inputs with the outputs that belong to them, from the float model to the artifact's own bytes.

Files of golden N, where <i> counts inputs or outputs in the manifest's order:

    golden/NNN/input.<i>.npy      what the artifact is fed
    golden/NNN/source.<i>.npy     the same in the source model's terms; left out when it follows from input.<i> exactly
    golden/NNN/raw.<i>.npy        what the artifact gave on the host that built it
    golden/NNN/float.<i>.npy      what the float model gives in the reference runtime
    golden/NNN/reference.<i>.npy  what the quantized (QDQ) model gives there; left out when equal to float.<i>
"""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from edgec.artifact import IoBinding
from edgec.errors import EdgecError
from edgec.tensors import Array


@dataclass(frozen=True, kw_only=True, slots=True)
class Golden:
    """One input with all its outputs.

    `inputs`, `reference_outputs`, `float_outputs` carry the source model's names, shapes and dtypes; `raw_inputs`
    and `raw_outputs` the artifact's.
    """

    inputs: Mapping[str, Array]
    raw_inputs: Mapping[str, Array]
    raw_outputs: Mapping[str, Array]
    reference_outputs: Mapping[str, Array]
    float_outputs: Mapping[str, Array]


def golden_files(
    goldens: Sequence[Golden], inputs: Sequence[IoBinding], outputs: Sequence[IoBinding]
) -> dict[str, bytes]:
    """The files of all goldens by archive name."""
    files: dict[str, bytes] = {}
    for number, golden in enumerate(goldens):
        folder = f"golden/{number:03d}"
        for i, binding in enumerate(inputs):
            raw, source = golden.raw_inputs[binding.artifact.name], golden.inputs[binding.source.name]
            files[f"{folder}/input.{i}.npy"] = _to_npy(raw)
            if not _identical(binding.to_source(raw), source):
                files[f"{folder}/source.{i}.npy"] = _to_npy(source)
        for i, binding in enumerate(outputs):
            exact = golden.float_outputs[binding.source.name]
            reference = golden.reference_outputs[binding.source.name]
            files[f"{folder}/raw.{i}.npy"] = _to_npy(golden.raw_outputs[binding.artifact.name])
            files[f"{folder}/float.{i}.npy"] = _to_npy(exact)
            if not _identical(exact, reference):
                files[f"{folder}/reference.{i}.npy"] = _to_npy(reference)
    return files


def read_golden(
    read: Callable[[str], bytes | None], number: int, inputs: Sequence[IoBinding], outputs: Sequence[IoBinding]
) -> Golden:
    """Golden `number`; `read` gives a file's bytes, or None when there is no such file."""
    folder = f"golden/{number:03d}"

    def load(name: str) -> Array | None:
        data = read(f"{folder}/{name}.npy")
        return None if data is None else _from_npy(data, f"{folder}/{name}.npy")

    def need(name: str) -> Array:
        value = load(name)
        if value is None:
            raise EdgecError("bundle/bad-golden", "the file is missing", where=f"{folder}/{name}.npy")
        return value

    raw_inputs = {b.artifact.name: need(f"input.{i}") for i, b in enumerate(inputs)}
    source_inputs = {}
    for i, binding in enumerate(inputs):
        stored = load(f"source.{i}")
        source_inputs[binding.source.name] = (
            binding.to_source(raw_inputs[binding.artifact.name]) if stored is None else stored
        )
    float_outputs = {b.source.name: need(f"float.{i}") for i, b in enumerate(outputs)}
    reference_outputs = {}
    for i, binding in enumerate(outputs):
        stored = load(f"reference.{i}")
        reference_outputs[binding.source.name] = float_outputs[binding.source.name] if stored is None else stored
    return Golden(
        inputs=source_inputs,
        raw_inputs=raw_inputs,
        raw_outputs={b.artifact.name: need(f"raw.{i}") for i, b in enumerate(outputs)},
        reference_outputs=reference_outputs,
        float_outputs=float_outputs,
    )


def _identical(one: Array, other: Array) -> bool:
    """Same type, shape and bits (so that −0 and NaN survive too)."""
    return one.dtype == other.dtype and one.shape == other.shape and one.tobytes() == other.tobytes()


def _to_npy(value: Array) -> bytes:
    stream = io.BytesIO()
    plain = value.astype(str) if value.dtype.kind == "O" else value  # text as some runtimes give it
    np.save(stream, np.asarray(plain, order="C"), allow_pickle=False)
    return stream.getvalue()


def _from_npy(data: bytes, where: str) -> Array:
    try:
        value: Array = np.load(io.BytesIO(data), allow_pickle=False)
    except (ValueError, EOFError, OSError) as error:
        raise EdgecError("bundle/bad-golden", f"not a .npy file: {error}", where=where) from error
    return value
