"""Resize: the runtime's own operator where it samples the very same points, else gathers and matrix products.

Every mode is linear and separable: along each axis the output is a matrix times the input. Scales and regions may
come at run time: the same formulas then become operators. Constants are computed in double precision.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from edgec.backends.tflite.context import Context, Lowering, Refusal, normalize_axis
from edgec.backends.tflite.ops.dtypes import FLOATS, convert
from edgec.backends.tflite.ops.expr import Expr, concat, expr, number
from edgec.backends.tflite.ops.linear import fully_connected
from edgec.backends.tflite.ops.moves import gather
from edgec.backends.tflite.tir import Tensor, constant
from edgec.graph.model import attr, shape_of
from edgec.tensors import Array, DType

_CROP = "tf_crop_and_resize"


@dataclass(frozen=True, slots=True)
class _Axis:
    """One axis to resize: sizes, scale and (for crops) the region's start and end, as scalars [1]."""

    axis: int
    size: int
    out: int
    scale: Expr
    start: Expr | None = None
    end: Expr | None = None

    @property
    def known(self) -> bool:
        """Whether nothing comes at run time."""
        return all(e is None or e.value is not None for e in (self.scale, self.start, self.end))

    @property
    def unchanged(self) -> bool:
        """Whether the axis stays as it is."""
        if self.size == 1 == self.out and self.start is None:
            return True
        crops = [e for e in (self.start, self.end) if e is not None]
        whole = not crops or (self.known and [float(e.value[0]) for e in crops if e.value is not None] == [0, 1])
        return self.out == self.size and self.known and whole and float(_known(self.scale).reshape(())) == 1


def _known(e: Expr) -> Array:
    if e.value is None:
        raise ValueError("not known when compiling")
    return e.value


def source_positions(node: ir.Node, a: _Axis) -> Expr:
    """Input coordinate [out] that each output element samples (ONNX coordinate_transformation_mode)."""
    mode = attr(node, "coordinate_transformation_mode", "half_pixel")
    ctx, dtype = a.scale.ctx, a.scale.dtype
    i = number(ctx, np.arange(a.out), dtype)
    width = a.scale * a.size  # the output's length, which scales may make fractional
    if mode == "align_corners":
        return i * (a.size - 1) / (width - 1) if a.out > 1 else i
    if mode == "asymmetric":
        return i / a.scale
    if mode == "half_pixel" or (mode == "pytorch_half_pixel" and a.out > 1):
        return (i + 0.5) / a.scale - 0.5
    if mode == "pytorch_half_pixel":
        return i
    if mode == "half_pixel_symmetric":
        return (i + 0.5) / a.scale - 0.5 + (1 - a.out / width) * (a.size / 2)
    if mode == _CROP and a.start is not None and a.end is not None:
        first = a.start * (a.size - 1)
        if a.out == 1:
            return first + (a.end - a.start) * ((a.size - 1) / 2)
        return first + i * ((a.end - a.start) * (a.size - 1) / (width - 1))
    raise Refusal("coordinates", f"Resize with coordinate_transformation_mode {mode}")


def nearest_index(node: ir.Node, a: _Axis) -> Expr:
    """Input index of each output element, int32."""
    x = source_positions(node, a)
    mode = attr(node, "nearest_mode", "round_prefer_floor")
    if mode == "round_prefer_floor":
        x = (x - 0.5).ceil()
    elif mode == "round_prefer_ceil":
        x = (x + 0.5).floor()
    else:
        x = x.floor() if mode == "floor" else x.ceil()
    return x.clip(0, a.size - 1).to_int()


def weight_matrix(node: ir.Node, a: _Axis) -> Expr:
    """[out, size]: how much of each input element each output element takes (linear and cubic).

    Elements beyond the ends are the ends' own; with exclude_outside they count for nothing.
    """
    cubic = attr(node, "mode", "nearest") == "cubic"
    ctx, dtype = a.scale.ctx, a.scale.dtype
    antialias = bool(attr(node, "antialias", 0))
    x = source_positions(node, a).clip(-1, a.size).reshape(a.out, 1)
    shrink = min(a.out / a.size, 1.0) if antialias else 1.0
    reach = int(np.ceil((2 if cubic else 1) / shrink)) + 1
    places = np.arange(-reach, a.size + reach)
    distance = (x - number(ctx, places[None], dtype)).abs()
    if antialias:
        distance = distance * a.scale.minimum(1)
    weights = _cubic(distance, attr(node, "cubic_coeff_a", -0.75)) if cubic else (1 - distance).maximum(0)
    outside = bool(attr(node, "exclude_outside", 0))
    if outside:
        weights = weights * number(ctx, ((places >= 0) & (places < a.size))[None], dtype)
    if outside or antialias:
        weights = weights / weights.sum(1, keep=True)
    inner = weights.slice(1, reach, a.size)
    if outside or a.size == 0:
        return inner
    left, right = (weights.slice(1, start, reach).sum(1, keep=True) for start in (0, reach + a.size))
    if a.size == 1:
        return inner + left + right
    first, last = inner.slice(1, 0, 1) + left, inner.slice(1, a.size - 1, 1) + right
    middle = [inner.slice(1, 1, a.size - 2)] if a.size > 2 else []
    return concat([first, *middle, last], 1)


def _cubic(d: Expr, a: float) -> Expr:
    near = ((a + 2) * d - (a + 3)) * d * d + 1
    far = ((a * d - 5 * a) * d + 8 * a) * d - 4 * a
    return (d <= 1).where(near, (d < 2).where(far, 0))


def _builtin(node: ir.Node, x: Tensor, axes: list[_Axis]) -> dict[str, bool] | None:
    """Options of the TFLite resize operator that gives exactly this result on NCHW's H and W, or None."""
    mode = attr(node, "mode", "nearest")
    spatial = x.rank == 4 and {a.axis for a in axes} <= {2, 3} and all(a.known for a in axes)
    if not spatial or mode == "cubic" or attr(node, "antialias", 0) or any(a.start is not None for a in axes):
        return None
    if attr(node, "exclude_outside", 0):
        return None
    for align, half in ((False, False), (False, True), (True, False)):
        if all(_same_samples(node, a, align=align, half=half, nearest=mode == "nearest") for a in axes):
            return {"alignCorners": align, "halfPixelCenters": half}
    return None


def _same_samples(node: ir.Node, a: _Axis, *, align: bool, half: bool, nearest: bool) -> bool:
    step = (a.size - 1) / (a.out - 1) if align and a.out > 1 else a.size / a.out
    i = np.arange(a.out)
    if nearest:
        raw = (i + 0.5) * np.float32(step) if half else i * np.float32(step)
        mine = np.floor(raw + 0.5) if align else np.floor(raw)
        return bool(np.array_equal(np.clip(mine, 0, a.size - 1), _known(nearest_index(node, a))))
    mine = np.maximum((i + 0.5) * step - 0.5, 0) if half else i * step
    wanted = _known(source_positions(node, a).clip(0, a.size - 1))
    return bool(np.allclose(np.clip(mine, 0, a.size - 1), wanted, rtol=0, atol=1e-5 * a.size))


def _axes(ctx: Context, node: ir.Node, x: Tensor, out: tuple[int, ...]) -> list[_Axis]:
    """What happens along every axis that is not left alone."""
    given = [normalize_axis(a, x.rank) for a in attr(node, "axes") or range(x.rank)]
    roi, scales, sizes = (
        ctx.tensor(node.inputs[i]) if len(node.inputs) > i and node.inputs[i] is not None else None for i in (1, 2, 3)
    )
    scale_of = _scales(ctx, node, x, out, given, scales, sizes)
    crop = attr(node, "coordinate_transformation_mode", "half_pixel") == _CROP
    if crop and roi is None:
        raise Refusal("roi", "Resize of a region needs the region")
    result = []
    for i, axis in enumerate(given):
        scale = scale_of[i]
        start = end = None
        if crop:
            region = _numbers(ctx, roi)
            start, end = region.slice(0, i, 1), region.slice(0, len(given) + i, 1)
            if any(e.value is None for e in (scale, start, end)):
                scale, start, end = (e.cast(DType.FLOAT32) for e in (scale, start, end))
        entry = _Axis(axis, x.shape[axis], out[axis], scale, start, end)
        if not entry.unchanged:
            result.append(entry)
    return result


def _numbers(ctx: Context, t: Tensor | None) -> Expr:
    """Constants in double precision, computed values in float32."""
    return expr(ctx, t, DType.FLOAT64 if t is not None and t.data is not None else DType.FLOAT32)


def _scales(
    ctx: Context,
    node: ir.Node,
    x: Tensor,
    out: tuple[int, ...],
    axes: list[int],
    scales: Tensor | None,
    sizes: Tensor | None,
) -> list[Expr]:
    policy = attr(node, "keep_aspect_ratio_policy", "stretch")
    if scales is not None and scales.size:
        values = _numbers(ctx, scales)
        return [values.slice(0, i, 1) for i in range(len(axes))]
    if policy == "stretch" or sizes is None:
        return [number(ctx, [out[a] / x.shape[a]], DType.FLOAT64) for a in axes]
    wanted = _numbers(ctx, sizes)
    ratios = wanted / number(ctx, [x.shape[a] for a in axes], wanted.dtype)
    one = ratios.min(0, keep=True) if policy == "not_larger" else ratios.max(0, keep=True)
    return [one] * len(axes)


def _resize(ctx: Context, node: ir.Node) -> Tensor:
    """Resize in all modes; scales, sizes and regions may come at run time."""
    x, out = ctx.tensor(node.inputs[0]), shape_of(node.outputs[0])
    if any(d < 0 for d in out):
        raise Refusal("static-shape", "Resize needs its output's shape when compiling")
    axes = _axes(ctx, node, x, out)
    if not axes:
        return x
    nearest = attr(node, "mode", "nearest") == "nearest"
    crops = attr(node, "coordinate_transformation_mode", "half_pixel") == _CROP
    if x.dtype == DType.FLOAT32 or (nearest and not crops):
        return _resized(ctx, node, x, out, axes)
    y = expr(ctx, _resized(ctx, node, convert(ctx, x, DType.FLOAT32), out, axes))
    if x.dtype not in FLOATS:
        low, high = (0, 1) if x.dtype == DType.BOOL else x.dtype.limits
        y = y.round_even().clip(low, high)
    return convert(ctx, y.t, x.dtype)


def _resized(ctx: Context, node: ir.Node, x: Tensor, out: tuple[int, ...], axes: list[_Axis]) -> Tensor:
    nearest = attr(node, "mode", "nearest") == "nearest"
    options = _builtin(node, x, axes) if x.dtype == DType.FLOAT32 else None
    if options is not None:
        kind = "RESIZE_NEAREST_NEIGHBOR" if nearest else "RESIZE_BILINEAR"
        nhwc = ctx.transpose(x, (0, 2, 3, 1))
        y = ctx.emit(kind, [nhwc, ctx.int32(out[2:])], (out[0], *out[2:], out[1]), x.dtype, **options)
        return ctx.transpose(y, (0, 3, 1, 2))
    for a in axes:
        if nearest:
            x = gather(ctx, x, nearest_index(node, a).t, a.axis)
        else:
            x = _along_axis(ctx, x, weight_matrix(node, a).to_float(), a.axis)
        if a.start is not None:
            x = _extrapolated(ctx, node, x, a)
    return x


def _extrapolated(ctx: Context, node: ir.Node, x: Tensor, a: _Axis) -> Tensor:
    """Outside the input stands a value of its own."""
    position = source_positions(node, a)
    outside = (position < 0) | (position > a.size - 1)
    if outside.value is not None and not outside.value.any():
        return x
    mask = outside.reshape(*(a.out if i == a.axis else 1 for i in range(x.rank)))
    value = number(ctx, attr(node, "extrapolation_value", 0.0), DType.FLOAT32)
    return mask.where(value, expr(ctx, x)).t


def _along_axis(ctx: Context, x: Tensor, matrix: Expr, axis: int) -> Tensor:
    """matrix · x along one axis."""
    if matrix.value is not None:
        return along_axis(ctx, x, matrix.value, axis)
    perm = [i for i in range(x.rank) if i != axis] + [axis]
    turned = ctx.transpose(x, perm)
    lead = turned.shape[:-1]
    rows = ctx.reshape(turned, (int(np.prod(lead)), turned.shape[-1]))
    shape = (rows.shape[0], matrix.shape[0])
    y = ctx.emit("BATCH_MATMUL", [rows, ctx.transpose(matrix.t, (1, 0))], shape, x.dtype, adjX=False, adjY=False)
    return ctx.transpose(ctx.reshape(y, (*lead, shape[1])), [int(i) for i in np.argsort(perm)])


def along_axis(ctx: Context, x: Tensor, matrix: Array, axis: int) -> Tensor:
    """A constant matrix times x along one axis."""
    perm = [i for i in range(x.rank) if i != axis] + [axis]
    weights = constant(ctx.name("matrix"), np.ascontiguousarray(matrix, np.float32))
    y = fully_connected(ctx, ctx.transpose(x, perm), weights, None)
    return ctx.transpose(y, [int(i) for i in np.argsort(perm)])


LOWERINGS: dict[str, Lowering] = {"Resize": _resize}
