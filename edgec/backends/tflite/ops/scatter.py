"""Scattering: SCATTER_ND adds what falls on one place, so that each ONNX reduction takes its own way.

none: what was scattered where something was scattered, else the data. add: the data plus what was scattered.
mul, max, min: repeated places are looked for along the scattered axis, and combined with the data.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx_ir as ir

from edgec.backends.tflite.context import Context, Lowering, Refusal, normalize_axis
from edgec.backends.tflite.ops.dtypes import ARITHMETIC, compute_type, convert
from edgec.backends.tflite.ops.expr import Expr, expr, index, iota, number, scatter_sum
from edgec.backends.tflite.ops.gather import flat_elements, flat_tuples, non_negative_index
from edgec.backends.tflite.ops.moves import MOVES, gather
from edgec.backends.tflite.tir import Tensor
from edgec.graph.model import attr
from edgec.tensors import DType

#: Comparisons of every place with every update: more would be a model's whole memory.
_MAX_PAIRS = 1 << 24
_COMBINE: dict[str, tuple[Callable[[Expr, Expr], Expr], Callable[[Expr, int], Expr]]] = {
    "mul": (lambda a, b: a * b, lambda e, axis: e.prod(axis)),
    "max": (lambda a, b: a.maximum(b), lambda e, axis: e.max(axis)),
    "min": (lambda a, b: a.minimum(b), lambda e, axis: e.min(axis)),
}


def _identity(reduction: str, dtype: DType) -> float:
    if reduction == "mul":
        return 1
    low, high = (-np.inf, np.inf) if dtype.is_float else dtype.limits
    return low if reduction == "max" else high


def _inner_type(x: Tensor, reduction: str) -> DType:
    if reduction == "none":
        return compute_type(x.dtype, MOVES["SCATTER_ND"], "Scatter", moves=True)
    return compute_type(x.dtype, ARITHMETIC, "Scatter", modular=reduction in ("add", "mul"))


def _rows(ctx: Context, x: Expr, positions: Expr, updates: Expr, reduction: str) -> Expr:
    """x [M, …] with `updates` [K, …] scattered to rows `positions` [K]."""
    size = x.shape[0]
    if reduction == "add":
        return x + scatter_sum(positions, updates, size)
    if reduction == "none":
        count = positions.shape[0]
        hit = scatter_sum(positions, number(ctx, np.ones(count), DType.INT32), size) > 0
        return hit.reshape(size, *[1] * (len(x.shape) - 1)).where(scatter_sum(positions, updates, size), x)
    combine, reduce = _COMBINE[reduction]
    count = positions.shape[0]
    width = x.t.size // max(size, 1)
    if size * count * width > _MAX_PAIRS:
        raise Refusal("scatter", f"scattering {count} rows to {size} places with reduction {reduction!r} is too large")
    match = positions.reshape(1, count, 1).equals(iota(ctx, size).reshape(size, 1, 1))
    spread = match.where(updates.reshape(1, count, width), _identity(reduction, updates.dtype))
    return combine(x, reduce(spread, 1).reshape(*x.shape))


def _scatter_nd(ctx: Context, node: ir.Node) -> Tensor:
    """ScatterND with all reductions."""
    x, where, updates = (ctx.tensor(v) for v in node.inputs[:3])
    reduction = attr(node, "reduction", "none")
    depth = where.shape[-1]
    if where.size == 0 or updates.size == 0:
        return x
    inner = _inner_type(x, reduction)
    moves = reduction == "none"
    lead, rest = x.shape[:depth], x.shape[depth:]
    size, count = int(np.prod(lead)), int(np.prod(where.shape[:-1]))
    data = expr(ctx, ctx.reshape(convert(ctx, x, inner, moves=moves), (size, *rest)))
    positions = flat_tuples(ctx, where, lead).reshape(count)
    rows = expr(ctx, ctx.reshape(convert(ctx, updates, inner, moves=moves), (count, *rest)))
    y = _rows(ctx, data, positions, rows, reduction).t
    return convert(ctx, ctx.reshape(y, x.shape), x.dtype, moves=moves)


def _scatter_elements(ctx: Context, node: ir.Node) -> Tensor:
    """ScatterElements (and Scatter) with all reductions."""
    x, where, updates = (ctx.tensor(v) for v in node.inputs[:3])
    reduction = attr(node, "reduction", "none")
    axis = normalize_axis(attr(node, "axis", 0), x.rank)
    if where.size == 0:
        return x
    inner = _inner_type(x, reduction)
    moves = reduction == "none"
    data = expr(ctx, convert(ctx, x, inner, moves=moves))
    new = expr(ctx, convert(ctx, updates, inner, moves=moves))
    if reduction in _COMBINE:
        y = _combine_along(ctx, data, where, new, axis, reduction)
    else:
        flat = flat_elements(ctx, where, x.shape, axis).reshape(-1)
        y = _rows(ctx, data.reshape(-1), flat, new.reshape(-1), reduction).reshape(*x.shape)
    return convert(ctx, y.t, x.dtype, moves=moves)


def _combine_along(ctx: Context, data: Expr, where: Tensor, updates: Expr, axis: int, reduction: str) -> Expr:
    """Updates only meet along the axis: compare its places with the updates of the same line."""
    rank, size, count = len(data.shape), data.shape[axis], where.shape[axis]
    others = [a for a in range(rank) if a != axis]
    lines = int(np.prod([data.shape[a] for a in others]))
    if lines * size * count > _MAX_PAIRS:
        raise Refusal("scatter", f"scattering {count} of {size} places with reduction {reduction!r} is too large")
    perm = [*others, axis]
    back = [int(i) for i in np.argsort(perm)]
    grow = [(0, data.shape[a] - where.shape[a]) for a in others] + [(0, 0)]
    place = expr(ctx, non_negative_index(ctx, where, size)).transpose(*perm)
    new = updates.transpose(*perm)
    if any(after for _, after in grow):
        shape = [d + after for d, (_, after) in zip(place.shape, grow, strict=True)]
        table = ctx.int32(np.asarray(grow))
        place = expr(ctx, ctx.emit("PADV2", [place.t, table, ctx.scalar(-1, place.t)], shape, place.dtype))
        new = expr(ctx, ctx.emit("PAD", [new.t, table], shape, new.dtype))
    combine, reduce = _COMBINE[reduction]
    match = place.reshape(lines, 1, count).equals(iota(ctx, size).reshape(1, size, 1))
    spread = match.where(new.reshape(lines, 1, count), _identity(reduction, new.dtype))
    turned = data.transpose(*perm)
    return combine(turned, reduce(spread, 2).reshape(*turned.shape)).transpose(*back)


def _tensor_scatter(ctx: Context, node: ir.Node) -> Tensor:
    """TensorScatter: every cache place takes the update that falls on it, or stays."""
    past, update, *rest = ctx.inputs(node)
    assert past is not None and update is not None
    axis = normalize_axis(attr(node, "axis", -2), past.rank)
    batch, size, count = past.shape[0], past.shape[axis], update.shape[axis]
    begin = index(ctx, rest[0]) if rest and rest[0] is not None else number(ctx, np.zeros(batch), DType.INT32)
    offset = iota(ctx, size).reshape(1, size) - begin.reshape(batch, 1)
    if attr(node, "mode", "linear") == "circular":
        offset = offset % size
    inside = (offset >= 0) & (offset < count)
    order = [0, axis, *(a for a in range(1, past.rank) if a != axis)]
    shape = [past.shape[a] for a in order]
    lines = ctx.reshape(ctx.transpose(past, order), (batch, size, past.size // (batch * size)))
    new = ctx.reshape(ctx.transpose(update, order), (batch, count, update.size // (batch * count)))
    picked = gather(ctx, new, offset.clip(0, count - 1).t, 1, batch_dims=1)
    y = inside.reshape(batch, size, 1).where(expr(ctx, picked), expr(ctx, lines))
    return ctx.transpose(ctx.reshape(y.t, shape), [int(i) for i in np.argsort(order)])


LOWERINGS: dict[str, Lowering] = {
    "Scatter": _scatter_elements,
    "ScatterElements": _scatter_elements,
    "ScatterND": _scatter_nd,
    "TensorScatter": _tensor_scatter,
}
