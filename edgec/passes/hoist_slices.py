"""Compute only what is read: where all that is read of a value is one slice, compute just that slice.

f(x)[i:j] = f(x[i:j]) for every f that treats the positions of that axis alike. A classifier that reads one token of
its last transformer block needs that block's attention and MLP for one row only; a recurrent net that reads the last
step needs no sequence.

1. Moving up: elementwise operators, norms and softmax over other axes, rows and batches of products, transposes,
   reshapes that keep the axis.
2. The last step of a recurrent layer's sequence (the first of a reversed one) is its final state.
3. A slice moves only while everybody who reads the value reads the same slice of it, so nothing is computed twice.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from edgec.graph.edit import Editor, remove_dead
from edgec.graph.model import Model, attr, const_of, static_shape
from edgec.passes.shapes import infer_node

Shape = tuple[int, ...]
_ELEMENTWISE = frozenset({
    "Abs", "Add", "Ceil", "Clip", "Cos", "Div", "Elu", "Erf", "Exp", "Floor", "Gelu", "HardSigmoid", "HardSwish",
    "LeakyRelu", "Log", "Max", "Min", "Mish", "Mul", "Neg", "Pow", "Reciprocal", "Relu", "Round", "Selu", "Sigmoid",
    "Sign", "Sin", "Softplus", "Softsign", "Sqrt", "Sub", "Swish", "Tanh", "Where",
})  # fmt: skip
_RESHAPES = frozenset({"Flatten", "Reshape", "Squeeze", "Unsqueeze"})
_RECURRENT = frozenset({"GRU", "LSTM", "RNN"})


@dataclass(frozen=True, slots=True)
class Selection:
    """What is read of a value: `length` positions of an axis from `start` on."""

    axis: int
    start: int
    length: int


class HoistSlices:
    """See the module."""

    name = "hoist-slices"

    def run(self, model: Model) -> bool:
        """Move slices up as far as they go; True when one moved."""
        editor, opsets = Editor(model), dict(model.ir.opset_imports)
        changed = False
        # from the end, so that a slice has come down to a node before the node is looked at
        pending = list(model.graph)
        while pending:
            node = pending.pop()
            if node.graph is not model.graph or node.domain != "" or not node.outputs:
                continue
            found = _common_selection(node.outputs[0]) if _only_first(node) else None
            new = None if found is None else _narrow(editor, node, found)
            if new is None or found is None:
                continue
            for made in new:
                infer_node(made, opsets)
            _replace_selections(editor, node.outputs[0], new[-1].outputs[0], found, opsets)
            model.graph.remove(node, safe=True)  # it still counts as a reader of its inputs
            changed = True
        if changed:
            remove_dead(model.ir)
        return changed


def _only_first(node: ir.Node) -> bool:
    return not any(v.uses() or v.is_graph_output() for v in node.outputs[1:])


def _common_selection(value: ir.Value) -> Selection | None:
    """The one true part of `value` that all its readers select (rule 3)."""
    shape = static_shape(value)
    users = {use.node for use in value.uses()}
    if shape is None or not users or value.is_graph_output():
        return None
    found = {_selection(user, value, shape) for user in users}
    only = found.pop()
    return only if not found and only is not None and 0 < only.length < shape[only.axis] else None


def _selection(node: ir.Node, value: ir.Value, shape: Shape) -> Selection | None:
    """What a Slice of one axis, or a Gather of one position, reads of `value`."""
    if node.domain != "" or node.inputs[0] is not value or any(v is value for v in node.inputs[1:]):
        return None
    numbers = [None if v is None else const_of(v) for v in node.inputs[1:]]
    if not numbers or numbers[0] is None:
        return None
    if node.op_type == "Gather" and numbers[0].ndim == 0:
        axis = int(attr(node, "axis", 0)) % len(shape)
        return Selection(axis, int(numbers[0]) % shape[axis], 1)
    if node.op_type != "Slice" or len(numbers) < 3 or any(n is None or n.size != 1 for n in numbers):
        return None
    start, end, axis, *step = (int(n.reshape(())) for n in numbers if n is not None)
    axis %= len(shape)
    if step not in ([], [1]):
        return None
    first, last, _ = slice(start, end).indices(shape[axis])
    return Selection(axis, first, max(last - first, 0))


def _replace_selections(editor: Editor, old: ir.Value, new: ir.Value, found: Selection, opsets: dict[str, int]) -> None:
    """Everybody who read a slice of `old` reads `new`; who read one position reads it without the axis."""
    for use in list(old.uses()):
        user = use.node
        if user.op_type == "Slice":
            passed = editor.node("Identity", [new], name=user.name or "slice")
        else:
            axes = editor.const(np.asarray([found.axis], np.int64), f"{user.name}/axes")
            passed = editor.node("Squeeze", [new, axes], name=user.name or "select")
        editor.replace(user, [passed], [passed.outputs[0]])
        infer_node(passed, opsets)
        if passed.op_type == "Identity":
            editor.bypass(passed, new)


def _narrow(editor: Editor, node: ir.Node, found: Selection) -> list[ir.Node] | None:
    """New nodes, placed before `node`, the last of which computes the selected part; None where it has to be whole."""
    if node.op_type in _RECURRENT:
        return _final_state(editor, node, found)
    where = _axes_of_inputs(node, found.axis)
    if where is None or all(axis is None for axis in where):
        return None
    inputs: list[ir.Value | None] = list(node.inputs)
    made = []
    for position, (value, axis) in enumerate(zip(node.inputs, where, strict=True)):
        if value is None or axis is None:
            continue
        bounds = [
            editor.const(np.asarray([n], np.int64), f"{node.name}/slice")
            for n in (found.start, found.start + found.length, axis)
        ]
        made.append(editor.node("Slice", [value, *bounds], name=f"{node.name}/part"))
        inputs[position] = made[-1].outputs[0]
    kind, attributes = node.op_type, {k: a.value for k, a in node.attributes.items()}
    if kind in _RESHAPES:
        shape = list(static_shape(node.outputs[0]) or ())
        shape[found.axis] = found.length
        target = editor.const(np.asarray(shape, np.int64), f"{node.name}/shape")
        kind, attributes, inputs = "Reshape", {}, [inputs[0], target]
    made.append(editor.node(kind, inputs, attributes, name=f"{node.name}/narrow"))
    _insert(node, made)
    return made


def _insert(node: ir.Node, made: Sequence[ir.Node]) -> None:
    assert node.graph is not None
    node.graph.insert_before(node, made)
    for new in made:
        new.metadata_props.update(node.metadata_props)


def _axes_of_inputs(node: ir.Node, axis: int) -> list[int | None] | None:
    """For each input the axis to slice, None where it is read whole; None where the node cannot be narrowed."""
    shapes = [None if v is None else static_shape(v) for v in node.inputs]
    out = static_shape(node.outputs[0])
    if out is None or any(v is not None and s is None for v, s in zip(node.inputs, shapes, strict=True)):
        return None
    find = next((rule for kinds, rule in _RULES if node.op_type in kinds), None)
    return None if find is None else find(node, axis, out, shapes)


def _broadcast(_node: ir.Node, axis: int, out: Shape, shapes: list[Shape | None]) -> list[int | None]:
    return [_aligned(s, axis, out) for s in shapes]


def _aligned(shape: Shape | None, axis: int, out: Shape) -> int | None:
    """The axis of a broadcast operand that meets `axis` of the result; None where it has one position there."""
    if shape is None:
        return None
    own = axis - (len(out) - len(shape))
    return own if own >= 0 and shape[own] > 1 else None


def _rows(node: ir.Node, axis: int, out: Shape, shapes: list[Shape | None]) -> list[int | None] | None:
    """Norms and softmax: positions before the axis they run over (softmax also behind it)."""
    own = int(attr(node, "axis", -1)) % len(out)
    if axis == own or (axis > own and node.op_type not in ("Softmax", "LogSoftmax")):
        return None
    return [axis, *[None for _ in shapes[1:]]]


def _product(_node: ir.Node, axis: int, out: Shape, shapes: list[Shape | None]) -> list[int | None] | None:
    a, b = shapes
    if a is None or b is None or len(a) < 2 or len(b) < 2 or axis == len(out) - 1:
        return None
    if axis == len(out) - 2:
        return [len(a) - 2, None]
    return [_aligned(a, axis, out), _aligned(b, axis, out)]


def _gemm(node: ir.Node, axis: int, out: Shape, shapes: list[Shape | None]) -> list[int | None] | None:
    if axis != 0 or attr(node, "transA", 0):
        return None
    return [0, None, *(_aligned(s, axis, out) for s in shapes[2:])]


def _transpose(node: ir.Node, axis: int, out: Shape, _shapes: list[Shape | None]) -> list[int | None]:
    perm = attr(node, "perm") or tuple(range(len(out)))[::-1]
    return [int(perm[axis])]


def _reshape(_node: ir.Node, axis: int, out: Shape, shapes: list[Shape | None]) -> list[int | None] | None:
    """The input's axis of that size with as many elements before it."""
    have, before = shapes[0] or (), math.prod(out[:axis])
    for own, size in enumerate(have):
        if size == out[axis] and math.prod(have[:own]) == before:
            return [own, *[None for _ in shapes[1:]]]
    return None


_Rule = Callable[[ir.Node, int, Shape, list[Shape | None]], "list[int | None] | None"]
_RULES: tuple[tuple[frozenset[str], _Rule], ...] = (
    (_ELEMENTWISE, _broadcast),
    (frozenset({"LayerNormalization", "LogSoftmax", "RMSNormalization", "Softmax"}), _rows),
    (frozenset({"MatMul"}), _product),
    (frozenset({"Gemm"}), _gemm),
    (frozenset({"Transpose"}), _transpose),
    (_RESHAPES, _reshape),
)


def _final_state(editor: Editor, node: ir.Node, found: Selection) -> list[ir.Node] | None:
    """Rule 2: Y[last] is Y_h where every sequence has the full length."""
    shape = static_shape(node.outputs[0])
    direction = attr(node, "direction", "forward")
    lengths = node.inputs[4] if len(node.inputs) > 4 else None
    if shape is None or lengths is not None or attr(node, "layout", 0) or direction == "bidirectional":
        return None
    wanted = 0 if direction == "reverse" else shape[0] - 1
    if found != Selection(0, wanted, 1):
        return None
    attributes = {k: a.value for k, a in node.attributes.items()}
    layer = editor.node(node.op_type, list(node.inputs), attributes, name=f"{node.name}/last", outputs=2)
    layer.outputs[0].name = ""
    axes = editor.const(np.asarray([0], np.int64), f"{node.name}/axes")
    row = editor.node("Unsqueeze", [layer.outputs[1], axes], name=f"{node.name}/row")
    _insert(node, [layer, row])
    return [layer, row]
