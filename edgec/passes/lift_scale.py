"""Take a multiplication by a number out of the graph: what made its operand makes it multiplied, for free.

Attention scales its scores after the product of queries and keys, where they are largest; the weights of the queries
can carry the factor. It goes up from Mul(x, c) as long as each value on the way has no other reader:

1. A product, Conv or Gemm with constant weights takes the factor into a copy of the weights, and of the bias.
2. Movers and poolings pass it up to what they move.
3. A product of two computed values passes it to one of them, Add and Sub to both: constants are multiplied at once.
4. Anything else, and a graph input, keeps the multiplication where it is.
5. Weights that float16 holds exactly, as those of a model saved in it, stay so.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import onnx_ir as ir

from edgec.graph.edit import sole_consumer
from edgec.graph.model import Model, attr, const_of
from edgec.passes.absorb_scale import Taker, leaves_half, move_factors

#: Inputs that take the factor when those weights are constant (rule 1): the weights, then the bias.
_WEIGHTS = {"Conv": (1, 2), "ConvTranspose": (1, 2), "Gemm": (1, 2), "MatMul": (1, None)}
#: Operators whose first input takes it (rule 2); the others of theirs say how to move.
_MOVERS = frozenset({"AveragePool", "DepthToSpace", "Expand", "Flatten", "GlobalAveragePool", "Identity", "Reshape",
                     "Slice", "SpaceToDepth", "Squeeze", "Tile", "Transpose", "Unsqueeze"})  # fmt: skip
_REACH = 24


@dataclass(slots=True)
class _Lift:
    """Constants that take the factor: the node that reads them, and where."""

    factor: float
    constants: list[tuple[ir.Node, int]] = field(default_factory=list)
    steps: int = 0


class LiftScale:
    """Rules 1 to 5 for every Mul by a positive number, in graph order."""

    name = "lift-scale"

    def run(self, model: Model) -> bool:
        """Edit the model in place; True when a multiplication went."""
        return move_factors(model, lambda _node, source, factor: _constants_above(source, factor))


def _constants_above(source: ir.Value, factor: float) -> list[Taker] | None:
    lift = _Lift(factor)
    return [(node, index, factor) for node, index in lift.constants] if _up(source, lift) else None


def _up(value: ir.Value | None, lift: _Lift) -> bool:
    """Follow the factor from a value to the constants that can take it."""
    lift.steps += 1
    if value is None or value.is_graph_output() or sole_consumer(value) is None or lift.steps > _REACH:
        return False
    node = value.producer()
    if node is None or node.domain not in ("", "ai.onnx") or value is not node.outputs[0] or len(node.outputs) > 1:
        return False
    rule = _RULES.get(node.op_type)
    return rule is not None and rule(node, lift)


def _operand(node: ir.Node, index: int, lift: _Lift) -> bool:
    """One operand takes the factor: at once when it is a constant, further up when it is not."""
    value = node.inputs[index]
    data = const_of(value)
    if data is None:
        return _up(value, lift)
    if data.dtype != np.float32 or leaves_half(value, lift.factor):  # rule 5
        return False
    lift.constants.append((node, index))
    return True


def _weighted(node: ir.Node, lift: _Lift) -> bool:
    """Rule 1, or rule 3 where nothing is constant."""
    weights, bias = _WEIGHTS[node.op_type]
    if node.op_type == "Gemm" and (attr(node, "alpha", 1.0) != 1.0 or attr(node, "beta", 1.0) != 1.0):
        return False
    if (
        bias is not None
        and len(node.inputs) > bias
        and node.inputs[bias] is not None
        and not _operand(node, bias, lift)
    ):
        return False
    return _operand(node, weights, lift) if const_of(node.inputs[weights]) is not None else _one_of(node, lift)


def _one_of(node: ir.Node, lift: _Lift) -> bool:
    """Rule 3, a product of computed values: the first of them that can take it."""
    for index in (0, 1):
        trial = _Lift(lift.factor, list(lift.constants), lift.steps)
        if _operand(node, index, trial):
            lift.constants, lift.steps = trial.constants, trial.steps
            return True
    return False


def _both(node: ir.Node, lift: _Lift) -> bool:
    return _operand(node, 0, lift) and _operand(node, 1, lift)


def _moved(node: ir.Node, lift: _Lift) -> bool:
    return _up(node.inputs[0], lift)


_RULES: dict[str, Callable[[ir.Node, _Lift], bool]] = {
    **dict.fromkeys(_WEIGHTS, _weighted),
    **dict.fromkeys(_MOVERS, _moved),
    **dict.fromkeys(("Add", "Sub"), _both),
    "Mul": _one_of,
}
