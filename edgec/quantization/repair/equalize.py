"""Equalisation: move the differences between channels from activations, which share one scale, into weights.

x' = x / t and W' = W · t along the channels of x compute the same. One rule serves cross-layer equalisation
(convolution → ReLU → convolution) and SmoothQuant's migration (LayerNormalization → product):

1. Whoever writes x takes 1 / t: the rows of a weight and its bias, or a normalisation's scale and bias.
2. Between it and the readers stands only what commutes with positive factors: Relu, LeakyRelu, PRelu, pools. A Clip
   to [0, c] does as long as no value reaches c before or after: nothing that calibration saw comes beyond half of it,
   as inputs to come go further. A Concat along the channels joins several writers: so branches of which one is much
   wider keep their steps.
3. All readers are products with constant weights, which take t along their input channels.
4. Where nobody can take 1 / t but x comes from float, a multiplication in front of the int8 products does: others go on
   reading x. It has to gain something, and to be little beside the products' own work.
5. A product of two values takes 1 / t in either of them: so gates (SwiGLU, GLU, x · g) are evened by what they let
   through. That value may become less even by it, so the noise of both together has to fall.
6. A Split along the channels is of a writer that takes 1 / t in some of its rows alone.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import onnx_ir as ir

from edgec.graph.channels import channel_axis, like_image
from edgec.graph.edit import Editor
from edgec.graph.model import Model, attr, const_of, keep_origin, shape_of, static_shape
from edgec.graph.traits import Kind, trait_of
from edgec.graph.work import multiplications
from edgec.quantization.repair.factors import (
    factors_of,
    gain,
    input_axis,
    is_depthwise,
    powers,
    predicted,
)
from edgec.quantization.repair.sources import (
    CONVOLUTIONS,
    NORMALIZATIONS,
    PRODUCTS,
    Source,
    constant_factor,
    ranges_of,
    sources_of,
)
from edgec.quantization.types import STATIC, QuantPlan, Statistics, TensorStats
from edgec.tensors import Array

#: Rule 2: how many times the largest value that calibration saw is taken to stay below a ceiling.
_ROOM = 2.0

#: Less than this between the largest and the smallest factor is not worth moving.
LEAST = 1.5

#: Rule 4: the predicted error falls by this ratio, and each value is multiplied this often in the products.
_LEAST_GAIN = 1.3
_LEAST_WORK = 256


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
        for name, moved in _apply(migration, editor).items():
            before = changed.get(name)
            changed[name] = moved if before is None else replace(moved, factors=before.factors * moved.factors)
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
    ranges = ranges_of(value, stats) if value.name in plan.activations else None
    if ranges is None:
        return None
    readers = tuple(user for user, _ in value.uses())
    if not readers or not all(_reads_by_channel(user, index) for user, index in value.uses()):  # rule 3
        return _multiplied(value, plan, stats)
    if any(user.op_type in CONVOLUTIONS for user in readers) != like_image(value):
        return None  # the channels of the statistics are others
    sources = sources_of(value, stats, read_by=len(readers))
    if sources is None or sum(source.channels for source in sources) != len(ranges):
        return _multiplied(value, plan, stats)
    scaled = any(source.writer.op_type == "Mul" for source in sources)
    if scaled and not _comes_from_float(value, plan):
        return None
    factors = factors_of(ranges, readers, stats.get(value.name or "") if scaled else None)
    if factors is None:
        return None
    weighed = scaled or any(source.factor is not None for source in sources)
    if weighed and not _quieter(factors, value, sources, readers, plan, stats):
        return None
    ceilings = np.concatenate([np.full(source.channels, source.ceiling) for source in sources])
    if np.isfinite(ceilings).any():  # rule 2: what comes near a ceiling stays; the rest grows to that distance at most
        factors = factors / factors.max()
        held = np.isfinite(ceilings)
        share = _ROOM * ranges / np.where(held, ceilings, 1.0)
        factors = np.where(held, np.minimum(np.maximum(factors, share), 1.0), factors)
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
        and (user.op_type in CONVOLUTIONS) == like_image(value)
    )
    ranges = ranges_of(value, stats)
    factors = factors_of(ranges, readers, seen) if readers and ranges is not None else None
    if factors is None or factors.max() < LEAST * factors.min():
        return None
    work = sum(multiplications(user) for user in readers)
    if work < _LEAST_WORK * math.prod(shape) or gain(factors, seen, readers) < _LEAST_GAIN:
        return None
    return Migration(value=value, sources=(), readers=readers, factors=factors)


def _quieter(
    factors: Array,
    value: ir.Value,
    sources: tuple[Source, ...],
    readers: tuple[ir.Node, ...],
    plan: QuantPlan,
    stats: Mapping[str, TensorStats],
) -> bool:
    """Rule 5: whether factors leave clearly less noise of the value, of the weights and of what is gated together."""
    seen, ranges = stats.get(value.name or ""), ranges_of(value, stats)
    if seen is None or seen.channel_min is None or ranges is None or any(is_depthwise(user) for user in readers):
        return False
    weights = powers(readers)

    def noise(moved: Array) -> float:
        total, start = predicted(moved, seen, readers), 0
        for source in sources:
            part = slice(start, start + source.channels)
            start += source.channels
            rounded = source.wider[-1] if source.wider else source.factor
            given = None if rounded is None or rounded.name not in plan.activations else ranges_of(rounded, stats)
            if given is None:
                continue
            own = given[source.start : source.start + source.channels] if source.wider else given
            step = float((given / source.of_writer(moved[part])).max()) / 255
            gate = ranges[part] / np.where(own > 0, own, np.inf)
            total += step**2 / 12 * float(np.sum(np.square(moved[part] * gate) * weights[part]))
        return total

    return noise(np.ones(len(ranges))) >= _LEAST_GAIN * noise(factors)


def _comes_from_float(value: ir.Value, plan: QuantPlan) -> bool:
    """Whether a float operator writes a value, as it is or through what only moves it."""
    node = value.producer()
    while node is not None and (trait := trait_of(node)) is not None and trait.kind is Kind.MOVER:
        node = None if node.inputs[0] is None else node.inputs[0].producer()
    return node is not None and plan.nodes[node.name or ""].scheme not in STATIC


def _reads_by_channel(user: ir.Node, index: int) -> bool:
    """Rule 3."""
    if user.op_type not in PRODUCTS or index != 0:
        return False
    weight, groups = const_of(user.inputs[1]), attr(user, "group", 1)
    if weight is None:
        return False
    if user.op_type in CONVOLUTIONS:
        return groups == 1 or (user.op_type == "Conv" and weight.shape[1] == 1)
    return weight.ndim == 2 and not (user.op_type == "Gemm" and attr(user, "transA", 0))


def _apply(migration: Migration, editor: Editor) -> dict[str, Moved]:
    """Edit one place; the values that have changed."""
    factors, changed = migration.factors, {}
    if not migration.sources:
        new = _multiply(migration, editor)
        changed[new] = Moved(origin=migration.value.name or "", factors=factors)
    start = 0
    for source in migration.sources:
        own = factors[start : start + source.channels]
        _divide(source, 1.0 / source.of_writer(own), editor)
        for value in source.wider:
            changed[value.name or ""] = Moved(origin=value.name or "", factors=source.of_writer(own))
        for value in source.values:
            joined = shape_of(value)[channel_axis(value) or 0] != source.channels
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
    shape = (-1, *(1,) * (rank - 2)) if like_image(value) else (-1,)
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
    if node.op_type == "Mul":
        value, position = node.outputs[0], constant_factor(node)
        assert position is not None
        _scale(node, position, inverse, (channel_axis(value) or 0) - len(shape_of(value)), editor)
    elif node.op_type in NORMALIZATIONS:
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
