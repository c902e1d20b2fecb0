"""What inputs are looked up in: how many entries the tables have that integers index, and which texts are known."""

from __future__ import annotations

from collections.abc import Mapping

import onnx_ir as ir

from edgec.graph.model import Model, attr, const_of, static_shape
from edgec.graph.traits import MOVES

_MOVERS = MOVES | {"Cast"}


def index_limits(model: Model) -> Mapping[str, int]:
    """Input name → the entries of the smallest table that it looks up; inputs that look up none are left out."""
    found = {value.name or "": _limit(value) for value in model.graph.inputs if not value.is_initializer()}
    return {name: limit for name, limit in found.items() if limit is not None}


def _limit(value: ir.Value) -> int | None:
    if value.dtype is None or not value.dtype.is_integer():
        return None
    limits: list[int] = []
    seen: set[ir.Value] = set()
    waiting = [value]
    while waiting:
        current = waiting.pop()
        if current in seen:
            continue
        seen.add(current)
        for node, place in current.uses():
            if node.op_type in _MOVERS and place == 0:
                waiting += node.outputs
            elif node.op_type == "Gather" and place == 1:
                shape = static_shape(node.inputs[0])
                if shape:
                    limits.append(shape[int(attr(node, "axis", 0))])
    return min(limits, default=None)


def known_texts(model: Model) -> tuple[str, ...]:
    """All texts that the model compares its inputs with, sorted."""
    found: list[object] = []
    for node in model.ir.graph.all_nodes():
        for name in ("cats_strings", "keys_strings"):
            found += attr(node, name) or ()
        for value in node.inputs:
            constant = const_of(value)
            found += constant.ravel().tolist() if constant is not None and constant.dtype.kind in "OST" else ()
    return tuple(sorted({text.decode() if isinstance(text, bytes) else str(text) for text in found}))
