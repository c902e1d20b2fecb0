"""Keep a reduction apart from the constants behind it: fused into one kernel, the CPU plugin reads beside them.

Seen in OpenVINO 2026.4 where a reduction of something computed is followed, perhaps after operators with one number,
by a constant of several: `ReduceSum → Sub [1, 3]` gives garbage. A reshape between the two stops the fusion.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from edgec.graph.build import Builder
from edgec.graph.edit import Editor, sole_consumer
from edgec.graph.model import attr, const_of, static_shape

_BINARY = frozenset({"Add", "Div", "Max", "Min", "Mul", "Pow", "PRelu", "Sub"})
_UNARY = frozenset({"Abs", "Clip", "Elu", "Exp", "LeakyRelu", "Log", "Neg", "Relu", "Sigmoid", "Sqrt", "Tanh"})
_APART = "apart"


def kept_apart(node: ir.Node, editor: Editor) -> bool:
    """A reduction that drops its axes keeps them, and a Reshape drops them.

    One that keeps them cannot be helped so: the importer sees through every form of reshape that restores an axis.
    """
    before, after = static_shape(node.inputs[0]), static_shape(node.outputs[0])
    if before is None or not after or attr(node, "keepdims", 1):
        return False
    if _APART in (node.name or "") or not _meets_several(node.outputs[0]):
        return False
    b = Builder(editor, node)
    attributes = {name: attr(node, name) for name in node.attributes}
    attributes["keepdims"] = 1
    made = editor.node(node.op_type, list(node.inputs), attributes, name=f"{node.name}/{_APART}")
    b.nodes.append(made)
    b.done(b("Reshape", made.outputs[0], b.ints(*after)))
    return True


def _meets_several(value: ir.Value) -> bool:
    """Whether a chain of elementwise operators leads to a constant of several numbers."""
    while (user := sole_consumer(value)) is not None:
        if user.op_type in _BINARY and len(user.inputs) == 2:
            other = user.inputs[0] if user.inputs[1] is value else user.inputs[1]
            known = const_of(other)
            if known is None:
                return False
            if np.size(known) > 1:
                return True
        elif user.op_type not in _UNARY:
            return False
        value = user.outputs[0]
    return False
