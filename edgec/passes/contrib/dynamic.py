"""Products that quantize what they read at run time, as products of floats with the weights' integers made real.

ONNX Runtime's dynamic quantizer writes DynamicQuantizeLinear → MatMulInteger → Cast → Mul by both scales, or one
operator for all of it. The integers of the activations follow from one run's values and are no property of the
model; a target quantizes at run time with its own kernels, or in advance.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from edgec.graph.build import Builder
from edgec.graph.edit import Editor, sole_consumer
from edgec.graph.model import Model, attr, attrs, const_of, optional_input
from edgec.graph.traits import CONV_ATTRIBUTES
from edgec.passes.shapes import infer_node
from edgec.tensors import Array


def _real(weight: Array, scale: Array, zero: Array | None, axis: int) -> Array | None:
    """(integers − zero point) · scale, along an axis where there are several; None where they fit no axis."""
    shape = [1] * weight.ndim
    parts = []
    for part in (scale, np.zeros(1) if zero is None else zero):
        flat = part.reshape(-1)
        if flat.size not in (1, weight.shape[axis]):
            return None
        along = list(shape)
        along[axis] = flat.size
        parts.append(flat.reshape(along))
    return np.asarray((weight.astype(np.float32) - parts[1].astype(np.float32)) * parts[0].astype(np.float32))


def undo_integer_products(model: Model, editor: Editor) -> int:
    """Replace the four nodes by one, in place, everywhere; how many products were replaced.

    Tables of 8-bit rows, which are made real after the rows are looked up, become tables of real numbers: the model
    is then a float one all through.
    """
    opsets = dict(model.ir.opset_imports)
    count = 0
    for graph in list(model.ir.graphs()):
        for node in list(graph):
            if node.domain == "" and node.op_type in ("ConvInteger", "MatMulInteger"):
                count += _undo(node, editor, opsets)
    if count:
        for graph in list(model.ir.graphs()):
            for node in list(graph):
                if node.domain == "" and node.op_type == "DequantizeLinear":
                    _real_rows(node, editor, opsets)
    return count


def _real_rows(node: ir.Node, editor: Editor, opsets: dict[str, int]) -> None:
    """DequantizeLinear(Gather(integers, rows)) as Gather(numbers, rows)."""
    source = node.inputs[0].producer() if node.inputs[0] is not None else None
    table = const_of(source.inputs[0]) if source is not None and source.op_type == "Gather" else None
    scale, zero = const_of(node.inputs[1]), const_of(optional_input(node, 2))
    if source is None or table is None or scale is None or scale.size != 1:
        return
    if (optional_input(node, 2) is not None and zero is None) or (zero is not None and zero.size != 1):
        return
    real = _real(table, scale, zero, 0)
    b = Builder(editor, node)
    made = b("Gather", real, source.inputs[1], axis=int(attr(source, "axis", 0)))
    for new in b.nodes:
        infer_node(new, opsets)
    b.done(made)


def _undo(node: ir.Node, editor: Editor, opsets: dict[str, int]) -> bool:
    source = node.inputs[0].producer() if node.inputs[0] is not None else None
    if source is None or source.op_type != "DynamicQuantizeLinear" or optional_input(node, 2) is not source.outputs[2]:
        return False
    cast = sole_consumer(node.outputs[0])
    scaled = sole_consumer(cast.outputs[0]) if cast is not None and cast.op_type == "Cast" else None
    if cast is None or scaled is None or scaled.op_type != "Mul":
        return False
    other = next((v for v in scaled.inputs if v is not cast.outputs[0]), None)
    both = other.producer() if other is not None else None
    if both is None or both.op_type != "Mul" or source.outputs[1] not in both.inputs:
        return False
    scale = next((const_of(v) for v in both.inputs if v is not source.outputs[1]), None)
    weight, zero = const_of(node.inputs[1]), const_of(optional_input(node, 3))
    if scale is None or weight is None or (optional_input(node, 3) is not None and zero is None):
        return False
    convolves = node.op_type == "ConvInteger"
    real = _real(weight, scale, zero, 0 if convolves else weight.ndim - 1)
    if real is None:
        return False
    b = Builder(editor, scaled)
    made = b("Conv" if convolves else "MatMul", source.inputs[0], real, **attrs(node, *CONV_ATTRIBUTES))
    for new in b.nodes:
        infer_node(new, opsets)
    b.done(made)
    return True


def dynamic_matmul(node: ir.Node, b: Builder) -> tuple[ir.Value, ...] | None:
    """a · b's numbers + bias"""
    weight, scale = const_of(node.inputs[1]), const_of(node.inputs[2])
    return _product(b, node.inputs[0], weight, scale, node, (3, 4))


def matmul_to_float(node: ir.Node, b: Builder) -> tuple[ir.Value, ...] | None:
    """(a − zero point) · scale times b's numbers + bias"""
    a, right, a_scale, b_scale = node.inputs[:4]
    left = b("DequantizeLinear", a, a_scale, optional_input(node, 4))
    return _product(b, left, const_of(right), const_of(b_scale), node, (5, 6))


def _product(
    b: Builder,
    left: ir.Value | None,
    weight: Array | None,
    scale: Array | None,
    node: ir.Node,
    optional: tuple[int, int],
) -> tuple[ir.Value, ...] | None:
    zero, bias = (optional_input(node, i) for i in optional)
    if weight is None or scale is None or (zero is not None and const_of(zero) is None):
        return None
    real = _real(weight, scale, const_of(zero), weight.ndim - 1)
    if real is None:
        return None
    made = b("MatMul", left, real)
    return (made if bias is None else b("Add", made, bias),)


def dynamic_lstm(node: ir.Node, b: Builder) -> tuple[ir.Value, ...] | None:
    """LSTM; weights are [directions, inputs, 4 · hidden] here, the other way round than in the standard's."""
    made = []
    for weight, scale, zero in ((1, 8, 9), (2, 10, 11)):
        values, steps, offsets = (const_of(optional_input(node, i)) for i in (weight, scale, zero))
        if values is None or steps is None:
            return None
        shape = (values.shape[0], 1, -1)
        real = values.astype(np.float32)
        if offsets is not None:
            real = real - offsets.astype(np.float32).reshape(shape)
        real = real * steps.astype(np.float32).reshape(shape)
        made.append(b.constant(np.ascontiguousarray(real.transpose(0, 2, 1))))
    kept = ("activation_alpha", "activation_beta", "activations", "clip", "direction", "hidden_size", "input_forget")
    inputs = [node.inputs[0], *made, *(optional_input(node, i) for i in range(3, 8))]
    return b.several("LSTM", len(node.outputs), *inputs, **attrs(node, *kept))


DYNAMIC = {
    "DynamicQuantizeLSTM": dynamic_lstm,
    "DynamicQuantizeMatMul": dynamic_matmul,
    "MatMulIntegerToFloat": matmul_to_float,
}
