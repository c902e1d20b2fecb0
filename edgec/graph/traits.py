"""What quantization must know of each ONNX operator, as one table: which inputs carry data, a weight, a bias.

A row says which inputs are activations (float data at run time), which one is the weight and along which
axis its scales run, which one the bias. Inputs in no list are parameters (shapes, axes, pads) and stay as they are.

1. ANCHOR: has weights; worth int8 by itself.
2. LIGHT: arithmetic without weights; int8 only between int8 neighbours.
3. MOVER: copies elements (or picks among them): output values lie within those of the inputs,
   so that one scale can serve both sides.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
import onnx_ir as ir

from edgec.graph.model import attr, const_of


class Kind(StrEnum):
    """Why an operator would run in int8."""

    ANCHOR = "anchor"
    LIGHT = "light"
    MOVER = "mover"


#: `activations` of an operator all of whose inputs are data.
ALL = (-1,)


@dataclass(frozen=True, kw_only=True, slots=True)
class Trait:
    """One row. `fuses`: runtimes can end this operator with a Relu or Clip inside the same kernel."""

    kind: Kind
    activations: tuple[int, ...] = (0,)
    weight: int | None = None
    bias: int | None = None
    fuses: bool = False


_CONV = Trait(kind=Kind.ANCHOR, weight=1, bias=2, fuses=True)
_BINARY = Trait(kind=Kind.LIGHT, activations=(0, 1), fuses=True)
_UNARY = Trait(kind=Kind.LIGHT)
_MOVER = Trait(kind=Kind.MOVER)
_MANY = Trait(kind=Kind.MOVER, activations=ALL)

TRAITS: dict[str, Trait] = {
    "Conv": _CONV,
    "ConvTranspose": Trait(kind=Kind.ANCHOR, weight=1, bias=2),
    "Gemm": _CONV,
    "MatMul": Trait(kind=Kind.ANCHOR, weight=1, fuses=True),
    **dict.fromkeys(("Add", "Sub", "Mul", "Div"), _BINARY),
    **dict.fromkeys(("Max", "Min", "Sum", "Mean"), Trait(kind=Kind.LIGHT, activations=ALL)),
    "Where": Trait(kind=Kind.LIGHT, activations=(1, 2)),
    "PRelu": Trait(kind=Kind.LIGHT, activations=(0, 1)),
    **dict.fromkeys(
        (
            *("Relu", "Clip", "LeakyRelu", "Elu", "Selu", "Celu", "ThresholdedRelu", "HardSwish", "HardSigmoid"),
            *("Sigmoid", "Tanh", "Softmax", "LogSoftmax", "Gelu", "Mish", "Softplus", "Softsign", "Swish"),
            *("Abs", "Neg", "Exp", "Log", "Sqrt", "Reciprocal", "Erf", "Sin", "Cos", "Floor", "Ceil", "Round"),
            *("ReduceMean", "ReduceSum", "ReduceProd", "ReduceL2", "LpNormalization"),
        ),
        _UNARY,
    ),
    # Averages lie within their inputs' range, but need arithmetic of their own.
    **dict.fromkeys(("AveragePool", "GlobalAveragePool"), _UNARY),
    **dict.fromkeys(("MaxPool", "GlobalMaxPool", "ReduceMax", "ReduceMin"), _MOVER),
    **dict.fromkeys(
        (
            *("Reshape", "Flatten", "Squeeze", "Unsqueeze", "Transpose", "Identity", "Expand", "Tile"),
            *("Slice", "Split", "Gather", "GatherElements", "GatherND", "Pad", "Resize"),
            *("DepthToSpace", "SpaceToDepth", "ReverseSequence"),
        ),
        _MOVER,
    ),
    "Concat": _MANY,
}

#: What a convolution of any kind says of how it slides.
CONV_ATTRIBUTES = ("auto_pad", "dilations", "group", "kernel_shape", "pads", "strides")
#: Operators that give what they were given, in another order or shape, of whatever type it is.
MOVES = frozenset(
    {
        *("Concat", "Expand", "Flatten", "Gather", "GatherElements", "GatherND", "Identity", "Reshape"),
        *("Slice", "Split", "Squeeze", "Tile", "Transpose", "Unsqueeze"),
    }
)

#: Averages: their values lie within those of the input, as a mover's do.
_AVERAGES = frozenset({"AveragePool", "GlobalAveragePool", "ReduceMean"})


def trait_of(node: ir.Node) -> Trait | None:
    """The node's row, or None for an operator that has none (control flow, integer logic, other domains)."""
    return TRAITS.get(node.op_type) if node.domain in ("", "ai.onnx") else None


def data_inputs(node: ir.Node) -> tuple[int, ...]:
    """Positions of the inputs that carry data. A MatMul of two activations has both."""
    trait = trait_of(node)
    if trait is None:
        return ()
    if trait.activations == ALL:
        return tuple(i for i, value in enumerate(node.inputs) if value is not None)
    positions = trait.activations
    if node.op_type == "MatMul" and weight_of(node) is None:
        positions = (0, 1)
    return tuple(i for i in positions if i < len(node.inputs) and node.inputs[i] is not None)


def weight_of(node: ir.Node) -> int | None:
    """Position of the constant weight, or None: no such input, or not a constant."""
    trait = trait_of(node)
    if trait is None or trait.weight is None or trait.weight >= len(node.inputs):
        return None
    return trait.weight if const_of(node.inputs[trait.weight]) is not None else None


def bias_of(node: ir.Node) -> int | None:
    """Position of the bias, constant or not, or None where the node has none."""
    trait = trait_of(node)
    if trait is None or trait.bias is None or trait.bias >= len(node.inputs):
        return None
    return None if node.inputs[trait.bias] is None else trait.bias


def weight_axis(node: ir.Node, rank: int) -> int | None:
    """The axis of the weight that holds output channels, along which scales run; None where there is no such axis."""
    if node.op_type == "Conv":
        return 0
    if node.op_type == "ConvTranspose":
        return 1
    if rank != 2:  # a stack of matrices: a scale a column would mix them
        return None
    return 0 if node.op_type == "Gemm" and attr(node, "transB", 0) else 1


def is_depthwise(node: ir.Node) -> bool:
    """True for a convolution each of whose outputs reads one channel alone."""
    weight = const_of(node.inputs[1]) if node.op_type == "Conv" and len(node.inputs) > 1 else None
    return weight is not None and weight.shape[1] == 1 and attr(node, "group", 1) > 1


def within_inputs(node: ir.Node) -> bool:
    """True when every output value lies between the smallest and the largest input value (or 0).

    Padding with another constant than 0 and cubic interpolation leave that hull.
    """
    trait = trait_of(node)
    if trait is None or (trait.kind is not Kind.MOVER and node.op_type not in _AVERAGES):
        return False
    if node.op_type == "Resize":
        return bool(attr(node, "mode", "nearest") in ("nearest", "linear"))
    return True


def pad_value(node: ir.Node) -> float:
    """The constant that a Pad writes (0 unless given, or where the mode copies elements)."""
    if node.op_type != "Pad" or attr(node, "mode", "constant") != "constant" or len(node.inputs) < 3:
        return 0.0
    value = const_of(node.inputs[2])
    return 0.0 if value is None or value.size == 0 else float(value.reshape(-1)[0])


def clip_bounds(node: ir.Node) -> tuple[float, float]:
    """The bounds that a Relu or Clip keeps to; infinite where there is none, or where it is not constant."""
    if node.op_type == "Relu":
        return 0.0, math.inf
    bounds = [-math.inf, math.inf]
    if node.op_type == "Clip":
        for i, value in enumerate(node.inputs[1:3]):
            constant = const_of(value)
            if constant is not None and constant.size:
                bounds[i] = float(constant.reshape(-1)[0])
    return bounds[0], bounds[1]


def is_vector_bias(value: ir.Value | None, channels: int) -> bool:
    """True for a constant with one number a channel along the last axis ([C], [1, C], …)."""
    constant = const_of(value)
    return constant is not None and constant.size == channels == (constant.shape or (0,))[-1]


def is_float(value: ir.Value | None) -> bool:
    """True for a float32 tensor, the only element type that quantization touches."""
    return value is not None and value.dtype == ir.DataType.FLOAT


def finite_extent(array: np.ndarray) -> tuple[float, float]:
    """Smallest and largest value of a constant, 0 for an empty one; infinities and NaN are returned as they are."""
    if array.size == 0:
        return 0.0, 0.0
    return float(array.min()), float(array.max())
