"""Which units of an int8 plan compute in int16: those that were asked for, and what only moves data between them.

1. A unit that was asked for, where the runtime has its kernel for int16; else it stays int8.
2. A mover takes the width of what it moves: that of who writes its data, or of its readers where that is float.
"""

from __future__ import annotations

from collections.abc import Collection

from edgec.graph.traits import Kind
from edgec.quantization.planning.neighbours import Neighbours
from edgec.targets.scheme import Scheme


def wide_units(neighbours: Neighbours, live: Collection[int], asked: Collection[str], scheme: Scheme) -> set[int]:
    """Positions of the live units that read and write int16. `asked` are names of heads."""
    if not asked:
        return set()
    able = [i for i in sorted(live) if neighbours.units[i].head.op_type in scheme.int16_ops]
    movers = [i for i in able if neighbours.units[i].kind is Kind.MOVER]
    wide = {i for i in able if i not in movers and neighbours.units[i].head.name in asked}  # rule 1
    for i in movers:  # rule 2, in graph order
        writers = [w for v in neighbours.units[i].data() if (w := neighbours.writer(v)) in live]
        if any(w in wide for w in writers):
            wide.add(i)
    for i in reversed(movers):
        unit = neighbours.units[i]
        quantized = any(neighbours.writer(v) in live for v in unit.data())
        if not quantized and any(r in wide for v in unit.outputs() for r in neighbours.readers(v)[0]):
            wide.add(i)
    return wide
