"""Write short loops out: a Loop or Scan whose number of rounds is known becomes that many copies of its body.

1. The count is the Loop's constant trip count, or what a declared length of a scan output says; a Scan's is the
   length of its inputs' scanned axis.
2. The condition must stay true: the body hands on what it got, or a constant.
3. Longer loops stay loops: `MAX_NODES` bounds what is written out.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from edgec.graph.edit import Editor, remove_dead
from edgec.graph.model import Model, attr, const_of, keep_origin, static_shape
from edgec.passes.shapes import infer_node

#: Nodes that a written-out loop may have in all.
MAX_NODES = 256


class UnrollLoops:
    """See the module."""

    name = "unroll-loops"

    def run(self, model: Model) -> bool:
        """Write out what may be; True when a loop went."""
        editor, changed = Editor(model), False
        for graph in list(model.ir.graphs()):
            for node in list(graph):
                if node.graph is None or node.domain != "" or node.op_type not in ("Loop", "Scan"):
                    continue
                rounds = loop_rounds(node) if node.op_type == "Loop" else scan_rounds(node)
                body = node.attributes["body"].as_graph()
                if rounds is None or rounds * max(1, sum(1 for _ in body.all_nodes())) > MAX_NODES:
                    continue
                if rounds == 0 and len(node.outputs) > _carried(node):
                    continue
                _Writer(node, editor, dict(model.ir.opset_imports)).write(rounds)
                changed = True
        return bool(changed and (remove_dead(model.ir) or changed))


def loop_rounds(node: ir.Node) -> int | None:
    """How many rounds a Loop takes, when that is known now (rules 1 and 2)."""
    body = node.attributes["body"].as_graph()
    lasting = _source(body.outputs[0])
    kept = lasting is body.inputs[1]
    stays = kept or _true(lasting)
    if not stays:
        return None
    for output in node.outputs[_carried(node) :]:
        if output.shape is not None and len(output.shape) and isinstance(output.shape[0], int):
            return output.shape[0]
    trips = const_of(node.inputs[0])
    start = node.inputs[1] if len(node.inputs) > 1 else None
    if trips is None or trips.size != 1 or not (start is None or _true(start)):
        return None
    return max(int(trips.reshape(())), 0)


def scan_rounds(node: ir.Node) -> int | None:
    """How many rounds a Scan takes, when that is known now."""
    count = int(attr(node, "num_scan_inputs"))
    first = len(node.inputs) - count
    axes = attr(node, "scan_input_axes", (0,) * count)
    shape = static_shape(node.inputs[first])
    return None if shape is None else shape[axes[0]]


def _carried(node: ir.Node) -> int:
    """How many outputs are the state's last values; the others collect one value a round."""
    if node.op_type == "Loop":
        return len(node.inputs) - 2
    return len(node.inputs) - int(attr(node, "num_scan_inputs"))


def _source(value: ir.Value) -> ir.Value:
    while (producer := value.producer()) is not None and producer.op_type == "Identity":
        source = producer.inputs[0]
        assert source is not None
        value = source
    return value


def _true(value: ir.Value | None) -> bool:
    constant = const_of(value)
    return constant is not None and constant.size == 1 and bool(constant.reshape(()))


@dataclass(slots=True)
class _Writer:
    node: ir.Node
    editor: Editor
    opsets: dict[str, int]

    def write(self, rounds: int) -> None:
        node = self.node
        scan = node.op_type == "Scan"
        count = _carried(node)
        state: list[ir.Value] = [v for v in (node.inputs if scan else node.inputs[2:])[:count] if v is not None]
        collected: list[list[ir.Value]] = [[] for _ in node.outputs[count:]]
        for index in range(rounds):
            given = self._round_inputs(index, rounds, scan)
            results = self._copy([*state, *given] if scan else [*given, *state])
            if not scan:
                results = results[1:]
            state = results[:count]
            for values, value in zip(collected, results[count:], strict=False):
                values.append(value)
        outputs = [*state, *(self._stacked(values, i, scan) for i, values in enumerate(collected))]
        # each output is a value of its own, that a graph output may give its name to
        copies = [self._add("Identity", value) for value in outputs]
        keep_origin([c.producer() for c in copies], node)  # type: ignore[misc]  # _add made them
        for old, new in zip(node.outputs, copies, strict=True):
            new.type, new.shape = old.type or new.type, old.shape or new.shape
            name, old.name = old.name, None
            old.replace_all_uses_with(new, replace_graph_outputs=True)
            new.name = name
        assert node.graph is not None
        node.graph.remove(node, safe=True)

    def _add(self, op_type: str, *inputs: ir.Value, **attributes: object) -> ir.Value:
        new = self.editor.node(op_type, inputs, attributes, name=f"{self.node.name}/{op_type}")
        assert self.node.graph is not None
        self.node.graph.insert_before(self.node, [new])
        infer_node(new, self.opsets)
        return new.outputs[0]

    def _const(self, value: object) -> ir.Value:
        return self.editor.const(np.asarray(value, np.int64), f"{self.node.name}/constant")

    def _round_inputs(self, index: int, rounds: int, scan: bool) -> list[ir.Value]:
        if not scan:
            true = self.editor.const(np.asarray(True), f"{self.node.name}/true")
            return [self._const(index), true]
        node, count = self.node, int(attr(self.node, "num_scan_inputs"))
        axes = attr(node, "scan_input_axes", (0,) * count)
        directions = attr(node, "scan_input_directions", (0,) * count)
        values = []
        for value, axis, backwards in zip(node.inputs[-count:], axes, directions, strict=True):
            assert value is not None
            place = self._const(rounds - 1 - index if backwards else index)
            values.append(self._add("Gather", value, place, axis=int(axis)))
        return values

    def _copy(self, inputs: list[ir.Value]) -> list[ir.Value]:
        """A copy of the body in front of the loop, reading `inputs`; gives what it computes."""
        body = self.node.attributes["body"].as_graph().clone(allow_outer_scope_values=True)
        for value in list(body.initializers.values()):
            del body.initializers[value.name or ""]
            value.name = self.editor.unique(value.name or "constant")
            self.editor.graph.register_initializer(value)
        outputs = list(body.outputs)
        body.outputs.clear()
        for before, after in zip(list(body.inputs), inputs, strict=True):
            before.replace_all_uses_with(after)
            outputs = [after if v is before else v for v in outputs]
        nodes = list(body)
        body.remove(nodes)
        for inner in nodes:
            self._rename(inner)
        assert self.node.graph is not None
        self.node.graph.insert_before(self.node, nodes)
        for inner in nodes:
            if not inner.metadata_props:
                keep_origin([inner], self.node)
            infer_node(inner, self.opsets)
        return outputs

    def _rename(self, node: ir.Node) -> None:
        """Unique names for a copied node, its outputs and all that is inside of it."""
        node.name = self.editor.unique_node(f"{self.node.name}/{node.name}")
        for output in node.outputs:
            if output.name:
                output.name = self.editor.unique(output.name)
        for attribute in node.attributes.values():
            if attribute.type == ir.AttributeType.GRAPH:
                graph = attribute.as_graph()
                for value in (*graph.inputs, *graph.initializers.values()):
                    value.name = self.editor.unique(value.name or "value")
                for inner in graph:
                    self._rename(inner)

    def _stacked(self, values: list[ir.Value], index: int, scan: bool) -> ir.Value:
        axis, backwards = 0, False
        if scan:
            count = len(self.node.outputs) - _carried(self.node)
            axis = int(attr(self.node, "scan_output_axes", (0,) * count)[index])
            backwards = bool(attr(self.node, "scan_output_directions", (0,) * count)[index])
        rows = [self._add("Unsqueeze", value, self._const([axis])) for value in values]
        return self._add("Concat", *(rows[::-1] if backwards else rows), axis=axis)
