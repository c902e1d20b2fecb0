"""QuantizeLinear and DequantizeLinear: pairs annotate the tensor between them with its storage, and cost nothing.

1. DequantizeLinear of a constant is a constant with integer storage; what TFLite cannot store so, a float constant.
2. QuantizeLinear → DequantizeLinear on a value that nobody else reads annotates the value itself.
3. On a value that is also read in float, it becomes a QUANTIZE to a second, annotated tensor.
4. DequantizeLinear of an integer input annotates that input.
5. What is no such pair is computed (`ops/quantize.py`).
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from edgec.backends.tflite.context import Context, Refusal
from edgec.backends.tflite.ops.quantize import dequantize, dequantized_constant, quantize
from edgec.backends.tflite.tir import Storage, Tensor
from edgec.graph.model import attr, const_of, dtype_of
from edgec.tensors import Array, DType, QParams

#: The two operators that are lowered here.
QUANTIZERS = frozenset({"QuantizeLinear", "DequantizeLinear"})
_STORED = (DType.INT8, DType.UINT8, DType.INT16)


def lower_quantizer(ctx: Context, node: ir.Node) -> Tensor:
    """The tensor of a QuantizeLinear's or DequantizeLinear's output."""
    return _quantize(ctx, node) if node.op_type == "QuantizeLinear" else _dequantize(ctx, node)


def _parameters(node: ir.Node) -> tuple[Array, Array | None] | None:
    """Constant scale and zero point (None where there is none); None when one is computed."""
    scale = const_of(node.inputs[1])
    given = len(node.inputs) > 2 and node.inputs[2] is not None
    zero = const_of(node.inputs[2]) if given else None
    return None if scale is None or (given and zero is None) else (scale, zero)


def _storage(node: ir.Node, dtype: DType, rank: int) -> Storage:
    """How a tensor between the two is stored. uint8 becomes int8 with a shifted zero point."""
    known = _parameters(node)
    if known is None:
        raise Refusal("scale-constant", "scale and zero point must be known when compiling")
    scale, zero = known[0].astype(np.float32), known[1]
    zeros = np.zeros(scale.shape, np.int64) if zero is None else zero.astype(np.int64)
    zeros = zeros.reshape(-1) - (128 if dtype == DType.UINT8 else 0)
    if attr(node, "block_size", 0):
        raise Refusal("blocked", "blocked quantization has no TFLite form")
    axis = None
    if scale.size > 1:
        axis = attr(node, "axis", 1)
        axis = axis + rank if axis < 0 else axis
    scales = scale.reshape(-1)
    if not (np.all(np.isfinite(scales)) and np.all(scales > 0)):
        raise Refusal("scale", "quantization scales must be positive and finite")
    if dtype == DType.INT16 and np.any(zeros):
        raise Refusal("zero-point", "16-bit quantization must be symmetric (zero point 0)")
    if axis is not None and np.any(zeros):
        raise Refusal("zero-point", "per-channel quantization must be symmetric (zero point 0)")
    return Storage(
        DType.INT8 if dtype == DType.UINT8 else dtype,
        QParams(scale=tuple(scales.tolist()), zero_point=tuple(zeros.tolist()), axis=axis),
    )


def _quantize(ctx: Context, node: ir.Node) -> Tensor:
    value = node.inputs[0]
    x = ctx.tensor(value)
    if not _paired(node) or x.dtype != DType.FLOAT32:
        return quantize(ctx, node)  # rule 5
    storage = _storage(node, dtype_of(node.outputs[0]), x.rank)
    assert value is not None
    alone = len(value.uses()) == 1 and not value.is_graph_output()
    fresh = x.storage is None and x.data is None and x not in ctx.graph.inputs
    if alone and fresh:  # rule 2
        x.storage = storage
        return x
    if x.storage == storage:
        return x
    out = ctx.new(x.shape, x.dtype, "quantized")  # rule 3
    out.storage = storage
    ctx.emit_multi("QUANTIZE", [x], [out])
    return out


def _paired(node: ir.Node) -> bool:
    """Whether all who read a QuantizeLinear undo just what it did."""
    output, own = node.outputs[0], _parameters(node)
    dtype = dtype_of(output)
    if own is None or own[0].size != 1 or dtype not in _STORED or attr(node, "block_size", 0):
        return False
    if _shifted(dtype, own[1]):
        return False
    if output.is_graph_output():
        return False  # the annotated tensor stands for real values, and leaves the model as such
    return all(_undoes(user, index, own) for user, index in output.uses())


def _shifted(dtype: DType, zero: Array | None) -> bool:
    """TFLite's 16-bit integers are symmetric."""
    return dtype == DType.INT16 and zero is not None and bool(np.any(zero))


def _undoes(user: ir.Node, index: int, own: tuple[Array, Array | None]) -> bool:
    if user.op_type != "DequantizeLinear" or index != 0 or dtype_of(user.outputs[0]) != DType.FLOAT32:
        return False
    theirs = _parameters(user)
    if theirs is None or theirs[0].size != 1 or theirs[0].item() != own[0].item():
        return False
    zeros = [0 if zero is None else int(zero.item()) for zero in (own[1], theirs[1])]
    return zeros[0] == zeros[1]


def _dequantize(ctx: Context, node: ir.Node) -> Tensor:
    value = node.inputs[0]
    x = ctx.values.get(value) if value is not None else None
    if x is not None and x.storage is not None:  # the pair of rule 2 or 3
        return x
    if const_of(value) is not None and _parameters(node) is not None:
        return _constant(x, node)  # rule 1
    x = ctx.tensor(value)
    known = _parameters(node)
    assert value is not None
    lone = len(value.uses()) == 1 and not value.is_graph_output() and x in ctx.graph.inputs
    plain = known is not None and known[0].size == 1 and dtype_of(node.outputs[0]) == DType.FLOAT32
    if lone and plain and known and x.dtype in (DType.INT8, DType.INT16) and not _shifted(x.dtype, known[1]):  # rule 4
        x.dtype, x.storage = DType.FLOAT32, _storage(node, x.dtype, x.rank)
        return x
    return dequantize(ctx, node)  # rule 5


def _constant(x: Tensor | None, node: ir.Node) -> Tensor:
    if x is not None and x.data is not None and x.dtype in (*_STORED, DType.INT32):
        try:
            storage = _storage(node, x.dtype, x.rank)
            data = x.data if x.dtype != DType.UINT8 else (x.data.astype(np.int16) - 128).astype(np.int8)
            return Tensor(name=x.name, shape=x.shape, dtype=dtype_of(node.outputs[0]), data=data, storage=storage)
        except Refusal:
            pass
    folded = dequantized_constant(node)
    if folded is None:
        raise Refusal("dtype", "DequantizeLinear of this constant has no TFLite form")
    return folded
