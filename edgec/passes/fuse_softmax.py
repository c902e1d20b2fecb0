"""Put a Softmax that an exporter took apart back into one operator.

1. exp(s) / Σ exp(s) over one axis, the sum kept as an axis of size 1 or reshaped to one → Softmax(s).
2. Softmax(x − m) with m the same along the axis → Softmax(x): it takes the largest away itself.
"""

from __future__ import annotations

from collections.abc import Sequence

import onnx_ir as ir

from edgec.graph.edit import Editor
from edgec.graph.model import attr, const_of
from edgec.passes.pattern import PatternRule, Var, op
from edgec.passes.rewrite import Match, Refusal, Rule

_EXP = op("Exp", Var("s"), name="exp")
_SUM = op("ReduceSum", _EXP, name="sum", more=True)


class FuseSoftmax(PatternRule):
    """Rule 1."""

    name = "softmax"
    patterns = (
        op("Div", _EXP, _SUM),
        op("Div", _EXP, op("Reshape|Unsqueeze", _SUM, name="kept", more=True)),
        op("Mul", _EXP, op("Reciprocal", _SUM)),
    )

    def check(self, match: Match) -> Refusal | None:
        """One axis, and a divisor that lies along it."""
        if (axis := _axis(match.nodes["sum"])) is None:
            return Refusal(reason="the sum does not run over one known axis", value=match.values["s"].name or "")
        shape, divisor = match.values["s"].shape, match.nodes.get("kept", match.nodes["sum"]).outputs[0].shape
        assert shape is not None
        wanted = [1 if i == axis else size for i, size in enumerate(shape)]
        if divisor is None or list(divisor) != wanted:
            return Refusal(reason="the divisor is not one number for each Softmax", value=match.values["s"].name or "")
        return super().check(match)

    def rewrite(self, match: Match, editor: Editor) -> Sequence[ir.Node]:
        """Softmax(s)."""
        return self.swap(match, editor, "Softmax", [match.values["s"]], {"axis": _axis(match.nodes["sum"])})


class DropShift(PatternRule):
    """Rule 2."""

    name = "softmax-shift"
    patterns = (op("Softmax", op("Sub", Var("x"), Var("m"), name="sub")),)

    def check(self, match: Match) -> Refusal | None:
        """The shift must be the same along the axis, and must not make the result larger."""
        x, m, result = match.values["x"].shape, match.values["m"].shape, match.root.outputs[0].shape
        if x is None or m is None or result is None or list(x) != list(result):
            return Refusal(reason="shapes are not known, or broadcast", value=match.values["m"].name or "")
        axis = attr(match.root, "axis", -1) % len(x)
        place = axis - (len(x) - len(m))
        if place >= 0 and m[place] != 1:
            return Refusal(reason="the shift differs along the axis", value=match.values["m"].name or "")
        if not _largest(match.values["m"], match.values["x"]):
            return Refusal(reason="the shift is not the largest value", value=match.values["m"].name or "")
        return super().check(match)

    def rewrite(self, match: Match, editor: Editor) -> Sequence[ir.Node]:
        """Softmax(x)."""
        axis = attr(match.root, "axis", -1)
        return self.swap(match, editor, "Softmax", [match.values["x"]], {"axis": axis})


def _largest(value: ir.Value | None, of: ir.Value) -> bool:
    """Whether a value is the largest of another, only moved: anything else might be infinite where it is not."""
    while value is not None and (node := value.producer()) is not None:
        if node.op_type == "ReduceMax":
            return node.inputs[0] is of
        unbounded = node.op_type == "Clip" and not any(node.inputs[1:])
        if node.op_type not in ("Identity", "Reshape", "Squeeze", "Unsqueeze") and not unbounded:
            return False
        value = node.inputs[0]
    return False


def _axis(node: ir.Node) -> int | None:
    """The one axis that a reduction runs over, from 0; None for several or unknown ones."""
    data, shape = node.inputs[0], node.inputs[0].shape if node.inputs[0] is not None else None
    axes = const_of(node.inputs[1]) if len(node.inputs) > 1 and node.inputs[1] is not None else None
    if data is None or shape is None or axes is None or axes.size != 1:
        return None
    return int(axes.reshape(())) % len(shape)


SOFTMAX_RULES: tuple[Rule, ...] = (FuseSoftmax(), DropShift())
