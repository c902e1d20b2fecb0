"""Cast, CastLike, BitCast: among all types that both sides have."""

from __future__ import annotations

import onnx_ir as ir

from edgec.backends.tflite.context import Context, Lowering, Refusal
from edgec.backends.tflite.ops.dtypes import FLOATS, bitcast, convert
from edgec.backends.tflite.tir import Tensor
from edgec.graph.model import attr
from edgec.tensors import CARRIED, DType


def element_type(code: int, op_type: str) -> DType:
    """The element type of an ONNX code. Raises Refusal for one that TFLite tensors cannot have."""
    name = ir.DataType(code).name.lower()
    names = {"float": "float32", "double": "float64"}
    name = names.get(name, name)
    if name not in set(DType) or name == DType.STRING or DType(name) in CARRIED:
        raise Refusal("dtype", f"{op_type}: TFLite has no {name} tensors to compute with")
    return DType(name)


def _cast(ctx: Context, node: ir.Node) -> Tensor:
    """CAST; BITCAST between uint64 and int64."""
    return cast_to(ctx, ctx.tensor(node.inputs[0]), element_type(attr(node, "to"), "Cast"))


def _cast_like(ctx: Context, node: ir.Node) -> Tensor:
    """CAST to the other operand's type."""
    return cast_to(ctx, ctx.tensor(node.inputs[0]), ctx.out_spec(node)[2])


def cast_to(ctx: Context, x: Tensor, dtype: DType) -> Tensor:
    """`x` as `dtype`, as ONNX casts: what is out of an integer's range is undefined there."""
    if DType.STRING in (x.dtype, dtype):
        raise Refusal("dtype", "strings have no TFLite kernels")
    if x.dtype in FLOATS and dtype in (DType.INT8, DType.UINT8, DType.INT16, DType.UINT16):
        # CAST saturates, C's cast goes through int32 and wraps
        return convert(ctx, convert(ctx, x, DType.INT32), dtype)
    return convert(ctx, x, dtype)


def _bit_cast(ctx: Context, node: ir.Node) -> Tensor:
    """BITCAST"""
    x = ctx.tensor(node.inputs[0])
    dtype = element_type(attr(node, "to"), "BitCast")
    if x.dtype == DType.STRING or x.dtype.numpy.itemsize != dtype.numpy.itemsize:
        raise Refusal("dtype", f"BitCast from {x.dtype} to {dtype}: the widths differ")
    if DType.BOOL in (x.dtype, dtype) and x.dtype != dtype:
        return ctx.cast(x, dtype)
    return bitcast(ctx, x, dtype)


LOWERINGS: dict[str, Lowering] = {"Cast": _cast, "CastLike": _cast_like, "BitCast": _bit_cast}
