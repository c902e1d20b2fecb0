"""Resize as one matrix a resized axis: y = W·x, with W made of the coordinates that ONNX defines.

1. Every mode, policy and extrapolation that ONNX has becomes numbers in W (nearest: indices of a Gather), so the
   result is what ONNX says even where a runtime's own Resize rounds, clips or ignores.
2. With constant scales all of it folds to constants; scales, sizes or regions that come at run time are arithmetic.
3. Taps beyond the border count for the border's element, or with `exclude_outside` for nothing.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from edgec.graph.build import Builder
from edgec.graph.edit import Editor
from edgec.graph.model import attr, static_shape

_FLOAT = int(ir.DataType.FLOAT)


@dataclass(frozen=True, kw_only=True, slots=True)
class _Axis:
    """One resized axis: its place in the tensor and in scales, sizes and region, and its sizes."""

    axis: int
    index: int
    before: int
    after: int


def resize(node: ir.Node, editor: Editor) -> bool:
    """See the module. Tensors of floats whose sizes are known."""
    x = node.inputs[0]
    shape, target = static_shape(x), static_shape(node.outputs[0])
    half = x is not None and x.dtype == ir.DataType.FLOAT16
    if shape is None or target is None or 0 in shape or x is None or not (half or x.dtype == ir.DataType.FLOAT):
        return False
    b = Builder(editor, node)
    chosen = [int(a) % len(shape) for a in attr(node, "axes", range(len(shape)))]
    crop = attr(node, "coordinate_transformation_mode", "half_pixel") == "tf_crop_and_resize"
    region = _region(b, node, len(chosen)) if crop else None
    scale = _scale(b, node, chosen, shape, target)
    y = b("Cast", x, to=_FLOAT) if half else x
    inside: ir.Value | None = None
    for index, axis in enumerate(chosen):
        place = _Axis(axis=axis, index=index, before=shape[axis], after=target[axis])
        if place.before == place.after and not crop:
            continue
        at = _coordinates(b, node, place, b("Gather", scale, _index(index)), region)
        y = (
            _nearest(b, node, y, at, place)
            if attr(node, "mode", "nearest") == "nearest"
            else _weighted(b, node, y, at, b("Gather", scale, _index(index)), place, len(shape))
        )
        if crop:
            within = b("Equal", b("Clip", at, _float(0.0), _float(place.before - 1.0)), at)
            within = b("Reshape", within, b.ints(*[-1 if a == axis else 1 for a in range(len(shape))]))
            inside = within if inside is None else b("And", inside, within)
    if inside is not None:
        y = b("Where", inside, y, _float(attr(node, "extrapolation_value", 0.0)))
    y = b("Cast", y, to=int(ir.DataType.FLOAT16)) if half else y
    b.done(y if b.nodes else b("Identity", y))
    return True


def _index(value: int) -> np.ndarray:
    return np.asarray(value, np.int64)


def _float(value: float) -> np.ndarray:
    return np.asarray(value, np.float32)


def _given(node: ir.Node, index: int) -> ir.Value | None:
    value = node.inputs[index] if len(node.inputs) > index else None
    return None if value is None or static_shape(value) == (0,) else value


def _region(b: Builder, node: ir.Node, count: int) -> ir.Value:
    given = _given(node, 1)
    whole = np.repeat(np.asarray([0, 1], np.float32), count)
    return b("Cast", whole if given is None else given, to=_FLOAT)


def _scale(b: Builder, node: ir.Node, chosen: list[int], shape: tuple[int, ...], target: tuple[int, ...]) -> ir.Value:
    """The scale of every chosen axis: as given, or the ratio of sizes, the same for all axes where a policy says so."""
    scales, sizes = _given(node, 2), _given(node, 3)
    if scales is not None:
        return b("Cast", scales, to=_FLOAT)
    before = np.asarray([shape[a] for a in chosen], np.float32)
    policy = attr(node, "keep_aspect_ratio_policy", "stretch")
    if policy == "stretch" or sizes is None:
        return b("Cast", np.asarray([target[a] for a in chosen], np.float32) / before, to=_FLOAT)
    ratios = b("Div", b("Cast", sizes, to=_FLOAT), before)
    one = b("ReduceMin" if policy == "not_larger" else "ReduceMax", ratios, b.ints(0), keepdims=1)
    return b("Expand", one, b.ints(len(chosen)))


def _coordinates(b: Builder, node: ir.Node, place: _Axis, s: ir.Value, region: ir.Value | None) -> ir.Value:
    """Where each output element lies among the input's: float32 of the output's size."""
    mode = attr(node, "coordinate_transformation_mode", "half_pixel")
    n, m = place.before, place.after
    o = np.arange(m, dtype=np.float32)
    if mode == "asymmetric":
        return b("Div", o, s)
    if mode == "tf_half_pixel_for_nn":
        return b("Div", o + np.float32(0.5), s)
    if mode == "align_corners":
        # the resized length counts with its fraction: size · scale
        gaps = b("Sub", b("Mul", s, _float(n)), _float(1.0))
        return b("Div", o * np.float32(n - 1), gaps) if m > 1 else b("Mul", s, np.zeros(1, np.float32))
    if mode == "tf_crop_and_resize":
        assert region is not None
        count = len(attr(node, "axes", static_shape(node.outputs[0]) or ()))
        start = b("Gather", region, _index(place.index))
        end = b("Gather", region, _index(place.index + count))
        if m == 1:
            return b("Mul", b("Add", start, end), np.asarray([0.5 * (n - 1)], np.float32))
        step = b("Mul", b("Sub", end, start), _float((n - 1) / (m - 1)))
        return b("Add", b("Mul", start, _float(n - 1)), b("Mul", step, o))
    centred = b("Sub", b("Div", o + np.float32(0.5), s), _float(0.5))
    if mode == "pytorch_half_pixel" and m == 1:
        return b("Mul", s, np.zeros(1, np.float32))
    if mode == "half_pixel_symmetric":
        adjusted = b("Div", _float(m), b("Mul", s, _float(n)))
        return b("Add", b("Mul", b("Sub", _float(1.0), adjusted), _float(n / 2)), centred)
    return centred


def _nearest(b: Builder, node: ir.Node, x: ir.Value, at: ir.Value, place: _Axis) -> ir.Value:
    kind = attr(node, "nearest_mode", "round_prefer_floor")
    if kind == "round_prefer_floor":
        at = b("Ceil", b("Sub", at, _float(0.5)))
    elif kind == "round_prefer_ceil":
        at = b("Floor", b("Add", at, _float(0.5)))
    else:
        at = b("Floor" if kind == "floor" else "Ceil", at)
    at = b("Clip", at, _float(0.0), _float(place.before - 1.0))
    return b("Gather", x, b("Cast", at, to=int(ir.DataType.INT64)), axis=place.axis)


def _weighted(b: Builder, node: ir.Node, x: ir.Value, at: ir.Value, s: ir.Value, place: _Axis, rank: int) -> ir.Value:
    """Σ of the inputs by W, along one axis (rule 3)."""
    n, cubic = place.before, attr(node, "mode") == "cubic"
    wide = bool(attr(node, "antialias", 0))
    reach = (2 if cubic else 1) * (math.ceil(2 * max(1.0, n / place.after)) if wide else 1) + 1
    taps = np.arange(-reach, n + reach, dtype=np.float32)
    distance = b("Abs", b("Sub", b("Reshape", at, b.ints(-1, 1)), taps[None]))
    if wide:
        distance = b("Mul", distance, b("Min", s, _float(1.0)))
    w = (
        _cubic(b, distance, float(attr(node, "cubic_coeff_a", -0.75)))
        if cubic
        else b("Relu", b("Sub", _float(1.0), distance))
    )
    fold = np.zeros((len(taps), n), np.float32)
    columns = np.clip(taps.astype(np.int64), 0, n - 1)
    outside = columns != taps.astype(np.int64)
    fold[np.arange(len(taps)), columns] = 1
    exclude = bool(attr(node, "exclude_outside", 0))
    if exclude:
        fold[outside] = 0
    w = b("MatMul", w, fold)
    if exclude or wide:
        w = b("Div", w, b("ReduceSum", w, b.ints(1), keepdims=1))
    if place.axis == rank - 2:
        return b("MatMul", w, x)
    w = b("Transpose", w, perm=(1, 0))
    if place.axis == rank - 1:
        return b("MatMul", x, w)
    perm = [a for a in range(rank) if a != place.axis] + [place.axis]
    moved = b("MatMul", b("Transpose", x, perm=tuple(perm)), w)
    return b("Transpose", moved, perm=tuple(int(i) for i in np.argsort(perm)))


def _cubic(b: Builder, t: ir.Value, a: float) -> ir.Value:
    """Keys' kernel: (a+2)t³ − (a+3)t² + 1 up to 1, at³ − 5at² + 8at − 4a up to 2, 0 beyond."""

    def polynomial(*factors: float) -> ir.Value:
        value: ir.Value = b("Add", b("Mul", t, _float(factors[0])), _float(factors[1]))
        for factor in factors[2:]:
            value = b("Add", b("Mul", value, t), _float(factor))
        return value

    near = polynomial(a + 2, -(a + 3), 0, 1)
    far = polynomial(a, -5 * a, 8 * a, -4 * a)
    beyond = b("Where", b("Less", t, _float(2.0)), far, _float(0.0))
    return b("Where", b("LessOrEqual", t, _float(1.0)), near, beyond)
