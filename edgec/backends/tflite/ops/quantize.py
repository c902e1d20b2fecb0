"""QuantizeLinear and DequantizeLinear as arithmetic, where no kernel runs on the integers between them.

y = saturate(round(x / s) + z) with halves to even, as ROUND does it; x = (y − z) · s. Scales and zero points may be
computed, one for the tensor, one for each index of an axis, or one for each block of an axis. Integers that only a
DequantizeLinear reads stay in float32, which holds them exactly: nothing is cast, and no kernel for their type needed.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from edgec.backends.tflite.context import Context, Refusal, normalize_axis
from edgec.backends.tflite.ops.dtypes import convert
from edgec.backends.tflite.tir import Tensor, constant
from edgec.graph.model import attr, const_of, dtype_of
from edgec.tensors import Array, DType

_NONE = {"fusedActivationFunction": "NONE"}
_FLOATS = (DType.FLOAT16, DType.FLOAT32, DType.FLOAT64)
#: Results that float32 holds exactly before they are cast.
_RESULTS = (DType.INT8, DType.UINT8, DType.INT16, DType.UINT16)


def quantize(ctx: Context, node: ir.Node) -> Tensor:
    """The integers. Raises Refusal for a type that no kernel takes."""
    x, out = ctx.tensor(node.inputs[0]), dtype_of(node.outputs[0])
    if out not in _RESULTS or x.dtype not in (*_FLOATS, DType.INT32):
        raise Refusal("dtype", f"QuantizeLinear from {x.dtype} to {out} has no TFLite form")
    x = ctx.cast(x, DType.FLOAT32)
    y = ctx.unary("ROUND", ctx.binary("DIV", x, ctx.cast(_aligned(ctx, node, 1, x), DType.FLOAT32), **_NONE))
    zero = node.inputs[2] if len(node.inputs) > 2 else None
    if zero is not None:
        offset = convert(ctx, convert(ctx, _aligned(ctx, node, 2, x), DType.INT32), DType.FLOAT32)
        y = ctx.binary("ADD", y, offset, **_NONE)
    low, high = out.limits
    y = ctx.binary("MINIMUM", ctx.binary("MAXIMUM", y, ctx.scalar(low, y)), ctx.scalar(high, y))
    return y if _read_as_floats(node) else convert(ctx, ctx.cast(y, DType.INT32), out)


def _read_as_floats(node: ir.Node) -> bool:
    value = node.outputs[0]
    readers = value.uses()
    return not value.is_graph_output() and all(n.op_type == "DequantizeLinear" and i == 0 for n, i in readers)


def dequantize(ctx: Context, node: ir.Node) -> Tensor:
    """The real values. Raises Refusal for a type that no kernel takes."""
    x, out = ctx.tensor(node.inputs[0]), dtype_of(node.outputs[0])
    in_float = x.dtype == DType.FLOAT32  # as `quantize` leaves integers
    if (not in_float and x.dtype not in (*_RESULTS, DType.INT32)) or out not in _FLOATS:
        raise Refusal("dtype", f"DequantizeLinear from {x.dtype} to {out} has no TFLite form")
    zero = node.inputs[2] if len(node.inputs) > 2 else None
    offset = None if zero is None else convert(ctx, _aligned(ctx, node, 2, x), DType.INT32)
    if in_float:
        y, offset = x, None if offset is None else convert(ctx, offset, DType.FLOAT32)
    else:
        y = convert(ctx, x, DType.INT32)
    if offset is not None:
        y = ctx.binary("SUB", y, offset, **_NONE)
    scale = ctx.cast(_aligned(ctx, node, 1, x), DType.FLOAT32)
    return ctx.cast(ctx.binary("MUL", ctx.cast(y, DType.FLOAT32), scale, **_NONE), out)


def _aligned(ctx: Context, node: ir.Node, position: int, x: Tensor) -> Tensor:
    """The scale or zero point in a shape that broadcasts to x."""
    t = ctx.tensor(node.inputs[position])
    if t.size == 1 and t.rank <= 1:
        return ctx.reshape(t, ())
    axis = normalize_axis(attr(node, "axis", 1), x.rank)
    block = attr(node, "block_size", 0)
    if not block:
        return ctx.reshape(t, [t.size if i == axis else 1 for i in range(x.rank)])
    places = ctx.int32(np.arange(x.shape[axis]) // block)
    return ctx.emit("GATHER", [t, places], x.shape, t.dtype, axis=axis, batchDims=0)


def dequantized_constant(node: ir.Node) -> Tensor | None:
    """The float constant that a DequantizeLinear of constants stands for; None when something is computed."""
    arrays = [const_of(v) if v is not None else None for v in (*node.inputs, None)][:3]
    values, scale, zero = arrays
    given = len(node.inputs) > 2 and node.inputs[2] is not None
    out = dtype_of(node.outputs[0])
    if values is None or scale is None or (given and zero is None) or out not in _FLOATS:
        return None
    real = values.astype(np.float32)
    if zero is not None:
        real = real - _spread(zero.astype(np.float32), node, values.shape)
    real = real * _spread(scale.astype(np.float32), node, values.shape)
    return constant(node.outputs[0].name or "dequantized", real.astype(out.numpy))


def _spread(values: Array, node: ir.Node, shape: tuple[int, ...]) -> Array:
    if values.size == 1 and values.ndim <= 1:
        return values.reshape(())
    axis = normalize_axis(attr(node, "axis", 1), len(shape))
    block = attr(node, "block_size", 0)
    if block:
        return np.asarray(np.take(values, np.arange(shape[axis]) // block, axis=axis))
    return values.reshape([values.size if i == axis else 1 for i in range(len(shape))])
