"""Beyond which ends of a value nothing changes for those who read it: values there need no steps of their own.

1. A Relu or Clip is flat outside its bounds; HardSwish is 0 below −3, HardSigmoid flat outside its slope.
2. A sum with a number, a maximum, and what only moves values, are flat where the readers of all they give are.
3. A product with a gate, clip(x + c, 0, …) of the same x, is 0 where the gate is: HardSwish, taken apart.
4. Of several readers the widest counts; an output of the graph is flat nowhere.
5. A sum or difference with another value is flat where its own readers are whatever that other value is, of the range
   known of it: clip(x - noise, 0, 1) needs no noise beyond what x spans.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable

import onnx_ir as ir

from edgec.graph.model import attr
from edgec.graph.traits import MOVES, clip_bounds
from edgec.passes.pattern import scalar_of

#: Low and high end.
Extent = tuple[float, float]

#: What is known of another value's range.
Known = Callable[[ir.Value], Extent | None]

_NOWHERE = (-math.inf, math.inf)

#: What hands on some of what it reads, each value as it is.
_PASS_ON = MOVES | {"GlobalMaxPool", "MaxPool"}


def _unknown(_: ir.Value) -> None:
    return None


def flat_outside(value: ir.Value, known: Known = _unknown) -> Extent:
    """The ends beyond which all readers give the same; infinite where there is none. `known` are ranges for rule 5."""
    uses = value.uses()
    if value.is_graph_output() or not uses:
        return _NOWHERE
    return _widest(_for_reader(user, value, known) for user, _ in uses)  # rule 4


def _widest(ends: Iterable[Extent]) -> Extent:
    """What all of them leave flat; nothing where there is none."""
    found = list(ends)
    return (min(low for low, _ in found), max(high for _, high in found)) if found else _NOWHERE


def _for_reader(reader: ir.Node, value: ir.Value, known: Known) -> Extent:
    if reader.op_type in ("Relu", "Clip") and reader.inputs[0] is value:  # rule 1
        return clip_bounds(reader)
    if reader.op_type == "HardSwish":
        return -3.0, math.inf
    if reader.op_type == "HardSigmoid":
        slope, offset = float(attr(reader, "alpha", 0.2)), float(attr(reader, "beta", 0.5))
        return (-offset / slope, (1 - offset) / slope) if slope > 0 else _NOWHERE
    if reader.op_type in _PASS_ON and value in reader.inputs:  # rule 2
        return _widest(
            flat_outside(given, known) for given in reader.outputs if given.uses() or given.is_graph_output()
        )
    added = _added(reader, value)
    if added is not None:
        low, high = flat_outside(reader.outputs[0], known)
        return low - added, high - added
    if reader.op_type in ("Add", "Sub"):  # rule 5
        return _beside_another(reader, value, known)
    if reader.op_type == "Mul":  # rule 3
        return max((_gate(other, value) for other in reader.inputs if other is not None), default=-math.inf), math.inf
    return _NOWHERE


def _added(node: ir.Node, value: ir.Value) -> float | None:
    """The number that a node adds to a value."""
    if node.op_type != "Add" or value not in node.inputs:
        return None
    return scalar_of(node.inputs[0] if node.inputs[1] is value else node.inputs[1])


def _beside_another(reader: ir.Node, value: ir.Value, known: Known) -> Extent:
    """Rule 5, for a value that is one of the two terms."""
    first, second = reader.inputs[0], reader.inputs[1]
    other = second if first is value else first
    extent = None if other is None or other is value else known(other)
    if extent is None:
        return _NOWHERE
    low, high = flat_outside(reader.outputs[0], known)
    least, most = extent
    if reader.op_type == "Add":
        return low - most, high - least
    return (low + least, high + most) if first is value else (least - high, most - low)


def _gate(gate: ir.Value, value: ir.Value) -> float:
    """Below which end of `value` the gate is 0; −∞ where it is not one."""
    clip = gate.producer()
    if clip is None or clip.op_type not in ("Relu", "Clip") or clip_bounds(clip)[0] != 0.0 or clip.inputs[0] is None:
        return -math.inf
    if clip.inputs[0] is value:
        return 0.0
    adder = clip.inputs[0].producer()
    added = None if adder is None else _added(adder, value)
    return -math.inf if added is None else -added
