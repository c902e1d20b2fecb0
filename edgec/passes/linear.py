"""What Conv, ConvTranspose, Gemm and MatMul have in common: a constant weight, and channels to scale and shift.

A channel-wise affine after them, y·s + t, goes into weight and bias: W' = W·s along the output channels,
b' = b·s + t. Computed in float64 and rounded once.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from edgec.graph.edit import Editor
from edgec.graph.model import attr, const_of
from edgec.tensors import Array

LINEAR_OPS = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul"})


@dataclass(frozen=True, kw_only=True, slots=True)
class Linear:
    """One such node: output channels, the axis they have in its output, and its constants."""

    node: ir.Node
    channels: int
    channel_axis: int
    weight: Array
    bias: Array | None

    @property
    def takes_bias(self) -> bool:
        """MatMul has no bias input."""
        return self.node.op_type != "MatMul"


def linear_of(node: ir.Node | None) -> Linear | None:
    """The node as a `Linear`, or None when it is no such operator or its weight or bias is not constant."""
    if node is None or node.op_type not in LINEAR_OPS or node.domain != "":
        return None
    weight = const_of(node.inputs[1])
    output = node.outputs[0]
    if weight is None or weight.ndim < 2 or output.shape is None or weight.dtype.kind != "f":
        return None
    bias_value = node.inputs[2] if len(node.inputs) > 2 else None
    bias = const_of(bias_value) if bias_value is not None else None
    if bias_value is not None and bias is None:
        return None
    rank = len(output.shape)
    if node.op_type == "Conv":
        return Linear(node=node, channels=weight.shape[0], channel_axis=1, weight=weight, bias=bias)
    if node.op_type == "ConvTranspose":
        channels = weight.shape[1] * int(attr(node, "group", 1))
        return Linear(node=node, channels=channels, channel_axis=1, weight=weight, bias=bias)
    if weight.ndim != 2:
        return None
    if node.op_type == "Gemm":
        if attr(node, "alpha", 1.0) != 1.0 or attr(node, "beta", 1.0) != 1.0 or attr(node, "transA", 0):
            return None
        channels = weight.shape[0] if attr(node, "transB", 0) else weight.shape[1]
        if bias is not None and bias.shape != (channels,):
            return None
        return Linear(node=node, channels=channels, channel_axis=1, weight=weight, bias=bias)
    return Linear(node=node, channels=weight.shape[1], channel_axis=rank - 1, weight=weight, bias=None)


def scaled_weight(linear: Linear, scale: Array) -> Array:
    """The weight with its output channels multiplied by `scale` (one factor a channel), in float64."""
    weight = linear.weight.astype(np.float64)
    node = linear.node
    if node.op_type == "Conv" or (node.op_type == "Gemm" and attr(node, "transB", 0)):
        return np.asarray(weight * scale.reshape(-1, *[1] * (weight.ndim - 1)))
    if node.op_type == "ConvTranspose":
        group = int(attr(node, "group", 1))
        shape = weight.shape
        split = weight.reshape(group, shape[0] // group, shape[1], *shape[2:])
        factor = scale.reshape(group, 1, shape[1], *[1] * (len(shape) - 2))
        return np.asarray((split * factor).reshape(shape))
    return np.asarray(weight * scale)


def per_channel(constant: Array, rank: int, axis: int, channels: int) -> Array | None:
    """A constant that broadcasts over a tensor of this rank along its channels alone, as one number a channel.

    None when it varies along another axis, or would make the result bigger.
    """
    if constant.ndim > rank:
        if any(d != 1 for d in constant.shape[: constant.ndim - rank]):
            return None
        constant = constant.reshape(constant.shape[constant.ndim - rank :])
    shape = (1,) * (rank - constant.ndim) + constant.shape
    if any(d != 1 for i, d in enumerate(shape) if i != axis) or shape[axis] not in (1, channels):
        return None
    return np.broadcast_to(constant.reshape(-1), (channels,)).astype(np.float64)


def absorb(linear: Linear, scale: Array | None, shift: Array | None, editor: Editor) -> None:
    """Edit the node so that it computes linear(x)·scale + shift; one number a channel each."""
    node, kind = linear.node, linear.weight.dtype
    name = node.name or node.op_type
    bias = None if linear.bias is None else linear.bias.astype(np.float64)
    if scale is not None:
        weight = editor.const(scaled_weight(linear, scale).astype(kind), f"{name}/weight")
        node.replace_input_with(1, weight)
        bias = None if bias is None else bias * scale
    if shift is not None:
        bias = shift if bias is None else bias + shift
    if bias is not None:
        node.resize_inputs(3)
        node.replace_input_with(2, editor.const(bias.astype(kind), f"{name}/bias"))
