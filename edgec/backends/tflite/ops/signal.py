"""Signals: DFT and STFT as products with constant matrices, windows, mel filters.

Lengths come from constants or from the declared shapes; what these leave open is computed at run time.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from edgec.backends.tflite.context import Context, Lowering, Refusal, normalize_axis
from edgec.backends.tflite.ops.cumulative import choose_axis
from edgec.backends.tflite.ops.dtypes import FLOAT, computed, convert
from edgec.backends.tflite.ops.expr import Expr, expr, index, iota, number, stack
from edgec.backends.tflite.ops.linear import fully_connected
from edgec.backends.tflite.tir import Tensor, constant
from edgec.graph.model import attr, shape_of
from edgec.tensors import Array, DType

#: A transform's matrix has no more entries than this (64 MiB).
_MAX_MATRIX = 1 << 24


@dataclass(frozen=True, slots=True)
class _Transform:
    """A DFT of `length`, taking `size` elements of `parts` numbers each, giving `bins` of `out_parts`."""

    length: int
    size: int
    parts: int
    bins: int
    out_parts: int
    inverse: bool
    onesided: bool

    def matrix(self) -> Array:
        """[bins · out_parts, size · parts]"""
        if self.bins * self.out_parts * self.size * self.parts > _MAX_MATRIX:
            raise Refusal("dft-length", f"a DFT of {self.length} elements is too large for a matrix product")
        used = min(self.size, self.length)
        if self.inverse and self.onesided:
            used = min(used, self.length // 2 + 1)
        angle = 2 * np.pi * (np.outer(np.arange(self.bins), np.arange(used)) % self.length) / self.length
        cos, sin = np.cos(angle), np.sin(angle) * (1 if self.inverse else -1)
        if self.inverse:
            cos, sin = cos / self.length, sin / self.length
        if self.inverse and self.onesided:
            # the bins that were left out mirror those that are there
            twice = np.full(used, 2.0)
            twice[0] = 1
            if self.length % 2 == 0 and used > self.length // 2:
                twice[self.length // 2] = 1
            cos, sin = cos * twice, sin * twice
        result = np.zeros((self.bins, self.out_parts, self.size, self.parts))
        result[:, 0, :used, 0] = cos
        if self.out_parts == 2:
            result[:, 1, :used, 0] = sin
        if self.parts == 2:
            result[:, 0, :used, 1] = -sin
            if self.out_parts == 2:
                result[:, 1, :used, 1] = cos
        return result.reshape(self.bins * self.out_parts, self.size * self.parts).astype(np.float32)


def _apply(ctx: Context, x: Tensor, axis: int, t: _Transform) -> Tensor:
    """The transform along an axis of [..., parts]."""
    order = [*(a for a in range(x.rank - 1) if a != axis), axis, x.rank - 1]
    turned = ctx.transpose(x, order)
    lead = turned.shape[:-2]
    rows = ctx.reshape(turned, (int(np.prod(lead)), t.size * t.parts))
    y = fully_connected(ctx, rows, constant(ctx.name("dft"), t.matrix()), None)
    return ctx.transpose(ctx.reshape(y, (*lead, t.bins, t.out_parts)), [int(i) for i in np.argsort(order)])


def _dft(ctx: Context, node: ir.Node) -> Tensor:
    """DFT; the axis and the length may come at run time where the output's shape settles them."""
    x, *rest = ctx.inputs(node)
    assert x is not None
    out = shape_of(node.outputs[0])
    if min(out) < 0:
        raise Refusal("static-shape", "DFT needs its output's shape when compiling")
    length = rest[0] if rest else None
    place = rest[1] if len(rest) > 1 else None
    given = attr(node, "axis")
    axis = int(ctx.const(place, "axis").reshape(())) if place is not None and place.data is not None else given
    if place is None or axis is not None:
        axes = [normalize_axis(-2 if axis is None else int(axis), x.rank)]
    else:
        axes = [a for a in range(x.rank - 1) if _plausible(node, x, out, a, length)]
    transforms = [(a, _transform(node, x, out, a, length)) for a in axes]

    def run(t: Tensor) -> Tensor:
        results = {a: _apply(ctx, t, a, how) for a, how in transforms}
        if len(results) == 1:
            return next(iter(results.values()))
        anything = next(iter(results.values()))
        every = [results.get(a, anything) for a in range(x.rank)]
        return choose_axis(ctx, expr(ctx, place).to_int().reshape(), every).t

    return computed(ctx, "DFT", [x], FLOAT, run)


def _plausible(node: ir.Node, x: Tensor, out: tuple[int, ...], axis: int, length: Tensor | None) -> bool:
    """Whether the output's shape fits a transform along this axis."""
    if any(x.shape[a] != out[a] for a in range(x.rank - 1) if a != axis):
        return False
    if length is not None:
        return True
    inverse, onesided = bool(attr(node, "inverse", 0)), bool(attr(node, "onesided", 0))
    size = x.shape[axis]
    expected = size if not onesided else 2 * (size - 1) if inverse else size // 2 + 1
    return out[axis] == expected


def _transform(node: ir.Node, x: Tensor, out: tuple[int, ...], axis: int, length: Tensor | None) -> _Transform:
    inverse, onesided = bool(attr(node, "inverse", 0)), bool(attr(node, "onesided", 0))
    if length is not None and length.data is not None:
        n = int(length.data.reshape(())) if length.size else x.shape[axis]
    elif length is None:
        n = 2 * (x.shape[axis] - 1) if inverse and onesided else x.shape[axis]
    elif onesided and not inverse:
        raise Refusal("dft-length", "the length of a onesided DFT must be known when compiling")
    else:
        n = out[axis]
    return _Transform(n, x.shape[axis], x.shape[-1], out[axis], out[-1], inverse, onesided)


# --- STFT ------------------------------------------------------------------------------------------------


def _stft(ctx: Context, node: ir.Node) -> Tensor:
    """STFT: frames gathered, weighed by the window, transformed."""
    signal, step, *rest = ctx.inputs(node)
    assert signal is not None and step is not None
    window, length = ([*rest, None, None])[:2]
    out = shape_of(node.outputs[0])
    if min(out) < 0:
        raise Refusal("static-shape", "STFT needs its output's shape when compiling")
    frames, bins = out[1], out[2]
    onesided = bool(attr(node, "onesided", 1))
    known: int | None = None
    if length is not None and length.data is not None:
        known = int(length.data.reshape(()))
    elif window is not None:
        known = window.shape[0]
    elif length is None:
        known = signal.shape[1]
    elif not onesided:
        known = bins
    reach = 2 * bins - 1 if known is None else known
    parts = signal.shape[2] if signal.rank > 2 else 1

    def run(t: Tensor, *weights: Tensor) -> Tensor:
        batch = t.shape[0]
        begin = (iota(ctx, frames) * index(ctx, step).reshape(1)).reshape(frames, 1)
        places = (begin + iota(ctx, reach).reshape(1, reach)).clip(0, t.shape[1] - 1)
        cut = expr(ctx, t).reshape(batch, t.shape[1], parts).take(places, 1)  # [B, F, N, parts]
        if weights:
            cut = cut * expr(ctx, weights[0]).reshape(1, 1, reach, 1)
        if known is not None:
            how = _Transform(known, reach, parts, bins, 2, False, onesided)
            return _apply(ctx, cut.t, 2, how)
        if parts != 1 or length is None:
            raise Refusal("dft-length", "the frame length of a complex STFT must be known when compiling")
        return _open_length(ctx, cut, index(ctx, length).reshape(1), out)

    operands = [signal] if window is None else [signal, window]
    return computed(ctx, "STFT", operands, FLOAT, run)


def _open_length(ctx: Context, cut: Expr, length: Expr, out: tuple[int, ...]) -> Tensor:
    """A real DFT whose length comes at run time: the matrix is computed, elements past the length weigh nothing."""
    batch, frames, reach, _ = cut.shape
    bins = out[2]
    product = number(ctx, np.outer(np.arange(reach), np.arange(bins)), DType.INT32)
    angle = (product % length).to_float() * (2 * np.pi / length.to_float())
    used = iota(ctx, reach).reshape(reach, 1) < length
    matrix = stack([used.where(angle.cos(), 0.0), used.where(angle.sin() * -1.0, 0.0)], 2)
    rows, columns = cut.reshape(batch * frames, reach), matrix.reshape(reach, bins * 2)
    shape = (batch * frames, bins * 2)
    y = ctx.emit("BATCH_MATMUL", [rows.t, columns.t], shape, DType.FLOAT32, adjX=False, adjY=False)
    return ctx.reshape(y, out)


# --- windows and filters ---------------------------------------------------------------------------------

_WINDOWS: dict[str, tuple[float, ...]] = {
    "HannWindow": (0.5, -0.5),
    "HammingWindow": (25 / 46, 25 / 46 - 1),
    "BlackmanWindow": (0.42, -0.5, 0.08),
}


def _window(ctx: Context, node: ir.Node) -> Tensor:
    """Hann, Hamming and Blackman windows: constants of the declared size."""
    _, shape, dtype = ctx.out_spec(node)
    if min(shape) < 0:
        raise Refusal("static-shape", f"{node.op_type} needs its size when compiling")
    period = max(shape[0] - (0 if attr(node, "periodic", 1) else 1), 1)
    angle = 2 * np.pi * np.arange(shape[0]) / period
    values = sum(c * np.cos(k * angle) for k, c in enumerate(_WINDOWS[node.op_type]))
    return ctx.constant(np.asarray(values), dtype)


def _mel_weight_matrix(ctx: Context, node: ir.Node) -> Tensor:
    """MelWeightMatrix: triangles between the band edges, all of whose parameters may come at run time."""
    _, length, rate, low, high = (ctx.tensor(v) for v in node.inputs)
    _, (bins, bands), dtype = ctx.out_spec(node)
    if min(bins, bands) < 0:
        raise Refusal("static-shape", "MelWeightMatrix needs its shape when compiling")
    known = all(t.data is not None for t in (length, rate, low, high))
    inner = DType.FLOAT64 if known else DType.FLOAT32
    size, samples, lower, upper = (expr(ctx, t).cast(inner).reshape(1) for t in (length, rate, low, high))
    first, last = ((edge / 700 + 1).log() * (2595 / np.log(10)) for edge in (lower, upper))
    mel = number(ctx, np.arange(bands + 2), inner) * ((last - first) / (bands + 2)) + first
    hertz = ((mel * (np.log(10) / 2595)).exp() - 1) * 700
    edges = ((size + 1) * hertz / samples).floor()
    left, centre, right = (edges.slice(0, i, bands).reshape(1, bands) for i in range(3))
    j = number(ctx, np.arange(bins)[:, None], inner)
    rising = ((j >= left) & (j <= centre)).where((j - left) / (centre - left).maximum(1), 0)
    rising = j.equals(centre).where(number(ctx, 1, inner), rising)
    falling = (right - j) / (right - centre).maximum(1)
    y = ((j >= centre) & (j < right)).where(falling, rising)
    return convert(ctx, y.t, dtype)


LOWERINGS: dict[str, Lowering] = {
    "DFT": _dft,
    "MelWeightMatrix": _mel_weight_matrix,
    "STFT": _stft,
    **dict.fromkeys(_WINDOWS, _window),
}
