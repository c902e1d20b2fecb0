"""Widen the constants behind a reduction to its shape: the CPU plugin, which fuses them, reads beside narrower ones.

Seen in OpenVINO 2026.4 where a reduction of three dimensions is followed, perhaps after operators with one number, by
a constant that varies along the second alone: `ReduceSum [2, 5, 1] → Sub [1, 5, 1]` gives garbage. A constant as large
as the result is read right, so each one of several numbers becomes that, with its DequantizeLinear where it has one.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from edgec.graph.build import Builder
from edgec.graph.edit import Editor, sole_consumer
from edgec.graph.model import attr, const_of, static_shape

_BINARY = frozenset({"Add", "Div", "Max", "Min", "Mul", "PRelu", "Pow", "Sub"})
_UNARY = frozenset(
    [
        "Abs",
        "Clip",
        "DequantizeLinear",
        "Elu",
        "Exp",
        "LeakyRelu",
        "Log",
        "Neg",
        "QuantizeLinear",
        "Relu",
        "Sigmoid",
        "Sqrt",
        "Tanh",
    ]
)


def widened(node: ir.Node, editor: Editor) -> bool:
    """Every constant that the plugin might fuse into this reduction, in full; True when one was narrower."""
    value, done = node.outputs[0], False
    shape = static_shape(value)
    while shape and (user := sole_consumer(value)) is not None and static_shape(user.outputs[0]) == shape:
        if user.op_type in _BINARY and len(user.inputs) == 2:
            index = 1 if user.inputs[0] is value else 0
            narrow = _constant(user.inputs[index])
            if narrow is None:
                break
            if narrow.size > 1 and narrow.shape != shape:
                _widen(user, index, shape, editor)
                done = True
        elif user.op_type not in _UNARY:
            break
        value = user.outputs[0]
    return done


def _constant(value: ir.Value | None) -> np.ndarray | None:
    """What a value holds, as it is stored."""
    producer = None if value is None else value.producer()
    if producer is not None and producer.op_type == "DequantizeLinear":
        return const_of(producer.inputs[0])
    return const_of(value)


def _widen(user: ir.Node, index: int, shape: tuple[int, ...], editor: Editor) -> None:
    value = user.inputs[index]
    assert value is not None
    stored = _constant(value)
    assert stored is not None
    full = editor.const(np.broadcast_to(stored, shape), f"{value.name}/full")
    old = value.producer()
    if old is None or old.op_type != "DequantizeLinear":
        user.replace_input_with(index, full)
        return
    attributes = {name: attr(old, name) for name in old.attributes}
    scale = old.inputs[1]
    if scale is not None and static_shape(scale):  # the axis counts from the front
        attributes["axis"] = int(attr(old, "axis", 1)) % stored.ndim + len(shape) - stored.ndim
    b = Builder(editor, old)
    made = b("DequantizeLinear", full, *old.inputs[1:], **attributes)
    made.type, made.shape = value.type, ir.Shape(shape)
    container = user.graph
    assert container is not None
    container.insert_before(user, b.nodes)
    user.replace_input_with(index, made)
