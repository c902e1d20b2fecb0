"""Carry the shapes that a model declares for its outputs backwards, through operators that keep the shape.

A reduction or reshape whose axes or shape arrive at run time has no shape that inference could find. Where the
graph output behind it declares one, elementwise operators between the two have that shape too.
"""

from __future__ import annotations

import onnx_ir as ir

from edgec.graph.model import Model, static_shape

#: One operand, and a result of its shape.
_SHAPE_KEEPING = frozenset(
    [
        "Abs",
        "Acos",
        "Acosh",
        "Asin",
        "Asinh",
        "Atan",
        "Atanh",
        "BitwiseNot",
        "Cast",
        "CastLike",
        "Ceil",
        "Celu",
        "Clip",
        "Cos",
        "Cosh",
        "Elu",
        "Erf",
        "Exp",
        "Floor",
        "Gelu",
        "HardSigmoid",
        "HardSwish",
        "Identity",
        "IsInf",
        "IsNaN",
        "LeakyRelu",
        "Log",
        "LogSoftmax",
        "Mish",
        "Neg",
        "Not",
        "Reciprocal",
        "Relu",
        "Round",
        "Selu",
        "Shrink",
        "Sigmoid",
        "Sign",
        "Sin",
        "Sinh",
        "Softmax",
        "Softplus",
        "Softsign",
        "Sqrt",
        "Swish",
        "Tan",
        "Tanh",
        "ThresholdedRelu",
    ]
)


class DeclaredShapes:
    """See the module."""

    name = "declared-shapes"

    def run(self, model: Model) -> bool:
        """Set the shapes in place; True when one was found."""
        changed = False
        for node in reversed(list(model.graph)):
            if node.domain not in ("", "ai.onnx") or node.op_type not in _SHAPE_KEEPING:
                continue
            source, shape = node.inputs[0], static_shape(node.outputs[0])
            if source is None or shape is None or source.is_initializer() or static_shape(source) is not None:
                continue
            source.shape = ir.Shape(shape)
            changed = True
        return changed
