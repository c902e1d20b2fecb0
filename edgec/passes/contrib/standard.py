"""Bring ONNX Runtime's own operators into the standard's terms, in place, before anything else reads the model.

Its optimiser fuses (`fused`, `attention`), its static quantizer writes operators on integers (`qlinear`), its dynamic
one pairs of them (`dynamic`). What has no rule stays, and is refused later by its name.
"""

from __future__ import annotations

from collections.abc import Callable

import onnx_ir as ir

from edgec.errors import Finding, Severity
from edgec.graph.build import Builder
from edgec.graph.edit import Editor, remove_dead
from edgec.graph.model import Model
from edgec.passes.contrib.attention import ATTENTION
from edgec.passes.contrib.dynamic import DYNAMIC, undo_integer_products
from edgec.passes.contrib.fused import FUSED
from edgec.passes.contrib.qlinear import MOVES, QLINEAR, STANDARD_QLINEAR
from edgec.passes.shapes import infer_node

DOMAIN = "com.microsoft"
#: Operators that ONNX Runtime's tools put into the standard domain, which does not have them.
STRAYED = frozenset({"SimplifiedLayerNormalization", "SkipLayerNormalization", "SkipSimplifiedLayerNormalization"})

#: The new outputs, or None where the rule does not apply.
ContribRule = Callable[[ir.Node, Builder], "tuple[ir.Value, ...] | None"]
_RULES: dict[str, ContribRule] = {**FUSED, **ATTENTION, **QLINEAR, **DYNAMIC}


def claim_strayed(model: Model) -> None:
    """Give operators that strayed into the standard domain their own one back."""
    for node in model.ir.graph.all_nodes():
        if node.domain == "" and node.op_type in STRAYED:
            node.domain = DOMAIN
            model.ir.opset_imports.setdefault(DOMAIN, 1)


def standard_forms(model: Model) -> tuple[Finding, ...]:
    """Rewrite in place; the model's opset must be the pinned one. Findings say what a rewriting changes."""
    editor = Editor(model)
    opsets = dict(model.ir.opset_imports)
    operators = {node.op_type for node in model.ir.graph.all_nodes() if node.domain == DOMAIN}
    integers = {node.op_type for node in model.ir.graph.all_nodes() if node.domain == ""}
    if not operators and not integers & {*STANDARD_QLINEAR, "ConvInteger", "MatMulInteger"}:
        return ()
    static = bool(integers & {*STANDARD_QLINEAR} or operators & {*QLINEAR})
    undone = 0
    for graph in list(model.ir.graphs()):
        for node in list(graph):
            rule = _RULES.get(node.op_type) if node.domain == DOMAIN else None
            if node.domain == "":
                rule = STANDARD_QLINEAR.get(node.op_type) or (MOVES.get(node.op_type) if static else None)
            made = _apply(node, rule, Builder(editor, node), opsets) if rule is not None else False
            if not made:
                infer_node(node, opsets)
            undone += made and node.op_type in DYNAMIC
    undone += undo_integer_products(model, editor)
    remove_dead(model.ir)
    if not any(node.domain == DOMAIN for node in model.ir.graph.all_nodes()):
        model.ir.opset_imports.pop(DOMAIN, None)
    return (_dynamic(undone),) if undone else ()


def _apply(node: ir.Node, rule: ContribRule, b: Builder, opsets: dict[str, int]) -> bool:
    """Put what the rule makes in the node's place; False where it makes nothing, or not all that is read."""
    outputs = rule(node, b)
    if outputs is None:
        return False
    if any(o.uses() or o.is_graph_output() for o in node.outputs[len(outputs) :]):
        return False
    node.resize_outputs(len(outputs))
    for made in b.nodes:
        infer_node(made, opsets)
    b.done(*outputs)
    return True


def _dynamic(count: int) -> Finding:
    return Finding(
        code="source/dynamic-quantization",
        message=f"{count} products of this model quantize what they read at run time, as ONNX Runtime does it; they "
        "are taken as products of floats and the weights' integers",
        severity=Severity.INFO,
        hint="precision dynamic does the same with the target's own kernels; with --calibration int8 is tried first",
    )
