"""Layers with int8 weights as matrix products, whatever operator they are: y = W·x at every output position.

`rows` lays a weight out as [groups, outputs a group, fan-in]; `reads` lays an input out to match, as
[groups, positions, fan-in], at positions spread evenly over the output. A depthwise convolution has as many groups as
channels. A transposed convolution is left out: which weights meet an input there depends on the position.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
import onnx_ir as ir

from edgec.graph.model import Model, attr, const_of, static_shape
from edgec.graph.traits import weight_of
from edgec.quantization.planning.units import bias_add_input
from edgec.quantization.types import QuantPlan, TensorPlan
from edgec.quantization.use_keys import lookup
from edgec.tensors import Array, DType

#: Positions in all that a layer's moments need: so many for each input of its sums, and for its means.
_POSITIONS_AN_INPUT = 16
_FEWEST_POSITIONS = 512

_WITH_INT8_WEIGHTS = ("int8", "int16x8", "dynamic")


@dataclass(frozen=True, kw_only=True, slots=True)
class Window:
    """How a convolution walks over its input: one number an axis; `pads` are begins, then ends."""

    kernel: tuple[int, ...]
    strides: tuple[int, ...]
    dilations: tuple[int, ...]
    pads: tuple[int, ...]
    output: tuple[int, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Layer:
    """One operator with int8 weights. `key` is its weight's in the plan; `transposed`: stored as [fan-in, outputs].

    `bias_key` and `bias` are None where it has no bias of its own in the plan. `output` is what its bias is part of.
    """

    node: str
    key: str
    data: str
    weight: Array
    plan: TensorPlan
    groups: int
    window: Window | None
    transposed: bool
    output: str = ""
    bias_key: str | None = None
    bias: Array | None = None

    @property
    def shape(self) -> tuple[int, int, int]:
        """(groups, outputs a group, fan-in)."""
        outputs = self.weight.shape[1] if self.transposed else self.weight.shape[0]
        return self.groups, outputs // self.groups, self.weight.size // outputs

    def rows(self, weight: Array) -> Array:
        """A weight as [groups, outputs a group, fan-in]."""
        return (weight.T if self.transposed else weight).reshape(self.shape)

    def weight_of(self, rows: Array) -> Array:
        """The inverse of `rows`."""
        if self.transposed:
            return np.ascontiguousarray(rows.reshape(-1, self.weight.shape[0]).T)
        return rows.reshape(self.weight.shape)

    def scales(self) -> Array:
        """Scales as [groups, outputs a group], whether the plan has one or many."""
        scale = np.asarray(self.plan.qparams.scale, np.float32)
        groups, outputs, _ = self.shape
        return np.broadcast_to(scale, (groups * outputs,)).reshape(groups, outputs)

    def reads(self, data: Array, positions: int) -> Array:
        """An input as [groups, at most about `positions`, fan-in]: a copy, so that the input may go."""
        if self.window is None:
            return data.reshape(-1, data.shape[-1])[:: _stride(data.size // data.shape[-1], positions)][None].copy()
        return _patches(data, self.window, self.groups, positions)

    def enough(self, positions: int, samples: int) -> int:
        """How many of `positions` a sample tell enough: a short sum is known from fewer."""
        wanted = max(_FEWEST_POSITIONS, _POSITIONS_AN_INPUT * self.shape[2])
        return min(positions, -(-wanted // max(samples, 1)))


def find_layers(model: Model, plan: QuantPlan) -> tuple[Layer, ...]:
    """The layers whose weights the plan puts into int8, in graph order."""
    found = [layer for node in model.nodes() if (layer := _layer(node, plan)) is not None]
    uses = Counter(layer.bias_key for layer in found)
    # A bias that several layers share cannot make up for the errors of one of them.
    return tuple(replace(x, bias_key=None, bias=None) if uses[x.bias_key] > 1 else x for x in found)


def _layer(node: ir.Node, plan: QuantPlan) -> Layer | None:
    decided, position = plan.nodes.get(node.name or ""), weight_of(node)
    if decided is None or decided.scheme not in _WITH_INT8_WEIGHTS or position != 1:
        return None
    value, data = node.inputs[1], node.inputs[0]
    assert value is not None and data is not None
    found, weight = lookup(plan.weights, value.name or "", node.name or ""), const_of(value)
    if found is None or weight is None or found[1].dtype is not DType.INT8:
        return None
    groups, window, transposed = 1, None, False
    if node.op_type == "Conv":
        window = _window(node)
        if window is None:
            return None
        groups = int(attr(node, "group", 1))
    elif node.op_type in ("MatMul", "Gemm") and weight.ndim == 2:
        transposed = node.op_type == "MatMul" or not attr(node, "transB", 0)
    else:
        return None
    output, bias_key, bias = _bias(node, plan)
    return Layer(
        node=node.name or "",
        key=found[0],
        data=data.name or "",
        weight=weight,
        plan=found[1],
        groups=groups,
        window=window,
        transposed=transposed,
        output=output,
        bias_key=bias_key,
        bias=bias,
    )


def _bias(node: ir.Node, plan: QuantPlan) -> tuple[str, str | None, Array | None]:
    """What the sum with the bias is called, the bias's key in the plan, and the bias."""
    adder, value = node, node.inputs[2] if len(node.inputs) > 2 else None
    uses = tuple(node.outputs[0].uses())
    if node.op_type == "MatMul" and len(uses) == 1 and uses[0][0].op_type == "Add":
        adder = uses[0][0]
        value = bias_add_input(adder, node.outputs[0])
    found = None if value is None else lookup(plan.biases, value.name or "", adder.name or "")
    if found is None:
        return node.outputs[0].name or "", None, None
    return adder.outputs[0].name or "", found[0], const_of(value)


def _window(node: ir.Node) -> Window | None:
    assert node.inputs[0] is not None and node.inputs[1] is not None
    data, weight, output = (static_shape(v) for v in (node.inputs[0], node.inputs[1], node.outputs[0]))
    if data is None or weight is None or output is None:  # behind a loop, say
        return None
    rank = len(weight) - 2
    if attr(node, "auto_pad", "NOTSET") not in ("NOTSET", "VALID"):
        return None
    return Window(
        kernel=weight[2:],
        strides=attr(node, "strides", (1,) * rank),
        dilations=attr(node, "dilations", (1,) * rank),
        pads=attr(node, "pads", (0,) * 2 * rank),
        output=output[2:],
    )


def _stride(size: int, wanted: int) -> int:
    return max(1, size // wanted)


def _patches(data: Array, window: Window, groups: int, positions: int) -> Array:
    """What the kernel sees at some output positions: [groups, positions, channels a group · kernel]."""
    total = math.prod(window.output)
    step = _stride(total * data.shape[0], positions)
    while any(math.gcd(step, n) != 1 for n in window.output[-1:] if n > 1):  # not always the same column
        step += 1
    flat = data.reshape(*data.shape[:2], -1)
    if math.prod(window.kernel) == 1 and window.output == data.shape[2:] and not any(window.pads):
        taken = flat[:, :, ::step]  # nothing to gather
        taken = taken.reshape(len(data), groups, -1, taken.shape[2]).transpose(1, 0, 3, 2)
        return taken.copy().reshape(groups, -1, taken.shape[3])
    places, padding = _places(window, data.shape[2:], step)
    taken = flat.take(places.reshape(-1), axis=2).reshape(*flat.shape[:2], *places.shape)
    if padding is not None:
        taken[:, :, padding] = 0
    batch, channels = taken.shape[:2]
    taken = taken.reshape(batch, groups, channels // groups, *places.shape)
    taken = taken.transpose(1, 0, 3, 2, 4)  # groups, batch, positions, channels, kernel
    return taken.reshape(groups, batch * len(places), -1)


@lru_cache(maxsize=512)
def _places(window: Window, size: tuple[int, ...], step: int) -> tuple[Array, Array | None]:
    """Where in a flat image the kernel reads at every `step`th output position, [positions, kernel], and what of it is
    padding; None where nothing is.
    """
    rank = len(window.kernel)
    picked = np.arange(0, math.prod(window.output), step)
    where = np.unravel_index(picked, window.output)
    flat, outside = np.zeros((len(picked), *window.kernel), np.int64), np.zeros((len(picked), *window.kernel), bool)
    for i in range(rank):
        offsets = np.arange(window.kernel[i]) * window.dilations[i] - window.pads[i]
        at = where[i][:, None] * window.strides[i] + offsets  # [positions, kernel_i]
        shape = [len(picked)] + [1] * rank
        shape[1 + i] = window.kernel[i]
        inside = np.clip(at, 0, size[i] - 1)
        flat = flat * size[i] + inside.reshape(shape)
        outside |= (at != inside).reshape(shape)
    flat, outside = flat.reshape(len(picked), -1), outside.reshape(len(picked), -1)
    return flat, outside if outside.any() else None


def in_slices(layers: tuple[Layer, ...], limit_bytes: int) -> Iterator[tuple[Layer, ...]]:
    """The layers in order, cut where their Hessians together would exceed a limit."""
    part: list[Layer] = []
    used = 0
    for layer in layers:
        groups, _, fan_in = layer.shape
        size = groups * fan_in * fan_in * 4
        if part and used + size > limit_bytes:
            yield tuple(part)
            part, used = [], 0
        part.append(layer)
        used += size
    if part:
        yield tuple(part)
