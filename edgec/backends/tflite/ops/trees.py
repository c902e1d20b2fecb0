"""Tree ensembles of ai.onnx.ml as matrix products: all decisions at once, then which leaf they lead to.

1. Decisions d of every inner node are compared at once: [rows, trees · nodes] of 0 and 1.
2. Matrix C of a tree has, for each leaf, +1 where its path takes a node's true branch, −1 for the false one.
   d · C reaches the number of true branches on the path exactly where the path is taken.
3. The leaves that are hit, times their weights, are the scores. Everything before is exact: small integers.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import onnx_ir as ir

from edgec.backends.tflite.context import Context, Lowering, Refusal
from edgec.backends.tflite.ops.dtypes import convert
from edgec.backends.tflite.ops.elementwise import arithmetic, compare, select
from edgec.backends.tflite.ops.linear import batch_matmul, fully_connected
from edgec.backends.tflite.ops.ml import DOMAIN, floats, label_of, labels, matrix, post_transform, row, text
from edgec.backends.tflite.ops.reduce import reduce
from edgec.backends.tflite.tir import Tensor, constant
from edgec.graph.model import attr
from edgec.tensors import Array, DType

_MODES = ("LEQ", "LT", "GTE", "GT", "EQ", "NEQ", "MEMBER")
_COMPARE = {
    "LEQ": "LESS_EQUAL",
    "LT": "LESS",
    "GTE": "GREATER_EQUAL",
    "GT": "GREATER",
    "EQ": "EQUAL",
    "NEQ": "NOT_EQUAL",
}
_TRANSFORMS = ("NONE", "SOFTMAX", "LOGISTIC", "SOFTMAX_ZERO", "PROBIT")
_AGGREGATES = ("AVERAGE", "SUM", "MIN", "MAX")
#: Elements that the path matrices may have together.
_MOST_PATHS = 2**24


@dataclass(slots=True)
class _Node:
    feature: int
    split: float
    mode: str
    missing_is_true: bool
    members: Array | None = None


@dataclass(slots=True)
class _Leaf:
    path: list[tuple[int, bool]]
    weights: list[tuple[int, float]]


@dataclass(slots=True)
class _Tree:
    nodes: list[_Node] = field(default_factory=list)
    leaves: list[_Leaf] = field(default_factory=list)


# --- evaluation ---------------------------------------------------------------------------------------


def evaluate(ctx: Context, x: Tensor, trees: list[_Tree], targets: int) -> Tensor:
    """Sums of leaf weights: [rows, targets]."""
    inner = max(1, max(len(t.nodes) for t in trees))
    outer = max(len(t.leaves) for t in trees)
    if len(trees) * inner * outer > _MOST_PATHS:
        raise Refusal("size", f"{len(trees)} trees of up to {outer} leaves are too large for matrix products")
    paths = np.zeros((len(trees), inner, outer), np.float32)
    wanted = np.full((len(trees), 1, outer), -1.0, np.float32)  # a leaf that is not there is never hit
    weights = np.zeros((targets, len(trees), outer), np.float32)
    for t, tree in enumerate(trees):
        for number, leaf in enumerate(tree.leaves):
            wanted[t, 0, number] = sum(taken for _, taken in leaf.path)
            for node, taken in leaf.path:
                paths[t, node, number] = 1.0 if taken else -1.0
            for target, weight in leaf.weights:
                weights[target, t, number] += weight
    rows = x.shape[0]
    taken_branches = _decisions(ctx, x, trees, inner)
    by_tree = ctx.transpose(ctx.reshape(taken_branches, (rows, len(trees), inner)), (1, 0, 2))
    reached = batch_matmul(ctx, by_tree, constant(ctx.name("paths"), paths))
    hit = ctx.cast(compare(ctx, "EQUAL", reached, constant(ctx.name("wanted"), wanted)), DType.FLOAT32)
    flat = ctx.reshape(ctx.transpose(hit, (1, 0, 2)), (rows, len(trees) * outer))
    return fully_connected(ctx, flat, constant(ctx.name("weights"), weights.reshape(targets, -1)), None)


def _decisions(ctx: Context, x: Tensor, trees: list[_Tree], inner: int) -> Tensor:
    """Rule 1."""
    unused = _Node(feature=0, split=0.0, mode="LEQ", missing_is_true=False)
    grid = [n for tree in trees for n in (*tree.nodes, *[unused] * (inner - len(tree.nodes)))]
    features = ctx.int32([n.feature for n in grid])
    if max(n.feature for n in grid) >= x.shape[1]:
        raise Refusal("shape", f"a tree asks for feature {max(n.feature for n in grid)} of {x.shape[1]}")
    chosen = ctx.emit("GATHER", [x, features], (x.shape[0], len(grid)), x.dtype, axis=1, batchDims=0)
    splits = row(ctx, [n.split for n in grid])
    result: Tensor | None = None
    for mode in dict.fromkeys(n.mode for n in grid):
        in_set = mode == "MEMBER"
        decided = _members(ctx, chosen, grid) if in_set else compare(ctx, _COMPARE[mode], chosen, splits)
        mask = ctx.constant(np.asarray([n.mode == mode for n in grid]), DType.BOOL)
        result = decided if result is None else select(ctx, mask, decided, result)
    assert result is not None
    if any(n.missing_is_true for n in grid):
        missing = ctx.emit("NOT_EQUAL", [chosen, chosen], chosen.shape, DType.BOOL)
        follow = ctx.constant(np.asarray([n.missing_is_true for n in grid]), DType.BOOL)
        result = ctx.binary("LOGICAL_OR", result, ctx.binary("LOGICAL_AND", missing, follow))
    return ctx.cast(result, DType.FLOAT32)


def _members(ctx: Context, chosen: Tensor, grid: list[_Node]) -> Tensor:
    """Whether a value is in its node's set; sets are filled up with NaN, which equals nothing."""
    most = max(len(n.members) for n in grid if n.members is not None)
    table = np.full((len(grid), most), np.nan, np.float32)
    for i, node in enumerate(grid):
        if node.members is not None:
            table[i, : len(node.members)] = node.members
    wide = ctx.reshape(chosen, (*chosen.shape, 1))
    return reduce(ctx, "REDUCE_ANY", compare(ctx, "EQUAL", wide, constant(ctx.name("sets"), table)), [2], keep=False)


# --- reading ------------------------------------------------------------------------------------------


def _array(node: ir.Node, name: str, default: Array | None = None) -> Array:
    value = attr(node, f"{name}_as_tensor")
    if value is None:
        value = attr(node, name)
    if value is None:
        if default is None:
            raise Refusal("attributes", f"{node.op_type} has no {name}")
        return default
    return np.asarray(value.numpy() if hasattr(value, "numpy") else value)


def _read(node: ir.Node) -> list[_Tree]:
    """The form of TreeEnsemble: nodes and leaves in lists of their own."""
    features = _array(node, "nodes_featureids")
    count = len(features)
    modes, splits = _array(node, "nodes_modes"), _array(node, "nodes_splits")
    missing = _array(node, "nodes_missing_value_tracks_true", np.zeros(count, np.int64))
    children = {True: _array(node, "nodes_truenodeids"), False: _array(node, "nodes_falsenodeids")}
    ends = {True: _array(node, "nodes_trueleafs"), False: _array(node, "nodes_falseleafs")}
    targets, weights = _array(node, "leaf_targetids"), _array(node, "leaf_weights")
    sets = iter(_sets(_array(node, "membership_values", np.zeros(0, np.float32))))
    members = [next(sets, np.zeros(0)) if _MODES[m] == "MEMBER" else None for m in modes]

    def build(root: int) -> _Tree:
        tree = _Tree()

        def leaf(number: int, path: list[tuple[int, bool]]) -> None:
            tree.leaves.append(_Leaf(path, [(int(targets[number]), float(weights[number]))]))

        stack: list[tuple[int, list[tuple[int, bool]]]] = [(root, [])]
        if children[True][root] == children[False][root] and ends[True][root] and ends[False][root]:
            leaf(int(children[True][root]), [])  # a tree that is one leaf
            return tree
        while stack:
            number, path = stack.pop()
            place = len(tree.nodes)
            mode = _MODES[int(modes[number])]
            split, always = float(splits[number]), bool(missing[number])
            tree.nodes.append(_Node(int(features[number]), split, mode, always, members[number]))
            for side in (True, False):
                child, below = int(children[side][number]), [*path, (place, side)]
                if ends[side][number]:
                    leaf(child, below)
                else:
                    stack.append((child, below))
        return tree

    return [build(int(root)) for root in _array(node, "tree_roots")]


def _sets(values: Array) -> list[Array]:
    """Sets end with NaN."""
    ends = np.flatnonzero(np.isnan(values))
    starts = np.concatenate([[0], ends[:-1] + 1]) if len(ends) else np.zeros(0, np.int64)
    return [values[int(s) : int(e)] for s, e in zip(starts, ends, strict=True)]


def _read_old(node: ir.Node, kind: str) -> list[_Tree]:
    """The form of TreeEnsembleRegressor and -Classifier: nodes named by tree and number, leaves among them."""
    trees, numbers = _array(node, "nodes_treeids"), _array(node, "nodes_nodeids")
    modes = [m.decode() if isinstance(m, bytes) else str(m) for m in attr(node, "nodes_modes")]
    splits, features = _array(node, "nodes_values"), _array(node, "nodes_featureids")
    missing = _array(node, "nodes_missing_value_tracks_true", np.zeros(len(trees), np.int64))
    yes, no = _array(node, "nodes_truenodeids"), _array(node, "nodes_falsenodeids")
    place = {(int(t), int(n)): i for i, (t, n) in enumerate(zip(trees, numbers, strict=True))}
    weights: dict[tuple[int, int], list[tuple[int, float]]] = {}
    given = (_array(node, f"{kind}_{name}") for name in ("treeids", "nodeids", "ids", "weights"))
    for t, n, target, weight in zip(*given, strict=True):
        weights.setdefault((int(t), int(n)), []).append((int(target), float(weight)))
    result = []
    for number in dict.fromkeys(int(t) for t in trees):
        tree = _Tree()
        first = next(i for i, t in enumerate(trees) if t == number)
        stack: list[tuple[int, list[tuple[int, bool]]]] = [(first, [])]
        while stack:
            i, path = stack.pop()
            if modes[i] == "LEAF":
                tree.leaves.append(_Leaf(path, weights.get((number, int(numbers[i])), [])))
                continue
            at = len(tree.nodes)
            mode = modes[i].removeprefix("BRANCH_")
            tree.nodes.append(_Node(int(features[i]), float(splits[i]), mode, bool(missing[i])))
            stack.append((place[number, int(no[i])], [*path, (at, False)]))
            stack.append((place[number, int(yes[i])], [*path, (at, True)]))
        result.append(tree)
    return result


# --- operators ----------------------------------------------------------------------------------------


def _aggregated(ctx: Context, scores: Tensor, how: str, trees: int) -> Tensor:
    if how == "SUM":
        return scores
    if how == "AVERAGE":
        return arithmetic(ctx, "DIV", scores, ctx.scalar(float(trees), scores))
    raise Refusal("aggregate", f"trees aggregated by {how} have no TFLite form")


def _ensemble(ctx: Context, node: ir.Node) -> Tensor:
    """Opset 5's form of all of them."""
    x = ctx.tensor(node.inputs[0])
    trees = _read(node)
    scores = evaluate(ctx, matrix(ctx, floats(ctx, x)), trees, attr(node, "n_targets", 1))
    scores = _aggregated(ctx, scores, _AGGREGATES[attr(node, "aggregate_function", 1)], len(trees))
    return convert(ctx, post_transform(ctx, scores, _TRANSFORMS[attr(node, "post_transform", 0)]), x.dtype)


def _regressor(ctx: Context, node: ir.Node) -> Tensor:
    """Sums or averages of leaf weights, and base values."""
    trees = _read_old(node, "target")
    targets = attr(node, "n_targets", 1)
    scores = evaluate(ctx, matrix(ctx, floats(ctx, ctx.tensor(node.inputs[0]))), trees, targets)
    scores = _aggregated(ctx, scores, text(node, "aggregate_function", "SUM"), len(trees))
    base = _array(node, "base_values", np.zeros(0, np.float32))
    if base.size:
        scores = arithmetic(ctx, "ADD", scores, row(ctx, base))
    return post_transform(ctx, scores, text(node, "post_transform", "NONE"))


def _classifier(ctx: Context, node: ir.Node) -> list[Tensor]:
    """Labels and scores. Two classes with weights for one only: its score s stands for both."""
    names = labels(node, "classlabels_int64s")
    trees = _read_old(node, "class")
    x = matrix(ctx, floats(ctx, ctx.tensor(node.inputs[0])))
    transform = text(node, "post_transform", "NONE")
    base = _array(node, "base_values", np.zeros(0, np.float32))
    used = sorted({int(i) for i in _array(node, "class_ids")})
    if len(names) != 2 or len(used) != 1:
        scores = evaluate(ctx, x, trees, len(names))
        if base.size:
            scores = arithmetic(ctx, "ADD", scores, row(ctx, base))
        return [label_of(ctx, scores, names), post_transform(ctx, scores, transform)]
    for tree in trees:
        for leaf in tree.leaves:
            leaf.weights = [(0, w) for _, w in leaf.weights]
    score = evaluate(ctx, x, trees, 1)
    if base.size:
        score = arithmetic(ctx, "ADD", score, row(ctx, base[-1:]))
    positive = bool(np.all(_array(node, "class_weights") >= 0))
    winner = compare(ctx, "GREATER", score, ctx.scalar(0.5 if positive else 0.0, score))
    second = ctx.constant(names[1], DType.INT64)
    label = select(ctx, ctx.reshape(winner, score.shape[:1]), second, ctx.constant(names[0], DType.INT64))
    other = arithmetic(ctx, "SUB", ctx.scalar(1.0, score), score) if positive else ctx.unary("NEG", score)
    shape = (score.shape[0], 2)
    pair = ctx.emit("CONCATENATION", [other, score], shape, DType.FLOAT32, axis=1, fusedActivationFunction="NONE")
    if positive and transform != "NONE":
        raise Refusal("post-transform", f"one probability for two classes, and {transform} of it")
    return [label, post_transform(ctx, pair, transform)]


LOWERINGS: dict[str, Lowering] = {
    f"{DOMAIN}.TreeEnsemble": _ensemble,
    f"{DOMAIN}.TreeEnsembleClassifier": _classifier,
    f"{DOMAIN}.TreeEnsembleRegressor": _regressor,
}
