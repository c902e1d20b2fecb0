"""A hardware profile: one TOML file under `targets/`, read and checked by `load`."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from edgec.targets.scheme import Scheme

BackendName = Literal["tflite", "openvino"]
PrecisionName = Literal["int8", "int16x8", "dynamic", "float16", "float32"]


class _Facts(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Hardware(_Facts):
    """The device itself. `features` are CPU flags as Linux spells them.

    `memory_bytes` is RAM; `flash_bytes` the program memory of a microcontroller, None where there is a file system.
    """

    arch: Literal["aarch64", "x86_64", "armv7l", "armv7e-m", "armv8.1-m", "xtensa"]
    cpu: str
    cores: int = Field(ge=1)
    features: tuple[str, ...] = ()
    memory_bytes: int = Field(gt=0)
    flash_bytes: int | None = Field(default=None, gt=0)


class Runtime(_Facts):
    """A runtime that a backend's artifacts run in: PyPI name, lowest version, default delegate.

    `engine` names what the agent runs the artifact with when that is not the backend's own runtime:
    `tflite-micro`, or `openvino:GPU` for one of OpenVINO's devices.
    """

    package: str
    min_version: str
    delegate: str = ""
    engine: Literal["", "tflite-micro", "openvino:GPU", "openvino:NPU"] = ""
    max_op_version: dict[str, int] = Field(default_factory=dict)


class BackendFacts(_Facts):
    """What one backend may do on this target.

    `precisions` is in order of preference: `--precision auto` takes the first that keeps the accuracy budget.
    `why` says why that order, and is shown to the user.
    `kernels` lists the runtime's operators with the element types that each runs on (none listed: any type);
    an empty table means that the runtime has all of them. `faster_in_float` are operators of the runtime whose int8
    kernel is slower than a float one between two conversions: the delegate has the one and not the other. `packaging`
    names the steps that turn the artifact into what the device's own build takes, in order.
    """

    runtime: Runtime
    precisions: tuple[PrecisionName, ...]
    why: str = ""
    kernels: dict[str, tuple[str, ...]] = Field(default_factory=dict)
    faster_in_float: tuple[str, ...] = ()
    packaging: tuple[str, ...] = ()
    scheme: Scheme = Scheme()

    @model_validator(mode="after")
    def _precisions_have_operators(self) -> Self:
        """A precision that no operator has would give a float model under another name."""
        listed = {"int8": "int8_ops", "int16x8": "int16_ops", "dynamic": "dynamic_ops"}
        for precision in self.precisions:
            if precision in listed and not getattr(self.scheme, listed[precision]):
                raise ValueError(f"{precision} is one of its precisions, and scheme.{listed[precision]} is empty")
        return self


class Limits(_Facts):
    """Hard limits of the device or its runtime.

    `max_inputs` says how many tensors an operator takes at most, by operator.
    """

    max_rank: int = 6
    max_inputs: dict[str, int] = Field(default_factory=dict)
    max_model_bytes: int | None = None
    max_arena_bytes: int | None = None
    health_latency_ms: float | None = None


class Npu(_Facts):
    """An accelerator with a compiler of its own.

    `config` is what the compiler calls it, `min_share` the share of operators that must run there for a build to pass,
    `cache_bytes` the on-chip memory for weights where there is one.
    """

    compiler: Literal["vela", "edgetpu"]
    config: str = ""
    min_share: float = Field(default=0.9, ge=0, le=1)
    cache_bytes: int | None = Field(default=None, gt=0)


class Speed(_Facts):
    """How fast a device works in one precision: multiply-accumulates a second by kind of operator, bytes a second."""

    conv: float = Field(gt=0)
    depthwise: float = Field(gt=0)
    dense: float = Field(gt=0)
    bytes: float = Field(gt=0)


class EstimateFacts(_Facts):
    """Coefficients of latency, RAM and flash estimates, and where they come from.

    `factor`: the truth is expected between typical / factor and typical · factor. `operator_us` is what every operator
    costs beside its work, `operator_ram_bytes` what the runtime keeps for each; `runtime_ram_bytes` and
    `runtime_flash_bytes` what the runtime takes beside the model.
    """

    basis: Literal["measured", "derived"]
    source: str
    factor: float = Field(gt=1)
    operator_us: float = Field(ge=0)
    operator_ram_bytes: int = Field(default=0, ge=0)
    runtime_ram_bytes: int = Field(ge=0)
    runtime_flash_bytes: int = Field(default=0, ge=0)
    copies_weights: bool = False
    speed: dict[PrecisionName, Speed]


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
    npu: Npu | None = None
    estimate: EstimateFacts | None = None
