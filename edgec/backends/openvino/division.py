"""Exact quotients where they are rounded: OpenVINO multiplies by the reciprocal, which is off by one bit at times.

q = x·(1/s) is corrected by the remainder, q + (x − q·s)/s. The product q·s is known exactly as p + e: each factor
is split into halves of 12 bits (f = h + l with h = 4097·f − (4097·f − f)), whose products are exact in float32.
Only quotients that a rounding or comparison reads are worth it.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from edgec.graph.build import Builder
from edgec.graph.edit import Editor
from edgec.graph.model import attr, const_of, static_shape
from edgec.passes.spread import spread

_FLOAT = int(ir.DataType.FLOAT)
_ROUNDINGS = frozenset(["Ceil", "Floor", "Round"])
#: What hands a quotient on to a rounding.
_BETWEEN = frozenset(["Add", "Clip", "Max", "Min", "Mul", "Sub"])
_HOPS = 3
_INTEGERS = {
    ir.DataType.INT8: (-128, 127),
    ir.DataType.UINT8: (0, 255),
    ir.DataType.INT16: (-32768, 32767),
    ir.DataType.UINT16: (0, 65535),
}


def divided(node: ir.Node, editor: Editor) -> bool:
    """Div in float32 whose quotient is rounded."""
    x = node.inputs[0]
    if x is None or x.dtype != ir.DataType.FLOAT or not _rounded(node.outputs[0], _HOPS):
        return False
    if const_of(x) is not None and const_of(node.inputs[1]) is not None:
        return False
    b = Builder(editor, node)
    b.done(exact_quotient(b, x, node.inputs[1]))
    return True


def _rounded(value: ir.Value, hops: int) -> bool:
    for user, index in value.uses():
        if user.op_type in _ROUNDINGS or (user.op_type == "QuantizeLinear" and index == 1):
            return True
        if user.op_type in _BETWEEN and hops and _rounded(user.outputs[0], hops - 1):
            return True
    return False


def _float(value: float) -> np.ndarray:
    return np.asarray(value, np.float32)


def exact_quotient(b: Builder, x: ir.Value, s: ir.Value | None) -> ir.Value:
    """x / s, rounded once; infinities and NaN as the plain quotient has them."""
    inverse = b("Reciprocal", s)
    q = b("Mul", x, inverse)
    product = b("Mul", q, s)
    (qh, ql), (sh, sl) = _halves(b, q), _halves(b, s)
    error = b("Sub", b("Mul", qh, sh), product)
    error = b("Add", error, b("Mul", qh, sl))
    error = b("Add", error, b("Mul", ql, sh))
    error = b("Add", error, b("Mul", ql, sl))
    rest = b("Sub", b("Sub", x, product), error)
    better = b("Add", q, b("Mul", rest, inverse))
    return b("Where", b("IsNaN", better), q, better)


def _halves(b: Builder, f: ir.Value | None) -> tuple[ir.Value, ir.Value]:
    wide = b("Mul", f, _float(4097.0))
    high = b("Sub", wide, b("Sub", wide, f))
    return high, b("Sub", f, high)


def quantized(node: ir.Node, editor: Editor) -> bool:
    """QuantizeLinear as arithmetic, saturate(round(x / s) + z): by a scale that is computed at run time, or to 16 bits.

    The plugin takes a FakeQuantize of 65536 levels into its integer kernels, which give something else (2026.4).
    """
    x, scale = node.inputs[0], node.inputs[1]
    zero = node.inputs[2] if len(node.inputs) > 2 else None
    kind = zero.dtype if zero is not None else ir.DataType(attr(node, "output_dtype", 0) or ir.DataType.UINT8)
    if x is None or scale is None or kind not in _INTEGERS or static_shape(x) is None:
        return False
    if const_of(scale) is not None and kind not in (ir.DataType.INT16, ir.DataType.UINT16):
        return False
    b = Builder(editor, node)
    axis, block = int(attr(node, "axis", 1)), int(attr(node, "block_size", 0))
    real = x if x.dtype == ir.DataType.FLOAT else b("Cast", x, to=_FLOAT)
    s = spread(b, scale, node, axis, block, _FLOAT)
    steps = b("Round", exact_quotient(b, real, s))
    if zero is not None:
        steps = b("Add", steps, spread(b, zero, node, axis, block, _FLOAT))
    low, high = _INTEGERS[kind]
    b.done(b("Cast", b("Clip", steps, _float(low), _float(high)), to=int(kind)))
    return True
