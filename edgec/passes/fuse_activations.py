"""Put activations that exporters took apart back into one operator.

1. Clip: min(max(x, a), b), relu with an upper bound, nested bounds; Clip(0, ∞) and max(x, 0) are Relu.
2. HardSigmoid: clip(x + 3, 0, 6) / 6 (α = 1/6, β = ½).
3. HardSwish: x · HardSigmoid(x), in any order of the product.
4. Gelu: ½x(1 + erf(x/√2)), and its tanh form ½x(1 + tanh(√(2/π)(x + 0.044715x³))).
5. LeakyRelu: max(x, αx) with 0 ≤ α < 1; Mish: x · tanh(softplus(x)).

x · sigmoid(x) stays two operators: every runtime has both, and quantizes them well.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from edgec.graph.edit import Editor
from edgec.graph.model import attr
from edgec.passes.pattern import Op, PatternRule, Scalar, Var, interior_use, op, scalar_of
from edgec.passes.rewrite import Match, Refusal

X = Var("x")


def clip_bounds(node: ir.Node) -> tuple[float, float] | None:
    """The constant bounds of a Relu, Clip, Max or Min node as (low, high), or None when they are not constant."""
    low, high = -math.inf, math.inf
    if node.op_type == "Relu":
        return 0.0, high
    if node.op_type == "Clip":
        for index in (1, 2):
            value = node.inputs[index] if len(node.inputs) > index else None
            if value is None:
                continue
            number = scalar_of(value)
            if number is None:
                return None
            low, high = (number, high) if index == 1 else (low, number)
        return low, high
    numbers = [scalar_of(value) for value in node.inputs]
    if len(numbers) != 2 or sum(n is not None for n in numbers) != 1:
        return None
    number = next(n for n in numbers if n is not None)
    if node.inputs[0] is not None and node.outputs[0].shape != _data(node).shape:
        return None  # the constant broadcasts
    return (number, high) if node.op_type == "Max" else (low, number)


def _data(node: ir.Node) -> ir.Value:
    data = node.inputs[0]
    if node.op_type in ("Max", "Min") and scalar_of(data) is not None:
        data = node.inputs[1]
    assert data is not None
    return data


class Bounds:
    """Rule 1: any chain of bounds is one Relu or Clip."""

    name = "bounds"
    roots = frozenset({"Relu", "Clip", "Max", "Min"})

    def match(self, node: ir.Node) -> Match | None:
        """A bound on a float that is not in its final form, or follows another bound."""
        bounds = clip_bounds(node)
        if bounds is None or node.outputs[0].dtype not in (ir.DataType.FLOAT, ir.DataType.FLOAT16):
            return None
        before = _data(node).producer()
        chained = before is not None and before.op_type in self.roots and clip_bounds(before) is not None
        final = (node.op_type == "Relu") or (node.op_type == "Clip" and not _is_relu(bounds))
        if final and not chained:
            return None
        match = Match(node, nodes={"root": node})
        if chained and before is not None:
            match.nodes["before"] = before
        return match

    def check(self, match: Match) -> Refusal | None:
        """The inner bound must be read here alone; bounds must not be empty."""
        refusal = interior_use(match)
        if refusal is not None and clip_bounds(match.root) is not None and match.root.op_type in ("Max", "Min"):
            match.nodes.pop("before")  # still worth a form of its own
            refusal = None
        if refusal is None and _combined(match) is None:
            return Refusal(reason="the bounds exclude each other", value=match.root.outputs[0].name or "")
        return refusal

    def rewrite(self, match: Match, editor: Editor) -> Sequence[ir.Node]:
        """One Relu or Clip with the tighter bounds."""
        bounds = _combined(match)
        assert bounds is not None
        source = _data(match.nodes.get("before", match.root))
        root = match.root
        assert root.outputs[0].dtype is not None
        kind = root.outputs[0].dtype.numpy()
        if _is_relu(bounds):
            new = editor.node("Relu", [source], name=f"{root.name}/relu")
        else:
            inputs: list[ir.Value | None] = [source]
            for bound, end in zip(bounds, ("min", "max"), strict=True):
                infinite = math.isinf(bound)
                inputs.append(None if infinite else editor.const(np.asarray(bound, kind), f"{root.name}/{end}"))
            while inputs[-1] is None and len(inputs) > 1:
                inputs.pop()
            new = editor.node("Clip", inputs, name=f"{root.name}/clip")
        editor.replace(root, [new], [new.outputs[0]])
        return [new]


def _is_relu(bounds: tuple[float, float]) -> bool:
    return bounds[0] == 0.0 and bounds[1] >= 3.4e38


def _combined(match: Match) -> tuple[float, float] | None:
    outer = clip_bounds(match.root)
    inner = clip_bounds(match.nodes["before"]) if "before" in match.nodes else (-math.inf, math.inf)
    if outer is None or inner is None:
        return None
    low, high = max(outer[0], inner[0]), min(outer[1], inner[1])
    return (low, high) if low <= high else None


def _relu6_of_x_plus_3() -> Op:
    return op("Clip", op("Add", X, Scalar("three", 3.0)), Scalar("zero", 0.0), Scalar("six", 6.0))


class HardSigmoid(PatternRule):
    """Rule 2."""

    name = "hard-sigmoid"
    patterns = (
        op("Div", _relu6_of_x_plus_3(), Scalar("by", 6.0)),
        op("Mul", _relu6_of_x_plus_3(), Scalar("by", 1 / 6)),
    )

    def rewrite(self, match: Match, editor: Editor) -> Sequence[ir.Node]:
        """HardSigmoid(x, 1/6, ½)."""
        return self.swap(match, editor, "HardSigmoid", [match.values["x"]], {"alpha": 1 / 6, "beta": 0.5})


class HardSwish(PatternRule):
    """Rule 3."""

    name = "hard-swish"
    patterns = (
        op("Mul", X, op("HardSigmoid", X, name="gate")),
        op("Div", op("Mul", X, _relu6_of_x_plus_3()), Scalar("by", 6.0)),
        op("Mul", op("Mul", X, _relu6_of_x_plus_3()), Scalar("by", 1 / 6)),
        op("Mul", op("Mul", X, Scalar("by", 1 / 6)), _relu6_of_x_plus_3()),
        op("Mul", op("Div", X, Scalar("by", 6.0)), _relu6_of_x_plus_3()),
    )

    def check(self, match: Match) -> Refusal | None:
        """A HardSigmoid must have the slope and offset of the swish."""
        gate = match.nodes.get("gate")
        if gate is not None:
            alpha, beta = float(attr(gate, "alpha", 0.2)), float(attr(gate, "beta", 0.5))
            if not (math.isclose(alpha, 1 / 6, rel_tol=1e-4) and math.isclose(beta, 0.5, rel_tol=1e-6)):
                return Refusal(reason=f"HardSigmoid has slope {alpha:g}, not 1/6", value=gate.outputs[0].name or "")
        return interior_use(match)

    def rewrite(self, match: Match, editor: Editor) -> Sequence[ir.Node]:
        """HardSwish(x)."""
        return self.swap(match, editor, "HardSwish", [match.values["x"]])


def _one_plus(inner: Op) -> Op:
    return op("Add", inner, Scalar("one", 1.0))


def _half_x_times(inner: Op) -> tuple[Op, ...]:
    half = Scalar("half", 0.5)
    return (
        op("Mul", op("Mul", X, half), inner),
        op("Mul", op("Mul", X, inner), half),
        op("Mul", X, op("Mul", inner, half)),
        op("Mul", op("Div", X, Scalar("two", 2.0)), inner),
        op("Div", op("Mul", X, inner), Scalar("two", 2.0)),
    )


_ERF = (
    op("Erf", op("Div", X, Scalar("root2", math.sqrt(2)))),
    op("Erf", op("Mul", X, Scalar("root2", 1 / math.sqrt(2)))),
)
_CUBES = (
    op("Pow", X, Scalar("three", 3.0)),
    op("Mul", op("Mul", X, X), X),
    op("Mul", X, op("Pow", X, Scalar("two", 2.0))),
)
_TANH = tuple(
    op(
        "Tanh",
        op("Mul", op("Add", X, op("Mul", cube, Scalar("c", 0.044715))), Scalar("k", math.sqrt(2 / math.pi))),
    )
    for cube in _CUBES
)


class Gelu(PatternRule):
    """Rule 4, the exact form."""

    name = "gelu"
    patterns = tuple(p for erf in _ERF for p in _half_x_times(_one_plus(erf)))

    def rewrite(self, match: Match, editor: Editor) -> Sequence[ir.Node]:
        """Gelu(x)."""
        return self.swap(match, editor, "Gelu", [match.values["x"]])


class GeluTanh(PatternRule):
    """Rule 4, the tanh form."""

    name = "gelu-tanh"
    patterns = tuple(p for tanh in _TANH for p in _half_x_times(_one_plus(tanh)))

    def rewrite(self, match: Match, editor: Editor) -> Sequence[ir.Node]:
        """Gelu(x, approximate=tanh)."""
        return self.swap(match, editor, "Gelu", [match.values["x"]], {"approximate": "tanh"})


class LeakyRelu(PatternRule):
    """Rule 5."""

    name = "leaky-relu"
    patterns = (op("Max", X, op("Mul", X, Scalar("slope"))),)

    def check(self, match: Match) -> Refusal | None:
        """max(x, αx) is a leaky ReLU for 0 ≤ α < 1 only."""
        slope = scalar_of(match.values["slope"])
        if slope is None or not 0 <= slope < 1:
            return Refusal(reason=f"slope {slope} is not in [0, 1)", value=match.values["slope"].name or "")
        return interior_use(match)

    def rewrite(self, match: Match, editor: Editor) -> Sequence[ir.Node]:
        """LeakyRelu(x, α)."""
        slope = scalar_of(match.values["slope"])
        return self.swap(match, editor, "LeakyRelu", [match.values["x"]], {"alpha": slope})


class Mish(PatternRule):
    """Rule 5."""

    name = "mish"
    patterns = (op("Mul", X, op("Tanh", op("Softplus", X))),)

    def rewrite(self, match: Match, editor: Editor) -> Sequence[ir.Node]:
        """Mish(x)."""
        return self.swap(match, editor, "Mish", [match.values["x"]])


ACTIVATION_RULES = (Bounds(), HardSwish(), HardSigmoid(), Gelu(), GeluTanh(), LeakyRelu(), Mish())
