"""What a model will take on a device before there is one: latency, memory and flash as ranges, from the work it is.

    latency = Σ over operators of max(macs / rate of its kind, bytes moved / bytes a second) + a fixed cost each
    RAM     = values alive at the same time + records per operator + the runtime's own (+ weights, where it copies them)
    flash   = the model file + what the runtime takes

1. The coefficients stand in the target's profile, with their source and with `factor`: the truth is expected between
   typical / factor and typical · factor. `basis` says whether they were measured or derived from data sheets.
2. Two digits are given, because there are not more.
3. Operators of a quantized model work at the speed of their own type: what is left in float at that of float.
4. One thread. Nothing else runs on the device.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from edgec.artifact import OpWork
from edgec.targets.profile import EstimateFacts, PrecisionName, Speed, Target

#: Memory is planned, not timed: what is not known is the runtime's own share.
_MEMORY_FACTOR = 1.3
#: Stored bytes of a value beside float32's, by precision: activations, weights.
_SHRINKS: dict[str, tuple[float, float]] = {
    "float32": (1.0, 1.0),
    "float16": (1.0, 0.5),
    "dynamic": (1.0, 0.25),
    "int16x8": (0.5, 0.25),
    "int8": (0.25, 0.25),
}
_TYPES = {"int8": "int8", "int16x8": "int16"}
_SPEEDS: dict[str, PrecisionName] = {"int8": "int8", "int16": "int16x8", "float32": "float32"}
_FILE_OVERHEAD = 1.05
#: Bytes in a file for an operator's own records: names, options, quantization of its tensors.
_OPERATOR_FILE_BYTES = 600


@dataclass(frozen=True, kw_only=True, slots=True)
class Range:
    """A quantity with its bounds, to two digits."""

    low: float
    typical: float
    high: float

    @classmethod
    def around(cls, typical: float, factor: float) -> Range:
        """Bounds a factor below and above."""
        return cls(low=_digits(typical / factor), typical=_digits(typical), high=_digits(typical * factor))


@dataclass(frozen=True, kw_only=True, slots=True)
class Estimate:
    """What one precision is expected to take on a target: no measurement, `basis` and `source` say what it rests on."""

    precision: str
    latency_ms: Range
    ram_bytes: Range
    flash_bytes: Range
    macs: int
    basis: str
    source: str

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready, labelled as what it is."""
        return {"kind": "estimate", **asdict(self)}


def estimate(
    operators: Sequence[OpWork],
    target: Target,
    *,
    precision: PrecisionName = "float32",
    peak_bytes: int = 0,
    model_bytes: int | None = None,
) -> Estimate | None:
    """The estimate for operators as they are, or None where the profile has no coefficients for the precision.

    `peak_bytes`: values alive at the same time; `model_bytes`: the file's size, where it is there already.
    """
    facts = target.estimate
    speed = None if facts is None else facts.speed.get(precision)
    if facts is None or speed is None:
        return None
    seconds = (
        sum(seconds_of(op, _speed(op, precision, facts)) for op in operators)
        + len(operators) * facts.operator_us * 1e-6
    )
    weights = sum(op.weight_bytes for op in operators)
    file_bytes = (
        weights * _FILE_OVERHEAD + len(operators) * _OPERATOR_FILE_BYTES if model_bytes is None else model_bytes
    )
    ram = peak_bytes + len(operators) * facts.operator_ram_bytes + facts.runtime_ram_bytes
    ram += weights if facts.copies_weights else 0
    return Estimate(
        precision=precision,
        latency_ms=Range.around(1e3 * seconds, facts.factor),  # rule 1
        ram_bytes=Range.around(ram, _MEMORY_FACTOR),
        flash_bytes=Range.around(file_bytes + facts.runtime_flash_bytes, _MEMORY_FACTOR),
        macs=sum(op.macs for op in operators),
        basis=facts.basis,
        source=facts.source,
    )


def _speed(op: OpWork, precision: PrecisionName, facts: EstimateFacts) -> Speed:
    """Rule 3; the precision's own where there are no coefficients for the type."""
    own = facts.speed[precision]
    return facts.speed.get(_SPEEDS.get(op.dtype, precision), own) if precision in _TYPES else own


def in_precision(
    operators: Sequence[OpWork], peak_bytes: int, precision: PrecisionName
) -> tuple[tuple[OpWork, ...], int]:
    """Float operators as they would be in another precision, all of them, and the peak of their values."""
    values, weights = _SHRINKS[precision]
    changed = tuple(
        replace(
            op,
            dtype=_TYPES.get(precision, op.dtype) if op.dtype == "float32" else op.dtype,
            input_bytes=_shrunk(op.input_bytes, values, op),
            output_bytes=_shrunk(op.output_bytes, values, op),
            weight_bytes=_shrunk(op.weight_bytes, weights, op),
        )
        for op in operators
    )
    return changed, math.ceil(peak_bytes * values)


def _shrunk(count: int, factor: float, op: OpWork) -> int:
    return math.ceil(count * factor) if op.dtype == "float32" else count


def seconds_of(op: OpWork, speed: Speed) -> float:
    """What one operator's work takes, without the fixed cost that every operator has."""
    moved = (op.input_bytes + op.weight_bytes + op.output_bytes) / speed.bytes
    if not op.macs:
        return moved
    rate = {"DEPTHWISE_CONV_2D": speed.depthwise, "CONV_2D": speed.conv, "TRANSPOSE_CONV": speed.conv}
    return max(moved, op.macs / rate.get(op.kind, speed.dense))


def _digits(value: float) -> float:
    """Rule 2."""
    return float(f"{value:.2g}")
