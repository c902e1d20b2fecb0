"""Padding: Pad in all modes with constant or run-time amounts, and CenterCropPad."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from edgec.backends.tflite.context import Context, Lowering, Refusal, normalize_axis
from edgec.backends.tflite.ops.expr import Expr, concat, expr, iota, number, stack
from edgec.backends.tflite.ops.moves import gather, moved, moved_pair
from edgec.backends.tflite.ops.slicing import per_axis, take_slices
from edgec.backends.tflite.tir import Tensor
from edgec.graph.model import attr, shape_of
from edgec.tensors import DType

_MAX_PAD_RANK = 5


def _pad(ctx: Context, node: ir.Node) -> Tensor:
    """Pad: constant, reflect, edge and wrap; negative amounts crop."""
    x, *params = ctx.inputs(node)
    assert x is not None
    params += [None] * (3 - len(params))
    mode = attr(node, "mode", "constant")
    pads, value, axes = params
    if pads is None:
        raise Refusal("inputs", "Pad needs its amounts")
    if pads.data is None or (axes is not None and axes.data is None):
        return _runtime_pad(ctx, node, x, params, mode)
    amounts = ctx.const(pads, "pads").astype(np.int64).reshape(2, -1)
    places = range(x.rank) if axes is None else [normalize_axis(int(a), x.rank) for a in ctx.const(axes, "axes")]
    table = [(0, 0)] * x.rank
    for i, axis in enumerate(places):
        table[axis] = (int(amounts[0, i]), int(amounts[1, i]))
    spans = [slice(max(-b, 0), d - max(-a, 0), 1) for d, (b, a) in zip(x.shape, table, strict=True)]
    if any(s.stop < s.start for s in spans):
        raise Refusal("pads", "Pad crops more than there is")
    x = take_slices(ctx, x, spans)
    table = [(max(b, 0), max(a, 0)) for b, a in table]
    if not any(b or a for b, a in table):
        return x
    if mode != "constant":
        return _indexed_pad(ctx, x, table, mode)
    if value is None or value.data is not None:
        known = 0 if value is None else ctx.const(value, "constant_value").reshape(()).item()
        return constant_pad(ctx, x, table, known)
    return _pad_with(ctx, x, table, ctx.reshape(value, ()))


def constant_pad(ctx: Context, x: Tensor, pads: list[tuple[int, int]], value: float = 0) -> Tensor:
    """x with a constant around it."""
    return _pad_with(ctx, x, pads, None if value == 0 else ctx.scalar(value, x))


def _pad_with(ctx: Context, x: Tensor, pads: list[tuple[int, int]], value: Tensor | None) -> Tensor:
    """x with zeros or a scalar around it; beyond rank 5 one axis at a time, as a matrix of rows."""
    if x.rank > _MAX_PAD_RANK:
        for axis, (before, after) in enumerate(pads):
            if before or after:
                shape = (*x.shape[:axis], x.shape[axis] + before + after, *x.shape[axis + 1 :])
                lead = int(np.prod(x.shape[:axis]))
                rows = ctx.reshape(x, (lead, x.shape[axis], int(np.prod(x.shape[axis + 1 :]))))
                x = ctx.reshape(_pad_with(ctx, rows, [(0, 0), (before, after), (0, 0)], value), shape)
        return x
    padded = [d + b + a for d, (b, a) in zip(x.shape, pads, strict=True)]
    paddings = ctx.int32(np.asarray(pads))
    if value is None:
        return moved(ctx, "PAD", x, lambda t: ctx.emit("PAD", [t, paddings], padded, t.dtype))
    return moved_pair(ctx, "PADV2", x, value, lambda t, v: ctx.emit("PADV2", [t, paddings, v], padded, t.dtype))


def _indexed_pad(ctx: Context, x: Tensor, pads: list[tuple[int, int]], mode: str) -> Tensor:
    """reflect as MIRROR_PAD where it reaches; edge, wrap and wider reflections gather by constant indices."""
    if mode not in ("reflect", "edge", "wrap"):
        raise Refusal("mode", f"Pad mode {mode!r} is unknown")
    if mode == "reflect" and all(max(p) < d for p, d in zip(pads, x.shape, strict=True) if any(p)):
        shape = [d + b + a for d, (b, a) in zip(x.shape, pads, strict=True)]
        return ctx.emit("MIRROR_PAD", [x, ctx.int32(np.asarray(pads))], shape, x.dtype, mode="REFLECT")
    for axis, (before, after) in enumerate(pads):
        if before or after:
            index = np.pad(np.arange(x.shape[axis]), (before, after), mode=mode)  # type: ignore[call-overload]
            x = gather(ctx, x, ctx.int32(index), axis)
    return x


def _runtime_pad(ctx: Context, node: ir.Node, x: Tensor, params: list[Tensor | None], mode: str) -> Tensor:
    """Amounts that come at run time: PAD takes them, the other modes compute which element goes where."""
    pads, value, axes = params
    assert pads is not None
    shape = shape_of(node.outputs[0])
    halves = expr(ctx, pads).to_int().reshape(2, -1)
    count = halves.shape[1]
    where = iota(ctx, count) if axes is None else expr(ctx, axes).to_int()
    before, after = (per_axis(halves.item(0, i), where, [0] * x.rank) for i in (0, 1))
    if mode != "constant":
        return _runtime_indexed_pad(ctx, x, before, shape, mode)
    table = stack([before, after], 1)
    scalar = None if value is None else ctx.reshape(value, ())
    if x.rank <= _MAX_PAD_RANK:
        return _pad_by(ctx, x, table, scalar, shape)
    none = number(ctx, [[0, 0]], DType.INT32)
    for axis in range(x.rank):
        own = concat([none, table.slice(0, axis, 1), none], 0)
        lead, tail = int(np.prod(x.shape[:axis])), int(np.prod(x.shape[axis + 1 :]))
        rows = ctx.reshape(x, (lead, x.shape[axis], tail))
        padded = _pad_by(ctx, rows, own, scalar, (lead, shape[axis], tail))
        x = ctx.reshape(padded, (*x.shape[:axis], shape[axis], *x.shape[axis + 1 :]))
    return x


def _pad_by(ctx: Context, x: Tensor, table: Expr, value: Tensor | None, shape: tuple[int, ...]) -> Tensor:
    """PAD with amounts [rank, 2] that come at run time."""
    if value is None:
        return moved(ctx, "PAD", x, lambda t: ctx.emit("PAD", [t, table.t], shape, t.dtype))
    return moved_pair(ctx, "PADV2", x, value, lambda t, v: ctx.emit("PADV2", [t, table.t, v], shape, t.dtype))


def _runtime_indexed_pad(ctx: Context, x: Tensor, before: Expr, shape: tuple[int, ...], mode: str) -> Tensor:
    for axis, (size, out) in enumerate(zip(x.shape, shape, strict=True)):
        if out < 0:
            raise Refusal("static-shape", f"Pad mode {mode!r} needs the padded size")
        place = iota(ctx, out) - before.slice(0, axis, 1)
        if mode == "edge":
            place = place.clip(0, size - 1)
        elif mode == "wrap":
            place = place % size
        elif mode == "reflect":
            period = max(2 * (size - 1), 1)
            place = place % period
            place = place.minimum(period - place) if size > 1 else place
        else:
            raise Refusal("mode", f"Pad mode {mode!r} is unknown")
        x = gather(ctx, x, place.t, axis)
    return x


def _center_crop_pad(ctx: Context, node: ir.Node) -> Tensor:
    """CenterCropPad: the output's shape says what to crop and pad around the centre."""
    x, shape = ctx.tensor(node.inputs[0]), shape_of(node.outputs[0])
    if any(d < 0 for d in shape):
        raise Refusal("static-shape", "CenterCropPad needs the output's shape when compiling")
    spans, pads = [], []
    for size, out in zip(x.shape, shape, strict=True):
        begin = max(size - out, 0) // 2
        spans.append(slice(begin, begin + min(size, out), 1))
        before = max(out - size, 0) // 2
        pads.append((before, max(out - size, 0) - before))
    x = take_slices(ctx, x, spans)
    return constant_pad(ctx, x, pads) if any(b or a for b, a in pads) else x


LOWERINGS: dict[str, Lowering] = {"Pad": _pad, "CenterCropPad": _center_crop_pad}
