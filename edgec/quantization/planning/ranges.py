"""The range that each value is quantized over, before scales are shared.

1. A graph value has what calibration saw, cut by the chosen method (`range_of`).
2. Sigmoid and the like have the range of their function, seen or not. A Softmax over many values comes nowhere near 1:
   where it was observed, it has all of what was seen, as its largest values are what it is for.
3. A mover's output that was not observed has the range of its inputs; a Pad adds the constant it writes,
   unless that is far outside (it then saturates, which is what −inf before a MaxPool means).
4. What ends in a Relu or Clip keeps to its bounds.
5. What is read for its maximum over all positions alone keeps the largest values that were seen.
6. Rules 1 and 2 leave room for what inputs to come add to what calibration saw (`roomy_range_of`), within those bounds.
7. Beyond where its readers are flat (HardSwish below −3) a value saturates: its steps are finer for it (`flat`).
8. Where steps are fine beyond need, as in 16 bits, the range is `room` times as wide: an input to come that goes beyond
   what was seen costs more than all of rounding.
9. Elsewhere `auto` counts the error of the function that readers make of a value (`response`): SiLU, Gelu, a gate. With
   rule 7 it does harm (PP-LCNet's nets lose 4 dB): half of the values count less then, and the largest too much.
10. What is given out is cut nowhere, and has room for more than others (`answer_range_of`), where its steps still make
   little of it: what is cut off there is off in the answer, and no other layer has steps to pay for it.
11. Where the choice says so, a value has a range a channel, within its own (`channel_ranges`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import onnx_ir as ir

from edgec.graph.model import const_of
from edgec.graph.traits import MOVES, clip_bounds, data_inputs, finite_extent, pad_value, within_inputs
from edgec.quantization.calibration.range_choice import (
    RangeChoice,
    RangeMethod,
    answer_range_of,
    channel_ranges,
    channels_of,
    method_for,
    roomy_range_of,
)
from edgec.quantization.flat import flat_outside
from edgec.quantization.planning.affine import Extent, union
from edgec.quantization.response import Response, response_of
from edgec.quantization.types import Statistics, TensorStats

#: Operators whose output range is a property of the function.
NATURAL: dict[str, Extent] = {
    "Sigmoid": (0.0, 1.0),
    "HardSigmoid": (0.0, 1.0),
    "Softmax": (0.0, 1.0),
    "Tanh": (-1.0, 1.0),
}

#: Those of them whose values sum to one: the more there are, the smaller they are.
SPREADING = ("Softmax",)

#: What gives a maximum, and what may stand before it: functions that rise, and what moves values about.
_MAXIMA = frozenset({"GlobalMaxPool", "ReduceMax"})
_RISING = MOVES | {"Add", "Clip", "Elu", "Erf", "Gelu", "HardSigmoid", "HardSwish", "LeakyRelu", "Mish", "Mul", "Relu"}
_RISING |= {"Selu", "Sigmoid", "Softplus", "Softsign", "Swish", "Tanh"}

#: A pad value this many times outside the data's range saturates instead of stretching the range.
_FAR = 16.0


class Ranges:
    """Chosen ranges by value, computed once each."""

    def __init__(self, stats: Statistics | None, choice: RangeChoice, *, room: float = 1.0) -> None:
        self._stats: Mapping[str, TensorStats] = {} if stats is None else stats.tensors
        self._choice = choice
        self._room = room
        self._known: dict[str, Extent | None] = {}

    def of(self, value: ir.Value) -> Extent | None:
        """The range of a value, 0 included; None where nothing tells it."""
        name = value.name or ""
        if name not in self._known:
            self._known[name] = None  # a cycle would end here
            self._known[name] = self._find(value)
        return self._known[name]

    def by_channel(self, value: ir.Value, extent: Extent) -> list[Extent] | None:
        """Rule 11: a range for each channel within `extent`; None where the choice has one for all."""
        name = value.name or ""
        if name not in channels_of(self._choice) or name not in self._stats:
            return None
        return channel_ranges(self._stats[name], *extent)

    def why(self, value: ir.Value) -> str:
        """Where the range is from, for the plan's reason."""
        producer = value.producer()
        if const_of(value) is not None:
            return "values of the constant"
        if producer is not None and producer.op_type in NATURAL:
            seen = producer.op_type in SPREADING and value.name in self._stats
            return "all that calibration saw" if seen else f"range of {producer.op_type}"
        name = value.name or ""
        return f"{method_for(name, self._choice)} range" if name in self._stats else "range of its inputs"

    def _find(self, value: ir.Value) -> Extent | None:
        constant = const_of(value)
        if constant is not None:
            return union(finite_extent(constant))
        producer = value.producer()
        stats = self._stats.get(value.name or "")
        if producer is not None and producer.op_type in NATURAL:  # rule 2
            floor, ceiling = NATURAL[producer.op_type]
            if stats is None or producer.op_type not in SPREADING:
                return union((floor, ceiling))
            low, high = self._roomy(stats, "minmax")
            return max(low, floor), min(high, ceiling)
        if producer is not None and producer.op_type == "Pad":  # rule 3, seen or not: what it writes may be -inf
            return self._inherited(producer)
        if stats is not None:  # rule 1
            method = method_for(value.name or "", self._choice)
            if method == "auto" and _is_answer(value) and (answer := answer_range_of(stats)) is not None:  # rule 10
                return self._bounded(answer, producer)
            floor, ceiling = flat_outside(value, self._seen)  # rule 7
            felt = method == "auto" and floor <= stats.minimum and ceiling >= stats.maximum
            low, high = self._roomy(stats, method, response_of(value) if felt else None)  # rule 9
            high = max(high, stats.maximum) if _read_for_maximum(value) else high  # rule 5
            low, high = self._bounded((low, high), producer)
            return union((max(low, floor), min(high, ceiling))) if floor < high and ceiling > low else (low, high)
        if producer is not None and within_inputs(producer):  # rule 3
            return self._inherited(producer)
        return None

    def _seen(self, value: ir.Value) -> Extent | None:
        """All that a value was seen to be, with room; None where it was not observed."""
        constant, stats = const_of(value), self._stats.get(value.name or "")
        if constant is not None:
            return union(finite_extent(constant))
        return None if stats is None else self._roomy(stats, "minmax")

    def _roomy(self, stats: TensorStats, method: RangeMethod, response: Response | None = None) -> Extent:
        """Rules 6 and 8."""
        low, high = roomy_range_of(stats, method, response)
        return low * self._room, high * self._room

    def _bounded(self, extent: Extent, producer: ir.Node | None) -> Extent:
        low, high = extent
        if producer is not None:  # rule 4
            floor, ceiling = clip_bounds(producer)
            low, high = max(low, floor), min(high, ceiling)
        return union((low, high)) if low <= high else (0.0, 0.0)

    def _inherited(self, producer: ir.Node) -> Extent | None:
        extents = [self.of(v) for i in data_inputs(producer) if (v := producer.inputs[i]) is not None]
        known = [e for e in extents if e is not None]
        if not known or len(known) != len(extents):
            return None
        whole = union(*known)
        padding = pad_value(producer)
        width = whole[1] - whole[0]
        if math.isfinite(padding) and abs(padding) <= _FAR * width:
            whole = union(whole, (padding, padding))
        return whole


def _read(value: ir.Value) -> bool:
    """Whether anything reads a value: of a Split some parts may be left over."""
    return value.is_graph_output() or bool(value.uses())


def _is_answer(value: ir.Value) -> bool:
    """Whether a value is given out, as it is or moved about, and nothing else is made of it."""
    if value.is_graph_output():
        return True
    users = [user for user, _ in value.uses()]
    return bool(users) and all(
        user.op_type in MOVES and all(_is_answer(made) for made in user.outputs if _read(made)) for user in users
    )


def _read_for_maximum(value: ir.Value) -> bool:
    """Whether all that is made of a value ends in maxima, an activation as several operators on the way included."""
    waiting, seen, found = [value], {value}, False
    while waiting:
        current = waiting.pop()
        if current.is_graph_output():
            return False
        for user, _ in current.uses():
            if user.op_type in _MAXIMA:
                found = True
            elif user.op_type not in _RISING:
                return False
            else:
                waiting += [given for given in user.outputs if given not in seen and _read(given)]
                seen.update(user.outputs)
    return found
