"""Fold channel-wise scales and shifts into the linear operator beside them.

1. BatchNormalization after Conv, ConvTranspose, Gemm or MatMul:
   W' = W·γ/σ, b' = (b − μ)·γ/σ + β with σ = √(var + ε). MatMul takes the scale, and leaves an Add.
2. Any other BatchNormalization becomes Mul and Add.
3. Mul or Add by a constant that varies along the output channels alone, after a linear operator.
4. Mul by a constant along the input channels, before a Conv; Add likewise, when nothing is padded
   (a padded zero would have to be shifted too).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from edgec.graph.edit import Editor, sole_consumer
from edgec.graph.model import attr, const_of
from edgec.passes.linear import LINEAR_OPS, absorb, linear_of, per_channel
from edgec.passes.rewrite import Match, Refusal
from edgec.tensors import Array


def _affine_of_batchnorm(node: ir.Node) -> tuple[Array, Array] | None:
    """Scale and shift of an inference BatchNormalization in float64, or None when not constant."""
    values = [const_of(value) for value in node.inputs[1:5]]
    if any(v is None for v in values):
        return None
    gamma, beta, mean, var = (v.astype(np.float64) for v in values if v is not None)
    with np.errstate(all="ignore"):
        scale = gamma / np.sqrt(var + float(attr(node, "epsilon", 1e-5)))
    return scale, beta - mean * scale


def _read_elsewhere(value: ir.Value) -> Refusal | None:
    if sole_consumer(value) is None:
        return Refusal(reason="the linear operator's result is read elsewhere", value=value.name or "")
    return None


class BatchNorm:
    """Rules 1 and 2."""

    name = "batchnorm"
    roots = frozenset({"BatchNormalization"})

    def match(self, node: ir.Node) -> Match | None:
        """Every inference BatchNormalization."""
        source = node.inputs[0]
        if attr(node, "training_mode", 0) or source is None:
            return None
        return Match(node, values={"x": source})

    def check(self, match: Match) -> Refusal | None:
        """Its statistics must be constant, finite, and of a real variance."""
        affine = _affine_of_batchnorm(match.root)
        name = match.root.inputs[1]
        if affine is None:
            return Refusal(reason="its statistics are not constant", value=(name.name if name else "") or "")
        if not (np.all(np.isfinite(affine[0])) and np.all(np.isfinite(affine[1]))):
            return Refusal(reason="its statistics are not finite", value=(name.name if name else "") or "")
        source = match.values["x"]
        if source.shape is None:
            return Refusal(reason="the rank of its input is not known", value=source.name or "")
        return None

    def rewrite(self, match: Match, editor: Editor) -> Sequence[ir.Node]:
        """One linear operator, or Mul and Add."""
        root, source = match.root, match.values["x"]
        affine = _affine_of_batchnorm(root)
        assert affine is not None and source.shape is not None and source.dtype is not None
        scale, shift = affine
        linear = linear_of(source.producer())
        if linear is not None and linear.takes_bias and _read_elsewhere(source) is None:
            absorb(linear, scale, shift, editor)
            editor.bypass(root, source)
            return []
        rank, kind = len(source.shape), source.dtype.numpy()
        shape = (-1, *[1] * (rank - 2)) if rank > 1 else (-1,)
        name = root.name or "batchnorm"
        factor = editor.const(scale.astype(kind).reshape(shape), f"{name}/scale")
        offset = editor.const(shift.astype(kind).reshape(shape), f"{name}/shift")
        scaled = editor.node("Mul", [source, factor], name=f"{name}/mul")
        shifted = editor.node("Add", [scaled.outputs[0], offset], name=f"{name}/add")
        editor.replace(root, [scaled, shifted], [shifted.outputs[0]])
        return [scaled, shifted]


class AffineAfter:
    """Rule 3."""

    name = "affine-after"
    roots = frozenset({"Add", "Mul"})

    def match(self, node: ir.Node) -> Match | None:
        """A product or sum of a linear operator's output and a constant."""
        for index in (0, 1):
            source, constant = node.inputs[index], node.inputs[1 - index]
            producer = source.producer() if source is not None else None
            if producer is None or producer.op_type not in LINEAR_OPS or const_of(constant) is None:
                continue
            assert source is not None and constant is not None
            return Match(node, values={"y": source, "constant": constant})
        return None

    def check(self, match: Match) -> Refusal | None:
        """Constant weights, one reader, and a constant along the output channels alone."""
        source, constant = match.values["y"], match.values["constant"]
        linear = linear_of(source.producer())
        if linear is None:
            return Refusal(reason="the weight or bias is not constant", value=source.name or "")
        if match.root.op_type == "Add" and not linear.takes_bias:
            return Refusal(reason="MatMul takes no bias", value=source.name or "")
        if (refusal := _read_elsewhere(source)) is not None:
            return refusal
        array = const_of(constant)
        assert array is not None and source.shape is not None
        if per_channel(array, len(source.shape), linear.channel_axis, linear.channels) is None:
            return Refusal(
                reason="the constant does not run along the output channels alone", value=constant.name or ""
            )
        if array.ndim > len(source.shape):
            return Refusal(reason="the constant raises the rank", value=constant.name or "")
        return None

    def rewrite(self, match: Match, editor: Editor) -> Sequence[ir.Node]:
        """One linear operator."""
        source = match.values["y"]
        linear = linear_of(source.producer())
        array = const_of(match.values["constant"])
        assert linear is not None and array is not None and source.shape is not None
        values = per_channel(array, len(source.shape), linear.channel_axis, linear.channels)
        scale, shift = (values, None) if match.root.op_type == "Mul" else (None, values)
        absorb(linear, scale, shift, editor)
        editor.bypass(match.root, source)
        return []


class AffineBefore:
    """Rule 4."""

    name = "affine-before"
    roots = frozenset({"Conv"})

    def match(self, node: ir.Node) -> Match | None:
        """A Conv that reads a product or sum with a constant."""
        source = node.inputs[0]
        before = source.producer() if source is not None else None
        if before is None or before.op_type not in ("Add", "Mul") or before.domain != "":
            return None
        for index in (0, 1):
            data, constant = before.inputs[index], before.inputs[1 - index]
            if data is not None and constant is not None and const_of(constant) is not None:
                return Match(node, values={"x": data, "constant": constant}, nodes={"before": before})
        return None

    def check(self, match: Match) -> Refusal | None:
        """Constant weights, one reader, input channels alone; for Add no padding."""
        before, constant = match.nodes["before"], match.values["constant"]
        linear = linear_of(match.root)
        data = match.values["x"]
        if linear is None or data.shape is None or data.shape != before.outputs[0].shape:
            return Refusal(reason="the weight or bias is not constant", value=match.root.outputs[0].name or "")
        if sole_consumer(before.outputs[0]) is None:
            return Refusal(reason="the scaled value is read elsewhere", value=before.outputs[0].name or "")
        array = const_of(constant)
        channels = data.shape[1]
        if array is None or not isinstance(channels, int) or per_channel(array, len(data.shape), 1, channels) is None:
            return Refusal(reason="the constant does not run along the input channels alone", value=constant.name or "")
        padded = any(attr(match.root, "pads", ())) or attr(match.root, "auto_pad", "NOTSET") not in (
            "NOTSET",
            "VALID",
        )
        if before.op_type == "Add" and padded:
            return Refusal(reason="the padding would have to be shifted too", value=constant.name or "")
        return None

    def rewrite(self, match: Match, editor: Editor) -> Sequence[ir.Node]:
        """The Conv alone: W'[:, i] = W[:, i]·s[i], or b' = b + Σ W·t."""
        root, before, data = match.root, match.nodes["before"], match.values["x"]
        linear = linear_of(root)
        array = const_of(match.values["constant"])
        assert linear is not None and array is not None and data.shape is not None
        channels = data.shape[1]
        assert isinstance(channels, int)
        values = per_channel(array, len(data.shape), 1, channels)
        assert values is not None
        group = int(attr(root, "group", 1))
        weight = linear.weight.astype(np.float64)
        split = weight.reshape(group, weight.shape[0] // group, *weight.shape[1:])
        factor = values.reshape(group, 1, channels // group, *[1] * (weight.ndim - 2))
        kind, name = linear.weight.dtype, root.name or "conv"
        if before.op_type == "Mul":
            scaled = (split * factor).reshape(weight.shape).astype(kind)
            root.replace_input_with(1, editor.const(scaled, f"{name}/weight"))
        else:
            shift = (split * factor).reshape(weight.shape[0], -1).sum(1)
            absorb(linear, None, shift, editor)
        root.replace_input_with(0, data)
        return []


AFFINE_RULES = (BatchNorm(), AffineAfter(), AffineBefore())
