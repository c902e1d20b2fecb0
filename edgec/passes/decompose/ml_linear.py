"""ai.onnx.ml's linear models as one Gemm, a label and a last transform."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from edgec.graph.build import Builder
from edgec.graph.edit import Editor
from edgec.graph.model import attr
from edgec.passes.decompose.ml_common import choose, f32, features, label_of, labels_of, post_transform, text


def _scores(b: Builder, node: ir.Node, count: int) -> tuple[ir.Value, int] | None:
    """x · wᵀ + b: [rows, count], and the rows."""
    found = features(b, node.inputs[0])
    weights = f32(attr(node, "coefficients"))
    if found is None or weights.size != count * found[2]:
        return None
    offsets = f32(attr(node, "intercepts") or np.zeros(count))
    return b("Gemm", found[0], weights.reshape(count, -1), offsets, transB=1), found[1]


def linear_regressor(node: ir.Node, editor: Editor) -> bool:
    """x · wᵀ + b"""
    b = Builder(editor, node)
    found = _scores(b, node, int(attr(node, "targets", 1)))
    done = None if found is None else post_transform(b, found[0], text(node, "post_transform", "NONE"))
    if done is None:
        return False
    b.done(done)
    return True


def linear_classifier(node: ir.Node, editor: Editor) -> bool:
    """The label of the largest score, and the scores. One score for two classes is the second one's."""
    names, intercepts = labels_of(node), attr(node, "intercepts")
    if names is None:
        return False
    b = Builder(editor, node)
    found = _scores(b, node, len(intercepts) if intercepts else len(names))
    if found is None:
        return False
    scores, rows = found
    transform = text(node, "post_transform", "NONE")
    if intercepts and len(intercepts) == 1 and len(names) == 2:
        label = choose(b, b("Greater", scores, f32(0.0)), rows, names)
        scores = b("Concat", b("Neg", scores), scores, axis=1)
    else:
        label = label_of(b, scores, names)
    done = post_transform(b, scores, transform)
    if done is None:
        return False
    b.done(label, done if done is not node.inputs[0] else b("Identity", done))
    return True
