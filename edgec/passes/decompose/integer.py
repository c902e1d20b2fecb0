"""Integer operators as exact arithmetic: sums of products in int32 or float32, then one QuantizeLinear.

1. float32 holds every integer up to 2²⁴: sums that stay below are exact in float32. A matrix product is cut into
   pieces of 256 products each, whose sums do, and the pieces are added in int32.
2. The product of scales is applied to the exact sum, so that rounding happens once, as ONNX defines it.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from edgec.graph.build import Builder
from edgec.graph.edit import Editor
from edgec.graph.model import attrs, const_of, optional_input, static_shape
from edgec.graph.traits import CONV_ATTRIBUTES

_EXACT = 1 << 24
#: 256 · 255 · 255 < 2²⁴
_PIECE = 256
_FLOAT, _INT32 = int(ir.DataType.FLOAT), int(ir.DataType.INT32)


def _centred(b: Builder, x: ir.Value | None, zero: ir.Value | None, *, rows: bool = False) -> ir.Value:
    """x − zero point in int32; `rows`: a vector of zero points has one for each row."""
    value = b("Cast", x, to=_INT32)
    if zero is None:
        return value
    shape = static_shape(zero) or ()
    offset = b("Cast", zero, to=_INT32)
    if rows and len(shape) == 1 and shape[0] > 1:
        offset = b("Reshape", offset, b.ints(-1, 1))
    return b("Sub", value, offset)


def matmul_integer(node: ir.Node, editor: Editor) -> bool:
    """(A − a) · (B − b) in int32"""
    if static_shape(node.inputs[0]) is None:
        return False
    b = Builder(editor, node)
    left = _centred(b, node.inputs[0], optional_input(node, 2), rows=True)
    right = _centred(b, node.inputs[1], optional_input(node, 3))
    b.done(_product(b, node, left, right))
    return True


def _product(b: Builder, node: ir.Node, left: ir.Value, right: ir.Value) -> ir.Value:
    """left · right in int32, exactly (rule 1)."""
    length = (static_shape(node.inputs[0]) or (0,))[-1]
    a, w = b("Cast", left, to=_FLOAT), b("Cast", right, to=_FLOAT)
    if length <= _PIECE:
        return b("Cast", b("MatMul", a, w), to=_INT32)
    right_axis = -2 if len(static_shape(_right(node)) or (0, 0)) > 1 else 0
    total = None
    for begin in range(0, length, _PIECE):
        end = b.ints(min(begin + _PIECE, length))
        start, last = b.ints(begin), b.ints(-1)
        part = b("MatMul", b("Slice", a, start, end, last), b("Slice", w, start, end, b.ints(right_axis)))
        part = b("Cast", part, to=_INT32)
        total = part if total is None else b("Add", total, part)
    assert total is not None
    return total


def _right(node: ir.Node) -> ir.Value | None:
    return node.inputs[1 if node.op_type == "MatMulInteger" else 3]


def qlinear_matmul(node: ir.Node, editor: Editor) -> bool:
    """QuantizeLinear((A − a) · (B − b) · (sₐ·s_b))"""
    x, x_scale, x_zero, w, w_scale, w_zero, y_scale, y_zero = node.inputs[:8]
    if static_shape(x) is None:
        return False
    b = Builder(editor, node)
    total = _product(b, node, _centred(b, x, x_zero, rows=True), _centred(b, w, w_zero))
    scale = b("Mul", _column(b, x_scale), b("Cast", w_scale, to=_FLOAT))
    real = b("Mul", b("Cast", total, to=_FLOAT), scale)
    b.done(b("QuantizeLinear", real, b("Cast", y_scale, to=_FLOAT), y_zero))
    return True


def _column(b: Builder, scale: ir.Value | None) -> ir.Value:
    shape = (static_shape(scale) if scale is not None else None) or ()
    real = b("Cast", scale, to=_FLOAT)
    return b("Reshape", real, b.ints(-1, 1)) if len(shape) == 1 and shape[0] > 1 else real


def conv_integer(node: ir.Node, editor: Editor) -> bool:
    """Conv(X − x, W − w), where float32 holds every sum (rule 1)"""
    x, w, x_zero, w_zero = node.inputs[0], node.inputs[1], optional_input(node, 2), optional_input(node, 3)
    if not _exact(w, w_zero, 0):
        return False
    b = Builder(editor, node)
    b.done(b("Cast", _convolution(b, node, x, w, x_zero, w_zero), to=_INT32))
    return True


def qlinear_conv(node: ir.Node, editor: Editor) -> bool:
    """QuantizeLinear((Conv(X − x, W − w) + B) · (sₓ·s_w)), where float32 holds every sum (rule 1)"""
    x, x_scale, x_zero, w, w_scale, w_zero, y_scale, y_zero = node.inputs[:8]
    bias = optional_input(node, 8)
    largest = const_of(bias) if bias is not None else None
    if bias is not None and largest is None:
        return False
    if not _exact(w, w_zero, 0 if largest is None else int(np.abs(largest.astype(np.int64)).max(initial=0))):
        return False
    rank = len(static_shape(x) or ())
    b = Builder(editor, node)
    total = _convolution(b, node, x, w, x_zero, w_zero, None if bias is None else b("Cast", bias, to=_FLOAT))
    scale = b("Mul", x_scale, w_scale)
    if (static_shape(w_scale) or ()) not in ((), (1,)):
        scale = b("Reshape", scale, b.ints(-1, *[1] * (rank - 2)))
    b.done(b("QuantizeLinear", b("Mul", total, scale), y_scale, y_zero))
    return True


def _convolution(
    b: Builder,
    node: ir.Node,
    x: ir.Value | None,
    w: ir.Value | None,
    x_zero: ir.Value | None,
    w_zero: ir.Value | None,
    bias: ir.Value | None = None,
) -> ir.Value:
    centred = b("Cast", _centred(b, x, x_zero), to=_FLOAT)
    zeros = static_shape(w_zero) if w_zero is not None else None
    if zeros and zeros[0] > 1:  # one for each output channel
        shape = static_shape(w) or ()
        w_zero = b("Reshape", w_zero, b.ints(-1, *[1] * (len(shape) - 1)))
    weights = b("Cast", _centred(b, w, w_zero), to=_FLOAT)
    inputs = [centred, weights] if bias is None else [centred, weights, bias]
    return b("Conv", *inputs, **attrs(node, *CONV_ATTRIBUTES))


def _exact(w: ir.Value | None, zero: ir.Value | None, bias: int) -> bool:
    """Whether no sum can leave the integers that float32 holds."""
    shape = static_shape(w)
    if w is None or shape is None:
        return False
    weights, offset = const_of(w), const_of(zero) if zero is not None else np.zeros((), np.int64)
    if weights is None or offset is None:
        return int(np.prod(shape[1:])) * 255 * 255 + bias < _EXACT
    offset = offset.astype(np.int64).reshape(-1, *[1] * (len(shape) - 1))
    sums = np.abs(weights.astype(np.int64) - offset).sum(axis=tuple(range(1, len(shape))))
    return int(sums.max(initial=0)) * 255 + bias < _EXACT
