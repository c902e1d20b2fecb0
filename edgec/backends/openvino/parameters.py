"""What OpenVINO wants to know before it runs, and what its kernels take in another sense than ONNX.

1. A shape, axes or repeats that arrive at run time are constants where the output's declared shape implies them.
2. A reduction over nothing is the constant that ONNX says.
3. NonMaxSuppression drops boxes that overlap by the threshold or more; ONNX says by more than it.
4. The largest of nothing but −∞ is −FLT_MAX in the plugin: where it matters, a second reduction tells the two apart.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from edgec.backends.openvino.division import divided, quantized
from edgec.backends.openvino.integers import compared, ordered, rectified, without_sign, wrapped
from edgec.backends.openvino.products import apart
from edgec.backends.openvino.reductions import fenced
from edgec.graph.build import Builder
from edgec.graph.edit import Editor, remove_dead
from edgec.graph.model import Model, attr, const_of, static_shape
from edgec.passes.base import run_passes
from edgec.passes.decompose.own import OwnRule
from edgec.passes.eliminate import Eliminate
from edgec.passes.fold_constants import FoldConstants


def _runtime(node: ir.Node, index: int) -> bool:
    value = node.inputs[index] if len(node.inputs) > index else None
    return value is not None and const_of(value) is None


def reshaped(node: ir.Node, editor: Editor) -> bool:
    """Rule 1: Reshape, Squeeze, Unsqueeze, Expand."""
    shape = static_shape(node.outputs[0])
    if not _runtime(node, 1) or shape is None or static_shape(node.inputs[0]) is None:
        return False
    b = Builder(editor, node)
    if node.op_type == "Expand":
        b.done(b("Expand", node.inputs[0], b.ints(*shape)))
    else:
        b.done(b("Reshape", node.inputs[0], b.ints(*shape), allowzero=1 if 0 in shape else None))
    return True


def tiled(node: ir.Node, editor: Editor) -> bool:
    """Rule 1: Tile."""
    before, after = static_shape(node.inputs[0]), static_shape(node.outputs[0])
    if not _runtime(node, 1) or before is None or after is None or 0 in before:
        return False
    b = Builder(editor, node)
    b.done(b("Tile", node.inputs[0], b.ints(*(m // n for n, m in zip(before, after, strict=True)))))
    return True


def reduced(node: ir.Node, editor: Editor) -> bool:
    """Rules 1 and 2: all reductions."""
    before, after = static_shape(node.inputs[0]), static_shape(node.outputs[0])
    if before is None or after is None:
        return False
    nothing = _of_nothing(node) if 0 in before and 0 not in after else None
    if nothing is not None:
        b = Builder(editor, node)
        b.done(b("Expand", nothing, b.ints(*after)))
        return True
    if node.op_type in _EXTREMES and _infinity_matters(node):
        return _true_extreme(node, editor)
    if not _runtime(node, 1) or attr(node, "keepdims", 1):
        return False
    b = Builder(editor, node)
    attributes = {name: attr(node, name) for name in node.attributes if name != "keepdims"}
    kept = b(node.op_type, *node.inputs, keepdims=1, **attributes)
    b.done(b("Reshape", kept, b.ints(*after)))
    return True


def _of_nothing(node: ir.Node) -> np.ndarray | None:
    x = node.inputs[0]
    if x is None or x.dtype is None or node.op_type not in ("ReduceMax", "ReduceMin"):
        return None
    kind = x.dtype.numpy()
    largest = node.op_type == "ReduceMin"
    if x.dtype.is_floating_point():
        return np.asarray(np.inf if largest else -np.inf, kind)
    if kind.kind == "b":
        return np.asarray(largest, kind)
    return np.asarray(np.iinfo(kind).max if largest else np.iinfo(kind).min, kind)


_EXTREMES = {"ReduceMax": ("Greater", -np.inf), "ReduceMin": ("Less", np.inf)}
#: Who sees the difference between infinity and the largest number.
_TELLING = frozenset(["Cast", "Equal", "Greater", "GreaterOrEqual", "IsInf", "Less", "LessOrEqual", "Where"])


def _infinity_matters(node: ir.Node) -> bool:
    x, y = node.inputs[0], node.outputs[0]
    if x is None or x.dtype is None or not x.dtype.is_floating_point() or _SEEN in (node.name or ""):
        return False
    return y.is_graph_output() or any(user.op_type in _TELLING for user, _ in y.uses())


def _true_extreme(node: ir.Node, editor: Editor) -> bool:
    """Rule 4."""
    b = Builder(editor, node)
    compare, infinity = _EXTREMES[node.op_type]
    attributes = {name: attr(node, name) for name in node.attributes}
    made = editor.node(node.op_type, list(node.inputs), attributes, name=f"{node.name}/{_SEEN}")
    b.nodes.append(made)
    beyond = b("Cast", b(compare, node.inputs[0], infinity), to=int(ir.DataType.FLOAT))
    some = b("ReduceMax", beyond, *node.inputs[1:], **attributes)
    b.done(b("Where", b("Greater", some, np.asarray(0, np.float32)), made.outputs[0], infinity))
    return True


#: Marks what rules 3 and 4 have seen already.
_SEEN = "adjusted"


def suppressed(node: ir.Node, editor: Editor) -> bool:
    """Rule 3: the next float after the threshold."""
    threshold = node.inputs[3] if len(node.inputs) > 3 else None
    if threshold is None or _SEEN in (node.name or ""):
        return False
    b = Builder(editor, node)
    known = const_of(threshold)
    if known is not None:
        raised = b("Cast", np.nextafter(known.astype(np.float32), np.float32(np.inf)), to=int(ir.DataType.FLOAT))
    else:
        scaled = b("Mul", threshold, np.asarray(1 + 2.0**-23, np.float32))
        raised = b("Max", scaled, np.asarray(np.finfo(np.float32).tiny, np.float32))
    inputs = [*node.inputs[:3], raised, *node.inputs[4:]]
    attributes = {name: attr(node, name) for name in node.attributes}
    made = editor.node(node.op_type, inputs, attributes, name=f"{node.name}/{_SEEN}")
    b.nodes.append(made)
    b.done(made.outputs[0])
    return True


_REDUCTIONS = ["L1", "L2", "LogSum", "LogSumExp", "Max", "Mean", "Min", "Prod", "Sum", "SumSquare"]

#: Operator and rule.
RULES: dict[str, OwnRule] = {
    "Div": divided,
    "Expand": reshaped,
    "Gemm": apart,
    "MatMul": apart,
    "NonMaxSuppression": suppressed,
    "QuantizeLinear": quantized,
    "Relu": rectified,
    "Reshape": reshaped,
    "Squeeze": reshaped,
    "Tile": tiled,
    "Unsqueeze": reshaped,
    **dict.fromkeys(("Cast", "Sign"), without_sign),
    **dict.fromkeys(("Abs", "Add", "Mul", "Neg", "Sub"), wrapped),
    **dict.fromkeys(("Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual"), compared),
    **dict.fromkeys(("Max", "Min"), ordered),
    **{f"Reduce{kind}": reduced for kind in _REDUCTIONS},
}

#: The same, when the others are done: what it puts behind its fence has to stay as it is.
LAST: dict[str, OwnRule] = dict.fromkeys(
    ("GlobalAveragePool", "GlobalMaxPool", *(f"Reduce{kind}" for kind in _REDUCTIONS)), fenced
)


def adjust(model: Model) -> None:
    """Apply all rules, in place."""
    editor = Editor(model)
    changed = False
    for rules in (RULES, LAST):
        for node in tuple(model.nodes()):
            rule = rules.get(node.op_type) if node.domain == "" and node.graph is not None else None
            if rule is not None and rule(node, editor):
                changed = True
    if changed:
        remove_dead(model.ir)
        run_passes(model, (FoldConstants(), Eliminate()), rounds=2)
