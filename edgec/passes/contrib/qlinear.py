"""Operators on integers, as ONNX Runtime's static quantizer writes them, as operators between DQ and Q.

Backends read the pairs; what they compute is the same, rounding apart where a product of scales is rounded once there
and twice here. So the standard's own operators of this kind are taken apart only where all their parameters are
constants, as in every trained model; `decompose.integer` computes the others exactly.

Definitions: onnxruntime's ContribOperators.md.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx_ir as ir

from edgec.graph.build import Builder
from edgec.graph.model import attr, attrs, const_of, optional_input
from edgec.graph.traits import CONV_ATTRIBUTES

Result = tuple[ir.Value, ...] | None
_POOL = ("auto_pad", "ceil_mode", "count_include_pad", "kernel_shape", "pads", "strides")


def _real(b: Builder, node: ir.Node, first: int, axis: int | None = None) -> ir.Value:
    """DequantizeLinear of three inputs in a row: integers, scale, zero point; along an axis where there are several."""
    scale = const_of(optional_input(node, first + 1))
    several = axis is not None and (scale is None or scale.size > 1)
    return _pair(b, "DequantizeLinear", node, first, first + 1, axis if several else None)


def _stored(b: Builder, x: ir.Value, node: ir.Node, first: int) -> tuple[ir.Value, ...]:
    """QuantizeLinear by the scale and zero point at an input."""
    values = [_flat(b, optional_input(node, first)), _flat(b, optional_input(node, first + 1))]
    return (b("QuantizeLinear", x, *values),)


def _pair(b: Builder, op: str, node: ir.Node, data: int, scale: int, axis: int | None) -> ir.Value:
    parameters = [optional_input(node, scale), optional_input(node, scale + 1)]
    if axis is None:
        return b(op, node.inputs[data], *(_flat(b, p) for p in parameters))
    return b(op, node.inputs[data], *parameters, axis=axis)


def _flat(b: Builder, value: ir.Value | None) -> ir.Value | None:
    """A scalar where the one number is written as a list."""
    known = const_of(value)
    return b.constant(known.reshape(())) if known is not None and known.shape == (1,) else value


def _binary(op: str) -> Callable[[ir.Node, Builder], Result]:
    def rule(node: ir.Node, b: Builder) -> Result:
        return _stored(b, b(op, _real(b, node, 0), _real(b, node, 3)), node, 6)

    return rule


def _unary(op: str, *kept: str) -> Callable[[ir.Node, Builder], Result]:
    def rule(node: ir.Node, b: Builder) -> Result:
        if attr(node, "channels_last", 0):
            return None
        return _stored(b, b(op, _real(b, node, 0), **attrs(node, *kept)), node, 3)

    return rule


def softmax(node: ir.Node, b: Builder) -> Result:
    """Softmax along an axis; before opset 13 along all from the axis on, of which only the last one is read."""
    x, axis = node.inputs[0], int(attr(node, "axis", -1))
    if x is None or x.shape is None or (int(attr(node, "opset", 13)) < 13 and axis % len(x.shape) != len(x.shape) - 1):
        return None
    return _stored(b, b("Softmax", _real(b, node, 0), axis=axis), node, 3)


def concat(node: ir.Node, b: Builder) -> Result:
    """Parts that each have a scale of their own."""
    parts = [_real(b, node, first) for first in range(2, len(node.inputs), 3)]
    return _stored(b, b("Concat", *parts, axis=int(attr(node, "axis", 0))), node, 0)


def reduce_mean(node: ir.Node, b: Builder) -> Result:
    """The mean over axes that are an attribute."""
    axes = attr(node, "axes")
    over = b.ints(*axes) if axes else None
    return _stored(b, b("ReduceMean", _real(b, node, 0), over, keepdims=int(attr(node, "keepdims", 1))), node, 3)


def where(node: ir.Node, b: Builder) -> Result:
    """One or the other, each with a scale of its own."""
    return _stored(b, b("Where", node.inputs[0], _real(b, node, 1), _real(b, node, 4)), node, 7)


def _bias(b: Builder, value: ir.Value | None, left: ir.Value | None, right: ir.Value | None) -> ir.Value | None:
    """int32 in steps of both scales."""
    if value is None:
        return None
    one, other = const_of(left), const_of(right)
    assert one is not None and other is not None
    scale = (one.astype(np.float32).reshape(-1)[:1] * other.astype(np.float32)).reshape(-1)
    if scale.size == 1:
        return b("DequantizeLinear", value, scale.reshape(()))
    return b("DequantizeLinear", value, scale, axis=0)


def gemm(node: ir.Node, b: Builder) -> Result:
    """Gemm with an int32 bias; a float result where no output scale is given."""
    if any(const_of(optional_input(node, i)) is None for i in (1, 2, 4, 5)):
        return None
    columns = 0 if attr(node, "transB", 0) else 1
    bias = _bias(b, optional_input(node, 6), optional_input(node, 1), optional_input(node, 4))
    sides = (_real(b, node, 0), _real(b, node, 3, columns))
    made = b("Gemm", *sides, bias, **attrs(node, "alpha", "transA", "transB"))
    return (made,) if optional_input(node, 7) is None else _stored(b, made, node, 7)


def convolution(node: ir.Node, b: Builder) -> Result:
    """Conv with constant weights and an int32 bias."""
    if attr(node, "channels_last", 0) or any(const_of(optional_input(node, i)) is None for i in range(1, 8)):
        return None
    bias = _bias(b, optional_input(node, 8), node.inputs[1], node.inputs[4])
    made = b("Conv", _real(b, node, 0), _real(b, node, 3, 0), bias, **attrs(node, *CONV_ATTRIBUTES))
    return _stored(b, made, node, 6)


def product(node: ir.Node, b: Builder) -> Result:
    """MatMul with constant parameters, and constant weights."""
    if any(const_of(optional_input(node, i)) is None for i in range(1, 8)):
        return None
    weight = const_of(node.inputs[3])
    assert weight is not None
    made = b("MatMul", _real(b, node, 0), _real(b, node, 3, weight.ndim - 1))
    return _stored(b, made, node, 6)


def quantize(node: ir.Node, b: Builder) -> Result:
    """The standard's operator of that name, which now has 16 bits too."""
    return (b("QuantizeLinear", *node.inputs, **attrs(node, "axis", "block_size", "saturate")),)


def dequantize(node: ir.Node, b: Builder) -> Result:
    """The standard's operator of that name, which now has 16 bits too."""
    return (b("DequantizeLinear", *node.inputs, **attrs(node, "axis", "block_size")),)


#: Operators that move numbers, or choose among them, and so do the same to integers as to what these stand for.
_MOVES = (
    *("DepthToSpace", "Expand", "Flatten", "Gather", "MaxPool", "Reshape", "Slice", "SpaceToDepth", "Squeeze", "Tile"),
    *("Transpose", "Unsqueeze"),
)


def moved_integers(node: ir.Node, b: Builder) -> Result:
    """move(Q(x)) as Q(move(DQ(Q(x)))), so that the move stands between a pair as everything else does"""
    x = node.inputs[0]
    source = x.producer() if x is not None else None
    if source is None or source.op_type != "QuantizeLinear" or "axis" in source.attributes:
        return None
    real = b("DequantizeLinear", x, *source.inputs[1:])
    return (
        b(
            "QuantizeLinear",
            b(node.op_type, real, *node.inputs[1:], **attrs(node, *node.attributes)),
            *source.inputs[1:],
        ),
    )


MOVES = dict.fromkeys(_MOVES, moved_integers)
QLINEAR = {
    "DequantizeLinear": dequantize,
    "QGemm": gemm,
    "QLinearAdd": _binary("Add"),
    "QLinearAveragePool": _unary("AveragePool", *_POOL),
    "QLinearConcat": concat,
    "QLinearConv": convolution,
    "QLinearGlobalAveragePool": _unary("GlobalAveragePool"),
    "QLinearLeakyRelu": _unary("LeakyRelu", "alpha"),
    "QLinearMul": _binary("Mul"),
    "QLinearReduceMean": reduce_mean,
    "QLinearSigmoid": _unary("Sigmoid"),
    "QLinearSoftmax": softmax,
    "QLinearWhere": where,
    "QuantizeLinear": quantize,
}
#: The ones that the standard has.
STANDARD_QLINEAR = {"QLinearConv": convolution, "QLinearMatMul": product}
