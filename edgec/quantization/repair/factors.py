"""By which factors channels are evened out: the exponent that leaves the least error of both roundings together.

With r the range of x in a channel and w that of the weights which read it, t = r^α / w^(1 − α). What is left is
predicted from ranges alone, for steps Δ of x / t and δ of each output's weights W·t:

    Δ²/12 · Σ (W·t)²  +  δ²/12 · E[(x / t)²]

summed over what reads x.
A depthwise convolution has a scale a channel already, so it takes all of it: t = r.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from edgec.graph.model import attr, const_of
from edgec.quantization.types import TensorStats
from edgec.tensors import Array

#: Factors lie within this of their middle: beyond it they would make weights of nothing but noise.
MOST = 32.0

_EXPONENTS = (0.5, 0.3, 0.65, 0.8, 0.95)


def factors_of(ranges: Array, readers: Sequence[ir.Node], seen: TensorStats | None = None) -> Array | None:
    """One factor a channel; None for readers that see other channels. Without `seen` half of what differs moves."""
    products = _products(readers)
    if any(rows.shape[1] != len(ranges) for rows in products):
        return None
    used = np.max([np.abs(rows).max(axis=(0, 2)) for rows in products], axis=0) if products else np.zeros(len(ranges))
    alive = ranges > 0
    if not used.any():
        return None if not alive.any() else _limited(np.where(alive, ranges, 1.0), alive)
    alive &= used > 0
    if not alive.any():
        return None
    wide, heavy = np.where(alive, ranges, 1.0), np.where(alive, used, 1.0)
    exponents = _EXPONENTS if seen is not None and seen.channel_min is not None else _EXPONENTS[:1]
    tried = [_limited(wide**a / heavy ** (1 - a), alive) for a in exponents]
    if len(tried) == 1 or seen is None:
        return tried[0]
    return min(tried, key=lambda factors: predicted(factors, seen, readers))


def powers(readers: Sequence[ir.Node]) -> Array:
    """Σ W² of each channel over all outputs of the products that read it."""
    return np.asarray(sum(np.square(rows).sum(axis=(0, 2)) for rows in _products(readers)))


def predicted(factors: Array, seen: TensorStats, readers: Sequence[ir.Node]) -> float:
    """The error of both roundings at the outputs of all products, each weight as [outputs, channels, kernel]."""
    assert seen.channel_min is not None and seen.channel_max is not None
    low, high = seen.channel_min.astype(np.float64), seen.channel_max.astype(np.float64)
    step = (max((high / factors).max(), 0.0) - min((low / factors).min(), 0.0)) / 255
    power = _power(seen) / np.square(factors)
    total = 0.0
    for rows in _products(readers):
        moved = rows * factors[None, :, None]
        steps = np.abs(moved).max(axis=(1, 2)) / 127
        total += step**2 / 12 * float(np.sum(np.square(moved)))
        total += float(np.sum(np.square(steps)) / 12 * power.sum() * rows.shape[2])
    return total


def gain(factors: Array, seen: TensorStats, readers: Sequence[ir.Node]) -> float:
    """By how much the predicted error falls, as a ratio."""
    left = predicted(factors, seen, readers)
    return predicted(np.ones(len(factors)), seen, readers) / left if left > 0 else 1.0


def _power(seen: TensorStats) -> Array:
    """E[x²] of each channel: in proportion to its squared range, and as much together as was seen."""
    assert seen.channel_min is not None and seen.channel_max is not None
    squares = np.square(np.maximum(np.abs(seen.channel_min), np.abs(seen.channel_max)).astype(np.float64))
    middles = (np.arange(len(seen.counts)) + seen.first_bin + 0.5) * seen.bin_width
    count = max(float(seen.counts.sum()), 1.0)
    mean = float((seen.counts * np.square(middles)).sum()) / count
    return np.asarray(squares * (mean / max(float(squares.mean()), np.finfo(np.float64).tiny)))


def _products(readers: Sequence[ir.Node]) -> list[Array]:
    """The weights of readers whose outputs mix channels."""
    return [_rows(user) for user in readers if not is_depthwise(user)]


def _rows(user: ir.Node) -> Array:
    """A product's weight as [outputs, channels, kernel]."""
    weight = const_of(user.inputs[1])
    assert weight is not None
    moved = np.moveaxis(weight.astype(np.float64), input_axis(user), 1)
    return moved.reshape(moved.shape[0], moved.shape[1], -1)


def _limited(factors: Array, alive: Array) -> Array:
    middle = float(np.median(factors[alive]))
    return np.where(alive, np.clip(factors / middle, 1 / MOST, MOST), 1.0)


def is_depthwise(user: ir.Node) -> bool:
    """Whether a reader has a scale a channel: a grouped convolution."""
    return user.op_type == "Conv" and attr(user, "group", 1) > 1


def input_axis(user: ir.Node) -> int:
    """Axis of a weight along which its input channels lie."""
    return 1 if user.op_type == "Conv" or (user.op_type == "Gemm" and attr(user, "transB", 0)) else 0
