"""Resize: the runtime's own operator where it samples the very same points, else gathers and matrix products.

Every mode is linear and separable: along each axis the output is a constant matrix times the input.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from edgec.backends.tflite.context import Context, Lowering, Refusal, normalize_axis
from edgec.backends.tflite.ops.linear import fully_connected
from edgec.backends.tflite.tir import Tensor, constant
from edgec.graph.model import attr, shape_of
from edgec.tensors import Array, DType


def source_positions(mode: str, size: int, out: int, scale: float) -> Array:
    """Input coordinate that each output element samples (ONNX coordinate_transformation_mode)."""
    i = np.arange(out, dtype=np.float64)
    if mode == "align_corners":
        return i * ((size - 1) / (out - 1)) if out > 1 else np.zeros(out)
    if mode == "asymmetric":
        return i / scale
    if mode == "pytorch_half_pixel":
        return (i + 0.5) / scale - 0.5 if out > 1 else np.zeros(out)
    if mode == "half_pixel_symmetric":
        adjust = out / (scale * size)
        return (size / 2) * (1 - adjust) + (i + 0.5) / scale - 0.5
    if mode == "half_pixel":
        return (i + 0.5) / scale - 0.5
    raise Refusal("coordinates", f"Resize with coordinate_transformation_mode {mode}")


def nearest_index(node: ir.Node, size: int, out: int, scale: float) -> Array:
    """Input index of each output element."""
    x = source_positions(attr(node, "coordinate_transformation_mode", "half_pixel"), size, out, scale)
    mode = attr(node, "nearest_mode", "round_prefer_floor")
    rounded = {
        "round_prefer_floor": np.ceil(x - 0.5),
        "round_prefer_ceil": np.floor(x + 0.5),
        "floor": np.floor(x),
        "ceil": np.ceil(x),
    }[mode]
    return np.clip(rounded, 0, size - 1).astype(np.int64)


def weight_matrix(node: ir.Node, size: int, out: int, scale: float) -> Array:
    """[out, size]: how much of each input element each output element takes (linear and cubic)."""
    cubic = attr(node, "mode", "nearest") == "cubic"
    x = source_positions(attr(node, "coordinate_transformation_mode", "half_pixel"), size, out, scale)
    stretch = min(scale, 1.0) if attr(node, "antialias", 0) else 1.0
    reach = (2 if cubic else 1) / stretch
    taps = np.arange(int(np.ceil(reach)) * 2 + 1) - int(np.ceil(reach))
    index = np.floor(x).astype(np.int64)[:, None] + taps[None, :]
    distance = np.abs((x[:, None] - index) * stretch)
    weights = _cubic(distance, attr(node, "cubic_coeff_a", -0.75)) if cubic else np.maximum(1 - distance, 0)
    if attr(node, "exclude_outside", 0) or attr(node, "antialias", 0) and not cubic:
        weights = np.where((index >= 0) & (index < size), weights, 0)
    weights = weights / weights.sum(1, keepdims=True)
    matrix = np.zeros((out, size))
    for column in range(index.shape[1]):
        np.add.at(matrix, (np.arange(out), np.clip(index[:, column], 0, size - 1)), weights[:, column])
    return matrix.astype(np.float32)


def _cubic(d: Array, a: float) -> Array:
    near = ((a + 2) * d - (a + 3)) * d * d + 1
    far = ((a * d - 5 * a) * d + 8 * a) * d - 4 * a
    return np.where(d <= 1, near, np.where(d < 2, far, 0))


def _builtin(node: ir.Node, x: Tensor, out: tuple[int, ...], scales: list[float]) -> dict[str, bool] | None:
    """Options of the TFLite resize operator that gives exactly this result on NCHW's H and W, or None."""
    if x.rank != 4 or out[:2] != x.shape[:2] or attr(node, "mode", "nearest") == "cubic" or attr(node, "antialias", 0):
        return None
    nearest = attr(node, "mode", "nearest") == "nearest"
    for align, half in ((False, False), (False, True), (True, False)):
        if all(
            _same_samples(node, x.shape[i], out[i], scales[i], align=align, half=half, nearest=nearest) for i in (2, 3)
        ):
            return {"alignCorners": align, "halfPixelCenters": half}
    return None


def _same_samples(
    node: ir.Node, size: int, out: int, scale: float, *, align: bool, half: bool, nearest: bool
) -> bool:
    step = (size - 1) / (out - 1) if align and out > 1 else size / out
    i = np.arange(out)
    if nearest:
        raw = (i + 0.5) * np.float32(step) if half else i * np.float32(step)
        mine = np.floor(raw + 0.5) if align else np.floor(raw)
        return bool(np.array_equal(np.clip(mine, 0, size - 1), nearest_index(node, size, out, scale)))
    mine = np.maximum((i + 0.5) * step - 0.5, 0) if half else i * step
    mode = attr(node, "coordinate_transformation_mode", "half_pixel")
    wanted = np.clip(source_positions(mode, size, out, scale), 0, size - 1)
    return bool(np.allclose(np.clip(mine, 0, size - 1), wanted, rtol=0, atol=1e-5 * size))


def _scales(ctx: Context, node: ir.Node, x: Tensor, out: tuple[int, ...]) -> list[float]:
    """The scale of every axis: given, or the ratio of the sizes."""
    scales = [o / s for o, s in zip(out, x.shape, strict=True)]
    given = ctx.tensor(node.inputs[2]) if len(node.inputs) > 2 and node.inputs[2] is not None else None
    if given is not None and given.size and attr(node, "keep_aspect_ratio_policy", "stretch") == "stretch":
        axes = attr(node, "axes") or range(x.rank)
        for axis, value in zip(axes, ctx.const(given, "scales"), strict=True):
            scales[normalize_axis(axis, x.rank)] = float(value)
    elif attr(node, "keep_aspect_ratio_policy", "stretch") != "stretch":
        sizes = ctx.const(ctx.tensor(node.inputs[3]), "sizes")
        axes = [normalize_axis(a, x.rank) for a in (attr(node, "axes") or range(x.rank))]
        ratios = [float(s) / x.shape[a] for s, a in zip(sizes, axes, strict=True)]
        ratio = min(ratios) if attr(node, "keep_aspect_ratio_policy") == "not_larger" else max(ratios)
        for axis in axes:
            scales[axis] = ratio
    return scales


def _resize(ctx: Context, node: ir.Node) -> Tensor:
    x, out = ctx.tensor(node.inputs[0]), shape_of(node.outputs[0])
    if x.dtype != DType.FLOAT32:
        raise Refusal("dtype", f"Resize on {x.dtype} has no TFLite kernel", "insert a Cast")
    scales = _scales(ctx, node, x, out)
    if out == x.shape and all(s == 1 for s in scales):
        return x
    nearest = attr(node, "mode", "nearest") == "nearest"
    options = _builtin(node, x, out, scales)
    if options is not None:
        kind = "RESIZE_NEAREST_NEIGHBOR" if nearest else "RESIZE_BILINEAR"
        nhwc = ctx.transpose(x, (0, 2, 3, 1))
        y = ctx.emit(kind, [nhwc, ctx.int32(out[2:])], (out[0], *out[2:], out[1]), x.dtype, **options)
        return ctx.transpose(y, (0, 3, 1, 2))
    for axis in range(x.rank):
        if out[axis] == x.shape[axis] and scales[axis] == 1:
            continue
        shape = [*x.shape[:axis], out[axis], *x.shape[axis + 1 :]]
        if nearest:
            index = nearest_index(node, x.shape[axis], out[axis], scales[axis])
            x = ctx.emit("GATHER", [x, ctx.int32(index)], shape, x.dtype, axis=axis, batchDims=0)
        else:
            matrix = weight_matrix(node, x.shape[axis], out[axis], scales[axis])
            x = along_axis(ctx, x, matrix, axis)
    return x


def along_axis(ctx: Context, x: Tensor, matrix: Array, axis: int) -> Tensor:
    """matrix · x along one axis."""
    perm = [i for i in range(x.rank) if i != axis] + [axis]
    y = fully_connected(ctx, ctx.transpose(x, perm), constant(ctx.name("matrix"), matrix), None)
    return ctx.transpose(y, [int(i) for i in np.argsort(perm)])


LOWERINGS: dict[str, Lowering] = {"Resize": _resize}
