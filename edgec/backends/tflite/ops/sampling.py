"""Sampling between pixels: GridSample, RoiAlign, DeformConv and AffineGrid.

The image becomes rows of channels; every sample gathers the rows around it and weighs them, one axis at a time.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from edgec.backends.tflite.context import Context, Lowering, Refusal
from edgec.backends.tflite.ops.dtypes import FLOAT, computed, convert
from edgec.backends.tflite.ops.expr import Expr, expr, index, matmul, number
from edgec.backends.tflite.ops.linear import fully_connected
from edgec.backends.tflite.ops.moves import moved
from edgec.backends.tflite.tir import Tensor, constant
from edgec.graph.model import attr, shape_of
from edgec.tensors import DType

_MODES = {"bilinear": "linear", "bicubic": "cubic"}  # GridSample's names before opset 20
_MAX_SAMPLES = 8


@dataclass(frozen=True, slots=True)
class Tap:
    """One neighbour of the samples along one axis: its index, its weight, and whether it lies inside."""

    index: Expr
    weight: Expr
    inside: Expr | None = None


def rows_of(ctx: Context, x: Tensor) -> Expr:
    """[N, C, …] as rows [N·…, C]."""
    last = ctx.transpose(x, (0, *range(2, x.rank), 1))
    return expr(ctx, ctx.reshape(last, (x.size // max(x.shape[1], 1), x.shape[1])))


def weighted_rows(rows: Expr, base: Expr, taps: list[list[Tap]], strides: list[int]) -> Expr:
    """The sum over all combinations of one tap an axis of the row there, times the weights' product: [K, C]."""
    total: Expr | None = None
    for combination in itertools.product(*taps):
        term = _weighed(rows, base, combination, strides)
        total = term if total is None else total + term
    assert total is not None
    return total


def _weighed(rows: Expr, base: Expr, taps: tuple[Tap, ...], strides: list[int]) -> Expr:
    place, weight = base, taps[0].weight
    for tap, stride in zip(taps, strides, strict=True):
        place = place + tap.index * stride
    for tap in taps[1:]:
        weight = weight * tap.weight
    return rows.take(place.reshape(-1)) * weight.reshape(-1, 1)


def linear_taps(x: Expr, size: int) -> list[Tap]:
    """The two neighbours of float positions, with weight 0 outside the image."""
    x = x.clip(-4, size + 3)  # far outside is outside, and fits an integer
    low = x.floor()
    part = x - low
    taps = []
    for offset, weight in ((0, 1 - part), (1, part)):
        place = low.to_int() + offset
        inside = (place >= 0) & (place < size)
        taps.append(Tap(place.clip(0, size - 1), inside.where(weight, 0.0), inside))
    return taps


# --- GridSample ------------------------------------------------------------------------------------------


def _reflect(x: Expr, low: float, high: float) -> Expr:
    span = high - low
    if span <= 0:
        return x * 0 + low
    t = (x - low) % (2 * span)
    return t.minimum(2 * span - t) + low


@dataclass(frozen=True, slots=True)
class _Grid:
    """How GridSample treats one axis."""

    size: int
    padding: str
    corners: bool

    @property
    def border(self) -> tuple[float, float]:
        """Where reflection turns round."""
        return (0.0, self.size - 1.0) if self.corners else (-0.5, self.size - 0.5)

    def position(self, g: Expr, mode: str) -> Expr:
        """From −1 … 1 to pixels."""
        x = (g + 1) * ((self.size - 1) / 2) if self.corners else ((g + 1) * self.size - 1) * 0.5
        if mode == "nearest":
            x = x.round_even()
        # cubic interpolation goes on beyond the border, over equal values
        if self.padding == "border" and mode != "cubic":
            return x.clip(0, self.size - 1)
        if self.padding == "reflection":
            return _reflect(x, *self.border)
        return x.clip(-4, self.size + 3)

    def tap(self, place: Expr, weight: Expr) -> Tap:
        """A neighbour at an integer position, which may lie outside."""
        if self.padding == "reflection":
            place = _reflect(place.to_float(), *self.border).to_int()
        inside = (place >= 0) & (place < self.size)
        place = place.clip(0, self.size - 1)
        if self.padding != "zeros":
            return Tap(place, weight)
        return Tap(place, inside.where(weight, 0.0), inside)


def _cubic_weights(t: Expr) -> list[Expr]:
    a = -0.75

    def far(d: Expr) -> Expr:
        return ((a * d - 5 * a) * d + 8 * a) * d - 4 * a

    def near(d: Expr) -> Expr:
        return ((a + 2) * d - (a + 3)) * d * d + 1

    return [far(t + 1), near(t), near(1 - t), far(2 - t)]


def _grid_taps(axis: _Grid, g: Expr, mode: str) -> list[Tap]:
    x = axis.position(g, mode)
    if mode == "nearest":
        return [axis.tap(x.to_int(), x * 0 + 1)]
    low = x.floor()
    part, first = x - low, low.to_int()
    if mode == "linear":
        return [axis.tap(first, 1 - part), axis.tap(first + 1, part)]
    return [axis.tap(first + i - 1, w) for i, w in enumerate(_cubic_weights(part))]


def _grid_sample(ctx: Context, node: ir.Node) -> Tensor:
    """GridSample over any number of axes, in all modes and paddings."""
    x, grid = ctx.tensor(node.inputs[0]), ctx.tensor(node.inputs[1])
    mode = attr(node, "mode", "linear")
    mode = _MODES.get(mode, mode)
    padding, corners = attr(node, "padding_mode", "zeros"), bool(attr(node, "align_corners", 0))
    sizes, outs = x.shape[2:], grid.shape[1:-1]
    batch, points = x.shape[0], int(np.prod(outs))
    flat = expr(ctx, convert(ctx, grid, DType.FLOAT32)).reshape(batch * points, len(sizes))
    taps = [
        _grid_taps(_Grid(size, padding, corners), flat.item(1, len(sizes) - 1 - k), mode)
        for k, size in enumerate(sizes)
    ]
    strides = [int(np.prod(sizes[k + 1 :])) for k in range(len(sizes))]
    base = number(ctx, np.repeat(np.arange(batch) * int(np.prod(sizes)), points), DType.INT32)

    def run(t: Tensor) -> Tensor:
        rows = rows_of(ctx, t)
        y = _picked(rows, base, taps, strides) if mode == "nearest" else weighted_rows(rows, base, taps, strides)
        last = ctx.reshape(y.t, (batch, *outs, t.shape[1]))
        return ctx.transpose(last, (0, last.rank - 1, *range(1, last.rank - 1)))

    if mode == "nearest":
        return moved(ctx, "GATHER", x, run)
    return computed(ctx, "GridSample", [x], FLOAT, run)


def _picked(rows: Expr, base: Expr, taps: list[list[Tap]], strides: list[int]) -> Expr:
    """One row a sample, zeros outside."""
    place, inside = base, None
    for [tap], stride in zip(taps, strides, strict=True):
        place = place + tap.index * stride
        if tap.inside is not None:
            inside = tap.inside if inside is None else inside & tap.inside
    picked = rows.take(place)
    return picked if inside is None else inside.reshape(-1, 1).where(picked, 0)


# --- RoiAlign --------------------------------------------------------------------------------------------


def _roi_taps(start: Expr, extent: Expr, pooled: int, size: int, sample: tuple[int, int]) -> list[Tap]:
    """The neighbours [R, pooled] of one sample in every bin along one axis."""
    i, count = sample
    regions = start.shape[0]
    step = (extent / pooled).reshape(regions, 1)
    bins = number(start.ctx, np.arange(pooled)[None] + (i + 0.5) / count, DType.FLOAT32)
    y = start.reshape(regions, 1) + step * bins
    inside = (y >= -1.0) & (y <= float(size))
    y = y.clip(0, size - 1)
    low = y.floor()
    part, first = y - low, low.to_int()
    return [
        Tap(first, inside.where(1 - part, 0.0)),
        Tap((first + 1).minimum(size - 1), inside.where(part, 0.0)),
    ]


def _roi_align(ctx: Context, node: ir.Node) -> Tensor:
    """RoiAlign, average and maximum, with a fixed number of samples a bin."""
    x, rois, batch = (ctx.tensor(v) for v in node.inputs)
    samples = attr(node, "sampling_ratio", 0)
    if samples <= 0:
        raise Refusal("sampling-ratio", "RoiAlign with as many samples as the region is large", "set sampling_ratio")
    if samples > _MAX_SAMPLES:
        raise Refusal("sampling-ratio", f"RoiAlign with {samples} samples a bin is too large")
    pooled = (attr(node, "output_height", 1), attr(node, "output_width", 1))
    half = attr(node, "coordinate_transformation_mode", "half_pixel") == "half_pixel"
    count, channels, sizes = rois.shape[0], x.shape[1], x.shape[2:]

    def run(t: Tensor, regions: Tensor) -> Tensor:
        box = expr(ctx, regions) * attr(node, "spatial_scale", 1.0) - (0.5 if half else 0.0)
        edges = [box.item(1, i) for i in range(4)]  # x1 y1 x2 y2
        starts, extents = [edges[1], edges[0]], [edges[3] - edges[1], edges[2] - edges[0]]
        if not half:
            extents = [e.maximum(1.0) for e in extents]
        base = (index(ctx, batch) * (sizes[0] * sizes[1])).reshape(count, 1, 1)
        base = base + number(ctx, np.zeros((1, *pooled)), DType.INT32)
        rows = rows_of(ctx, t)
        terms = []
        for place in itertools.product(range(samples), repeat=2):
            taps = []
            for k, view in enumerate(((count, pooled[0], 1), (count, 1, pooled[1]))):
                own = _roi_taps(starts[k], extents[k], pooled[k], sizes[k], (place[k], samples))
                taps.append([Tap(p.index.reshape(*view), p.weight.reshape(*view)) for p in own])
            terms += [_weighed(rows, base, pair, [sizes[1], 1]) for pair in itertools.product(*taps)]
        total = terms[0]
        for term in terms[1:]:
            total = total + term if attr(node, "mode", "avg") == "avg" else total.maximum(term)
        if attr(node, "mode", "avg") == "avg":
            total = total * (1 / samples**2)
        return ctx.transpose(ctx.reshape(total.t, (count, *pooled, channels)), (0, 3, 1, 2))

    return computed(ctx, "RoiAlign", [x, rois], FLOAT, run)


# --- DeformConv ------------------------------------------------------------------------------------------


def _deform_conv(ctx: Context, node: ir.Node) -> Tensor:
    """DeformConv: bilinear patches, then a matrix product."""
    operands = ctx.inputs(node)
    given = [t for t in operands if t is not None]
    present = [t is not None for t in operands]

    def run(*tensors: Tensor) -> Tensor:
        rest = iter(tensors)
        x, w, offset, bias, mask = ([next(rest) if p else None for p in present] + [None] * 2)[:5]
        if x is None or w is None or offset is None:
            raise Refusal("inputs", "DeformConv needs its input, weights and offsets")
        if x.rank != 4:
            raise Refusal("rank", f"DeformConv over {x.rank - 2} spatial axes has no TFLite form")
        patches = _deform_patches(ctx, node, x, w, offset, mask)
        return _patch_product(ctx, node, patches, w, bias)

    return computed(ctx, "DeformConv", given, FLOAT, run)


def _deform_patches(ctx: Context, node: ir.Node, x: Tensor, w: Tensor, offset: Tensor, mask: Tensor | None) -> Expr:
    """[N·P, C, K]: what each of the K taps sees at each of the P output places."""
    groups = attr(node, "offset_group", 1)
    batch, channels, height, width = x.shape
    kernel, outs = w.shape[2:], offset.shape[2:]
    taps, points, own = int(np.prod(kernel)), int(np.prod(outs)), channels // groups
    strides, dilations = attr(node, "strides", (1, 1)), attr(node, "dilations", (1, 1))
    pads = attr(node, "pads", (0, 0, 0, 0))
    moved_by = expr(ctx, offset).reshape(batch * groups, taps, 2, points)
    neighbours = []
    for k, size in enumerate((height, width)):
        tap_at = np.indices(kernel)[k].reshape(-1, 1) * dilations[k]
        out_at = np.indices(outs)[k].reshape(1, -1) * strides[k] - pads[k]
        position = moved_by.item(2, k) + number(ctx, (tap_at + out_at)[None], DType.FLOAT32)
        neighbours.append(linear_taps(position, size))
    # rows by batch and offset group: [N·G·H·W, C/G]
    image = expr(ctx, x).reshape(batch * groups, own, height * width).transpose(0, 2, 1).reshape(-1, own)
    start = np.arange(batch * groups).reshape(-1, 1, 1) * (height * width)
    base = number(ctx, np.broadcast_to(start, (batch * groups, taps, points)), DType.INT32)
    rows = weighted_rows(image, base, neighbours, [width, 1])
    if mask is not None:
        rows = rows * expr(ctx, mask).reshape(-1, 1)
    shaped = rows.reshape(batch, groups, taps, points, own).transpose(0, 3, 1, 4, 2)
    return shaped.reshape(batch * points, channels, taps)


def _patch_product(ctx: Context, node: ir.Node, patches: Expr, w: Tensor, bias: Tensor | None) -> Tensor:
    group, filters = attr(node, "group", 1), w.shape[0]
    shape = shape_of(node.outputs[0])
    count, channels, taps = patches.shape
    wide = channels // group * taps
    left = patches.reshape(count, group, wide).transpose(1, 0, 2)
    right = expr(ctx, ctx.reshape(w, (group, filters // group, wide))).transpose(0, 2, 1)
    y = matmul(left, right).transpose(1, 0, 2).reshape(count, filters)
    if bias is not None:
        y = y + expr(ctx, bias).reshape(1, filters)
    return ctx.transpose(ctx.reshape(y.t, (shape[0], *shape[2:], filters)), (0, 3, 1, 2))


# --- AffineGrid ------------------------------------------------------------------------------------------


def _affine_grid(ctx: Context, node: ir.Node) -> Tensor:
    """AffineGrid: a constant grid times theta."""
    theta, out = ctx.tensor(node.inputs[0]), shape_of(node.outputs[0])
    if min(out) < 0:
        raise Refusal("static-shape", "AffineGrid needs its size when compiling")
    sizes = out[1:-1]
    axes = []
    for size in sizes:
        if attr(node, "align_corners", 0):
            axes.append(np.linspace(-1.0, 1.0, size) if size > 1 else np.zeros(1))
        else:
            axes.append((2 * np.arange(size) + 1) / size - 1)
    mesh = np.meshgrid(*axes, indexing="ij")[::-1]
    points = np.stack([*mesh, np.ones(sizes)], -1).reshape(-1, len(sizes) + 1)

    def run(t: Tensor) -> Tensor:
        batch, count = t.shape[:2]
        weights = constant(ctx.name("grid"), points.astype(np.float32))
        y = fully_connected(ctx, ctx.reshape(t, (batch * count, t.shape[2])), weights, None)
        last = ctx.transpose(ctx.reshape(y, (batch, count, len(points))), (0, 2, 1))
        return ctx.reshape(last, out)

    return computed(ctx, "AffineGrid", [theta], FLOAT, run)


LOWERINGS: dict[str, Lowering] = {
    "AffineGrid": _affine_grid,
    "DeformConv": _deform_conv,
    "GridSample": _grid_sample,
    "RoiAlign": _roi_align,
}
