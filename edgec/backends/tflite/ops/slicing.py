"""Taking parts: Slice, Split, and the strided and reversed slices that other families use."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from edgec.backends.tflite.context import Context, Lowering, Refusal, normalize_axis
from edgec.backends.tflite.ops.expr import Expr, concat, expr, iota, number
from edgec.backends.tflite.ops.moves import moved, moved_many
from edgec.backends.tflite.tir import Tensor
from edgec.graph.model import attr, shape_of
from edgec.tensors import DType

_NO_MASKS = {"beginMask": 0, "endMask": 0, "ellipsisMask": 0, "newAxisMask": 0, "shrinkAxisMask": 0}
_FAR = np.iinfo(np.int32).max // 2


def _slice(ctx: Context, node: ir.Node) -> Tensor:
    """Slice; starts, ends, axes and steps may all come at run time."""
    x, *params = ctx.inputs(node)
    assert x is not None
    params += [None] * (4 - len(params))
    if any(p is not None and p.data is None for p in params):
        return _runtime_slice(ctx, x, params, shape_of(node.outputs[0]))
    starts, ends = (ctx.const(params[i], name).tolist() for i, name in enumerate(("starts", "ends")))
    axes = ctx.const(params[2], "axes").tolist() if params[2] is not None else list(range(len(starts)))
    steps = ctx.const(params[3], "steps").tolist() if params[3] is not None else [1] * len(starts)
    spans = [slice(0, d, 1) for d in x.shape]
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        axis = normalize_axis(axis, x.rank)
        if x.shape[axis] < 0:
            raise Refusal("static-shape", "Slice along an axis of unknown size")
        spans[axis] = _resolved(start, end, step, x.shape[axis])
    return take_slices(ctx, x, spans)


def _resolved(start: int, end: int, step: int, size: int) -> slice:
    """A span inside of the axis. Unlike numpy's, a backward walk that starts before the first element starts at it."""
    if step == 0:
        raise Refusal("steps", "Slice with a step of 0")
    first, last, _ = slice(start, end, step).indices(size)
    return slice(max(first, 0) if size else first, last, step)


def _bounded(ctx: Context, t: Tensor) -> Expr:
    """A start or end as int32; open ends lie far outside any tensor."""
    e = expr(ctx, t)
    if e.dtype == DType.INT64 or e.value is not None:
        e = e.cast(DType.INT64).clip(-_FAR, _FAR)
    return e.cast(DType.INT32)


def _runtime_slice(ctx: Context, x: Tensor, params: Sequence[Tensor | None], shape: tuple[int, ...]) -> Tensor:
    starts, ends, axes, steps = params
    if min(x.shape, default=0) < 0:
        raise Refusal("dynamic-shape", "Slice at run time of a tensor of unknown size")
    if starts is None or ends is None:
        raise Refusal("inputs", "Slice needs starts and ends")
    count = starts.shape[0]
    where = iota(ctx, count) if axes is None else expr(ctx, axes).to_int()
    begin = per_axis(_bounded(ctx, starts), where, [0] * x.rank)
    begin = (begin < 0).where(begin + number(ctx, x.shape, DType.INT32), begin).maximum(0)
    end = per_axis(_bounded(ctx, ends), where, [_FAR] * x.rank)
    step = per_axis(
        number(ctx, [1] * count, DType.INT32) if steps is None else expr(ctx, steps).to_int(), where, [1] * x.rank
    )
    return ctx.emit("STRIDED_SLICE", [x, begin.t, end.t, step.t], shape, x.dtype, **_NO_MASKS)


def per_axis(values: Expr, axes: Expr, defaults: Sequence[int]) -> Expr:
    """int32 [rank]: `values` at `axes`, which may be negative, and `defaults` elsewhere."""
    rank, ctx = len(defaults), values.ctx
    count = values.shape[0]
    if axes.value is not None:
        place = {int(a) % rank: i for i, a in enumerate(axes.value)}
        source = concat([values, number(ctx, list(defaults), DType.INT32)], 0)
        return source.take(number(ctx, [place.get(a, count + a) for a in range(rank)], DType.INT32))
    axes = (axes + rank) % rank
    hit = axes.reshape(count, 1).equals(iota(ctx, rank).reshape(1, rank))
    chosen = hit.where(values.reshape(count, 1), 0).sum(0)
    missing = hit.where(number(ctx, 1, DType.INT32), 0).sum(0).equals(0)
    return chosen + missing.where(number(ctx, list(defaults), DType.INT32), 0)


def take_slices(ctx: Context, x: Tensor, spans: Sequence[slice]) -> Tensor:
    """x[spans] with resolved, possibly negative steps (an end of -1 then means: through element 0)."""
    spans = list(spans)
    lengths = [-1 if size < 0 else len(range(s.start, s.stop, s.step)) for size, s in zip(x.shape, spans, strict=True)]
    backward = [i for i, s in enumerate(spans) if s.step < 0]
    if backward and all(lengths):
        # a backward walk is a forward one over the reversed axis
        x = reverse(ctx, x, backward)
        for i in backward:
            s, last = spans[i], x.shape[i] - 1
            spans[i] = slice(last - s.start, last - s.start + (lengths[i] - 1) * -s.step + 1, -s.step)
    if lengths == list(x.shape):
        return x
    if not all(lengths):
        # nothing is left: where from does not matter, but it must lie inside
        begin = [0] * x.rank
        return ctx.emit("SLICE", [x, ctx.int32(begin), ctx.int32(lengths)], lengths, x.dtype)
    begin = [s.start for s in spans]
    if all(s.step == 1 for s in spans):
        return ctx.emit("SLICE", [x, ctx.int32(begin), ctx.int32(lengths)], lengths, x.dtype)
    if min(lengths) < 0:
        raise Refusal("dynamic-shape", "a strided Slice of a tensor of unknown size")
    end = [s.start + (n - 1) * s.step + 1 for s, n in zip(spans, lengths, strict=True)]
    return ctx.emit(
        "STRIDED_SLICE",
        [x, ctx.int32(begin), ctx.int32(end), ctx.int32([s.step for s in spans])],
        lengths,
        x.dtype,
        **_NO_MASKS,
    )


def reverse(ctx: Context, x: Tensor, axes: Sequence[int]) -> Tensor:
    """x flipped along axes (REVERSE_V2 takes adjacent axes only, so one operator each)."""
    for axis in axes:
        x = _reverse_axis(ctx, x, axis)
    return x


def _reverse_axis(ctx: Context, x: Tensor, axis: int) -> Tensor:
    if x.shape[axis] == 1:
        return x
    return moved(ctx, "REVERSE_V2", x, lambda t: ctx.emit("REVERSE_V2", [t, ctx.int32([axis])], t.shape, t.dtype))


def _split(ctx: Context, node: ir.Node) -> list[Tensor]:
    """Split into equal or unequal parts, whose sizes the outputs' shapes tell."""
    x = ctx.tensor(node.inputs[0])
    axis = normalize_axis(attr(node, "axis", 0), x.rank)
    sizes = _split_sizes(ctx, node, x.shape[axis], axis)
    if len(sizes) == 1:
        return [x]

    def split(tensors: list[Tensor]) -> list[Tensor]:
        inner = tensors[0]
        shapes = [(*inner.shape[:axis], size, *inner.shape[axis + 1 :]) for size in sizes]
        outputs = [ctx.new(s, inner.dtype, "split") for s in shapes]
        if len(set(sizes)) == 1:
            ctx.emit_multi("SPLIT", [ctx.int32(axis), inner], outputs, numSplits=len(outputs))
        else:
            inputs = [inner, ctx.int32(sizes), ctx.int32(axis)]
            ctx.emit_multi("SPLIT_V", inputs, outputs, numSplits=len(outputs))
        return outputs

    return moved_many(ctx, "SPLIT" if len(set(sizes)) == 1 else "SPLIT_V", [x], split)


def _split_sizes(ctx: Context, node: ir.Node, size: int, axis: int) -> list[int]:
    given = ctx.tensor(node.inputs[1]) if len(node.inputs) > 1 and node.inputs[1] is not None else None
    if given is not None and given.data is not None:
        return [int(s) for s in given.data]
    if given is None:
        count = len(node.outputs)
        part = -(-size // count)
        return [max(min(part, size - i * part), 0) for i in range(count)]
    sizes = [shape_of(v)[axis] for v in node.outputs]
    if any(s < 0 for s in sizes):
        raise Refusal("split-constant", "the sizes of the parts must be known when compiling")
    return sizes


LOWERINGS: dict[str, Lowering] = {"Slice": _slice, "Split": _split}
