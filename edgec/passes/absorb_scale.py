"""Take a multiplication by a positive number out of the graph: whoever reads its result multiplies instead, for free.

Mul(x, c) goes when every reader, directly or through operators that commute with a positive factor, ends in
constant weights that can be multiplied by c. A hard swish written out, x·clip(x + 3, 0, 6)·(1/6), loses its last
product this way, through the pooling and the gate of a squeeze-and-excite block too.

1. A product of x with constant weights takes the factor into a copy of the weights; its result is unscaled.
2. Movers, poolings, ReLU and Mul with a value that is not scaled pass the factor on to their results.
3. Add, Sub, Concat pass it on when all their operands carry it, or are constants: those are divided by it, as
   c·x + b = c·(x + b/c).
4. Anything else, and a graph output, keeps the multiplication where it is.
5. Where `half` is kept, weights that float16 holds exactly, as those of a model saved in it, stay so.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import onnx_ir as ir

from edgec.graph.edit import Editor
from edgec.graph.model import Model, const_of
from edgec.tensors import Array

#: Input that takes the factor, for operators with constant weights (rule 1).
_WEIGHTS = {"Conv": 1, "ConvTranspose": 1, "Gemm": 1, "MatMul": 1}
#: Operators of one data input that commute with a positive factor (rule 2).
_COMMUTING = frozenset(
    {
        "AveragePool", "DepthToSpace", "Expand", "Flatten", "Gather", "GlobalAveragePool", "GlobalMaxPool", "Identity",
        "LeakyRelu", "MaxPool", "ReduceMax", "ReduceMean", "ReduceMin", "ReduceSum", "Relu", "Reshape", "Resize",
        "Slice", "SpaceToDepth", "Split", "Squeeze", "Tile", "Transpose", "Unsqueeze",
    }
)  # fmt: skip
_JOINING = frozenset({"Add", "Sub", "Concat"})
#: A factor that would have to be carried through more operators than this stays where it is.
_REACH = 64


@dataclass(slots=True)
class _Absorption:
    """What one factor would do: values that come to carry it, and the constants that take it in, or its inverse."""

    scaled: set[ir.Value] = field(default_factory=set)
    weights: list[tuple[ir.Node, int]] = field(default_factory=list)
    terms: list[tuple[ir.Node, int]] = field(default_factory=list)
    joins: list[ir.Node] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class AbsorbScale:
    """Rules 1 to 5 for every Mul by a positive number, in graph order."""

    half: bool = False
    name: str = "absorb-scale"

    def run(self, model: Model) -> bool:
        """Edit the model in place; True when a multiplication went."""
        return move_factors(model, lambda node, _source, factor: self._constants(node.outputs[0], factor))

    def _constants(self, start: ir.Value, factor: float) -> list[Taker] | None:
        plan = _plan(start)
        if plan is None:
            return None
        inverse = 1.0 / factor
        found = [*((n, i, factor) for n, i in plan.weights), *((n, i, inverse) for n, i in plan.terms)]
        return None if self.half and any(leaves_half(n.inputs[i], by) for n, i, by in found) else found


#: A node, which of its inputs is a constant, and what that is multiplied by.
Taker = tuple[ir.Node, int, float]

#: For a Mul by a number, its other operand and the number: what takes the factor, or None when it stays.
Takers = Callable[[ir.Node, ir.Value, float], Sequence[Taker] | None]


def move_factors(model: Model, takers: Takers) -> bool:
    """Take each Mul by a positive number out where constants can be multiplied instead; True when one went."""
    editor = Editor(model)
    changed = False
    for node in model.nodes():
        found = _number_factor(node)
        if found is None:
            continue
        source, factor = found
        constants = takers(node, source, factor)
        if constants is None:
            continue
        for reader, index, by in constants:
            _multiply(editor, reader, index, by)
        changed |= editor.bypass(node, source)
    return changed


def leaves_half(value: ir.Value | None, factor: float) -> bool:
    """Whether float16 holds a constant exactly, and its multiple not."""
    data = const_of(value)
    return data is not None and _fits_half(data) and not _fits_half(data * np.float32(factor))


def _fits_half(data: Array) -> bool:
    with np.errstate(over="ignore"):
        return bool(np.array_equal(data.astype(np.float16).astype(np.float32), data))


def _number_factor(node: ir.Node) -> tuple[ir.Value, float] | None:
    """The other operand and the number of a Mul by a positive number."""
    if node.op_type != "Mul" or node.domain not in ("", "ai.onnx"):
        return None
    for x, c in (node.inputs, reversed(node.inputs)):
        number = const_of(c)
        if x is None or number is None or number.size != 1 or const_of(x) is not None:
            continue
        same_shape = x.shape is not None and x.shape == node.outputs[0].shape
        factor = float(number.reshape(()))
        if same_shape and number.dtype == np.float32 and 0 < factor < np.inf:
            return x, factor
    return None


def _plan(start: ir.Value) -> _Absorption | None:
    """Follow a factor to the weights that can take it; None when something on the way cannot carry it."""
    plan = _Absorption(scaled={start})
    queue = [start]
    while queue:
        value = queue.pop()
        if value.is_graph_output() or not value.uses() or len(plan.scaled) > _REACH:
            return None
        for node, index in value.uses():
            carried = _carry(node, index, plan)
            if carried is None:
                return None
            queue += [v for v in carried if v not in plan.scaled]
            plan.scaled.update(carried)
    for node in dict.fromkeys(plan.joins):
        others = [i for i, v in enumerate(node.inputs) if v not in plan.scaled]
        if any(const_of(node.inputs[i]) is None for i in others):
            return None
        plan.terms += [(node, i) for i in others]
    return plan


def _carry(node: ir.Node, index: int, plan: _Absorption) -> list[ir.Value] | None:
    """The results that carry the factor when `node` reads it at `index`; None when it cannot."""
    if node.domain not in ("", "ai.onnx") or node.graph is None or not isinstance(node.graph, ir.Graph):
        return None
    position = _WEIGHTS.get(node.op_type)
    if position is not None:  # rule 1
        if index != 0 or const_of(node.inputs[position]) is None:
            return None
        plan.weights.append((node, position))
        return []
    if node.op_type in _COMMUTING:  # rule 2
        return list(node.outputs) if index == 0 else None
    if node.op_type == "Mul":
        other = node.inputs[1 - index]
        return None if other is None or other in plan.scaled else list(node.outputs)
    if node.op_type in _JOINING:  # rule 3
        plan.joins.append(node)
        return list(node.outputs)
    return None


def _multiply(editor: Editor, node: ir.Node, index: int, factor: float) -> None:
    weights = node.inputs[index]
    data = const_of(weights)
    assert weights is not None
    assert data is not None
    scaled = editor.const((data * np.float32(factor)).astype(data.dtype), f"{weights.name}/scaled")
    node.replace_input_with(index, scaled)
