"""Equalisation: move the differences between channels from activations, which share one scale, into weights.

x' = x / t and W' = W · t along the channels of x compute the same. One rule serves cross-layer equalisation
(convolution → ReLU → convolution) and SmoothQuant's migration (LayerNormalization → product):

1. Whoever writes x takes 1 / t: the rows of a weight and its bias, or a normalisation's scale and bias.
2. Between it and the readers stands only what commutes with positive factors: Relu, LeakyRelu, PRelu, pools. A Clip
   to [0, c] does as long as no value that calibration saw reaches c before or after.
3. All readers are products with constant weights, which take t along their input channels.
4. t = √(r / w), r the range of x in a channel and w of the weights that read it: half of what differs goes over.
   A depthwise convolution has a scale a channel already, so it takes all of it: t = r.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from edgec.graph.edit import Editor
from edgec.graph.model import Model, attr, const_of, shape_of
from edgec.graph.traits import clip_bounds
from edgec.quantization.types import QuantPlan, Statistics, TensorStats
from edgec.quantization.units import bias_add_input
from edgec.tensors import Array

#: Factors lie within this of their middle: beyond it they would make weights of nothing but noise.
MOST = 32.0

#: Less than this between the largest and the smallest factor is not worth moving.
LEAST = 1.5

_COMMUTES = frozenset({"AveragePool", "GlobalAveragePool", "Identity", "LeakyRelu", "MaxPool", "PRelu", "Relu"})
_PRODUCTS = frozenset({"Conv", "Gemm", "MatMul"})


@dataclass(frozen=True, kw_only=True, slots=True)
class Migration:
    """One place: who writes, the values from there to the readers, the readers, and the factors of the channels."""

    writer: ir.Node
    bias_add: ir.Node | None
    values: tuple[ir.Value, ...]
    readers: tuple[ir.Node, ...]
    factors: Array


def equalize(model: Model, plan: QuantPlan, stats: Statistics) -> tuple[Model, tuple[str, ...]] | None:
    """A model that computes the same with evener activations, and the values whose ranges are others now.

    None where there is nothing to even out among the values that the plan quantizes.
    """
    work = model.clone()
    found = find_migrations(work, plan, stats.tensors)
    if not found:
        return None
    editor = Editor(work)
    changed: dict[str, None] = {}
    for migration in found:
        _apply(migration, editor)
        changed.update({value.name or "": None for value in migration.values})
    return work, tuple(changed)


def find_migrations(model: Model, plan: QuantPlan, stats: Mapping[str, TensorStats]) -> tuple[Migration, ...]:
    """The places of a model where factors can move and would even something out, in graph order."""
    found = []
    for node in model.nodes():
        migration = _migration(node, plan, stats)
        if migration is not None:
            found.append(migration)
    return tuple(found)


def _migration(node: ir.Node, plan: QuantPlan, stats: Mapping[str, TensorStats]) -> Migration | None:
    adder = _bias_adder(node)
    if not _writes_by_channel(node, adder):
        return None
    value = (adder or node).outputs[0]
    values, ceiling = [node.outputs[0], value] if adder is not None else [value], math.inf
    while True:  # rule 2
        if value.is_graph_output():
            return None
        users = [user for user, _ in value.uses()]
        if len(users) != 1 or (users[0].op_type not in _COMMUTES and not _is_ceiling(users[0])):
            break
        if users[0].op_type == "PRelu" and const_of(users[0].inputs[1]) is None:
            return None
        ceiling = min(ceiling, clip_bounds(users[0])[1]) if users[0].op_type == "Clip" else ceiling
        value = users[0].outputs[0]
        values.append(value)
    readers = tuple(user for user, _ in value.uses())
    seen = stats.get(value.name or "")
    if seen is None or seen.channel_min is None or seen.channel_max is None or value.name not in plan.activations:
        return None
    if not readers or not all(_reads_by_channel(user, index) for user, index in value.uses()):  # rule 3
        return None
    if any(user.op_type == "Conv" for user in readers) != (len(shape_of(value)) >= 4):
        return None  # the channels of the statistics are others
    ranges = np.maximum(np.abs(seen.channel_min), np.abs(seen.channel_max)).astype(np.float64)
    factors = _factors(ranges, readers)
    if factors is None:
        return None
    if math.isfinite(ceiling):  # rule 2: what reaches the ceiling stays; the rest grows to it at most
        factors = np.where(
            ranges >= 0.99 * ceiling, 1.0, np.maximum(factors / factors.max(), ranges / (0.99 * ceiling))
        )
    if factors.max() < LEAST * factors.min():
        return None
    return Migration(writer=node, bias_add=adder, values=tuple(values), readers=readers, factors=factors)


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


def _factors(ranges: Array, readers: tuple[ir.Node, ...]) -> Array | None:
    """Rule 4; None for readers that see other channels than the statistics."""
    used = np.zeros(len(ranges))
    for user in readers:
        weight = const_of(user.inputs[1])
        assert weight is not None
        if _is_depthwise(user):
            continue
        axis = _input_axis(user)
        if weight.shape[axis] != len(ranges):
            return None
        others = tuple(i for i in range(weight.ndim) if i != axis)
        used = np.maximum(used, np.abs(weight.astype(np.float64)).max(axis=others))
    alive = ranges > 0
    if not used.any():
        factors = np.where(alive, ranges, 1.0)
    else:
        alive &= used > 0
        factors = np.sqrt(np.where(alive, ranges, 1.0) / np.where(alive, used, 1.0))
    if not alive.any():
        return None
    middle = float(np.median(factors[alive]))
    return np.where(alive, np.clip(factors / middle, 1 / MOST, MOST), 1.0)


def _is_depthwise(user: ir.Node) -> bool:
    return user.op_type == "Conv" and attr(user, "group", 1) > 1


def _input_axis(user: ir.Node) -> int:
    """Axis of a weight along which its input channels lie."""
    if user.op_type == "Conv":
        return 1
    return 1 if user.op_type == "Gemm" and attr(user, "transB", 0) else 0


def _apply(migration: Migration, editor: Editor) -> None:
    inverse, factors = 1.0 / migration.factors, migration.factors
    node = migration.writer
    if node.op_type == "LayerNormalization":
        for position in range(1, len(node.inputs)):
            _scale(node, position, inverse, -1, editor)
    else:
        _scale(node, 1, inverse, 0 if node.op_type == "Conv" or attr(node, "transB", 0) else 1, editor)
        if len(node.inputs) > 2 and node.inputs[2] is not None:
            _scale(node, 2, inverse, -1, editor)
    if (adder := migration.bias_add) is not None:
        _scale(adder, 1 if adder.inputs[0] is node.outputs[0] else 0, inverse, -1, editor)
    for user in migration.readers:
        if _is_depthwise(user):
            weight = const_of(user.inputs[1])
            assert weight is not None
            _scale(user, 1, np.repeat(factors, weight.shape[0] // len(factors)), 0, editor)
        else:
            _scale(user, 1, factors, _input_axis(user), editor)


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
