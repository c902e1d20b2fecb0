"""A part of a model as a model of its own: what is computed from some given values to some fetched ones."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence

import onnx_ir as ir

from edgec.graph.model import Model, static_shape


def segment(model: Model, given: Collection[str], fetch: Sequence[str]) -> Model:
    """A copy of what computes `fetch` (values that nodes write) when the values `given` are known.

    It takes the model's inputs and `given`. Weight tensors are shared.
    """
    graph = model.graph
    inputs = [v.name or "" for v in graph.inputs if not v.is_initializer()]
    known = list(dict.fromkeys([*inputs, *given]))
    part = ir.convenience.extract(graph, known, list(dict.fromkeys(fetch)))
    return Model(ir=ir.Model(part, ir_version=model.ir.ir_version), source=model.source, name=model.name)


def living(model: Model, node: str) -> tuple[str, ...]:
    """The computed values that nodes from `node` on read and nodes before it write, in graph order."""
    found: list[str] = []
    order = {n.name: i for i, n in enumerate(model.nodes())}
    place = order[node]
    for writer in model.nodes():
        if order[writer.name] >= place:
            break
        # a reader inside a subgraph has no place of its own: what it reads is kept
        found += [v.name or "" for v in writer.outputs if any(order.get(n.name, place) >= place for n, _ in v.uses())]
    return tuple(found)


def bytes_of(model: Model, names: Collection[str]) -> float:
    """Bytes of some values; infinite where a shape is not known."""
    wanted, total = set(names), 0.0
    for node in model.nodes():
        for value in node.outputs:
            if value.name in wanted:
                shape = static_shape(value)
                size = value.dtype.itemsize if value.dtype is not None else 8
                total += math.inf if shape is None else math.prod(shape) * size
    return total
