"""What a backend emits: files, how their inputs and outputs relate to the source model's, and what they need.

The only thing that crosses from the compile half to the deploy half.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from edgec.errors import EdgecError
from edgec.tensors import Array, DType, TensorSpec


@dataclass(frozen=True, kw_only=True, slots=True)
class IoBinding:
    """How one artifact input or output relates to the source model's.

    `perm` maps source axes to artifact axes: artifact.shape[i] == source.shape[perm[i]] (numpy
    `transpose` convention, for inputs and outputs alike); None is the identity.
    """

    source: TensorSpec
    artifact: TensorSpec
    perm: tuple[int, ...] | None = None

    def to_artifact(self, value: Array) -> Array:
        """A source-side array as the artifact wants it: cast, transposed, quantized.

        Raises `EdgecError` (`io/value-range`) for a float64 value that the artifact's float32 cannot hold.
        """
        if value.dtype == np.float64 and self.artifact.dtype == DType.FLOAT32:
            _check_range(value, self.source.name)
        if self.perm is not None:
            value = value.transpose(self.perm)
        if self.artifact.qparams is not None and self.source.dtype.is_float:
            value = self.artifact.qparams.quantize(value, self.artifact.dtype)
        return np.asarray(value.astype(self.artifact.dtype.numpy, copy=False), order="C")

    def to_source(self, value: Array) -> Array:
        """An artifact-side array as the source model would have given it."""
        if self.artifact.qparams is not None and self.source.dtype.is_float:
            value = self.artifact.qparams.dequantize(value)
        if self.perm is not None:
            value = value.transpose(np.argsort(self.perm))
        return np.asarray(value.astype(self.source.dtype.numpy, copy=False), order="C")


def _check_range(value: Array, name: str) -> None:
    """Conversion to float32 must not make infinities."""
    finite = np.abs(value[np.isfinite(value)])
    largest = float(finite.max(initial=0.0))
    if largest > float(np.finfo(np.float32).max):
        raise EdgecError(
            "io/value-range",
            f"input {name!r} holds {largest:.3g}, which float32 cannot",
            where=name,
            hint="the device computes in float32: scale the model's inputs",
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class OpWork:
    """How much work one operator of an artifact is.

    `window` is the number of multiply-accumulates behind one output value (0 for operators without), `channels` the
    size of the output's last axis, `dtype` the element type that it works on.
    """

    kind: str
    dtype: str
    macs: int
    window: int
    channels: int
    input_bytes: int
    weight_bytes: int
    output_bytes: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Artifact:
    """Bytes plus everything the deploy half must know about them.

    `files` maps archive names to bytes, `main` names the one the runtime opens. `requirements` maps a
    runtime's name to the lowest version that runs it, `op_versions` each operator to the version used,
    `operators` each operator to its count; `transposes` gives the reason for every transpose left. `engine` is
    what the agent runs it with when that is not the backend's own runtime; `work` and `peak_bytes` (computed values
    alive at the same time) are there where the backend knows them.
    """

    backend: str
    precision: str
    files: Mapping[str, bytes]
    main: str
    inputs: tuple[IoBinding, ...]
    outputs: tuple[IoBinding, ...]
    requirements: Mapping[str, str] = field(default_factory=dict)
    op_versions: Mapping[str, int] = field(default_factory=dict)
    operators: Mapping[str, int] = field(default_factory=dict)
    transposes: tuple[str, ...] = ()
    engine: str = ""
    work: tuple[OpWork, ...] = ()
    peak_bytes: int = 0

    @property
    def runner(self) -> str:
        """What the agent runs it with."""
        return self.engine or self.backend

    @property
    def digest(self) -> str:
        """sha256 over names and contents of all files, in name order."""
        sha = hashlib.sha256()
        for name in sorted(self.files):
            sha.update(name.encode() + b"\0" + len(self.files[name]).to_bytes(8, "little"))
            sha.update(self.files[name])
        return sha.hexdigest()

    @property
    def size_bytes(self) -> int:
        """Sum of all files."""
        return sum(len(data) for data in self.files.values())
