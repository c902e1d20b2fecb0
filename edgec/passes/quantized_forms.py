"""The forms in which quantized models come, as the one that backends read: Q → DQ around values, DQ on constants.

Exporters of quantization-aware training write weights in float behind a pair (`evaluate` folds its first half), turn
them between the pair and the product, and clip integers between the two halves of a pair.

1. A Transpose of a dequantized constant is a dequantized, transposed constant.
2. A Clip between the halves that leaves out at most the lowest integer (narrow range) goes: only what saturates is
   changed, by a step. One that leaves out more (fewer bits) becomes a Clip before the pair.
3. For backends whose weights are symmetric int8: a weight with a zero point, beside quantized data, gets scales of its
   own, one an output channel; in each of them int8 is at least as fine as the 8 bits that it had for all channels, and
   a channel whose integers fit around zero keeps them, and its scale, as they are.
4. For the same backends: a weight of 16 bits becomes float. Their integer kernels take 8, which would lose the others.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from edgec.graph.edit import Editor
from edgec.graph.model import attr, const_of, dtype_of
from edgec.graph.traits import weight_axis, weight_of
from edgec.passes.rewrite import Match, Refusal
from edgec.tensors import Array

_PRODUCTS = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul"})


class TransposedConstant:
    """Rule 1."""

    name = "transposed-quantized-constant"
    roots = frozenset({"Transpose"})

    def match(self, node: ir.Node) -> Match | None:
        """A Transpose that reads a DequantizeLinear of a constant."""
        source = node.inputs[0].producer() if node.inputs[0] is not None else None
        if source is None or source.op_type != "DequantizeLinear" or const_of(source.inputs[0]) is None:
            return None
        return Match(node, nodes={"dq": source})

    def check(self, match: Match) -> Refusal | None:
        """Blocks of a blocked quantization lie along an axis of their own."""
        if attr(match.nodes["dq"], "block_size", 0):
            return Refusal(reason="the constant is quantized in blocks", value=match.nodes["dq"].outputs[0].name or "")
        return None

    def rewrite(self, match: Match, editor: Editor) -> Sequence[ir.Node]:
        """The constant transposed, and its axis with it."""
        node, dq = match.root, match.nodes["dq"]
        values, scale = const_of(dq.inputs[0]), const_of(dq.inputs[1])
        assert values is not None and dq.inputs[0] is not None
        perm = attr(node, "perm") or tuple(reversed(range(values.ndim)))
        stored = editor.const(values.transpose(perm), f"{dq.inputs[0].name}/transposed")
        attributes = {}
        if scale is None or scale.size > 1:
            attributes["axis"] = list(perm).index(attr(dq, "axis", 1) % values.ndim)
        new = editor.node("DequantizeLinear", [stored, *dq.inputs[1:]], attributes, name=node.name or "transposed")
        editor.replace(node, [new], new.outputs)
        return [new]


class ClippedPair:
    """Rule 2."""

    name = "clipped-pair"
    roots = frozenset({"DequantizeLinear"})

    def match(self, node: ir.Node) -> Match | None:
        """QuantizeLinear → Clip → DequantizeLinear."""
        clip = node.inputs[0].producer() if node.inputs[0] is not None else None
        if clip is None or clip.op_type != "Clip" or clip.inputs[0] is None:
            return None
        quantize = clip.inputs[0].producer()
        if quantize is None or quantize.op_type != "QuantizeLinear" or quantize.inputs[0] is None:
            return None
        return Match(node, values={"x": quantize.inputs[0]}, nodes={"clip": clip, "quantize": quantize})

    def check(self, match: Match) -> Refusal | None:
        """Bounds, scale and zero point must be known, and the scale one for all."""
        clip, quantize = match.nodes["clip"], match.nodes["quantize"]
        known = [const_of(v) for v in (*clip.inputs[1:], *quantize.inputs[1:]) if v is not None]
        if any(value is None for value in known):
            return Refusal(reason="its bounds or parameters are computed", value=clip.outputs[0].name or "")
        if not _narrow(match) and any(value is not None and value.size != 1 for value in known):
            return Refusal(reason="it has a scale a channel", value=clip.outputs[0].name or "")
        return None

    def rewrite(self, match: Match, editor: Editor) -> Sequence[ir.Node]:
        """The pair alone, or behind a Clip of real values."""
        node, quantize = match.root, match.nodes["quantize"]
        if _narrow(match):
            node.replace_input_with(0, quantize.outputs[0])
            return []
        low, high = _bounds(match)
        scale, zero = const_of(quantize.inputs[1]), const_of(quantize.inputs[2]) if len(quantize.inputs) > 2 else None
        assert scale is not None
        offset = 0 if zero is None else int(zero.reshape(-1)[0])
        ends = [np.asarray((end - offset) * float(scale.reshape(-1)[0]), np.float32) for end in (low, high)]
        limits = [editor.const(end, f"{quantize.name}/bound") for end in ends]
        clip = editor.node("Clip", [match.values["x"], *limits], name=f"{quantize.name}/clip")
        half = editor.node("QuantizeLinear", [clip.outputs[0], *quantize.inputs[1:]], name=f"{quantize.name}/clipped")
        node.replace_input_with(0, half.outputs[0])
        assert node.graph is not None
        node.graph.insert_before(node, [clip, half])
        return [clip, half]


def _bounds(match: Match) -> tuple[int, int]:
    """The integers that the Clip lets through."""
    quantize, clip = match.nodes["quantize"], match.nodes["clip"]
    limits = np.iinfo(dtype_of(quantize.outputs[0]).numpy)
    ends = []
    for position, usual in ((1, int(limits.min)), (2, int(limits.max))):
        value = const_of(clip.inputs[position]) if len(clip.inputs) > position else None
        ends.append(usual if value is None else int(value.reshape(-1)[0]))
    return max(ends[0], int(limits.min)), min(ends[1], int(limits.max))


def _narrow(match: Match) -> bool:
    """True where the Clip leaves out the lowest integer at most."""
    limits = np.iinfo(dtype_of(match.nodes["quantize"].outputs[0]).numpy)
    low, high = _bounds(match)
    return low <= int(limits.min) + 1 and high == int(limits.max)


class SymmetricWeights:
    """Rule 3."""

    name = "symmetric-weights"
    roots = frozenset({"DequantizeLinear"})

    def match(self, node: ir.Node) -> Match | None:
        """A dequantized constant that every reader takes for its weight."""
        readers = list(node.outputs[0].uses())
        if const_of(node.inputs[0]) is None or not readers or node.outputs[0].is_graph_output():
            return None
        return Match(node) if all(_reads_as_weight(user, index) for user, index in readers) else None

    def check(self, match: Match) -> Refusal | None:
        """Symmetric ones stay as they are; so do those of which readers disagree about the channels."""
        node = match.root
        name = node.outputs[0].name or ""
        values, scale, zero = _parts(node)
        if scale is None or zero is None or attr(node, "block_size", 0):
            return Refusal(reason="its parameters are computed, or in blocks", value=name)
        if values.dtype not in (np.int8, np.uint8):
            return Refusal(reason="it has another number of bits", value=name)
        if np.all(zero == (128 if values.dtype == np.uint8 else 0)):
            return Refusal(reason="it is symmetric", value=name)
        if len(_axes(node, values.ndim)) != 1:
            return Refusal(reason="its readers disagree about its channels", value=name)
        return None

    def rewrite(self, match: Match, editor: Editor) -> Sequence[ir.Node]:
        """int8 with a scale a channel, as near to the real values as it gets."""
        node = match.root
        values, scale, zero = _parts(node)
        assert scale is not None and zero is not None and node.inputs[0] is not None
        (axis,) = _axes(node, values.ndim)
        own = attr(node, "axis", 1) % values.ndim
        shape = [-1 if i == own and scale.size > 1 else 1 for i in range(values.ndim)]
        real = (values.astype(np.float64) - zero.reshape(shape)) * scale.astype(np.float64).reshape(shape)
        others = tuple(i for i in range(values.ndim) if i != axis)
        peaks = np.abs(real).max(axis=others, keepdims=True)
        scales = (np.where(peaks > 0, peaks, 127.0) / 127).astype(np.float32)
        if scale.size == 1 or own == axis:  # one scale a channel already
            scales = np.where(peaks <= 127.001 * scale.reshape(shape), scale.reshape(shape), scales)
        integers = np.clip(np.rint(real / scales), -127, 127).astype(np.int8)
        name = node.inputs[0].name
        inputs = [
            editor.const(integers, f"{name}/symmetric"),
            editor.const(scales.reshape(-1), f"{name}/scales"),
            editor.const(np.zeros(scales.size, np.int8), f"{name}/zeros"),
        ]
        new = editor.node("DequantizeLinear", inputs, {"axis": axis}, name=node.name or "symmetric")
        editor.replace(node, [new], new.outputs)
        return [new]


class WideWeights:
    """Rule 4."""

    name = "wide-weights"
    roots = frozenset({"DequantizeLinear"})

    def match(self, node: ir.Node) -> Match | None:
        """A dequantized constant that a product takes for its weight."""
        weight = any(index == 1 and user.op_type in _PRODUCTS for user, index in node.outputs[0].uses())
        return Match(node) if weight and const_of(node.inputs[0]) is not None else None

    def check(self, match: Match) -> Refusal | None:
        """It has 16 bits, and parameters that are known."""
        name = match.root.outputs[0].name or ""
        values, scale, zero = _parts(match.root)
        if values.dtype not in (np.int16, np.uint16):
            return Refusal(reason="it has another number of bits", value=name)
        if scale is None or zero is None or attr(match.root, "block_size", 0):
            return Refusal(reason="its parameters are computed, or in blocks", value=name)
        return None

    def rewrite(self, match: Match, editor: Editor) -> Sequence[ir.Node]:
        """The real values, as float."""
        node = match.root
        values, scale, zero = _parts(node)
        assert scale is not None and zero is not None
        own = attr(node, "axis", 1) % values.ndim if values.ndim else 0
        shapes = [[-1 if i == own and p.size > 1 else 1 for i in range(values.ndim)] for p in (zero, scale)]
        real = (values.astype(np.int64) - zero.reshape(shapes[0])) * scale.astype(np.float64).reshape(shapes[1])
        editor.replace(node, [], [editor.const(real.astype(np.float32), f"{node.outputs[0].name}/float")])
        return []


def _parts(node: ir.Node) -> tuple[Array, Array | None, Array | None]:
    """Integers, scale and zero point (zeros where there is none)."""
    values, scale = const_of(node.inputs[0]), const_of(node.inputs[1])
    assert values is not None
    if len(node.inputs) < 3 or node.inputs[2] is None:
        return values, scale, np.zeros(1, np.int64)
    zero = const_of(node.inputs[2])
    return values, scale, None if zero is None else zero.astype(np.int64)


def _reads_as_weight(user: ir.Node, index: int) -> bool:
    """As the weight of a product whose data is quantized too: beside float data the weight may stay exact, as float."""
    if index != 1 or user.op_type not in _PRODUCTS or weight_of(user) == 0:
        return False
    data = user.inputs[0].producer() if user.inputs[0] is not None else None
    return data is not None and data.op_type == "DequantizeLinear"


def _axes(node: ir.Node, rank: int) -> set[int]:
    """The axis of the output channels, as each reader sees it."""
    axes = {weight_axis(user, rank) for user, _ in node.outputs[0].uses()}
    return {axis for axis in axes if axis is not None} if None not in axes else set()


#: Of the canonical form.
QUANTIZED_RULES = (TransposedConstant(), ClippedPair())
#: Of backends that have symmetric weights only.
SYMMETRIC_RULES = (SymmetricWeights(), WideWeights())
