"""Give every node and value a name of its own, the same in every run, keeping those that are fine."""

from __future__ import annotations

import onnx_ir as ir


def name_everything(model: ir.Model) -> None:
    """Name what has no name and rename what shares one; inputs and outputs keep theirs."""
    values: set[str] = set()
    nodes: set[str] = set()
    outer = model.graph
    for value in [*outer.inputs, *outer.outputs]:
        values.add(value.name or "")
    kept = {id(value) for value in [*outer.inputs, *outer.outputs]}
    for graph in model.graphs():
        own = [*graph.inputs, *list(graph.initializers.values())]
        for node in graph:
            node.name = _free(node.name or f"{node.op_type}_{len(nodes)}", nodes)
            own += node.outputs
        for value in own:
            if id(value) in kept:
                continue
            if value.name == "" and not value.uses():
                continue  # an optional output that is left out
            wanted = value.name or _from_producer(value)
            name = _free(wanted, values)
            if name != value.name:
                value.name = name
            kept.add(id(value))


def _from_producer(value: ir.Value) -> str:
    producer = value.producer()
    return f"{producer.name if producer is not None else 'value'}/out"


def _free(wanted: str, taken: set[str]) -> str:
    name, count = wanted, 2
    while name in taken:
        name, count = f"{wanted}_{count}", count + 1
    taken.add(name)
    return name
