"""NonMaxSuppression: one NON_MAX_SUPPRESSION_V4 for every image and class, then the selected ones put together."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from edgec.backends.tflite.context import Context, Lowering, Refusal
from edgec.backends.tflite.ops.dtypes import FLOAT, bitcast, compute_type, convert
from edgec.backends.tflite.ops.expr import Expr, concat, expr, index, iota, number, stack
from edgec.backends.tflite.ops.moves import gather
from edgec.backends.tflite.ops.select import true_places
from edgec.backends.tflite.tir import Tensor
from edgec.graph.model import attr
from edgec.tensors import DType

_MAX_RUNS = 1024


def _next_up(e: Expr) -> Expr:
    """The next larger float of a non-negative one."""
    if e.value is not None:
        return number(e.ctx, np.nextafter(e.value.astype(np.float32), np.float32(np.inf)), DType.FLOAT32)
    bits = expr(e.ctx, bitcast(e.ctx, e.t, DType.INT32)) + 1
    return expr(e.ctx, bitcast(e.ctx, bits.t, DType.FLOAT32))


def _corners(boxes: Expr, *, centre: bool) -> Expr:
    if not centre:
        return boxes
    x, y, w, h = (boxes.item(2, i) for i in range(4))
    half_w, half_h = w * 0.5, h * 0.5
    return stack([y - half_h, x - half_w, y + half_h, x + half_w], 2)


def _scalar(ctx: Context, t: Tensor | None, default: float) -> Expr:
    if t is None or t.size == 0:
        return number(ctx, default, DType.FLOAT32)
    return expr(ctx, t).cast(DType.FLOAT32).reshape()


def _non_max_suppression(ctx: Context, node: ir.Node) -> Tensor:
    """NonMaxSuppression; how many boxes are selected is known at run time only."""
    boxes, scores, *rest = ctx.inputs(node)
    assert boxes is not None and scores is not None
    most, overlap, least = ([*rest, None, None, None])[:3]
    batch, count, _ = boxes.shape
    classes = scores.shape[1]
    if batch * classes > _MAX_RUNS:
        raise Refusal("nms", f"NonMaxSuppression over {batch * classes} images and classes is too large")
    if most is None or (most.data is not None and int(most.data.reshape(())) <= 0):
        return ctx.constant(np.zeros((0, 3)), DType.INT64)
    inner = compute_type(boxes.dtype, FLOAT, "NonMaxSuppression")
    corners = _corners(expr(ctx, convert(ctx, boxes, inner)), centre=bool(attr(node, "center_point_box", 0)))
    points = expr(ctx, convert(ctx, scores, inner))
    # the kernel suppresses at the threshold, ONNX above it
    threshold = _next_up(_scalar(ctx, overlap, 0.0).maximum(0.0))
    floor = _scalar(ctx, least, float(np.finfo(np.float32).min))
    limit = index(ctx, most).reshape()
    rows, kept = [], []
    for b in range(batch):
        own = corners.item(0, b)
        for c in range(classes):
            chosen, number_of = ctx.new((count,), DType.INT32, "selected"), ctx.new((), DType.INT32, "count")
            inputs = [own.t, points.item(0, b).item(0, c).t, ctx.int32(count), threshold.t, floor.t]
            ctx.emit_multi("NON_MAX_SUPPRESSION_V4", inputs, [chosen, number_of])
            kept.append(iota(ctx, count) < expr(ctx, number_of).minimum(limit).reshape(1))
            place = np.broadcast_to(np.asarray([[b, c]]), (count, 2))
            rows.append(concat([number(ctx, place, DType.INT32), expr(ctx, chosen).reshape(count, 1)], 1))
    places = true_places(ctx, concat(kept, 0).t)
    flat = ctx.emit("RESHAPE", [places, ctx.int32([-1])], (-1,), DType.INT64, newShape=np.asarray([-1], np.int32))
    selected = gather(ctx, concat(rows, 0).t, ctx.cast(flat, DType.INT32), 0)
    return ctx.cast(selected, DType.INT64)


LOWERINGS: dict[str, Lowering] = {"NonMaxSuppression": _non_max_suppression}
