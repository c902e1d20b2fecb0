"""What a bundle says about itself: target, runtime, files with digests, I/O, provenance.

Everything is a fact of the build's inputs: no times, no paths, no host names, so that two builds agree byte for byte.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError, model_validator

from edgec.artifact import IoBinding
from edgec.errors import EdgecError
from edgec.targets.profile import BackendName, Hardware, Limits, PrecisionName, Runtime, Target
from edgec.tensors import DType, Kind, QParams, TensorSpec

SCHEMA_VERSION = 1
MANIFEST = "manifest.json"
SIGNATURE = "signature"


class _Facts(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class FileFacts(_Facts):
    """Size and digest of one file."""

    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    size: int = Field(ge=0)


class QParamsFacts(_Facts):
    """Affine quantization: real = (q − zero_point) · scale."""

    scale: tuple[float, ...]
    zero_point: tuple[int, ...]
    axis: int | None = None

    @model_validator(mode="after")
    def _make_sense(self) -> QParamsFacts:
        self.qparams()
        return self

    def qparams(self) -> QParams:
        """The parameters with these facts. Raises ValueError for a scale that is none."""
        return QParams(scale=self.scale, zero_point=self.zero_point, axis=self.axis)


class TensorFacts(_Facts):
    """An input or output."""

    name: str
    shape: tuple[int, ...]
    dtype: DType
    qparams: QParamsFacts | None = None

    @classmethod
    def of(cls, spec: TensorSpec) -> TensorFacts:
        """The facts of a spec."""
        q = spec.qparams
        facts = None if q is None else QParamsFacts(scale=q.scale, zero_point=q.zero_point, axis=q.axis)
        return cls(name=spec.name, shape=spec.shape, dtype=spec.dtype, qparams=facts)

    def spec(self) -> TensorSpec:
        """The spec with these facts."""
        qparams = None if self.qparams is None else self.qparams.qparams()
        return TensorSpec(name=self.name, shape=self.shape, dtype=self.dtype, qparams=qparams)


class IoFacts(_Facts):
    """How one input or output of the artifact relates to the source model's.

    artifact.shape[i] == source.shape[perm[i]]. `step` is the quantization step of a float output that comes straight
    from int8 numbers: its values are multiples of it. `kinds` are what an output holds of different kinds of values,
    the largest first: blocks of each, as (start, stop) for every axis of the source's shape.
    """

    source: TensorFacts
    artifact: TensorFacts
    perm: tuple[int, ...] | None = None
    step: float | None = Field(default=None, gt=0)
    kinds: tuple[tuple[tuple[tuple[int, int], ...], ...], ...] = ()

    @model_validator(mode="after")
    def _make_sense(self) -> IoFacts:
        source, artifact = self.source.shape, self.artifact.shape
        perm = tuple(range(len(source))) if self.perm is None else self.perm
        if sorted(perm) != list(range(len(source))):
            raise ValueError(f"{self.source.name}: perm {perm} is no permutation of {len(source)} axes")
        if tuple(source[axis] for axis in perm) != artifact:
            raise ValueError(f"{self.source.name}: shape {source} permuted by {perm} is not {artifact}")
        return self

    @classmethod
    def of(cls, binding: IoBinding, step: float | None = None, kinds: Sequence[Kind] = ()) -> IoFacts:
        """The facts of a binding."""
        return cls(
            source=TensorFacts.of(binding.source),
            artifact=TensorFacts.of(binding.artifact),
            perm=binding.perm,
            step=step,
            kinds=tuple(tuple(tuple((p.start, p.stop) for p in block) for block in kind) for kind in kinds),
        )

    def slices(self) -> tuple[Kind, ...]:
        """The kinds as they are taken out of an array."""
        return tuple(tuple(tuple(slice(*ends) for ends in block) for block in kind) for kind in self.kinds)

    def binding(self) -> IoBinding:
        """The binding with these facts."""
        return IoBinding(source=self.source.spec(), artifact=self.artifact.spec(), perm=self.perm)


class TargetFacts(_Facts):
    """What the deploy half needs of the hardware profile."""

    id: str
    title: str
    version: str
    hardware: Hardware
    runtime: Runtime
    limits: Limits

    @classmethod
    def of(cls, target: Target, backend: str) -> TargetFacts:
        """The facts of a profile for one of its backends."""
        facts = {name: value for name, value in target.backends.items() if name == backend}
        if not facts:
            raise EdgecError("target/no-backend", f"target {target.id} has no backend {backend!r}")
        return cls(
            id=target.id,
            title=target.title,
            version=target.version,
            hardware=target.hardware,
            runtime=next(iter(facts.values())).runtime,
            limits=target.limits,
        )


class Provenance(_Facts):
    """Where the model comes from. Digests are of contents; `source_name` is a file name without its folder."""

    source_name: str
    source_kind: str
    source_digest: str
    calibration_name: str = ""
    calibration_digest: str = ""
    samples: int = 0
    tools: dict[str, str] = Field(default_factory=dict)


class Manifest(_Facts):
    """The whole of `manifest.json`."""

    schema_version: Literal[1] = 1
    name: str
    target: TargetFacts
    backend: BackendName
    engine: str = ""
    precision: PrecisionName
    model: str
    model_files: tuple[str, ...]
    requirements: dict[str, str]
    op_versions: dict[str, int]
    operators: dict[str, int]
    transposes: tuple[str, ...]
    inputs: tuple[IoFacts, ...]
    outputs: tuple[IoFacts, ...]
    labels: tuple[str, ...] = ()
    preprocessing: dict[str, JsonValue] = Field(default_factory=dict)
    provenance: Provenance
    fidelity: dict[str, JsonValue] = Field(default_factory=dict)
    findings: tuple[dict[str, str], ...] = ()
    packaging: dict[str, JsonValue] = Field(default_factory=dict)
    goldens: int = Field(ge=0, le=999)
    files: dict[str, FileFacts]

    @property
    def runner(self) -> str:
        """What the agent runs the model with."""
        return self.engine or self.backend


def to_json(value: Any) -> bytes:
    """Canonical JSON: sorted keys, ASCII, no NaN, one newline at the end."""
    try:
        text = json.dumps(value, sort_keys=True, indent=1, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise EdgecError("internal/not-json", f"a bundle's JSON would not be portable: {error}") from error
    return text.encode("ascii") + b"\n"


def manifest_bytes(manifest: Manifest) -> bytes:
    """The manifest as it stands in the archive."""
    return to_json(manifest.model_dump(mode="json"))


def parse_manifest(data: bytes, where: str) -> Manifest:
    """Read a manifest. Raises `bundle/bad-manifest`, or `bundle/unknown-version` for another schema."""
    try:
        raw = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise EdgecError("bundle/bad-manifest", f"the manifest is not JSON: {error}", where=where) from error
    version = raw.get("schema_version") if isinstance(raw, Mapping) else None
    if version != SCHEMA_VERSION:
        raise EdgecError(
            "bundle/unknown-version",
            f"the bundle has schema version {version!r}; this edgec reads version {SCHEMA_VERSION}",
            where=where,
            hint="use the edgec that built it, or build it again",
        )
    try:
        return Manifest.model_validate(raw)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        raise EdgecError("bundle/bad-manifest", f"{key}: {first['msg']}", where=where) from error
