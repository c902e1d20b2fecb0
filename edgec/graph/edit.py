"""Edit a graph without breaking it: new constants and nodes get unique names, graph outputs keep theirs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

from edgec.graph.model import Model, keep_origin
from edgec.tensors import Array


class Editor:
    """Edits one model in place. Names are collected once, so make one editor a pass."""

    def __init__(self, model: Model) -> None:
        self.model = model
        self.graph = model.ir.graph
        self.value_names: set[str] = set()
        self.node_names: set[str] = set()
        for value in all_values(model.ir):
            self.value_names.add(value.name or "")
        for node in model.ir.graph.all_nodes():
            self.node_names.add(node.name or "")

    def unique(self, wanted: str) -> str:
        """A value name that nothing has: `wanted`, or `wanted_2`, `wanted_3` …"""
        return _unique(wanted, self.value_names)

    def unique_node(self, wanted: str) -> str:
        """A node name that nothing has."""
        return _unique(wanted, self.node_names)

    def const(self, array: Array, name: str) -> ir.Value:
        """A new initializer of the main graph."""
        name = self.unique(name)
        plain = np.ascontiguousarray(array).reshape(np.shape(array))
        tensor = _texts(plain, name) if plain.dtype.kind == "O" else ir.Tensor(plain, name=name)
        value = ir.Value(name=name, shape=ir.Shape(tensor.shape), type=ir.TensorType(tensor.dtype), const_value=tensor)
        self.graph.register_initializer(value)
        return value

    def node(
        self,
        op_type: str,
        inputs: Sequence[ir.Value | None],
        attributes: Mapping[str, Any] | None = None,
        *,
        name: str,
        outputs: Sequence[str] | int = 1,
        domain: str = "",
    ) -> ir.Node:
        """A new node that is not in the graph yet; output names derive from `name` unless given."""
        if isinstance(outputs, int):
            outputs = [name if i == 0 else f"{name}_{i}" for i in range(outputs)]
        values = [ir.Value(name=self.unique(output)) for output in outputs]
        return ir.node(
            op_type,
            inputs,
            {k: v for k, v in (attributes or {}).items() if v is not None},
            domain=domain,
            outputs=values,
            name=_unique(name, self.node_names),
        )

    def replace(self, old: ir.Node, new: Sequence[ir.Node], outputs: Sequence[ir.Value]) -> None:
        """Put `new` where `old` stood; each output of `old` gives its name, type and uses to one of `outputs`.

        The node that makes the first output takes over the name of `old`.
        """
        container = old.graph
        assert container is not None, "the node is not in a graph"
        container.insert_before(old, new)
        keep_origin(new, old)
        for before, after in zip(old.outputs, outputs, strict=True):
            after.type = before.type if before.type is not None else after.type
            after.shape = before.shape if before.shape is not None else after.shape
            name = before.name
            before.replace_all_uses_with(after, replace_graph_outputs=True)
            before.name = None
            if not after.is_initializer() and after.producer() in new:
                after.name = name
        container.remove(old, safe=True)
        heir = outputs[0].producer() if outputs else None
        if heir is not None and heir in new and old.name:
            self.node_names.discard(heir.name or "")
            heir.name = old.name

    def bypass(self, node: ir.Node, source: ir.Value) -> bool:
        """Let everyone who read the node's output read `source`; the node goes, unless an output name forbids it."""
        output = node.outputs[0]
        if output.is_graph_output():
            pinned = source.is_graph_input() or source.is_initializer() or source.is_graph_output()
            if pinned or source.graph is not node.graph:
                for user, index in list(output.uses()):
                    user.replace_input_with(index, source)
                return False
            name, output.name = output.name, None
            output.replace_all_uses_with(source, replace_graph_outputs=True)
            source.name = name
        else:
            output.replace_all_uses_with(source)
        if node.graph is not None:
            node.graph.remove(node, safe=True)
        return True


def _unique(wanted: str, taken: set[str]) -> str:
    name, count = wanted, 2
    while name in taken:
        name, count = f"{wanted}_{count}", count + 1
    taken.add(name)
    return name


def _texts(array: Array, name: str) -> ir.StringTensor:
    return ir.StringTensor([str(t).encode() for t in array.reshape(-1)], shape=ir.Shape(array.shape), name=name)


def all_values(model: ir.Model) -> Iterator[ir.Value]:
    """Every value of the main graph and its subgraphs: inputs, initializers, node outputs."""
    for graph in model.graphs():
        yield from graph.inputs
        yield from graph.initializers.values()
        for node in graph:
            yield from node.outputs


def sole_consumer(value: ir.Value) -> ir.Node | None:
    """The one node input that reads a value, or None when it is read elsewhere or is a graph output."""
    uses = list(value.uses())
    return uses[0][0] if len(uses) == 1 and not value.is_graph_output() else None


def remove_dead(model: ir.Model) -> int:
    """Remove nodes whose outputs nobody reads, and initializers that are left over. Returns how many nodes went."""
    removed = _remove_dead_nodes(model.graph)
    for name, value in list(model.graph.initializers.items()):
        if not value.uses() and not value.is_graph_output() and not value.is_graph_input():
            del model.graph.initializers[name]
    return removed


def _remove_dead_nodes(graph: ir.Graph) -> int:
    removed = 0
    for node in reversed(graph):
        if any(output.uses() or output.is_graph_output() for output in node.outputs):
            for attribute in node.attributes.values():
                if attribute.type == ir.AttributeType.GRAPH:
                    removed += _remove_dead_nodes(attribute.as_graph())
            continue
        for attribute in node.attributes.values():
            if attribute.type == ir.AttributeType.GRAPH:
                removed += _clear(attribute.as_graph())
        graph.remove(node, safe=True)
        removed += 1
    return removed


def _clear(graph: ir.Graph) -> int:
    """Take everything out of a subgraph that goes, so that the values it read know."""
    removed = 0
    graph.outputs.clear()
    for node in reversed(graph):
        for attribute in node.attributes.values():
            if attribute.type == ir.AttributeType.GRAPH:
                removed += _clear(attribute.as_graph())
        graph.remove(node, safe=True)
        removed += 1
    return removed
