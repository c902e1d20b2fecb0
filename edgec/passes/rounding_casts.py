"""Casts to bfloat16 that are there to round: what was cast is, at most moved, cast back.

The form that stays in the graph is a Cast from float32 to bfloat16 that only Casts read; ONNX Runtime computes it, and
backends without bfloat16 have it taken apart.
"""

from __future__ import annotations

import onnx_ir as ir

from edgec.graph.edit import all_values
from edgec.graph.traits import MOVES

#: Moves, and what reads only the shape.
MOVERS = MOVES | {"Shape", "Size"}
_CASTS = frozenset({"Cast", "CastLike"})


def kept_between(model: ir.Model) -> set[ir.Value]:
    """The bfloat16 values that stay: between a Cast from float32 and nothing but Casts."""
    return {value for value in all_values(model) if _between(value)}


def _between(value: ir.Value) -> bool:
    made_by = value.producer()
    if value.dtype != ir.DataType.BFLOAT16 or made_by is None or made_by.op_type != "Cast" or value.is_graph_output():
        return False
    source, readers = made_by.inputs[0], [node for node, _ in value.uses()]
    return source is not None and source.dtype == ir.DataType.FLOAT and bool(readers) and all(map(_back, readers))


def _back(node: ir.Node) -> bool:
    return node.op_type == "Cast" and node.outputs[0].dtype != ir.DataType.BFLOAT16


def only_rounds(node: ir.Node) -> bool:
    """Whether a cast to bfloat16 reaches, by moves alone, a cast to another type."""
    reached = [node.outputs[0]]
    for value in reached:
        for reader, _ in value.uses():
            if reader.op_type in _CASTS and reader.outputs[0].dtype != ir.DataType.BFLOAT16:
                return True
            if reader.op_type in MOVERS | _CASTS and reader.domain == "":
                reached += [v for v in reader.outputs if v.dtype == ir.DataType.BFLOAT16 and v not in reached]
    return False
