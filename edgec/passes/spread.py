"""Scales and zero points in a shape that broadcasts with their tensor's: one in all, one an axis, or one a block."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from edgec.graph.build import Builder
from edgec.graph.model import static_shape


def spread(b: Builder, value: ir.Value | None, node: ir.Node, axis: int, block: int, to: int) -> ir.Value:
    """`value` as type `to`, broadcasting with the first input of a Quantize- or DequantizeLinear."""
    own, shape = static_shape(value), static_shape(node.inputs[0]) or ()
    real = b("Cast", value, to=to)
    if block:
        return b("Gather", real, np.arange(shape[axis], dtype=np.int64) // block, axis=axis % len(shape))
    if own is None or int(np.prod(own)) == 1:
        return b("Reshape", real, b.ints())
    return b("Reshape", real, b.ints(*[-1 if a == axis % len(shape) else 1 for a in range(len(shape))]))
