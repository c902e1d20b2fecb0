"""What a mix of precisions costs on a target: estimated seconds and bytes of weights, from each node's scheme alone.

1. A unit (a head with what its kernel does beside it) costs what its work takes at the speed of its scheme.
2. A value is converted once for each other width (int8, int16, float) in which it is read; what enters or leaves the
   model in float counts as such. Where the device's border is of integers, it has whatever width stands there, and
   floats count as converted, as somebody has to.
3. A product that widens int8 weights beside float data takes what float takes, and beside an int8 one at least what its
   multiplications take longer: how fast bytes move is too coarse a figure to call leaving int8 a gain.
4. The figures come from the target's coefficients (`edgec.estimate`): good for comparing mixes of one model.
"""

from __future__ import annotations

import math
from collections import ChainMap
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

import onnx_ir as ir

from edgec.artifact import OpWork
from edgec.estimate import seconds_of
from edgec.graph.model import Model, attr, const_of, static_shape
from edgec.graph.work import PRODUCTS, multiplications
from edgec.quantization.planning.units import Unit, cut
from edgec.quantization.types import NodeScheme
from edgec.targets.profile import EstimateFacts, Speed, Target

Width = Literal["int8", "int16", "float"]
_WIDTHS: dict[NodeScheme | None, Width] = {"int8": "int8", "int16x8": "int16"}

#: Bytes of a stored value and of a stored weight, by scheme.
_BYTES: dict[NodeScheme, tuple[int, int]] = {
    "int8": (1, 1),
    "int16x8": (2, 1),
    "dynamic": (4, 1),
    "float16": (4, 2),
    "float32": (4, 4),
}
_CONVERTED = 5  # bytes read and written for a value between int8 and float


Touching: TypeAlias = "Mapping[str, Sequence[Value]]"


@dataclass(frozen=True, kw_only=True, slots=True)
class Costs:
    """Costs of every node in every scheme, looked up. Names are of nodes and values; a fused node costs nothing."""

    seconds: Mapping[tuple[str, NodeScheme], float]
    weight_bytes: Mapping[tuple[str, NodeScheme], int]
    values: tuple[Value, ...]
    outside: Width | None = "float"

    def total_seconds(self, schemes: Mapping[str, NodeScheme]) -> float:
        """Rules 1 and 2."""
        own = sum(self.seconds.get((name, scheme), 0.0) for name, scheme in schemes.items())
        return own + sum(value.seconds * len(value.converted_to(schemes, self.outside)) for value in self.values)

    def total_bytes(self, schemes: Mapping[str, NodeScheme]) -> int:
        """Bytes of the weights as they are stored."""
        return sum(self.weight_bytes.get((name, scheme), 0) for name, scheme in schemes.items())

    def difference(
        self, schemes: Mapping[str, NodeScheme], changes: Mapping[str, NodeScheme], touching: Touching
    ) -> tuple[float, int]:
        """Seconds and bytes that `changes` add: what `total_seconds` and `total_bytes` say, of what changes alone."""
        after = ChainMap(dict(changes), schemes)  # type: ignore[arg-type]  # it is only read
        seconds, size = 0.0, 0
        for name, scheme in changes.items():
            old = schemes[name]
            seconds += self.seconds.get((name, scheme), 0.0) - self.seconds.get((name, old), 0.0)
            size += self.weight_bytes.get((name, scheme), 0) - self.weight_bytes.get((name, old), 0)
        for value in {value.name: value for name in changes for value in touching.get(name, ())}.values():
            more = len(value.converted_to(after, self.outside)) - len(value.converted_to(schemes, self.outside))
            seconds += value.seconds * more
        return seconds, size

    def touching(self) -> Touching:
        """The values that each node writes or reads."""
        found: dict[str, list[Value]] = {}
        for value in self.values:
            for name in {value.writer, *value.readers}:
                found.setdefault(name, []).append(value)
        return found


@dataclass(frozen=True, kw_only=True, slots=True)
class Value:
    """A computed value or an input: who writes it (empty: from outside), who reads it, what converting it takes."""

    name: str
    writer: str
    readers: tuple[str, ...]
    leaves: bool
    seconds: float = field(repr=False)

    def converted_to(self, schemes: Mapping[str, NodeScheme], outside: Width | None = "float") -> set[Width]:
        """Rule 2: the widths that it is converted to. `outside` is that of the border, None for any integers."""
        widths = {width_of(schemes.get(reader)) for reader in self.readers}
        written: Width
        if self.writer:
            written = width_of(schemes.get(self.writer))
        elif outside is not None:
            written = outside
        else:
            written = "int16" if "int16" in widths else "int8"
        if self.leaves and (outside is not None or written == "float"):
            widths.add(outside or "int8")
        return widths - {written}


def width_of(scheme: NodeScheme | None) -> Width:
    """What a node reads and writes."""
    return _WIDTHS.get(scheme, "float")


def costs_of(
    model: Model, target: Target, backend: str, *, forms: Collection[NodeScheme] = ("int8", "float32")
) -> Costs | None:
    """Costs of a canonical model's nodes in every scheme that the target has coefficients for; None where it has none
    for one of `forms`."""
    facts = target.estimate
    if facts is None or not facts.speed.keys() >= set(forms):
        return None
    scheme = next(f.scheme for name, f in target.backends.items() if name == backend)
    wide = "int16x8" in forms and "int8" not in forms
    units = cut(model, scheme, scheme.int16_ops if wide else scheme.int8_ops, backend).units
    inside = {n.name or "" for unit in units for n in unit.nodes[1:]}
    grown = {unit.head.name or "": unit for unit in units}
    seconds: dict[tuple[str, NodeScheme], float] = {}
    sizes: dict[tuple[str, NodeScheme], int] = {}
    for node in model.nodes():
        name = node.name or ""
        if name in inside:
            continue
        unit = grown.get(name)
        for form in facts.speed:
            seconds[name, form], sizes[name, form] = _node(node, unit, form, facts.speed[form], facts.operator_us)
        if node.op_type in scheme.widened_weights and (name, "dynamic") in seconds:
            seconds[name, "dynamic"] = max(  # rule 3
                seconds[name, "float32"],
                seconds.get((name, "int8"), 0.0) + _multiplied_longer(node, facts),
            )
    outside: Width | None = "float" if target.io_dtype == "float32" else None
    return Costs(seconds=seconds, weight_bytes=sizes, values=_values(model, facts), outside=outside)


def _node(node: ir.Node, unit: Unit | None, scheme: NodeScheme, speed: Speed, operator_us: float) -> tuple[float, int]:
    """Seconds and bytes of weights of one kernel."""
    value_bytes, stored = _BYTES[scheme]
    outputs = node.outputs if unit is None else unit.tail.outputs
    read = sum(_elements(v) for v in node.inputs if v is not None and const_of(v) is None)
    weights = sum(c.size for v in node.inputs if (c := const_of(v)) is not None and c.dtype.kind == "f")
    work = OpWork(
        kind=_kind(node),
        dtype=scheme,
        macs=multiplications(node) if node.op_type in PRODUCTS else 0,
        window=0,
        channels=0,
        input_bytes=read * (value_bytes + (_CONVERTED if scheme == "dynamic" else 0)),
        weight_bytes=weights * stored,
        output_bytes=sum(_elements(v) for v in outputs) * value_bytes,
    )
    taken = seconds_of(work, speed)
    return taken + operator_us * 1e-6 * (2 if scheme == "dynamic" else 1), weights * stored


def _multiplied_longer(node: ir.Node, facts: EstimateFacts) -> float:
    """How much longer a node's multiplications take in float than in int8, if they do."""
    bare = {"window": 0, "channels": 0, "input_bytes": 0, "weight_bytes": 0, "output_bytes": 0}
    work = OpWork(kind=_kind(node), dtype="", macs=multiplications(node), **bare)
    in_float, in_int8 = (seconds_of(work, facts.speed[form]) for form in ("float32", "int8"))
    return max(in_float - in_int8, 0.0)


def _kind(node: ir.Node) -> str:
    if node.op_type == "Conv":
        return "DEPTHWISE_CONV_2D" if attr(node, "group", 1) > 1 else "CONV_2D"
    return "TRANSPOSE_CONV" if node.op_type == "ConvTranspose" else node.op_type


def _values(model: Model, facts: EstimateFacts) -> tuple[Value, ...]:
    found = []
    speed = facts.speed.get("float32") or facts.speed["int8"]
    for value in (*model.graph.inputs, *(v for n in model.nodes() for v in n.outputs)):
        if value.dtype != ir.DataType.FLOAT:
            continue
        producer = value.producer()
        found.append(
            Value(
                name=value.name or "",
                writer="" if producer is None else producer.name or "",
                readers=tuple(dict.fromkeys(n.name or "" for n, _ in value.uses())),
                leaves=value.is_graph_output(),
                seconds=_elements(value) * _CONVERTED / speed.bytes + facts.operator_us * 1e-6,
            )
        )
    return tuple(found)


def _elements(value: ir.Value | None) -> int:
    shape = None if value is None else static_shape(value)
    return 0 if shape is None else math.prod(shape)
