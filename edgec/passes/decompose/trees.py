"""Tree ensembles of ai.onnx.ml as walks through tables: all trees take one step at a time.

A step asks every tree's present node its question and moves to one of the two nodes behind it; leaves lead to
themselves, so that after as many steps as the deepest tree has, every tree is at its leaf. Nothing is rounded on the
way: the leaf is the one that ONNX says. Size and time grow with the number of nodes and the depth, where matrix
products would grow with nodes times leaves.
"""

from __future__ import annotations

import itertools

import numpy as np
import onnx_ir as ir

from edgec.graph.build import Builder
from edgec.graph.edit import Editor
from edgec.graph.model import attr
from edgec.passes.decompose.diagram import Column, Diagram, diagram_of
from edgec.passes.decompose.ml_common import (
    choose,
    f32,
    features,
    label_of,
    labels_of,
    numbers,
    post_transform,
    probit,
    text,
)
from edgec.passes.decompose.trees_read import Forest, Leaf, read_listed, read_named
from edgec.tensors import Array

_TRANSFORMS = ("NONE", "SOFTMAX", "LOGISTIC", "SOFTMAX_ZERO", "PROBIT")
_AGGREGATES = ("AVERAGE", "SUM", "MIN", "MAX")
#: Steps that are written out: seven operators each.
_MOST_STEPS = 512
_UNSET = float(np.finfo(np.float32).max)


def tree_ensemble(node: ir.Node, editor: Editor) -> bool:
    """Opset 5's form of all of them."""
    b, x = Builder(editor, node), node.inputs[0]
    how = _AGGREGATES[int(attr(node, "aggregate_function", 1))]
    scores = _scores(b, node, read_listed(node), int(attr(node, "n_targets", 1)), how)
    done = None if scores is None else post_transform(b, scores, _TRANSFORMS[int(attr(node, "post_transform", 0))])
    if done is None or x is None or x.dtype is None:
        return False
    b.done(done if x.dtype == ir.DataType.FLOAT else b("Cast", done, to=int(x.dtype)))
    return True


def tree_regressor(node: ir.Node, editor: Editor) -> bool:
    """Sums, averages or extremes of leaf weights, and base values."""
    b = Builder(editor, node)
    how, targets = text(node, "aggregate_function", "SUM"), int(attr(node, "n_targets", 1))
    scores = _scores(b, node, read_named(node, "target"), targets, how)
    base = numbers(node, "base_values")
    if scores is None or (base is not None and base.size not in (0, 1, targets)):
        return False
    if base is not None and base.size:
        scores = b("Add", scores, f32(base))
    done = post_transform(b, scores, text(node, "post_transform", "NONE"))
    if done is None:
        return False
    b.done(done)
    return True


def tree_classifier(node: ir.Node, editor: Editor) -> bool:
    """Labels and scores. Two classes with weights for one only: its score s stands for both."""
    names, forest, weights = labels_of(node), read_named(node, "class"), numbers(node, "class_weights")
    if names is None or forest is None or weights is None:
        return False
    b, base, transform = Builder(editor, node), numbers(node, "base_values"), text(node, "post_transform", "NONE")
    used = {int(i) for i in np.asarray(numbers(node, "class_ids"))}
    if len(names) == 2 and len(used) == 1:
        return _one_score(b, node, _only_target(forest), names, bool(np.all(weights >= 0)))
    scores = _scores(b, node, forest, len(names), "SUM")
    if scores is None or (base is not None and base.size not in (0, 1, len(names))):
        return False
    if base is not None and base.size:
        scores = b("Add", scores, f32(base))
    done = post_transform(b, scores, transform)
    if done is None:
        return False
    b.done(label_of(b, scores, names), done)
    return True


def _only_target(forest: Forest) -> Forest:
    """All weights for target 0."""
    entries = tuple(
        Leaf(tuple((0, weight) for _, weight in e.weights)) if isinstance(e, Leaf) else e for e in forest.entries
    )
    return Forest(entries, forest.roots)


def _one_score(b: Builder, node: ir.Node, forest: Forest, names: Array, positive: bool) -> bool:
    """Weights that are all positive make probabilities, others a margin around 0."""
    score = _scores(b, node, forest, 1, "SUM")
    found = features(b, node.inputs[0])
    base, transform = numbers(node, "base_values"), text(node, "post_transform", "NONE")
    if score is None or found is None:
        return False
    if base is not None and base.size:
        score = b("Add", score, f32(base[-1:]))
    label = choose(b, b("Greater", score, f32(0.5 if positive else 0.0)), found[1], names)
    if transform == "PROBIT":
        b.done(label, b("Concat", b("Sub", f32(1.0), probit(b, score)), probit(b, score), axis=1))
        return True
    pair = b("Concat", b("Sub", f32(1.0), score) if positive else b("Neg", score), score, axis=1)
    done = b("Sigmoid", pair) if transform == "LOGISTIC" and not positive else pair
    b.done(label, done)
    return True


# --- the walk -----------------------------------------------------------------------------------------


def _scores(b: Builder, node: ir.Node, forest: Forest | None, targets: int, how: str) -> ir.Value | None:
    """[rows, targets]; None where the forest does not fit its input, or is too deep."""
    found = features(b, node.inputs[0])
    diagram = None if forest is None else diagram_of(forest)
    if found is None or diagram is None or diagram.steps > _MOST_STEPS or not len(diagram.roots):
        return None
    x, rows, width = found
    if any(column.feature >= width or column.feature < 0 for column in diagram.columns):
        return None
    if any(target >= targets or target < 0 for leaf in diagram.leaves for target, _ in leaf):
        return None
    return _summed(b, diagram, _walk(b, diagram, x, rows), targets, how)


def _walk(b: Builder, d: Diagram, x: ir.Value, rows: int) -> ir.Value:
    """The leaf that each tree ends in: [rows, trees]."""
    trees = len(d.roots)
    if not d.steps:
        return b("Expand", d.roots.reshape(1, -1), b.ints(rows, trees))
    table = _columns(b, d.columns, x)
    asked = b("Gather", table, d.column[d.roots].astype(np.int64), axis=1)
    at = b("Where", b("LessOrEqual", asked, d.value[d.roots]), d.yes[d.roots], d.no[d.roots])
    flat = b("Reshape", table, b.ints(-1))
    offsets = (np.arange(rows, dtype=np.int32) * len(d.columns)).reshape(-1, 1)
    tables = {name: b.constant(getattr(d, name)) for name in ("column", "value", "yes", "no")}
    for _ in range(d.steps - 1):
        column = b("Gather", tables["column"], at)
        asked = b("Gather", flat, column if rows == 1 else b("Add", column, offsets))
        under = b("LessOrEqual", asked, b("Gather", tables["value"], at))
        at = b("Where", under, b("Gather", tables["yes"], at), b("Gather", tables["no"], at))
    return at


def _columns(b: Builder, columns: tuple[Column, ...], x: ir.Value) -> ir.Value:
    """[rows, columns]: features as they are, negated, with −∞ for missing values."""
    parts = []
    for kind, group in itertools.groupby(columns, key=lambda c: (c.negated, c.missing_low)):
        part = b("Gather", x, np.asarray([c.feature for c in group], np.int64), axis=1)
        missing = b("IsNaN", part) if kind[1] else None
        part = b("Neg", part) if kind[0] else part
        parts.append(part if missing is None else b("Where", missing, f32(-np.inf), part))
    return parts[0] if len(parts) == 1 else b("Concat", *parts, axis=1)


def _summed(b: Builder, d: Diagram, leaf: ir.Value, targets: int, how: str) -> ir.Value | None:
    """Leaf weights of all trees together."""
    if how not in _AGGREGATES:
        return None
    empty = {"MIN": _UNSET, "MAX": -_UNSET}.get(how, 0.0)
    weights = np.full((len(d.leaves), targets), empty, np.float64)
    for number, entries in enumerate(d.leaves):
        for target, weight in entries:
            weights[number, target] = weight if weights[number, target] == empty else weights[number, target] + weight
    axes = b.ints(1)
    if targets == 1:
        reached, keep = b("Gather", f32(weights[:, 0]), leaf), 1
    else:
        reached, keep = b("Gather", f32(weights), leaf, axis=0), 0
    if how in ("MIN", "MAX"):
        most = b("ReduceMin" if how == "MIN" else "ReduceMax", reached, axes, keepdims=keep)
        return b("Where", b("Equal", most, f32(empty)), f32(0.0), most)
    total = b("ReduceSum", reached, axes, keepdims=keep)
    return b("Div", total, f32(len(d.roots))) if how == "AVERAGE" else total
