"""Choosing and generating: TopK, OneHot, Trilu, NonZero, Compress, Unique, ReverseSequence, Range and their kin."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from edgec.backends.tflite.context import Context, Lowering, Refusal, normalize_axis
from edgec.backends.tflite.ops.dtypes import compute_type, convert
from edgec.backends.tflite.ops.expr import Expr, expr, iota, number
from edgec.backends.tflite.ops.gather import wrapped
from edgec.backends.tflite.ops.moves import gather, moved
from edgec.backends.tflite.tir import Tensor
from edgec.graph.model import attr, shape_of
from edgec.tensors import DType

_TOPK = frozenset({DType.FLOAT32, DType.INT8, DType.UINT8, DType.INT16, DType.INT32, DType.INT64})
_PAIRS = frozenset({DType.FLOAT32, DType.INT32, DType.INT64})
_MAX_PAIRS = 1 << 24


def _sortable(ctx: Context, x: Tensor, *, largest: bool) -> tuple[Tensor, DType]:
    """x in a type and order in which the largest come first, and that type."""
    if x.dtype == DType.UINT64:
        # the sign bit turned over: the order of the signed values is that of the unsigned
        signed = expr(ctx, convert(ctx, x, DType.INT64, moves=True))
        x = (signed + np.iinfo(np.int64).min).t
    inner = compute_type(x.dtype, _TOPK if largest else _PAIRS, "TopK")
    e = expr(ctx, convert(ctx, x, inner))
    if not largest:
        e = e * -1.0 if inner == DType.FLOAT32 else -1 - e  # -1 − x has no overflow
    return e.t, inner


def _top_k(ctx: Context, node: ir.Node) -> list[Tensor]:
    """TopK along any axis; the smallest are the largest of the negated values. Equal values keep their order."""
    x = ctx.tensor(node.inputs[0])
    if x.rank == 0:
        raise Refusal("rank", "TopK of a scalar")
    axis = normalize_axis(attr(node, "axis", -1), x.rank)
    count = shape_of(node.outputs[0])[axis]
    if count < 0:
        raise Refusal("k-constant", "TopK's k must be known when compiling")
    perm = [*(a for a in range(x.rank) if a != axis), axis]
    back = [int(i) for i in np.argsort(perm)]
    turned = ctx.transpose(x, perm)
    keys, inner = _sortable(ctx, turned, largest=bool(attr(node, "largest", 1)))
    shape = (*keys.shape[:-1], count)
    values, places = ctx.new(shape, inner, "values"), ctx.new(shape, DType.INT32, "indices")
    ctx.emit_multi("TOPK_V2", [keys, ctx.int32(count)], [values, places])
    if keys is turned:
        result = values
    else:
        flat = ctx.reshape(turned, (int(np.prod(shape[:-1])), turned.shape[-1]))
        where = ctx.reshape(places, (flat.shape[0], count))
        result = ctx.reshape(gather(ctx, flat, where, 1, batch_dims=1), shape)
    wide = ctx.cast(places, DType.INT64)
    return [ctx.transpose(result, back), ctx.transpose(wide, back)]


def _one_hot(ctx: Context, node: ir.Node) -> Tensor:
    """OneHot: indices from the end allowed, those out of range are off everywhere."""
    where, _, values = (ctx.tensor(v) for v in node.inputs)
    shape = shape_of(node.outputs[0])
    axis = normalize_axis(attr(node, "axis", -1), len(shape))
    depth = shape[axis]
    if depth < 0:
        raise Refusal("depth-constant", "OneHot's depth must be known when compiling")
    spread = [*where.shape[:axis], 1, *where.shape[axis:]]
    hot = wrapped(expr(ctx, where).to_int(), depth).reshape(*spread)
    ruler = iota(ctx, depth).reshape(*(depth if a == axis else 1 for a in range(len(shape))))
    choices = expr(ctx, values)
    off, on = (choices.slice(0, i, 1).reshape(*[1] * len(shape)) for i in (0, 1))
    return hot.equals(ruler).where(on, off).t


def _trilu(ctx: Context, node: ir.Node) -> Tensor:
    """Trilu: a mask, constant where k is."""
    x, *rest = ctx.inputs(node)
    assert x is not None
    rows, columns = x.shape[-2:]
    k = expr(ctx, rest[0]).to_int().reshape(1, 1) if rest and rest[0] is not None else number(ctx, [[0]], DType.INT32)
    apart = iota(ctx, columns).reshape(1, columns) - iota(ctx, rows).reshape(rows, 1)
    kept = apart >= k if attr(node, "upper", 1) else apart <= k
    zero = ctx.scalar(0, x)
    if x.data is not None:
        return kept.where(expr(ctx, x), expr(ctx, zero)).t
    return ctx.emit("SELECT_V2", [kept.t, x, zero], x.shape, x.dtype)


def _reverse_sequence(ctx: Context, node: ir.Node) -> Tensor:
    """ReverseSequence."""
    x, lengths = ctx.tensor(node.inputs[0]), ctx.tensor(node.inputs[1])
    options = {"seqDim": attr(node, "time_axis", 0), "batchDim": attr(node, "batch_axis", 1)}
    where = expr(ctx, lengths).to_int().t
    return moved(
        ctx,
        "REVERSE_SEQUENCE",
        x,
        lambda t: ctx.emit("REVERSE_SEQUENCE", [t, where], t.shape, t.dtype, **options),
    )


def _filled(ctx: Context, node: ir.Node) -> Tensor:
    """ConstantOfShape and EyeLike: the output's shape says it all."""
    _, shape, dtype = ctx.out_spec(node)
    if any(d < 0 for d in shape):
        raise Refusal("static-shape", f"{node.op_type} needs its output's shape when compiling")
    if node.op_type == "EyeLike":
        return ctx.constant(np.eye(shape[0], shape[1], attr(node, "k", 0)), dtype)
    value = attr(node, "value")
    return ctx.constant(np.full(shape, 0 if value is None else np.asarray(value).reshape(-1)[0]), dtype)


def _shape(ctx: Context, node: ir.Node) -> Tensor:
    """Shape and Size: constants."""
    shape = ctx.tensor(node.inputs[0]).shape
    if any(d < 0 for d in shape):
        raise Refusal("static-shape", f"{node.op_type} of a tensor of unknown size")
    if node.op_type == "Size":
        return ctx.constant(int(np.prod(shape, dtype=np.int64)), DType.INT64)
    return ctx.constant(np.asarray(shape[attr(node, "start", 0) : attr(node, "end")], np.int64), DType.INT64)


def _range(ctx: Context, node: ir.Node) -> Tensor:
    """Range: start + i · delta; RANGE itself where the length depends on the data."""
    start, limit, delta = (ctx.tensor(v) for v in node.inputs)
    _, shape, dtype = ctx.out_spec(node)
    inner = compute_type(dtype, _PAIRS, "Range")
    first, last, step = (expr(ctx, convert(ctx, t, inner)).reshape() for t in (start, limit, delta))
    if shape[0] < 0:
        y = ctx.emit("RANGE", [first.t, last.t, step.t], shape, inner)
    else:
        y = (first.reshape(1) + iota(ctx, shape[0]).cast(inner) * step.reshape(1)).t
    return convert(ctx, y, dtype)


# --- results whose size depends on the data ---------------------------------------------------------------


def true_places(ctx: Context, mask: Tensor) -> Tensor:
    """WHERE: the places of true elements, int64 [n, rank], n known at run time only."""
    return ctx.emit("WHERE", [mask], (-1, mask.rank), DType.INT64)


def _non_zero(ctx: Context, node: ir.Node) -> Tensor:
    """NonZero as WHERE; its result's size is known at run time."""
    x = ctx.tensor(node.inputs[0])
    if x.rank == 0:
        x = ctx.reshape(x, (1,))
    mask = x if x.dtype == DType.BOOL else ctx.cast(x, DType.BOOL)
    return ctx.transpose(true_places(ctx, mask), (1, 0))


def _compress(ctx: Context, node: ir.Node) -> Tensor:
    """Compress: WHERE gives the places, GATHER the slices."""
    x, condition = ctx.tensor(node.inputs[0]), ctx.tensor(node.inputs[1])
    axis = attr(node, "axis")
    if axis is None:
        x, axis = ctx.reshape(x, (x.size,)), 0
    axis = normalize_axis(axis, x.rank)
    places = true_places(ctx, condition)
    flat = ctx.emit("RESHAPE", [places, ctx.int32([-1])], (-1,), DType.INT64, newShape=np.asarray([-1], np.int32))
    return gather(ctx, x, ctx.cast(flat, DType.INT32), axis)


def _less_rows(rows: Expr) -> tuple[Expr, Expr]:
    """[n, n]: whether row i equals row j, and whether row j comes before row i in lexical order."""
    count, width = rows.shape
    if count * count * width > _MAX_PAIRS:
        raise Refusal("unique", f"Unique of {count} x {width} values is too large")
    left, right = rows.reshape(count, 1, width), rows.reshape(1, count, width)
    equal = left.equals(right)
    if width == 1:
        return equal.reshape(count, count), (right < left).reshape(count, count)
    differs = equal.where(number(rows.ctx, 0, DType.INT32), 1)
    ctx = rows.ctx
    options = {"exclusive": True, "reverse": False}
    before = expr(ctx, ctx.emit("CUMSUM", [differs.t, ctx.int32(2)], differs.shape, DType.INT32, **options))
    smaller = (right < left) & before.equals(0)
    return differs.sum(2).equals(0), smaller.where(number(ctx, 1, DType.INT32), 0).sum(2) > 0


def _unique(ctx: Context, node: ir.Node) -> list[Tensor]:
    """Unique by comparing all pairs; the four results' sizes are known at run time."""
    x, axis = ctx.tensor(node.inputs[0]), attr(node, "axis")
    if axis is None:
        data, order = ctx.reshape(x, (x.size,)), [0]
    else:
        axis = normalize_axis(axis, x.rank)
        order = [axis, *(a for a in range(x.rank) if a != axis)]
        data = ctx.transpose(x, order)
    count = data.shape[0]
    inner = compute_type(x.dtype, _PAIRS, "Unique")
    keys = expr(ctx, convert(ctx, data, inner)).reshape(count, data.size // count)
    equal, before = _less_rows(keys)
    numbers = iota(ctx, count)
    first = equal.where(numbers.reshape(1, count), count).min(1)
    is_first = first.equals(numbers)
    if not attr(node, "sorted", 1):
        before = numbers.reshape(1, count) < first.reshape(count, 1)
    one = number(ctx, 1, DType.INT32)
    inverse = (before & is_first.reshape(1, count)).where(one, 0).sum(1)
    # a place for every distinct value; the others go to one more place, which is cut off
    target = is_first.where(inverse, count).reshape(count, 1)
    ordered = ctx.emit("SCATTER_ND", [target.t, numbers.t, ctx.int32([count + 1])], (count + 1,), DType.INT32)
    total = is_first.where(one, 0).sum(0, keep=True)
    firsts = ctx.emit("SLICE", [ordered, ctx.int32([0]), total.t], (-1,), DType.INT32)
    values = gather(ctx, data, firsts, 0)
    if len(order) > 1:
        values = ctx.transpose(values, [int(i) for i in np.argsort(order)])
    counts = gather(ctx, equal.where(one, 0).sum(1).t, firsts, 0)
    wide = [ctx.cast(t, DType.INT64) for t in (firsts, inverse.t, counts)]
    return [values, *wide][: len(node.outputs)]


LOWERINGS: dict[str, Lowering] = {
    "Compress": _compress,
    "ConstantOfShape": _filled,
    "EyeLike": _filled,
    "NonZero": _non_zero,
    "OneHot": _one_hot,
    "Range": _range,
    "ReverseSequence": _reverse_sequence,
    "Shape": _shape,
    "Size": _shape,
    "TopK": _top_k,
    "Trilu": _trilu,
    "Unique": _unique,
}

__all__ = ["LOWERINGS", "true_places"]
