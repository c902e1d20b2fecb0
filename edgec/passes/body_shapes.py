"""Shapes inside loops: the state keeps its first shape when a round gives the same shape back.

ONNX's own inference assumes nothing of the state, since a round may change its shape; here one round is tried, and
only a state that comes out as it went in is taken to be so in every round. Then the body is folded like any graph.
"""

from __future__ import annotations

import onnx_ir as ir

from edgec.errors import EdgecError
from edgec.graph.edit import remove_dead
from edgec.graph.model import Model, attr, static_shape
from edgec.passes.fold_constants import fold_graph
from edgec.passes.shapes import infer_node
from edgec.passes.unroll_loops import loop_rounds, scan_rounds


class BodyShapes:
    """See the module."""

    name = "body-shapes"

    def run(self, model: Model) -> bool:
        """Infer and fold the body of every loop; True when something was folded."""
        opsets = dict(model.ir.opset_imports)
        changed = False
        for graph in list(model.ir.graphs()):
            for node in list(graph):
                if node.domain == "" and node.op_type in ("Loop", "Scan") and _infer_loop(node, opsets):
                    changed |= fold_graph(model, node.attributes["body"].as_graph())
        return bool(changed and (remove_dead(model.ir) or changed))


def _infer_loop(node: ir.Node, opsets: dict[str, int]) -> bool:
    """Set the shapes in a loop's body and of its outputs; False when the state's shape changes from round to round."""
    body = node.attributes["body"].as_graph()
    scan = node.op_type == "Scan"
    count = len(node.inputs) - (int(attr(node, "num_scan_inputs")) if scan else 2)
    state = [v for v in (node.inputs if scan else node.inputs[2:])[:count] if v is not None]
    inside = body.inputs[:count] if scan else body.inputs[2:]
    if len(state) != count or any(static_shape(v) is None for v in state):
        return False
    before = [(v, v.shape) for n in body for v in n.outputs]
    for own, outer in zip(inside, state, strict=True):
        own.type, own.shape = outer.type, outer.shape
    if scan:
        _scan_inputs(node, body, count)
    else:
        for own, kind in zip(body.inputs[:2], (ir.DataType.INT64, ir.DataType.BOOL), strict=True):
            own.type, own.shape = ir.TensorType(kind), ir.Shape(())
    try:
        for inner in body:
            infer_node(inner, opsets)
    except EdgecError:
        return _forget(before)
    results = body.outputs if scan else body.outputs[1:]
    if any(static_shape(r) != static_shape(s) for r, s in zip(results[:count], state, strict=True)):
        return _forget(before)
    for output, outer in zip(node.outputs[:count], state, strict=True):
        output.type, output.shape = outer.type, outer.shape
    rounds = scan_rounds(node) if scan else loop_rounds(node)
    for index, (output, row) in enumerate(zip(node.outputs[count:], results[count:], strict=True)):
        shape = static_shape(row)
        if rounds is not None and shape is not None:
            axis = int(attr(node, "scan_output_axes", (0,) * len(node.outputs))[index]) if scan else 0
            axis += len(shape) + 1 if axis < 0 else 0
            output.type, output.shape = row.type, ir.Shape((*shape[:axis], rounds, *shape[axis:]))
    return True


def _scan_inputs(node: ir.Node, body: ir.Graph, count: int) -> None:
    number = len(node.inputs) - count
    axes = attr(node, "scan_input_axes", (0,) * number)
    for own, outer, axis in zip(body.inputs[count:], node.inputs[count:], axes, strict=True):
        shape = static_shape(outer)
        if outer is not None and shape is not None:
            place = int(axis) % len(shape)
            own.type, own.shape = outer.type, ir.Shape((*shape[:place], *shape[place + 1 :]))


def _forget(shapes: list[tuple[ir.Value, ir.Shape | None]]) -> bool:
    for value, shape in shapes:
        value.shape = shape
    return False
