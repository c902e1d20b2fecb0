"""Put normalisations that exporters took apart back into one operator.

1. LayerNormalization: γ·(x − mean)/√(var + ε) + β, with var = mean((x − mean)²).
2. RMSNormalization (opset 23): γ·x/√(mean(x²) + ε).

Means run over the last axes, and are kept as axes of size 1.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from edgec.graph.edit import Editor
from edgec.graph.model import attr, const_of
from edgec.passes.pattern import Op, PatternRule, Scalar, Tensor, Var, interior_use, op, scalar_of
from edgec.passes.rewrite import Match, Refusal

X = Var("x")


def _normal(centred: Op | Var, squares: Op) -> tuple[Op, ...]:
    mean = op("ReduceMean", squares, name="mean", more=True)
    deviation = op("Sqrt", op("Add", mean, Scalar("epsilon")))
    return (
        op("Div", centred, deviation),
        op("Mul", centred, op("Reciprocal", deviation)),
        op("Mul", centred, op("Div", Scalar("one", 1.0), deviation)),
    )


def _squares(of: Op | Var) -> tuple[Op, ...]:
    return (op("Pow", of, Scalar("two", 2.0)), op("Mul", of, of))


def _layer_norms() -> tuple[Op, ...]:
    centred = op("Sub", X, op("ReduceMean", X, name="centre", more=True), name="centred")
    return tuple(n for squares in _squares(centred) for n in _normal(centred, squares))


def last_axes(node: ir.Node) -> int | None:
    """How many last axes a ReduceMean runs over, keeping them; None when it does anything else."""
    source = node.inputs[0]
    if not attr(node, "keepdims", 1) or source is None or source.shape is None:
        return None
    rank = len(source.shape)
    axes = const_of(node.inputs[1]) if len(node.inputs) > 1 and node.inputs[1] is not None else None
    if axes is None or not axes.size:
        return None
    found = sorted(int(axis) % rank for axis in axes.reshape(-1))
    return len(found) if found == list(range(rank - len(found), rank)) else None


class LayerNorm(PatternRule):
    """Rule 1 with γ and β."""

    name = "layer-norm"
    patterns = tuple(op("Add", op("Mul", n, Tensor("scale")), Tensor("bias")) for n in _layer_norms())

    def check(self, match: Match) -> Refusal | None:
        """Both means over the same last axes; γ and β of exactly their shape."""
        axes = {last_axes(match.nodes["mean"]), last_axes(match.nodes["centre"])}
        if len(axes) != 1 or None in axes:
            return Refusal(reason="the means do not run over the same last axes", value=match.values["x"].name or "")
        return _affine_fits(match) or interior_use(match)

    def rewrite(self, match: Match, editor: Editor) -> Sequence[ir.Node]:
        """LayerNormalization(x, γ, β)."""
        count = last_axes(match.nodes["mean"])
        scale, bias = _affine(match, editor)
        attributes: dict[str, object] = {"axis": -(count or 1), "epsilon": scalar_of(match.values["epsilon"])}
        inputs = [match.values["x"], scale] + ([bias] if bias is not None else [])
        return self.swap(match, editor, "LayerNormalization", inputs, attributes)


class PlainLayerNorm(LayerNorm):
    """Rule 1 without γ and β; tried when no affine form is left, or it would take their place."""

    name = "plain-layer-norm"
    patterns = _layer_norms()


class RmsNorm(PatternRule):
    """Rule 2."""

    name = "rms-norm"
    patterns = tuple(op("Mul", normal, Tensor("scale")) for squares in _squares(X) for normal in _normal(X, squares))

    def check(self, match: Match) -> Refusal | None:
        """The operator exists from opset 23 on; the mean runs over last axes."""
        graph = match.root.graph
        opset = graph.opset_imports.get("", 0) if isinstance(graph, ir.Graph) else 0
        if opset < 23:
            return Refusal(reason=f"opset {opset} has no RMSNormalization")
        if last_axes(match.nodes["mean"]) is None:
            return Refusal(reason="the mean does not run over the last axes", value=match.values["x"].name or "")
        return _affine_fits(match) or interior_use(match)

    def rewrite(self, match: Match, editor: Editor) -> Sequence[ir.Node]:
        """RMSNormalization(x, γ)."""
        count = last_axes(match.nodes["mean"]) or 1
        scale, _ = _affine(match, editor)
        attributes: dict[str, object] = {"axis": -count, "epsilon": scalar_of(match.values["epsilon"])}
        return self.swap(match, editor, "RMSNormalization", [match.values["x"], scale], attributes)


def _normalized_shape(match: Match) -> tuple[int, ...]:
    shape = match.values["x"].shape
    count = last_axes(match.nodes["mean"]) or 1
    assert shape is not None
    return tuple(int(d) if isinstance(d, int) else -1 for d in list(shape)[-count:])


def _affine_fits(match: Match) -> Refusal | None:
    wanted = _normalized_shape(match)
    if -1 in wanted:
        return Refusal(reason="the normalised axes have no static size", value=match.values["x"].name or "")
    for name in ("scale", "bias"):
        value = match.values.get(name)
        if value is None:
            continue
        array = const_of(value)
        assert array is not None
        rank = len(wanted)
        extra = array.shape[:-rank] if array.ndim > rank else ()
        try:
            fits = all(d == 1 for d in extra) and np.broadcast_shapes(array.shape[-rank:], wanted) == wanted
        except ValueError:
            fits = False
        if not fits:
            return Refusal(reason=f"{name} does not have the shape of the normalised axes", value=value.name or "")
    return None


def _affine(match: Match, editor: Editor) -> tuple[ir.Value, ir.Value | None]:
    wanted = _normalized_shape(match)
    made: list[ir.Value | None] = []
    dtype = match.values["x"].dtype
    kind = np.dtype(np.float32) if dtype is None else dtype.numpy()
    for name, default in (("scale", np.ones(wanted, kind)), ("bias", None)):
        value = match.values.get(name)
        array = default if value is None else const_of(value)
        if array is None:
            made.append(None)
            continue
        rank = len(wanted)
        array = np.broadcast_to(array.reshape(array.shape[-rank:]) if array.ndim >= rank else array, wanted)
        made.append(editor.const(np.ascontiguousarray(array), f"{match.root.name}/{name}"))
    assert made[0] is not None
    return made[0], made[1]


NORM_RULES = (LayerNorm(), RmsNorm())
PLAIN_NORM_RULES = (PlainLayerNorm(),)
