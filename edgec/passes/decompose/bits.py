"""Integer operators by their bits, and remainders, as arithmetic that wraps nowhere by chance.

Two's complement by hand: v of n bits is ((v & (2ⁿ − 1)) ^ 2ⁿ⁻¹) − 2ⁿ⁻¹.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from edgec.graph.build import Builder
from edgec.graph.edit import Editor
from edgec.graph.model import attr, static_shape

_INT32 = int(ir.DataType.INT32)
_SIGNED = {ir.DataType.INT8: 8, ir.DataType.INT16: 16, ir.DataType.INT32: 32}
_UNSIGNED = {ir.DataType.UINT8: 8, ir.DataType.UINT16: 16}


def _int(value: int) -> np.ndarray:
    return np.asarray(value, np.int32)


def _wrapped(b: Builder, value: ir.Value, bits: int) -> ir.Value:
    """The low bits of an int32 as a signed number of so many bits."""
    if bits == 32:
        return value
    low = b("BitwiseAnd", value, _int((1 << bits) - 1))
    return b("Sub", b("BitwiseXor", low, _int(1 << (bits - 1))), _int(1 << (bits - 1)))


def bit_shift(node: ir.Node, editor: Editor) -> bool:
    """Of signed numbers: · 2ˢ or ⌊/ 2ˢ⌋; a shift below 0 or beyond the width leaves zeros, or signs to the right."""
    x = node.inputs[0]
    bits = _SIGNED.get(x.dtype) if x is not None and x.dtype is not None else None
    if x is None or x.dtype is None or bits is None:
        return False
    b, kind = Builder(editor, node), int(x.dtype.value)
    value, shift = b("Cast", x, to=_INT32), b("Cast", node.inputs[1], to=_INT32)
    known = b("Equal", b("Min", b("Max", shift, _int(0)), _int(bits - 1)), shift)
    shift = b("Where", known, shift, _int(0))
    powers = np.asarray([1 << s if s < 31 else -(1 << 31) for s in range(32)], np.int32)
    if attr(node, "direction") == "LEFT":
        moved = b("Mul", value, b("Gather", powers, shift))
        moved = b("Where", known, _wrapped(b, moved, bits), _int(0))
    else:
        negative = b("Less", value, _int(0))
        signs = b("Where", negative, _int(-1), _int(0))
        size = b("BitwiseXor", value, signs)  # what is left when the sign is taken off: ~v or v, both ≥ 0
        # Runtimes divide int32 in float32: each half has few enough digits to be exact there.
        low, by = b("BitwiseAnd", size, _int(0xFFFF)), b("Gather", powers, shift)
        size = b("Add", b("Div", b("Sub", size, low), by), b("Div", low, by))
        moved = b("Where", known, b("BitwiseXor", size, signs), signs)
    b.done(b("Cast", moved, to=kind))
    return True


def bit_cast(node: ir.Node, editor: Editor) -> bool:
    """Among integers of the same width up to 16 bits: the same number, or the one that the sign bit makes of it."""
    x = node.inputs[0]
    if x is None or x.dtype is None:
        return False
    before, after = x.dtype, ir.DataType(attr(node, "to"))
    b = Builder(editor, node)
    if before == after:
        b.done(b("Identity", x))
        return True
    if {before, after} == {ir.DataType.BOOL, ir.DataType.UINT8} and before == ir.DataType.BOOL:
        b.done(b("Cast", x, to=int(after)))
        return True
    if {before, after} == {ir.DataType.INT32, ir.DataType.UINT32}:
        b.done(b("Cast", x, to=int(after)))  # of the same width: every runtime keeps the bits
        return True
    if before in _UNSIGNED and _SIGNED.get(after) == _UNSIGNED[before]:
        b.done(b("Cast", _wrapped(b, b("Cast", x, to=_INT32), _UNSIGNED[before]), to=int(after)))
        return True
    if before in _SIGNED and _UNSIGNED.get(after) == _SIGNED[before]:
        low = b("BitwiseAnd", b("Cast", x, to=_INT32), _int((1 << _SIGNED[before]) - 1))
        b.done(b("Cast", low, to=int(after)))
        return True
    return False


def modulo(node: ir.Node, editor: Editor) -> bool:
    """Of floats, with the divisor's sign: fmod, plus the divisor where the signs differ."""
    x, y = node.inputs[0], node.inputs[1]
    if x is None or x.dtype is None or not x.dtype.is_floating_point() or attr(node, "fmod", 0):
        return False
    b = Builder(editor, node)
    rest = b("Where", b("IsInf", y), x, b("Mod", x, y, fmod=1))
    differ = b("Less", b("Mul", b("Sign", rest), b("Sign", y)), 0.0)
    b.done(b("Where", differ, b("Add", rest, y), rest))
    return True


def pad_wrap(node: ir.Node, editor: Editor) -> bool:
    """mode=wrap: along each axis the elements at (i − begin) mod size."""
    x, shape, target = node.inputs[0], static_shape(node.inputs[0]), static_shape(node.outputs[0])
    if attr(node, "mode", "constant") != "wrap" or shape is None or target is None or 0 in shape or x is None:
        return False
    given = node.inputs[3] if len(node.inputs) > 3 else None
    if given is not None:
        return False
    b, y = Builder(editor, node), x
    pads = b("Cast", node.inputs[1], to=_INT32)
    for axis, (before, after) in enumerate(zip(shape, target, strict=True)):
        # also where the size stays: a begin of −k with an end of k turns the axis round
        at = b("Sub", np.arange(after, dtype=np.int32), b("Gather", pads, np.asarray(axis, np.int64)))
        y = b("Gather", y, b("Cast", b("Mod", at, _int(before)), to=int(ir.DataType.INT64)), axis=axis)
    b.done(y)
    return True


def round_to_bfloat16(node: ir.Node, editor: Editor) -> bool:
    """A Cast to bfloat16 as a float32 that has the same value: c = 65537·x, y = c − (c − x) keeps 8 bits of 24.

    Veltkamp's split; the result is bfloat16's own rounding, ties to even, for every normal number. Large numbers are
    made smaller first, so that c stays finite, and what is not finite stays. Below 2⁻¹²⁶ the digits are kept.
    """
    x = node.inputs[0]
    if int(attr(node, "to", 0)) != int(ir.DataType.BFLOAT16) or x is None or x.dtype != ir.DataType.FLOAT:
        return False
    b = Builder(editor, node)
    size = b("Abs", x)
    large = b("Greater", size, 2.0**64)
    v = b("Mul", x, b("Where", large, 2.0**-64, 1.0))
    c = b("Mul", v, 65537.0)
    kept = b("Mul", b("Sub", c, b("Sub", c, v)), b("Where", large, 2.0**64, 1.0))
    finite = b("LessOrEqual", size, float(np.finfo(np.float32).max))
    b.done(b("Where", finite, kept, x))
    return True
