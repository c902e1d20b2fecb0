"""Which units are worth int8, given their neighbours: arithmetic between float operators stays float.

A value is *sourced* when quantized data reaches it: it is a graph input, an output of an anchor
(an operator with weights), or an output of a light operator or mover that reads a sourced value.
It is *sunk* when quantized data leaves by it: a graph output, read by an anchor, or by a light operator
or mover one of whose outputs is sunk.

1. A light operator stays int8 only if it reads something sourced and writes something sunk: this keeps
   normalisation (mean, square, root) and the like in float.
2. A joining mover (several inputs) must write something sunk: only then does one scale for all its inputs pay.
3. A mover stays int8 only if a chain of movers connects it to an int8 unit that is no mover.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable

import onnx_ir as ir

from edgec.graph.traits import Kind
from edgec.quantization.planning.units import Unit


class Neighbours:
    """Who writes and who reads each value, in units."""

    def __init__(self, units: Iterable[Unit]) -> None:
        self.units = tuple(units)
        self._writer = {id(v): i for i, unit in enumerate(self.units) for v in unit.outputs()}
        self._head = {id(unit.head): i for i, unit in enumerate(self.units)}

    def writer(self, value: ir.Value) -> int | None:
        """The unit that writes a value; None for float nodes and graph inputs."""
        return self._writer.get(id(value))

    def readers(self, value: ir.Value) -> tuple[tuple[int, ...], bool]:
        """The units that read a value as data, and whether float nodes read it too."""
        found, outside = [], False
        for node, _ in value.uses():
            unit = self._head.get(id(node))
            if unit is None:
                outside = True
            else:
                found.append(unit)
        return tuple(sorted(set(found))), outside

    def sourced(self, live: Collection[int]) -> set[int]:
        """Live units that write sourced values."""
        found: set[int] = set()
        for i, unit in enumerate(self.units):  # graph order: writers come first
            if i in live and (unit.kind is Kind.ANCHOR or any(self._comes_from(v, found) for v in unit.data())):
                found.add(i)
        return found

    def _comes_from(self, value: ir.Value, found: set[int]) -> bool:
        return value.is_graph_input() or self.writer(value) in found

    def sunk(self, live: Collection[int]) -> set[int]:
        """Live units that write sunk values."""
        found: set[int] = set()
        for i in range(len(self.units) - 1, -1, -1):
            if i in live and any(self._goes_to(v, found, live) for v in self.units[i].outputs()):
                found.add(i)
        return found

    def _goes_to(self, value: ir.Value, found: set[int], live: Collection[int]) -> bool:
        if value.is_graph_output():
            return True
        readers, _ = self.readers(value)
        return any(r in found or (r in live and self.units[r].kind is Kind.ANCHOR) for r in readers)

    def carried(self, live: Collection[int]) -> set[int]:
        """Live movers that a chain of live movers connects to a live unit that is no mover."""
        reached: set[int] = set()
        queue = [i for i in live if self.units[i].kind is not Kind.MOVER]
        while queue:
            unit = self.units[queue.pop()]
            near = [w for v in unit.data() if (w := self.writer(v)) is not None]
            near += [r for v in unit.outputs() for r in self.readers(v)[0]]
            for i in near:
                if i in live and i not in reached and self.units[i].kind is Kind.MOVER:
                    reached.add(i)
                    queue.append(i)
        return reached


def settle(neighbours: Neighbours, excluded: Collection[int]) -> dict[int, str]:
    """Reasons, by unit, of those that stay float because of their neighbours; to a fixed point."""
    live = set(range(len(neighbours.units))) - set(excluded)
    demoted: dict[int, str] = {}
    while True:
        step = _demotions(neighbours, live)
        if not step:
            return demoted
        demoted.update(step)
        live -= set(step)


def _demotions(neighbours: Neighbours, live: set[int]) -> dict[int, str]:
    sourced, sunk, carried = neighbours.sourced(live), neighbours.sunk(live), neighbours.carried(live)
    found: dict[int, str] = {}
    for i in sorted(live):
        unit = neighbours.units[i]
        joins = unit.kind is Kind.MOVER and len(unit.data()) > 1
        if unit.kind is Kind.LIGHT and i not in sourced:
            found[i] = "everything it reads is float"  # rule 1
        elif (unit.kind is Kind.LIGHT or joins) and i not in sunk:
            found[i] = "everything that reads it is float"  # rules 1, 2
        elif unit.kind is Kind.MOVER and i not in carried:
            found[i] = "it moves data between float operators"  # rule 3
    return found
