"""What a model does to an input before its first weights: normalisation by constants, then a convolution or product."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from edgec.graph.model import Model, const_of
from edgec.tensors import Array

#: Operators that move values or change their type, nothing else.
_MOVERS = frozenset(
    {"Transpose", "Reshape", "Squeeze", "Unsqueeze", "Flatten", "Cast", "Identity", "Pad", "Slice", "Resize"}
)

_AFFINE: dict[str, Callable[[tuple[float, float], Array, bool], tuple[float, float]]] = {
    # (scale, shift) of y = scale·x + shift, the constant's mean, and whether the constant is the first operand
    "Add": lambda f, c, _: (f[0], f[1] + float(c.mean())),
    "Sub": lambda f, c, first: (-f[0], float(c.mean()) - f[1]) if first else (f[0], f[1] - float(c.mean())),
    "Mul": lambda f, c, _: (f[0] * float(c.mean()), f[1] * float(c.mean())),
    "Div": lambda f, c, first: f if first else (f[0] / float(c.mean()), f[1] / float(c.mean())),
}

_WEIGHTED = frozenset({"Conv", "Gemm", "MatMul"})


@dataclass(frozen=True, kw_only=True, slots=True)
class Prologue:
    """y = scale·x + shift (means over channels), then node `first` with constant weights, if there is one.

    `steps` are the operators of the normalisation.
    """

    scale: float
    shift: float
    steps: tuple[str, ...]
    first: ir.Node | None

    @property
    def wants(self) -> tuple[float, float] | None:
        """The values of x that give −1 and 1, or None where the model normalises nothing."""
        if not self.steps or self.scale == 0:
            return None
        ends = ((-1 - self.shift) / self.scale, (1 - self.shift) / self.scale)
        return min(ends), max(ends)


def prologue_of(model: Model, input_name: str) -> Prologue:
    """Follow an input to its first weights."""
    value = next(v for v in model.graph.inputs if v.name == input_name)
    factor, seen = (1.0, 0.0), 0
    steps: list[str] = []
    while seen < 16:  # longer chains are no normalisation
        seen += 1
        node = next((n for n, _ in value.uses() if n.op_type in _MOVERS | _WEIGHTED | _AFFINE.keys()), None)
        if node is None:
            break
        if node.op_type in _WEIGHTED:
            return Prologue(scale=factor[0], shift=factor[1], steps=tuple(steps), first=node)
        if node.op_type in _AFFINE:
            constants = [c for c in map(const_of, node.inputs) if c is not None]
            if len(constants) != 1 or (node.op_type == "Div" and not np.all(constants[0])):
                break
            factor = _AFFINE[node.op_type](factor, constants[0].astype(np.float64), node.inputs[0] is not value)
            steps.append(node.op_type)
        value = node.outputs[0]
    return Prologue(scale=factor[0], shift=factor[1], steps=tuple(steps), first=None)
