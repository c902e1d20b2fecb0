"""A hardware profile: one TOML file under `targets/`, read and checked by `load`."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from edgec.targets.scheme import Scheme

BackendName = Literal["tflite", "openvino"]
PrecisionName = Literal["int8", "int16x8", "dynamic", "float16", "float32"]


class _Facts(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Hardware(_Facts):
    """The device itself. `features` are CPU flags as Linux spells them."""

    arch: Literal["aarch64", "x86_64", "armv7l"]
    cpu: str
    cores: int = Field(ge=1)
    features: tuple[str, ...] = ()
    memory_bytes: int = Field(gt=0)


class Runtime(_Facts):
    """A runtime that a backend's artifacts run in: PyPI name, lowest version, default delegate."""

    package: str
    min_version: str
    delegate: str = ""
    max_op_version: dict[str, int] = Field(default_factory=dict)


class BackendFacts(_Facts):
    """What one backend may do on this target.

    `precisions` is in order of preference: `--precision auto` takes the first that keeps the accuracy budget.
    `why` says why that order, and is shown to the user.
    """

    runtime: Runtime
    precisions: tuple[PrecisionName, ...]
    why: str = ""
    scheme: Scheme = Scheme()


class Limits(_Facts):
    """Hard limits of the device or its runtime."""

    max_rank: int = 6
    max_model_bytes: int | None = None
    health_latency_ms: float | None = None


class Target(_Facts):
    """One hardware profile. `io_dtype` is the element type of the artifact's own inputs and outputs."""

    schema_version: Literal[1] = 1
    id: str
    title: str
    aliases: tuple[str, ...] = ()
    version: str = "1"
    hardware: Hardware
    default_backend: BackendName
    backends: dict[BackendName, BackendFacts]
    io_dtype: Literal["float32", "int8"] = "float32"
    limits: Limits = Limits()
