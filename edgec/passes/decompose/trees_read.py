"""Read the three forms of tree ensembles in ai.onnx.ml into one: branches and leaves in flat lists.

1. TreeEnsembleRegressor and -Classifier name nodes by tree and number, leaves among them.
2. TreeEnsemble (opset 5) has nodes and leaves in lists of their own, and sets of members.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from edgec.graph.model import attr
from edgec.passes.decompose.ml_common import numbers
from edgec.tensors import Array

_MODES = ("LEQ", "LT", "GTE", "GT", "EQ", "NEQ", "MEMBER")


@dataclass(frozen=True, slots=True)
class Branch:
    """Compares a feature with a value, or a set of them; `yes` and `no` are numbers of entries."""

    mode: str
    feature: int
    value: float
    missing_is_yes: bool
    yes: int
    no: int
    members: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True)
class Leaf:
    """What a leaf adds to the targets."""

    weights: tuple[tuple[int, float], ...]


@dataclass(frozen=True, slots=True)
class Forest:
    """All entries of all trees, and each tree's root."""

    entries: tuple[Branch | Leaf, ...]
    roots: tuple[int, ...]


def _needed(node: ir.Node, name: str) -> Array:
    found = numbers(node, name)
    if found is None:
        raise ValueError(f"no {name}")
    return found


def read_named(node: ir.Node, kind: str) -> Forest | None:
    """Rule 1; `kind` is `target` or `class`. None for a forest that does not fit together."""
    try:
        return _read_named(node, kind)
    except (KeyError, IndexError, ValueError, TypeError):
        return None


def _read_named(node: ir.Node, kind: str) -> Forest:
    trees, ids = _needed(node, "nodes_treeids"), _needed(node, "nodes_nodeids")
    modes = [m.decode() if isinstance(m, bytes) else str(m) for m in attr(node, "nodes_modes")]
    values, features = _needed(node, "nodes_values"), _needed(node, "nodes_featureids")
    missing = numbers(node, "nodes_missing_value_tracks_true")
    yes, no = _needed(node, "nodes_truenodeids"), _needed(node, "nodes_falsenodeids")
    place = {(int(t), int(n)): i for i, (t, n) in enumerate(zip(trees, ids, strict=True))}
    weights: dict[tuple[int, int], list[tuple[int, float]]] = {}
    given = [_needed(node, f"{kind}_{name}") for name in ("treeids", "nodeids", "ids", "weights")]
    for t, n, target, weight in zip(*given, strict=True):
        weights.setdefault((int(t), int(n)), []).append((int(target), float(weight)))
    entries: list[Branch | Leaf] = []
    for i, mode in enumerate(modes):
        tree = int(trees[i])
        if mode == "LEAF":
            entries.append(Leaf(tuple(weights.get((tree, int(ids[i])), ()))))
            continue
        follow = missing is not None and bool(missing[i])
        ends = place[tree, int(yes[i])], place[tree, int(no[i])]
        entries.append(Branch(mode.removeprefix("BRANCH_"), int(features[i]), float(values[i]), follow, *ends))
    first = {int(t): i for i, t in reversed(list(enumerate(trees)))}
    return Forest(tuple(entries), tuple(first[t] for t in dict.fromkeys(int(t) for t in trees)))


def read_listed(node: ir.Node) -> Forest | None:
    """Rule 2. None for a forest that does not fit together."""
    try:
        return _read_listed(node)
    except (KeyError, IndexError, ValueError, TypeError):
        return None


def _read_listed(node: ir.Node) -> Forest:
    features, splits, modes = (_needed(node, f"nodes_{name}") for name in ("featureids", "splits", "modes"))
    missing = numbers(node, "nodes_missing_value_tracks_true")
    ends = [_needed(node, f"nodes_{side}nodeids") for side in ("true", "false")]
    leafs = [_needed(node, f"nodes_{side}leafs") for side in ("true", "false")]
    targets, weights = _needed(node, "leaf_targetids"), _needed(node, "leaf_weights")
    sets = iter(_sets(numbers(node, "membership_values")))
    count = len(features)
    entries: list[Branch | Leaf] = []
    for i in range(count):
        yes, no = (int(end[i]) + (count if leaf[i] else 0) for end, leaf in zip(ends, leafs, strict=True))
        follow = missing is not None and bool(missing[i])
        mode = _MODES[int(modes[i])]
        members = next(sets) if mode == "MEMBER" else ()
        entries.append(Branch(mode, int(features[i]), float(splits[i]), follow, yes, no, members))
    entries += [Leaf(((int(t), float(w)),)) for t, w in zip(targets, weights, strict=True)]
    roots = [int(root) for root in _needed(node, "tree_roots")]
    return Forest(tuple(entries), tuple(roots))


def _sets(values: Array | None) -> list[tuple[float, ...]]:
    """Sets end with NaN."""
    found: list[tuple[float, ...]] = []
    current: list[float] = []
    for value in () if values is None else np.asarray(values, np.float32).tolist():
        if np.isnan(value):
            found.append(tuple(current))
            current = []
        else:
            current.append(value)
    return found
