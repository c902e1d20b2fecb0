"""Check what every stage may rely on.

1. Node names and value names are present and unique.
2. Every value that a node reads is a graph input, an initializer, or the output of an earlier node (of this
   graph or of one around it).
3. Every graph output has a producer (or is an input or initializer), and appears once.
4. Every initializer holds a tensor.
"""

from __future__ import annotations

import onnx_ir as ir

from edgec.errors import EdgecError
from edgec.graph.model import label


def verify(model: ir.Model) -> None:
    """Raise `EdgecError` (`graph/invalid`) for the first rule that the model breaks."""
    _verify_graph(model.graph, set(), {}, set())


def _broken(message: str, where: str) -> EdgecError:
    return EdgecError("graph/invalid", message, where=where)


def _verify_graph(graph: ir.Graph, outer: set[int], names: dict[str, ir.Value], node_names: set[str]) -> None:
    known = set(outer)
    for value in [*graph.inputs, *graph.initializers.values()]:
        if id(value) not in known:
            _named_once(value, names)
            known.add(id(value))
    for value in graph.initializers.values():  # rule 4
        if value.const_value is None:
            raise _broken(f"initializer {value.name!r} holds no data", value.name or "")
    for node in graph:
        if not node.name or node.name in node_names:  # rule 1
            raise _broken(f"node name {node.name!r} is missing or used twice", label(node))
        node_names.add(node.name)
        for read in node.inputs:  # rule 2
            if read is not None and id(read) not in known:
                raise _broken(f"input {read.name!r} of {node.op_type} is not defined before it is used", label(node))
        for attribute in node.attributes.values():
            if attribute.type == ir.AttributeType.GRAPH:
                _verify_graph(attribute.as_graph(), known, names, node_names)
            elif attribute.type == ir.AttributeType.GRAPHS:
                for inner in attribute.as_graphs():
                    _verify_graph(inner, known, names, node_names)
        for value in node.outputs:
            _named_once(value, names)
            known.add(id(value))
    seen: set[int] = set()
    for value in graph.outputs:  # rule 3
        if id(value) not in known:
            raise _broken(f"graph output {value.name!r} has no producer", value.name or "")
        if id(value) in seen:
            raise _broken(f"graph output {value.name!r} appears twice", value.name or "")
        seen.add(id(value))


def _named_once(value: ir.Value, names: dict[str, ir.Value]) -> None:
    name = value.name
    if name is None or (name == "" and value.uses()):
        raise _broken("a value has no name", label(node) if (node := value.producer()) else "")
    if name and names.setdefault(name, value) is not value:  # rule 1
        raise _broken(f"two values are named {name!r}", name)
