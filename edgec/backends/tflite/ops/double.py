"""float64 that stays float64: LiteRT adds and multiplies it, in the kernels that it has for StableHLO.

1. They take operands of one shape: BROADCAST_TO comes before. a − b is a + (−1)·b, exact as IEEE arithmetic is.
2. Only a model whose every float is float64, and of which these kernels compute all, is worth it: no delegate knows
   them. Any other model is computed in float32, as devices do, and its binding refuses numbers beyond that.
"""

from __future__ import annotations

import onnx_ir as ir

from edgec.backends.tflite.context import Context, broadcast_shapes
from edgec.backends.tflite.tir import Tensor
from edgec.graph.model import Model
from edgec.tensors import DType

_KINDS = {"ADD": "STABLEHLO_ADD", "MUL": "STABLEHLO_MULTIPLY"}
_COMPUTED = frozenset({"Add", "Mean", "Mul", "Neg", "Sub", "Sum"})
_MOVED = frozenset({
    "Concat", "Constant", "Expand", "Flatten", "Gather", "Identity", "Reshape", "Shape", "Size", "Slice", "Split",
    "Squeeze", "Tile", "Transpose", "Unsqueeze", "Where",
})  # fmt: skip
_FLOATS = frozenset({ir.DataType.FLOAT, ir.DataType.FLOAT16, ir.DataType.DOUBLE})


def stays_double(model: Model) -> bool:
    """Rule 2."""
    nodes = list(model.ir.graph.all_nodes())
    values = [v for node in nodes for v in (*node.inputs, *node.outputs) if v is not None]
    if {v.dtype for v in (*values, *model.graph.inputs) if v.dtype in _FLOATS} != {ir.DataType.DOUBLE}:
        return False
    touching = [n for n in nodes if any(v is not None and v.dtype in _FLOATS for v in (*n.inputs, *n.outputs))]
    kinds = {node.op_type for node in touching if node.domain == ""}
    return (
        len(touching) == sum(n.domain == "" for n in touching)
        and bool(kinds & _COMPUTED)
        and kinds <= _COMPUTED | _MOVED
    )


def double_arithmetic(ctx: Context, kind: str, a: Tensor, b: Tensor) -> Tensor:
    """ADD, SUB or MUL of float64 by rule 1."""
    if kind == "SUB":
        return double_arithmetic(ctx, "ADD", a, double_arithmetic(ctx, "MUL", b, ctx.scalar(-1.0, b)))
    shape = broadcast_shapes(a.shape, b.shape)
    return ctx.emit(_KINDS[kind], [_spread(ctx, a, shape), _spread(ctx, b, shape)], shape, DType.FLOAT64)


def _spread(ctx: Context, t: Tensor, shape: tuple[int, ...]) -> Tensor:
    return t if t.shape == shape else ctx.emit("BROADCAST_TO", [t, ctx.int32(list(shape))], shape, t.dtype)
