"""Merge chains of operators that only move data.

1. Two of Reshape, Flatten, Squeeze, Unsqueeze in a row are one Reshape.
2. Two Transposes in a row are one.
3. Reshape → Softmax over the last axis → Reshape back is that Softmax alone.
4. Columns chosen among chosen columns are one Gather.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from edgec.graph.edit import Editor
from edgec.graph.model import attr, const_of, static_shape
from edgec.passes.rewrite import Match, Refusal
from edgec.tensors import Array

RESHAPES = frozenset({"Flatten", "Reshape", "Squeeze", "Unsqueeze"})


def _producer(value: ir.Value | None) -> ir.Node | None:
    node = value.producer() if value is not None else None
    return node if node is not None and node.domain == "" else None


class ReshapeChain:
    """Rule 1."""

    name = "reshape-chain"
    roots = RESHAPES

    def match(self, node: ir.Node) -> Match | None:
        """A reshape of a reshape."""
        before = _producer(node.inputs[0])
        if before is None or before.op_type not in RESHAPES or before.inputs[0] is None:
            return None
        return Match(node, values={"x": before.inputs[0]}, nodes={"before": before})

    def check(self, match: Match) -> Refusal | None:
        """A static result without empty axes."""
        shape = static_shape(match.root.outputs[0])
        if shape is None or 0 in shape:
            return Refusal(reason="its shape is not static", value=match.root.outputs[0].name or "")
        return None

    def rewrite(self, match: Match, editor: Editor) -> Sequence[ir.Node]:
        """One Reshape; the first one goes when nobody else reads it."""
        node = match.root
        shape = static_shape(node.outputs[0])
        constant = editor.const(np.asarray(shape, np.int64), f"{node.name}/shape")
        new = editor.node("Reshape", [match.values["x"], constant], name=node.name or "reshape")
        editor.replace(node, [new], [new.outputs[0]])
        return [new]


class TransposeChain:
    """Rule 2."""

    name = "transpose-chain"
    roots = frozenset({"Transpose"})

    def match(self, node: ir.Node) -> Match | None:
        """A transpose of a transpose."""
        before = _producer(node.inputs[0])
        if before is None or before.op_type != "Transpose" or before.inputs[0] is None:
            return None
        return Match(node, values={"x": before.inputs[0]}, nodes={"before": before})

    def check(self, match: Match) -> Refusal | None:
        """Both permutations must be known."""
        if static_shape(match.values["x"]) is None:
            return Refusal(reason="the rank is not known", value=match.values["x"].name or "")
        return None

    def rewrite(self, match: Match, editor: Editor) -> Sequence[ir.Node]:
        """One Transpose with the product of both permutations."""
        node, before = match.root, match.nodes["before"]
        shape = static_shape(match.values["x"])
        assert shape is not None
        reverse = tuple(range(len(shape)))[::-1]
        first, second = attr(before, "perm") or reverse, attr(node, "perm") or reverse
        new = editor.node(
            "Transpose",
            [match.values["x"]],
            {"perm": tuple(first[axis] for axis in second)},
            name=node.name or "transpose",
        )
        editor.replace(node, [new], [new.outputs[0]])
        return [new]


class SoftmaxInReshapes:
    """Rule 3: what opset 12 and earlier Softmax over a flattened tensor leaves."""

    name = "softmax-in-reshapes"
    roots = RESHAPES

    def match(self, node: ir.Node) -> Match | None:
        """A reshape of a softmax of a reshape."""
        softmax = _producer(node.inputs[0])
        if softmax is None or softmax.op_type not in ("LogSoftmax", "Softmax"):
            return None
        before = _producer(softmax.inputs[0])
        if before is None or before.op_type not in RESHAPES or before.inputs[0] is None:
            return None
        return Match(node, values={"x": before.inputs[0]}, nodes={"softmax": softmax, "before": before})

    def check(self, match: Match) -> Refusal | None:
        """The last axis is the same throughout, and the softmax runs over it."""
        softmax = match.nodes["softmax"]
        outer, inner = static_shape(match.values["x"]), static_shape(softmax.outputs[0])
        if outer is None or inner is None or outer != static_shape(match.root.outputs[0]):
            return Refusal(reason="it does not reshape back", value=match.root.outputs[0].name or "")
        if int(attr(softmax, "axis", -1)) not in (-1, len(inner) - 1) or outer[-1:] != inner[-1:]:
            return Refusal(reason="the softmax runs over other axes", value=softmax.outputs[0].name or "")
        return None

    def rewrite(self, match: Match, editor: Editor) -> Sequence[ir.Node]:
        """The softmax on the original shape."""
        softmax = match.nodes["softmax"]
        new = editor.node(softmax.op_type, [match.values["x"]], {"axis": -1}, name=softmax.name or "softmax")
        editor.replace(match.root, [new], [new.outputs[0]])
        return [new]


@dataclass(frozen=True, slots=True)
class _Choice:
    """What a Gather, or ArrayFeatureExtractor, with known numbers picks along an axis (counted from the front)."""

    x: ir.Value
    axis: int
    numbers: Array


def _choice(node: ir.Node) -> _Choice | None:
    x, shape = node.inputs[0], static_shape(node.inputs[0])
    numbers = const_of(node.inputs[1]) if len(node.inputs) > 1 else None
    if x is None or shape is None or len(shape) < 2 or numbers is None or node.domain not in ("", "ai.onnx.ml"):
        return None
    if node.op_type == "ArrayFeatureExtractor":
        numbers, axis = numbers.reshape(-1), len(shape) - 1
    else:
        axis = int(attr(node, "axis", 0)) % len(shape)
    return _Choice(x, axis, np.where(numbers < 0, numbers + shape[axis], numbers)) if numbers.ndim == 1 else None


class GatherChain:
    """Rule 4."""

    name = "gather-chain"
    roots = frozenset({"ArrayFeatureExtractor", "Gather"})

    def match(self, node: ir.Node) -> Match | None:
        """A choice from a choice."""
        before = node.inputs[0].producer() if node.inputs[0] is not None else None
        if before is None or before.op_type not in self.roots:
            return None
        return Match(node, nodes={"before": before})

    def check(self, match: Match) -> Refusal | None:
        """Both choose known numbers along one axis."""
        last, first = _choice(match.root), _choice(match.nodes["before"])
        if last is None or first is None or last.axis != first.axis:
            return Refusal(reason="they choose along other axes, or not by constants", value=match.root.name or "")
        return None

    def rewrite(self, match: Match, editor: Editor) -> Sequence[ir.Node]:
        """One Gather; the first one goes when nobody else reads it."""
        node, last, first = match.root, _choice(match.root), _choice(match.nodes["before"])
        assert last is not None and first is not None
        numbers = editor.const(first.numbers[last.numbers].astype(np.int64), f"{node.name}/numbers")
        new = editor.node("Gather", [first.x, numbers], {"axis": first.axis}, name=node.name or "gather")
        editor.replace(node, [new], [new.outputs[0]])
        return [new]


RESHAPE_RULES = (SoftmaxInReshapes(), ReshapeChain(), TransposeChain(), GatherChain())
