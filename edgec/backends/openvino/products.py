"""Keep the CPU plugin from compiling int8 products of matrices in a row as one piece: it gives garbage.

Seen in OpenVINO 2026.4: with one thread, or several rows, `MatMul → FakeQuantize → MatMul` on matrices with nothing
else between the two, as layers of low rank are, answers in the billions. A product of three axes is not affected.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from edgec.graph.build import Builder
from edgec.graph.edit import Editor
from edgec.graph.model import attr, const_of, static_shape

_PRODUCTS = frozenset({"Gemm", "MatMul"})
_ROUNDS = frozenset({"DequantizeLinear", "QuantizeLinear"})


def apart(node: ir.Node, editor: Editor) -> bool:
    """A product of matrices that another one reads, in three axes; True where it was one."""
    data, result = node.inputs[0], static_shape(node.outputs[0])
    shape = static_shape(data) if data is not None else None
    if data is None or shape is None or result is None or len(shape) != 2 or len(result) != 2:
        return False
    b = Builder(editor, node)
    given = _factor(node, b) if _multiplied(node.outputs[0]) else None
    if given is None:
        return False
    product = b("MatMul", b("Reshape", data, b.ints(1, *shape)), given)
    b.done(b("Reshape", product, b.ints(*result)))
    return True


def _factor(node: ir.Node, b: Builder) -> ir.Value | None:
    """By what rows are multiplied; None for a Gemm that is more than a product, or whose factor is no constant."""
    if node.op_type == "MatMul":
        return node.inputs[1]
    weight, scale = const_of(node.inputs[1]), attr(node, "alpha", 1.0)
    plain = (len(node.inputs) < 3 or node.inputs[2] is None) and not attr(node, "transA", 0) and scale == 1.0
    if weight is None or not plain:
        return None
    return b.constant(np.ascontiguousarray(weight.T)) if attr(node, "transB", 0) else node.inputs[1]


def _multiplied(value: ir.Value) -> bool:
    """Whether a product reads a value, as it is or rounded."""
    return any(
        (user.op_type in _PRODUCTS and index == 0) or (user.op_type in _ROUNDS and _multiplied(user.outputs[0]))
        for user, index in value.uses()
    )
