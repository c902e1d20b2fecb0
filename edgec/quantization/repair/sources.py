"""Who writes the channels of a value, so that factors may move there: rules 1, 2, 5 and 6 of `equalize`."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import onnx_ir as ir

from edgec.graph.channels import channel_axis, like_image
from edgec.graph.model import attr, const_of, shape_of
from edgec.graph.traits import clip_bounds
from edgec.quantization.planning.units import bias_add_input
from edgec.quantization.types import TensorStats
from edgec.tensors import Array

#: Products with constant weights, which channels are read and written by.
CONVOLUTIONS = frozenset({"Conv", "ConvTranspose"})
#: Of the last axis, with a scale a channel.
NORMALIZATIONS = frozenset({"LayerNormalization", "RMSNormalization"})
PRODUCTS = CONVOLUTIONS | {"Gemm", "MatMul"}

_COMMUTES = frozenset({"AveragePool", "GlobalAveragePool", "Identity", "LeakyRelu", "MaxPool", "PRelu", "Relu"})
#: Of these, what is not observed itself: they hand on what they read, channel by channel.
_WITHIN = frozenset({"AveragePool", "GlobalAveragePool", "Identity", "MaxPool"})
_TINY = float(np.finfo(np.float32).tiny)


@dataclass(frozen=True, kw_only=True, slots=True)
class Source:
    """Who writes some channels of a value: a weight or a normalisation, and the sum with its bias.

    `ceiling` is what a Clip on the way lets through; `values` are all that carry the channels, in graph order. Where
    the writer's channels are more, `wider` are the values that carry all `written` of them, ours from `start` on.
    `factor` is the value that a product on the way has as the factor which the channels come through.
    """

    writer: ir.Node
    bias_add: ir.Node | None
    channels: int
    values: tuple[ir.Value, ...]
    ceiling: float = math.inf
    wider: tuple[ir.Value, ...] = ()
    written: int = 0
    start: int = 0
    factor: ir.Value | None = None

    def of_writer(self, factors: Array) -> Array:
        """Factors of our channels as factors of all that the writer writes."""
        if not self.wider:
            return factors
        return np.concatenate([np.ones(self.start), factors, np.ones(self.written - self.start - self.channels)])


def ranges_of(value: ir.Value, stats: Mapping[str, TensorStats]) -> Array | None:
    """The largest magnitude of each channel; of what is not observed itself, as far as what it is made of tells."""
    seen = stats.get(value.name or "")
    if seen is not None and seen.channel_min is not None and seen.channel_max is not None:
        return np.maximum(np.abs(seen.channel_min), np.abs(seen.channel_max)).astype(np.float64)
    node = value.producer()
    if node is None or seen is not None or node.inputs[0] is None:
        return None
    if node.op_type == "Concat":
        parts = [ranges_of(part, stats) for part in node.inputs if part is not None]
        return None if any(part is None for part in parts) else np.concatenate([p for p in parts if p is not None])
    return ranges_of(node.inputs[0], stats) if node.op_type in _WITHIN else None


def sources_of(value: ir.Value, stats: Mapping[str, TensorStats], *, read_by: int = 1) -> tuple[Source, ...] | None:
    """Who writes the channels; None where something between does not commute, or is read elsewhere."""
    node = value.producer()
    if node is None or value.is_graph_output() or len(value.uses()) != read_by or value.shape is None:
        return None
    axis = channel_axis(value)
    if axis is None:
        return None
    if node.op_type == "Concat" and attr(node, "axis", 0) % len(shape_of(value)) == axis:
        parts = [sources_of(part, stats) if part is not None else None for part in node.inputs]
        joined = [source for part in parts if part is not None for source in part]
        return None if None in parts else tuple(_and_then(source, value) for source in joined)
    if node.op_type == "Split" and attr(node, "axis", 0) % len(shape_of(value)) == axis:
        return _part(value, node, axis, stats)
    if node.op_type == "Mul":
        return _factor(value, node, stats) if constant_factor(node) is None else _source(value, node, axis)
    if node.op_type in _COMMUTES or _is_ceiling(node):
        if node.inputs[0] is None or (node.op_type == "PRelu" and const_of(node.inputs[1]) is None):
            return None
        before = sources_of(node.inputs[0], stats)
        ceiling = clip_bounds(node)[1] if node.op_type == "Clip" else math.inf
        return None if before is None else tuple(_and_then(source, value, ceiling) for source in before)
    return _source(value, node, axis)


def _part(value: ir.Value, node: ir.Node, axis: int, stats: Mapping[str, TensorStats]) -> tuple[Source, ...] | None:
    """Rule 6: some of the channels that one writer writes."""
    whole = node.inputs[0]
    found = None if whole is None or channel_axis(whole) != axis else sources_of(whole, stats)
    if whole is None or found is None or len(found) != 1 or found[0].wider or found[0].factor is not None:
        return None
    (source,) = found
    start = 0
    for part in node.outputs:
        if part is value:
            break
        start += shape_of(part)[axis]
    channels = shape_of(value)[axis]
    wider, written = source.values, source.channels
    return (replace(source, channels=channels, values=(value,), wider=wider, written=written, start=start),)


def _factor(value: ir.Value, node: ir.Node, stats: Mapping[str, TensorStats]) -> tuple[Source, ...] | None:
    """Rule 5: the factor whose channels differ the most, of those that somebody can divide."""
    found: list[tuple[float, tuple[Source, ...]]] = []
    for operand in node.inputs:
        if operand is None or operand.shape != value.shape:
            continue
        ranges = ranges_of(operand, stats)  # None of what nobody rounds
        sources = sources_of(operand, stats) if channel_axis(operand) == channel_axis(value) else None
        if sources is not None and all(math.isinf(s.ceiling) and s.factor is None for s in sources):
            spread = 0.0 if ranges is None else float(ranges.max() / max(float(np.median(ranges)), _TINY))
            found.append((spread, tuple(replace(_and_then(s, value), factor=operand) for s in sources)))
    return max(found, key=lambda one: one[0])[1] if found else None


def _source(value: ir.Value, node: ir.Node, axis: int) -> tuple[Source, ...] | None:
    adder, values = None, [value]
    if node.op_type == "Add":  # of a product and its bias
        products = [v.producer() for v in node.inputs if v is not None and v.producer() is not None]
        if len(products) != 1 or products[0] is None or _bias_adder(products[0]) is not node:
            return None
        adder, node = node, products[0]
        values.insert(0, node.outputs[0])
    if node.op_type == "Mul":
        return (Source(writer=node, bias_add=None, channels=shape_of(value)[axis], values=(value,)),)
    if (node.op_type in CONVOLUTIONS) != like_image(value) or not _writes_by_channel(node, adder):
        return None
    channels = shape_of(value)[axis]
    return (Source(writer=node, bias_add=adder, channels=channels, values=tuple(values)),)


def constant_factor(node: ir.Node) -> int | None:
    """Position of the constant that a product multiplies each channel by; None where there is none."""
    value = node.outputs[0]
    axis, rank = channel_axis(value), len(shape_of(value))
    for position, operand in enumerate(node.inputs):
        constant = const_of(operand)
        if constant is None or axis is None or constant.ndim < rank - axis:
            continue
        if constant.shape[axis - rank] == shape_of(value)[axis]:
            return position
    return None


def _and_then(source: Source, value: ir.Value, ceiling: float = math.inf) -> Source:
    """The source, one operator further on."""
    return replace(source, values=(*source.values, value), ceiling=min(source.ceiling, ceiling))


def _is_ceiling(node: ir.Node) -> bool:
    return node.op_type == "Clip" and clip_bounds(node)[0] == 0.0


def _bias_adder(node: ir.Node) -> ir.Node | None:
    """The addition of a constant bias after a product."""
    uses = tuple(node.outputs[0].uses())
    if node.op_type != "MatMul" or len(uses) != 1 or uses[0][0].op_type != "Add":
        return None
    bias = bias_add_input(uses[0][0], node.outputs[0])
    return None if const_of(bias) is None else uses[0][0]


def _writes_by_channel(node: ir.Node, adder: ir.Node | None) -> bool:
    """Rule 1."""
    if node.op_type in NORMALIZATIONS:
        last = attr(node, "axis", -1) in (-1, len(shape_of(node.outputs[0])) - 1)
        return last and all(const_of(v) is not None for v in node.inputs[1:])
    if node.op_type not in PRODUCTS or any(const_of(v) is None for v in node.inputs[1:] if v is not None):
        return False
    if node.op_type in CONVOLUTIONS:
        return node.op_type == "Conv" or attr(node, "group", 1) == 1
    weight = const_of(node.inputs[1])
    bias = const_of(node.inputs[2]) if len(node.inputs) > 2 else None
    if adder is not None:
        bias = const_of(bias_add_input(adder, node.outputs[0]))
    return weight is not None and weight.ndim == 2 and (bias is None or bias.size == shape_of(node.outputs[0])[-1])
