"""How many multiplications a node takes, from its shapes."""

from __future__ import annotations

import math

import onnx_ir as ir

from edgec.graph.model import attr, static_shape

#: Operators whose work is multiplications; any other's is counted by its output's elements.
PRODUCTS = ("Conv", "ConvTranspose", "Gemm", "MatMul")


def multiplications(node: ir.Node) -> int:
    """Multiplications of a convolution or matrix product, elements of anything else's output; 0 where unknown."""
    output = static_shape(node.outputs[0]) if node.outputs else None
    if output is None:
        return 0
    elements = math.prod(output)
    if len(node.inputs) < 2 or node.op_type not in PRODUCTS:
        return elements
    weight = static_shape(node.inputs[1])
    if not weight:
        return elements
    if node.op_type == "ConvTranspose":
        data = static_shape(node.inputs[0])
        return math.prod(data) * math.prod(weight[1:]) if data else elements
    if node.op_type == "Conv":
        return elements * math.prod(weight[1:])
    transposed = node.op_type == "Gemm" and attr(node, "transB", 0)
    return elements * (weight[-1] if transposed else weight[-2] if len(weight) > 1 else weight[0])
