"""Integers as ONNX has them: the plugin saturates 8-bit sums where ONNX wraps, and reads uint32 as int32.

1. Sums and products of 8-bit integers are computed in int32, and cast back: that wraps.
2. uint32 is ordered as int32 with the highest bit turned over: (x ^ 2³¹) as a signed number.
3. The largest integers do not survive Relu, which is computed in float32; Max with 0 is exact.
4. Numbers without a sign are their own absolute value, their sign is 0 or 1, and so is what bool makes of them.
5. Comparisons of integers are made in float32, which has 24 bits: differences are exact, and 0 is 0 there too.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from edgec.graph.build import Builder
from edgec.graph.edit import Editor
from edgec.graph.model import const_of

_INT32 = int(ir.DataType.INT32)
_EIGHT = frozenset({ir.DataType.INT8, ir.DataType.UINT8})
_EXACT = 2**24
_TOP = np.asarray(-(2**31), np.int32)


def _kind(node: ir.Node) -> ir.DataType | None:
    first = node.inputs[0] if node.inputs else None
    return None if first is None else first.dtype


def wrapped(node: ir.Node, editor: Editor) -> bool:
    """Rule 1: Add, Sub, Mul, Neg, Abs."""
    kind = _kind(node)
    b = Builder(editor, node)
    if node.op_type == "Abs" and kind == ir.DataType.UINT32:  # rule 4
        b.done(b("Identity", node.inputs[0]))
        return True
    if kind not in _EIGHT or kind is None:
        return False
    wide = b(node.op_type, *(b("Cast", value, to=_INT32) for value in node.inputs))
    b.done(b("Cast", wide, to=int(kind)))
    return True


def compared(node: ir.Node, editor: Editor) -> bool:
    """Rules 2 and 5: comparisons, by differences from the smaller or the larger one."""
    kind = _kind(node)
    if kind not in _WIDE or any(_small(value) for value in node.inputs):
        return False
    b = Builder(editor, node)
    x, y = node.inputs[0], node.inputs[1]
    if kind == ir.DataType.UINT32:
        x, y = (b("BitwiseXor", b("Cast", value, to=_INT32), _TOP) for value in (x, y))
    zero = np.asarray(0, np.int32 if kind == ir.DataType.UINT32 else kind.numpy())
    chosen, same = _COMPARISONS[node.op_type]
    result = b("Equal", b("Sub", x if chosen is None else b(chosen, x, y), y), zero)
    b.done(result if same else b("Not", result))
    return True


#: Integers wide enough to lose digits in float32.
_WIDE = frozenset({ir.DataType.INT32, ir.DataType.INT64, ir.DataType.UINT32, ir.DataType.UINT64})
#: x ≥ y when the smaller is y, x > y unless the larger is y: which one, and whether it is to be the same.
_COMPARISONS: dict[str, tuple[str | None, bool]] = {
    "Equal": (None, True),
    "Greater": ("Max", False),
    "GreaterOrEqual": ("Min", True),
    "Less": ("Min", False),
    "LessOrEqual": ("Max", True),
}


def _small(value: ir.Value | None) -> bool:
    """A constant that float32 holds: rounding the other side cannot make it equal, or change the order."""
    known = const_of(value)
    return known is not None and bool(np.all(np.abs(known.astype(np.float64)) < _EXACT))


def ordered(node: ir.Node, editor: Editor) -> bool:
    """Rule 2: Min and Max."""
    if _kind(node) != ir.DataType.UINT32:
        return False
    b = Builder(editor, node)
    signed = [b("BitwiseXor", b("Cast", value, to=_INT32), _TOP) for value in node.inputs]
    b.done(b("Cast", b("BitwiseXor", b(node.op_type, *signed), _TOP), to=int(ir.DataType.UINT32)))
    return True


def rectified(node: ir.Node, editor: Editor) -> bool:
    """Rule 3: Relu."""
    kind = _kind(node)
    if kind is None or not kind.is_integer():
        return False
    b = Builder(editor, node)
    b.done(b("Max", node.inputs[0], np.asarray(0, kind.numpy())))
    return True


def without_sign(node: ir.Node, editor: Editor) -> bool:
    """Rule 4: Sign, and Cast to bool."""
    kind = _kind(node)
    to = node.outputs[0].dtype
    told = (node.op_type == "Sign" and kind == ir.DataType.UINT32) or (
        node.op_type == "Cast" and to == ir.DataType.BOOL and kind in (ir.DataType.UINT32, ir.DataType.INT32)
    )
    if not told or to is None or kind is None:
        return False
    b = Builder(editor, node)
    nonzero = b("Not", b("Equal", node.inputs[0], np.asarray(0, kind.numpy())))
    b.done(nonzero if to == ir.DataType.BOOL else b("Cast", nonzero, to=int(to)))
    return True
