"""Recurrent layers that keep the batch first (layout=1) as those that keep it second, between Transposes."""

from __future__ import annotations

import onnx_ir as ir

from edgec.graph.build import Builder
from edgec.graph.edit import Editor
from edgec.graph.model import attr

#: Inputs that hold states, by their place.
_STATES = (5, 6)


def batch_second(node: ir.Node, editor: Editor) -> bool:
    """RNN, GRU and LSTM with layout=1."""
    if not attr(node, "layout", 0):
        return False
    b = Builder(editor, node)
    inputs = list(node.inputs)
    inputs[0] = b("Transpose", inputs[0], perm=(1, 0, 2))
    for index in _STATES:
        if len(inputs) > index and inputs[index] is not None:
            inputs[index] = b("Transpose", inputs[index], perm=(1, 0, 2))
    attributes = {name: attr(node, name) for name in node.attributes if name != "layout"}
    made = editor.node(node.op_type, inputs, attributes, name=f"{node.name}/inner", outputs=len(node.outputs))
    b.nodes.append(made)
    results = []
    for index, value in enumerate(made.outputs):
        # Y: time, direction, batch, unit; the states: direction, batch, unit
        results.append(b("Transpose", value, perm=(2, 0, 1, 3) if index == 0 else (1, 0, 2)))
    b.done(*results)
    return True
