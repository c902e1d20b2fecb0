"""Keep the CPU plugin from taking what varies along an axis into the reduction before it: it reads beside it.

Seen in OpenVINO 2026.4: a reduction takes in the operators behind it, and FakeQuantize with the products and sums
before that, and finds the channels of their constants by an axis of its own input. `ReduceSum [2, 5, 1] → Sub
[1, 5, 1]` gives garbage, and so does a batch normalisation that is quantized behind a mean over tokens.
A reshape in between prevents it, if it changes the shape: so the reduction keeps its axes, what follows works without
axes of one element and on constants in full, and the shape is restored behind it.
A product with what varies along an axis before a reduction that drops axes ends the same way, as the plugin moves it
behind the reduction (a written-out RMSNorm, its mean over tokens, a quantized value: up to 300 steps off). There it is
enough to keep the axes. A maximum or minimum of floats that is quantized is taken of numbers in eight bits without a
sign (down to 0 dB): a reshape has to be in between here too.
"""

from __future__ import annotations

from collections.abc import Sequence

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


def fenced(node: ir.Node, editor: Editor) -> bool:
    """A reduction whose followers the plugin cannot take in; True where one of them varies along an axis."""
    shape = static_shape(node.outputs[0])
    if not shape:
        return False
    chain, varies = _followers(node.outputs[0], shape)
    inner = tuple(d for d in shape if d > 1)
    dropped, signed = not attr(node, "keepdims", 1), node.op_type in ("ReduceMax", "ReduceMin")
    if signed and not dropped and not varies:
        return _in_more_axes(node, editor, shape)
    if not varies or not inner:
        return dropped and (signed or _scaled_before(node)) and _keeping_axes(node, editor, shape)
    b = Builder(editor, chain[-1])
    attributes = {name: attr(node, name) for name in node.attributes}
    if not node.op_type.startswith("Global"):
        attributes["keepdims"] = 1
    value = b("Reshape", b(node.op_type, *node.inputs, **attributes), b.ints(*inner))
    before = node.outputs[0]
    for user in chain:
        inputs = [value if v is before else _fitting(b, v, user, shape, inner) for v in user.inputs]
        value = b(user.op_type, *inputs, **{name: attr(user, name) for name in user.attributes})
        before = user.outputs[0]
    b.done(value if inner == shape else b("Reshape", value, b.ints(*shape)))
    return True


def _in_more_axes(node: ir.Node, editor: Editor, shape: Sequence[int]) -> bool:
    """A product with constants that alone reads the reduction works in one axis more: so a reshape is in between."""
    user = sole_consumer(node.outputs[0])
    if user is None or user.op_type != "MatMul" or user.inputs[0] is not node.outputs[0]:
        return False
    weight, result = _stored(user.inputs[1]), static_shape(user.outputs[0])
    if weight is None or weight.ndim != 2 or result is None:
        return False
    b = Builder(editor, user)
    product = b("MatMul", b("Reshape", node.outputs[0], b.ints(1, *shape)), user.inputs[1])
    b.done(b("Reshape", product, b.ints(*result)))
    return True


def _scaled_before(node: ir.Node) -> bool:
    """Whether it is of a product with a constant of several numbers."""
    product = None if node.inputs[0] is None else node.inputs[0].producer()
    if product is None or product.op_type not in ("Div", "Mul"):
        return False
    return any(stored is not None and stored.size > 1 for stored in map(_stored, product.inputs))


def _keeping_axes(node: ir.Node, editor: Editor, shape: Sequence[int]) -> bool:
    b = Builder(editor, node)
    kept = {**{name: attr(node, name) for name in node.attributes}, "keepdims": 1}
    b.done(b("Reshape", b(node.op_type, *node.inputs, **kept), b.ints(*shape)))
    return True


def _followers(value: ir.Value, shape: Sequence[int]) -> tuple[list[ir.Node], bool]:
    """What the plugin might take in, in order, and whether anything of it varies along an axis."""
    chain: list[ir.Node] = []
    varies = False
    while (user := sole_consumer(value)) is not None and static_shape(user.outputs[0]) == shape:
        if user.op_type in _BINARY and len(user.inputs) == 2:
            constant = _stored(user.inputs[1 if user.inputs[0] is value else 0])
            if constant is None:
                break
            varies |= constant.size > 1
        elif user.op_type not in _UNARY or _varies(user):
            break
        chain.append(user)
        value = user.outputs[0]
    return chain, varies


def _varies(user: ir.Node) -> bool:
    """Whether it quantizes each channel its own way."""
    return user.op_type in ("DequantizeLinear", "QuantizeLinear") and bool(static_shape(user.inputs[1]))


def _stored(value: ir.Value | None) -> np.ndarray | None:
    """What a value holds, as it is stored."""
    producer = None if value is None else value.producer()
    if producer is not None and producer.op_type == "DequantizeLinear":
        return const_of(producer.inputs[0])
    return const_of(value)


def _fitting(
    b: Builder, value: ir.Value | None, user: ir.Node, shape: Sequence[int], inner: Sequence[int]
) -> ir.Value | None:
    """An operand as large as `shape`, and without its axes of one element."""
    stored = _stored(value)
    if value is None or stored is None or user.op_type not in _BINARY:
        return value
    old = value.producer()
    if old is None or old.op_type != "DequantizeLinear":
        return b.constant(stored.reshape(()) if stored.size == 1 else np.broadcast_to(stored, shape).reshape(inner))
    attributes = {name: attr(old, name) for name in old.attributes}
    scale = old.inputs[1]
    if scale is not None and static_shape(scale):  # the axis counts from the front
        attributes["axis"] = int(attr(old, "axis", 1)) % stored.ndim + len(shape) - stored.ndim
    full = b("DequantizeLinear", b.constant(np.broadcast_to(stored, shape)), *old.inputs[1:], **attributes)
    return b("Reshape", full, b.ints(*inner))
