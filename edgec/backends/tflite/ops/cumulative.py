"""Running sums and products: CUMSUM, and products by doubling."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from edgec.backends.tflite.context import Context, Lowering, normalize_axis
from edgec.backends.tflite.ops.dtypes import ARITHMETIC, computed
from edgec.backends.tflite.ops.expr import Expr, expr, number
from edgec.backends.tflite.ops.padding import constant_pad
from edgec.backends.tflite.ops.slicing import reverse
from edgec.backends.tflite.tir import Tensor
from edgec.graph.model import attr
from edgec.tensors import DType


def _cumsum(ctx: Context, node: ir.Node) -> Tensor:
    """CumSum; the axis may come at run time."""
    x, axis = ctx.tensor(node.inputs[0]), expr(ctx, ctx.tensor(node.inputs[1])).to_int().reshape()
    options = {"exclusive": bool(attr(node, "exclusive", 0)), "reverse": bool(attr(node, "reverse", 0))}
    return computed(
        ctx,
        "CumSum",
        [x],
        ARITHMETIC,
        lambda t: ctx.emit("CUMSUM", [t, axis.t], t.shape, t.dtype, **options),
        modular=True,
    )


def _cumprod(ctx: Context, node: ir.Node) -> Tensor:
    """CumProd; with an axis that comes at run time, every axis is computed and one is chosen."""
    x, axis = ctx.tensor(node.inputs[0]), expr(ctx, ctx.tensor(node.inputs[1])).to_int().reshape()
    exclusive, backward = bool(attr(node, "exclusive", 0)), bool(attr(node, "reverse", 0))

    def products(t: Tensor) -> Tensor:
        if axis.value is not None or t.rank == 1:
            place = 0 if axis.value is None else normalize_axis(int(axis.value), t.rank)
            return _along(ctx, t, place, exclusive=exclusive, backward=backward)
        results = [_along(ctx, t, a, exclusive=exclusive, backward=backward) for a in range(t.rank)]
        return choose_axis(ctx, axis, results).t

    return computed(ctx, "CumProd", [x], ARITHMETIC, products, modular=True)


def choose_axis(ctx: Context, axis: Expr, results: list[Tensor]) -> Expr:
    """results[axis] for an axis that is only known at run time, and may be negative."""
    rank = len(results)
    chosen = expr(ctx, results[0])
    place = (axis + rank) % rank
    for a in range(1, rank):
        chosen = place.equals(number(ctx, a, DType.INT32)).where(expr(ctx, results[a]), chosen)
    return chosen


def _along(ctx: Context, t: Tensor, axis: int, *, exclusive: bool, backward: bool) -> Tensor:
    """After a step of width s every element holds the product of the last 2s ones."""
    if backward:
        t = reverse(ctx, t, [axis])
    size = t.shape[axis]
    y = expr(ctx, t)
    if exclusive:
        y = _shifted(y, axis, 1)
    width = 1
    while width < size:
        y = y * _shifted(y, axis, width)
        width *= 2
    return reverse(ctx, y.t, [axis]) if backward else y.t


def _shifted(y: Expr, axis: int, width: int) -> Expr:
    kept = y.slice(axis, 0, y.shape[axis] - width)
    pads = [(width, 0) if a == axis else (0, 0) for a in range(len(y.shape))]
    if kept.value is not None:
        return number(y.ctx, np.pad(kept.value, pads, constant_values=1), y.dtype)
    return expr(y.ctx, constant_pad(y.ctx, kept.t, pads, 1))


LOWERINGS: dict[str, Lowering] = {"CumSum": _cumsum, "CumProd": _cumprod}
