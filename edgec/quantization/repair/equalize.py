"""Equalisation: move the differences between channels from activations, which share one scale, into weights.

x' = x / t and W' = W · t along the channels of x compute the same. One rule serves cross-layer equalisation
(convolution → ReLU → convolution) and SmoothQuant's migration (LayerNormalization → product):

1. Whoever writes x takes 1 / t: the rows of a weight and its bias, or a normalisation's scale and bias.
2. Between it and the readers stands only what commutes with positive factors: Relu, LeakyRelu, PRelu, pools. A Clip
   to [0, c] does as long as no value that calibration saw reaches c before or after. A Concat along the channels joins
   several writers: so branches of which one is much wider keep their steps.
3. All readers are products with constant weights, which take t along their input channels.
4. Where nobody can take 1 / t but x comes from float, a multiplication in front of the int8 products does: others go on
   reading x. It has to gain something, and to be little beside the products' own work.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import onnx_ir as ir

from edgec.graph.edit import Editor
from edgec.graph.model import Model, attr, const_of, keep_origin, shape_of, static_shape
from edgec.graph.traits import Kind, clip_bounds, trait_of
from edgec.graph.work import multiplications
from edgec.quantization.planning.units import bias_add_input
from edgec.quantization.repair.factors import factors_of, gain, input_axis, is_depthwise
from edgec.quantization.types import STATIC, QuantPlan, Statistics, TensorStats
from edgec.tensors import Array

#: Less than this between the largest and the smallest factor is not worth moving.
LEAST = 1.5

_COMMUTES = frozenset({"AveragePool", "GlobalAveragePool", "Identity", "LeakyRelu", "MaxPool", "PRelu", "Relu"})
#: Of these, what is not observed itself: they hand on what they read, channel by channel.
_WITHIN = frozenset({"AveragePool", "GlobalAveragePool", "Identity", "MaxPool"})
_PRODUCTS = frozenset({"Conv", "Gemm", "MatMul"})

#: Rule 4: the predicted error falls by this ratio, and each value is multiplied this often in the products.
_LEAST_GAIN = 1.3
_LEAST_WORK = 256


@dataclass(frozen=True, kw_only=True, slots=True)
class Source:
    """Who writes some channels of a value: a weight or a normalisation, and the sum with its bias.

    `ceiling` is what a Clip on the way lets through; `values` are all that carry the channels, in graph order.
    """

    writer: ir.Node
    bias_add: ir.Node | None
    channels: int
    values: tuple[ir.Value, ...]
    ceiling: float = math.inf


@dataclass(frozen=True, kw_only=True, slots=True)
class Moved:
    """A value whose channels were divided: by what, and the value of the old model that it comes from."""

    origin: str
    factors: Array


@dataclass(frozen=True, kw_only=True, slots=True)
class Migration:
    """One place: who writes, in the order of the channels, the readers, and the factors of the channels.

    Without sources the value itself is multiplied for the readers.
    """

    value: ir.Value
    sources: tuple[Source, ...]
    readers: tuple[ir.Node, ...]
    factors: Array


def equalize(model: Model, plan: QuantPlan, stats: Statistics) -> tuple[Model, dict[str, Moved]] | None:
    """A model that computes the same with evener activations, and the values whose ranges are others now.

    None where there is nothing to even out among the values that the plan quantizes.
    """
    work = model.clone()
    found = find_migrations(work, plan, stats.tensors)
    if not found:
        return None
    editor = Editor(work)
    changed: dict[str, Moved] = {}
    for migration in found:
        changed.update(_apply(migration, editor))
    return work, changed


def find_migrations(model: Model, plan: QuantPlan, stats: Mapping[str, TensorStats]) -> tuple[Migration, ...]:
    """The places of a model where factors can move and would even something out, in graph order."""
    found = []
    for node in model.nodes():
        for value in node.outputs:
            migration = _migration(value, plan, stats)
            if migration is not None:
                found.append(migration)
    return tuple(found)


def _migration(value: ir.Value, plan: QuantPlan, stats: Mapping[str, TensorStats]) -> Migration | None:
    ranges = _ranges(value, stats) if value.name in plan.activations else None
    if ranges is None:
        return None
    readers = tuple(user for user, _ in value.uses())
    if not readers or not all(_reads_by_channel(user, index) for user, index in value.uses()):  # rule 3
        return _multiplied(value, plan, stats)
    if any(user.op_type == "Conv" for user in readers) != (len(shape_of(value)) >= 4):
        return None  # the channels of the statistics are others
    sources = _sources(value, read_by=len(readers))
    if sources is None or sum(source.channels for source in sources) != len(ranges):
        return _multiplied(value, plan, stats)
    factors = factors_of(ranges, readers)
    if factors is None:
        return None
    ceilings = np.concatenate([np.full(source.channels, source.ceiling) for source in sources])
    if np.isfinite(ceilings).any():  # rule 2: what reaches a ceiling stays; the rest grows to it at most
        factors = factors / factors.max()
        held = np.isfinite(ceilings)
        factors = np.where(held, np.maximum(factors, ranges / (0.99 * np.where(held, ceilings, 1.0))), factors)
        factors = np.where(held & (ranges >= 0.99 * ceilings), 1.0, factors)
    if factors.max() < LEAST * factors.min():
        return None
    return Migration(value=value, sources=sources, readers=readers, factors=factors)


def _multiplied(value: ir.Value, plan: QuantPlan, stats: Mapping[str, TensorStats]) -> Migration | None:
    """Rule 4."""
    seen, shape = stats.get(value.name or ""), static_shape(value)
    if seen is None or seen.channel_min is None or shape is None or not _comes_from_float(value, plan):
        return None
    readers = tuple(
        user
        for user, index in value.uses()
        if plan.nodes[user.name or ""].scheme in STATIC
        and _reads_by_channel(user, index)
        and not is_depthwise(user)
        and (user.op_type == "Conv") == (len(shape) >= 4)
    )
    ranges = _ranges(value, stats)
    factors = factors_of(ranges, readers, seen) if readers and ranges is not None else None
    if factors is None or factors.max() < LEAST * factors.min():
        return None
    work = sum(multiplications(user) for user in readers)
    if work < _LEAST_WORK * math.prod(shape) or gain(factors, seen, readers) < _LEAST_GAIN:
        return None
    return Migration(value=value, sources=(), readers=readers, factors=factors)


def _comes_from_float(value: ir.Value, plan: QuantPlan) -> bool:
    """Whether a float operator writes a value, as it is or through what only moves it."""
    node = value.producer()
    while node is not None and (trait := trait_of(node)) is not None and trait.kind is Kind.MOVER:
        node = None if node.inputs[0] is None else node.inputs[0].producer()
    return node is not None and plan.nodes[node.name or ""].scheme not in STATIC


def _ranges(value: ir.Value, stats: Mapping[str, TensorStats]) -> Array | None:
    """The largest magnitude of each channel; of what is not observed itself, as far as what it is made of tells."""
    seen = stats.get(value.name or "")
    if seen is not None and seen.channel_min is not None and seen.channel_max is not None:
        return np.maximum(np.abs(seen.channel_min), np.abs(seen.channel_max)).astype(np.float64)
    node = value.producer()
    if node is None or seen is not None or node.inputs[0] is None:
        return None
    if node.op_type == "Concat":
        parts = [_ranges(part, stats) for part in node.inputs if part is not None]
        return None if any(part is None for part in parts) else np.concatenate([p for p in parts if p is not None])
    return _ranges(node.inputs[0], stats) if node.op_type in _WITHIN else None


def _sources(value: ir.Value, *, read_by: int = 1) -> tuple[Source, ...] | None:
    """Rules 1 and 2: who writes the channels; None where something between does not commute, or is read elsewhere."""
    node = value.producer()
    if node is None or value.is_graph_output() or len(value.uses()) != read_by or value.shape is None:
        return None
    axis = 1 if len(shape_of(value)) >= 4 else len(shape_of(value)) - 1
    if node.op_type == "Concat" and attr(node, "axis", 0) % len(shape_of(value)) == axis:
        parts = [_sources(part) if part is not None else None for part in node.inputs]
        joined = [source for part in parts if part is not None for source in part]
        return None if None in parts else tuple(_and_then(source, value) for source in joined)
    if node.op_type in _COMMUTES or _is_ceiling(node):
        if node.inputs[0] is None or (node.op_type == "PRelu" and const_of(node.inputs[1]) is None):
            return None
        before = _sources(node.inputs[0])
        ceiling = clip_bounds(node)[1] if node.op_type == "Clip" else math.inf
        return None if before is None else tuple(_and_then(source, value, ceiling) for source in before)
    return _source(value, node, axis)


def _source(value: ir.Value, node: ir.Node, axis: int) -> tuple[Source, ...] | None:
    adder, values = None, [value]
    if node.op_type == "Add":  # of a product and its bias
        products = [v.producer() for v in node.inputs if v is not None and v.producer() is not None]
        if len(products) != 1 or products[0] is None or _bias_adder(products[0]) is not node:
            return None
        adder, node = node, products[0]
        values.insert(0, node.outputs[0])
    if not _writes_by_channel(node, adder):
        return None
    channels = shape_of(value)[axis]
    return (Source(writer=node, bias_add=adder, channels=channels, values=tuple(values)),)


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
    if node.op_type == "LayerNormalization":
        last = attr(node, "axis", -1) in (-1, len(shape_of(node.outputs[0])) - 1)
        return last and all(const_of(v) is not None for v in node.inputs[1:])
    if node.op_type not in _PRODUCTS or any(const_of(v) is None for v in node.inputs[1:] if v is not None):
        return False
    if node.op_type == "Conv":
        return True
    weight = const_of(node.inputs[1])
    bias = const_of(node.inputs[2]) if len(node.inputs) > 2 else None
    if adder is not None:
        bias = const_of(bias_add_input(adder, node.outputs[0]))
    return weight is not None and weight.ndim == 2 and (bias is None or bias.size == shape_of(node.outputs[0])[-1])


def _reads_by_channel(user: ir.Node, index: int) -> bool:
    """Rule 3."""
    if user.op_type not in _PRODUCTS or index != 0:
        return False
    weight = const_of(user.inputs[1])
    if weight is None or (user.op_type != "Conv" and weight.ndim != 2):
        return False
    if user.op_type == "Gemm" and attr(user, "transA", 0):
        return False
    return user.op_type != "Conv" or attr(user, "group", 1) == 1 or weight.shape[1] == 1


def _apply(migration: Migration, editor: Editor) -> dict[str, Moved]:
    """Edit one place; the values that have changed."""
    factors, changed = migration.factors, {}
    if not migration.sources:
        new = _multiply(migration, editor)
        changed[new] = Moved(origin=migration.value.name or "", factors=factors)
    start = 0
    for source in migration.sources:
        own = factors[start : start + source.channels]
        _divide(source, 1.0 / own, editor)
        for value in source.values:
            shape = shape_of(value)
            joined = shape[1 if len(shape) >= 4 else -1] != source.channels
            changed[value.name or ""] = Moved(origin=value.name or "", factors=factors if joined else own)
        start += source.channels
    for user in migration.readers:
        if is_depthwise(user):
            weight = const_of(user.inputs[1])
            assert weight is not None
            _scale(user, 1, np.repeat(factors, weight.shape[0] // len(factors)), 0, editor)
        else:
            _scale(user, 1, factors, input_axis(user), editor)
    return changed


def _multiply(migration: Migration, editor: Editor) -> str:
    """Rule 4: the name of x / t."""
    value, rank = migration.value, len(shape_of(migration.value))
    shape = (-1, *(1,) * (rank - 2)) if rank >= 4 else (-1,)
    inverse = editor.const((1.0 / migration.factors).astype(np.float32).reshape(shape), f"{value.name}/evening")
    node = editor.node("Mul", [value, inverse], name=f"{value.name}/evened")
    node.outputs[0].shape, node.outputs[0].type = value.shape, value.type
    producer = value.producer()
    assert producer is not None
    editor.graph.insert_after(producer, node)
    keep_origin([node], producer)
    for user in migration.readers:
        user.replace_input_with(0, node.outputs[0])
    return node.outputs[0].name or ""


def _divide(source: Source, inverse: Array, editor: Editor) -> None:
    """Rule 1."""
    node = source.writer
    if node.op_type == "LayerNormalization":
        for position in range(1, len(node.inputs)):
            _scale(node, position, inverse, -1, editor)
    else:
        _scale(node, 1, inverse, 0 if node.op_type == "Conv" or attr(node, "transB", 0) else 1, editor)
        if len(node.inputs) > 2 and node.inputs[2] is not None:
            _scale(node, 2, inverse, -1, editor)
    if (adder := source.bias_add) is not None:
        _scale(adder, 1 if adder.inputs[0] is node.outputs[0] else 0, inverse, -1, editor)


def _scale(node: ir.Node, position: int, factors: Array, axis: int, editor: Editor) -> None:
    """Multiply a constant input along an axis; other readers of the constant keep it as it is."""
    value = node.inputs[position]
    array = const_of(value)
    if value is None or array is None:
        return
    axis %= array.ndim
    shape = [-1 if i == axis else 1 for i in range(array.ndim)]
    scaled = (array.astype(np.float64) * factors.reshape(shape)).astype(array.dtype)
    node.replace_input_with(position, editor.const(scaled, f"{value.name}/equalized"))
