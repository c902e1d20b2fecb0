"""Sequences and optionals whose length is known are lists of tensors: nobody has to build them at run time.

A sequence that a node makes is kept as the list of its elements; what takes elements out, measures or joins it
reads them from there. Sequences that are inputs or outputs of the model stay.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import onnx_ir as ir

from edgec.graph.edit import Editor, remove_dead
from edgec.graph.model import Model, attr, const_of, keep_origin, static_shape
from edgec.passes.shapes import infer_node

Elements = list[ir.Value]


class ResolveSequences:
    """See the module."""

    name = "resolve-sequences"

    def run(self, model: Model) -> bool:
        """Resolve what is known; True when something went."""
        resolver = _Resolver(model)
        changed = False
        for graph in list(model.ir.graphs()):
            for node in list(graph):
                if node.graph is not None and node.domain == "":
                    changed |= resolver.visit(node)
        return bool(remove_dead(model.ir)) or changed


class _Resolver:
    def __init__(self, model: Model) -> None:
        self.editor = Editor(model)
        self.opsets = dict(model.ir.opset_imports)
        self.known: dict[ir.Value, Elements] = {}

    def visit(self, node: ir.Node) -> bool:
        """Note what a node makes, or replace it; True when it was replaced."""
        maker, reader = _MAKERS.get(node.op_type), _READERS.get(node.op_type)
        elements = maker(self, node) if maker is not None else None
        if elements is not None:
            self.known[node.outputs[0]] = elements
            return False
        return reader is not None and reader(self, node)

    def elements(self, value: ir.Value | None) -> Elements | None:
        """The elements of a sequence, or None."""
        return None if value is None else self.known.get(value)

    def add(self, node: ir.Node, op_type: str, *inputs: ir.Value, outputs: int = 1, **attributes: object) -> Elements:
        """A new node before `node`."""
        new = self.editor.node(op_type, inputs, attributes, name=f"{node.name}/{op_type}", outputs=outputs)
        assert node.graph is not None
        node.graph.insert_before(node, [new])
        keep_origin([new], node)
        infer_node(new, self.opsets)
        return list(new.outputs)

    def const(self, node: ir.Node, values: object) -> ir.Value:
        """An int64 constant."""
        return self.editor.const(np.asarray(values, np.int64), f"{node.name}/constant")

    def replace(self, node: ir.Node, value: ir.Value) -> bool:
        """Let `value` stand for the node's only output."""
        (copy,) = self.add(node, "Identity", value)
        output = node.outputs[0]
        copy.shape = copy.shape if copy.shape is not None else output.shape
        name, output.name = output.name, None
        output.replace_all_uses_with(copy, replace_graph_outputs=True)
        copy.name = name
        assert node.graph is not None
        node.graph.remove(node, safe=True)
        return True


def _position(value: ir.Value | None, length: int) -> int | None:
    constant = const_of(value)
    if constant is None or constant.size != 1:
        return None
    index = int(constant.reshape(()))
    return index + length if index < 0 else index


def _construct(_: _Resolver, node: ir.Node) -> Elements | None:
    return [v for v in node.inputs if v is not None]


def _insert(resolver: _Resolver, node: ir.Node) -> Elements | None:
    before, new = resolver.elements(node.inputs[0]), node.inputs[1]
    if before is None or new is None:
        return None
    at = len(before)
    if len(node.inputs) > 2 and node.inputs[2] is not None:
        known = _position(node.inputs[2], len(before))
        if known is None:
            return None
        at = known
    return [*before[:at], new, *before[at:]]


def _erase(resolver: _Resolver, node: ir.Node) -> Elements | None:
    before = resolver.elements(node.inputs[0])
    if before is None:
        return None
    at = len(before) - 1
    if len(node.inputs) > 1 and node.inputs[1] is not None:
        known = _position(node.inputs[1], len(before))
        if known is None:
            return None
        at = known
    return [*before[:at], *before[at + 1 :]]


def _same(resolver: _Resolver, node: ir.Node) -> Elements | None:
    return resolver.elements(node.inputs[0]) if node.inputs else None


def _split(resolver: _Resolver, node: ir.Node) -> Elements | None:
    """Equal parts of a constant size (the last may be smaller), parts of given sizes, or single rows.

    Of sizes that arrive at run time the number is known, so that the length is.
    """
    x = node.inputs[0]
    shape = static_shape(x)
    if x is None or shape is None:
        return None
    axis = int(attr(node, "axis", 0)) % len(shape)
    given = node.inputs[1] if len(node.inputs) > 1 else None
    parts = const_of(given)
    if given is not None and parts is None:
        count = static_shape(given)
        if count is None or len(count) != 1 or not count[0]:
            return None
        return resolver.add(node, "Split", x, given, outputs=count[0], axis=axis)
    length = shape[axis]
    size = 1 if parts is None else int(parts.reshape(-1)[0])
    if parts is None or parts.ndim == 0:
        sizes = [min(size, length - begin) for begin in range(0, length, max(size, 1))]
    else:
        sizes = [int(p) for p in parts]
    pieces = resolver.add(node, "Split", x, resolver.const(node, sizes), outputs=len(sizes), axis=axis)
    if given is None and not attr(node, "keepdims", 1):
        axes = resolver.const(node, [axis])
        pieces = [resolver.add(node, "Squeeze", piece, axes)[0] for piece in pieces]
    return pieces


def _at(resolver: _Resolver, node: ir.Node) -> bool:
    elements = resolver.elements(node.inputs[0])
    at = None if elements is None else _position(node.inputs[1], len(elements))
    if elements is None or at is None or not 0 <= at < len(elements):
        return False
    return resolver.replace(node, elements[at])


def _length(resolver: _Resolver, node: ir.Node) -> bool:
    elements = resolver.elements(node.inputs[0])
    return elements is not None and resolver.replace(node, resolver.const(node, len(elements)))


def _concat(resolver: _Resolver, node: ir.Node) -> bool:
    elements = resolver.elements(node.inputs[0])
    if not elements:
        return False
    axis = int(attr(node, "axis"))
    if attr(node, "new_axis", 0):
        axes = resolver.const(node, [axis])
        elements = [resolver.add(node, "Unsqueeze", value, axes)[0] for value in elements]
    return resolver.replace(node, resolver.add(node, "Concat", *elements, axis=axis)[0])


def _get(resolver: _Resolver, node: ir.Node) -> bool:
    """A tensor that is there is what it holds; so is an Optional made of one."""
    value = node.inputs[0]
    if value is None or not isinstance(_held(value).type, ir.TensorType):
        return False
    return resolver.replace(node, _held(value))


def _has(resolver: _Resolver, node: ir.Node) -> bool:
    value = node.inputs[0] if node.inputs else None
    held = None if value is None else _held(value)
    if held is not None and not isinstance(held.type, (ir.TensorType, ir.SequenceType)):
        producer = held.producer()
        if producer is None or producer.op_type != "Optional":
            return False
        held = None  # an Optional made of nothing
    there = resolver.editor.const(np.asarray(held is not None), f"{node.name}/constant")
    return resolver.replace(node, there)


def _held(value: ir.Value) -> ir.Value:
    producer = value.producer()
    if producer is None or producer.op_type != "Optional" or not producer.inputs:
        return value
    return producer.inputs[0] or value


def _map(resolver: _Resolver, node: ir.Node) -> bool:
    """SequenceMap over known elements: the body once for each."""
    sequences = [resolver.elements(v) for v in node.inputs]
    if sequences[0] is None:
        return False
    results: list[Elements] = [[] for _ in node.outputs]
    for index in range(len(sequences[0])):
        taken = [v if s is None else s[index] for v, s in zip(node.inputs, sequences, strict=True)]
        for collected, value in zip(results, _body(resolver, node, taken), strict=True):
            collected.append(value)
    for output, elements in zip(node.outputs, results, strict=True):
        resolver.known[output] = elements
    return False


def _body(resolver: _Resolver, node: ir.Node, inputs: Sequence[ir.Value | None]) -> Elements:
    body = node.attributes["body"].as_graph().clone(allow_outer_scope_values=True)
    outputs = list(body.outputs)
    body.outputs.clear()
    for before, after in zip(list(body.inputs), inputs, strict=True):
        assert after is not None
        before.replace_all_uses_with(after)
        outputs = [after if v is before else v for v in outputs]
    nodes = list(body)
    body.remove(nodes)
    assert node.graph is not None
    for inner in nodes:
        inner.name = resolver.editor.unique_node(f"{node.name}/{inner.name}")
        for output in inner.outputs:
            output.name = resolver.editor.unique(output.name or "value")
        node.graph.insert_before(node, [inner])
        infer_node(inner, resolver.opsets)
    return outputs


_MAKERS: dict[str, Callable[[_Resolver, ir.Node], Elements | None]] = {
    "Identity": _same,
    "Optional": _same,
    "OptionalGetElement": _same,
    "SequenceConstruct": _construct,
    "SequenceEmpty": lambda _resolver, _node: [],
    "SequenceErase": _erase,
    "SequenceInsert": _insert,
    "SplitToSequence": _split,
}
_READERS: dict[str, Callable[[_Resolver, ir.Node], bool]] = {
    "ConcatFromSequence": _concat,
    "OptionalGetElement": _get,
    "OptionalHasElement": _has,
    "SequenceAt": _at,
    "SequenceLength": _length,
    "SequenceMap": _map,
}
#: The operators that go when lengths are known.
RESOLVED = (_MAKERS.keys() | _READERS.keys()) - {"Identity"}
