"""Dequantize constants once, where the graph would do it in every run: the same floats, to the bit.

ONNX Runtime computes float(q − zero_point) · scale in float32, and so does this. What numpy may compute otherwise
(blocks, narrow or float integers, other float types) stays in the graph. So does everything where the floats would
take more than `MOST_BYTES`: a large model's weights are dequantized as they are needed.
A MatMul by a constant adds up in another order than one by a computed weight, so its last bits may change; the float
model multiplies by constants, so the two now differ by quantization alone.
"""

from __future__ import annotations

import math

import numpy as np
import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedNodesPass

from edgec.graph.model import attr, const_of, static_shape
from edgec.tensors import Array

#: The floats of one model may take this much.
MOST_BYTES = 2**30

_T = ir.DataType
_EXACT = frozenset(np.dtype(name) for name in ("int8", "uint8", "int16", "uint16", "int32"))


def dequantize_constants(model: ir.Model) -> None:
    """Replace each DequantizeLinear of a constant, and each float16 constant's Cast to float, by its result."""
    found = [node for node in model.graph if _is_exact(node)]
    if sum(4 * math.prod(static_shape(node.inputs[0]) or ()) for node in found) > MOST_BYTES:
        return
    for node in found:
        old = node.outputs[0]
        tensor = ir.Tensor(_floats(node), name=f"{old.name}/folded")
        new = ir.Value(name=tensor.name, shape=tensor.shape, type=ir.TensorType(tensor.dtype), const_value=tensor)
        model.graph.register_initializer(new)
        ir.convenience.replace_all_uses_with(old, new)
    if found:
        RemoveUnusedNodesPass()(model)


def _is_exact(node: ir.Node) -> bool:
    """What `_floats` computes as ONNX Runtime does. A value that is fetched keeps its node."""
    data, *parameters = (const_of(value) for value in node.inputs) if node.inputs else (None,)
    if node.domain != "" or data is None or node.outputs[0].is_graph_output():
        return False
    if node.op_type == "Cast":
        return data.dtype == np.float16 and attr(node, "to") == _T.FLOAT
    if node.op_type != "DequantizeLinear" or data.dtype not in _EXACT or attr(node, "block_size", 0):
        return False
    scale, zero_point = parameters[0], parameters[1] if len(node.inputs) > 2 else np.zeros(())
    if scale is None or zero_point is None or scale.ndim > 1 or scale.dtype != np.float32:
        return False
    # A difference of 32 bits may not fit into as many.
    return attr(node, "output_dtype", 0) in (0, _T.FLOAT) and (data.dtype != np.int32 or not np.any(zero_point))


def _floats(node: ir.Node) -> Array:
    data, *parameters = (const_of(value) for value in node.inputs)
    assert data is not None
    floats = data.astype(np.float32)  # up to 16 bits are exact, and so is the difference of two
    if parameters:
        axis = attr(node, "axis", 1)
        scale, *zero_point = (_along(p, floats, axis) for p in parameters if p is not None)
        for offset in zero_point:
            floats -= offset
        floats *= scale
    return floats


def _along(parameter: Array, data: Array, axis: int) -> Array:
    """A parameter shaped to broadcast with the data: one number, or one a slice of the axis."""
    shape = [1] * data.ndim
    if parameter.size > 1:
        shape[axis] = -1
    return parameter.astype(np.float32).reshape(shape)
