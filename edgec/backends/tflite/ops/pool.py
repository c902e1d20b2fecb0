"""Pooling: MAX_POOL_2D and AVERAGE_POOL_2D, and global pooling as reductions (MEAN stays in the delegate).

Three dimensions are two poolings, one over the rows of planes and one over the planes. Dilated windows are
elementwise maxima or sums of strided slices, one axis after the other: both are separable.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx_ir as ir

from edgec.backends.tflite.context import Context, Lowering, Refusal
from edgec.backends.tflite.ops.conv import channels_first, channels_last, needed_pads, pad_spatial
from edgec.backends.tflite.ops.dtypes import FLOAT, compute_type, computed, convert
from edgec.backends.tflite.ops.expr import Expr, expr, number
from edgec.backends.tflite.ops.padding import constant_pad
from edgec.backends.tflite.ops.slicing import take_slices
from edgec.backends.tflite.ops.windows import Window, windows
from edgec.backends.tflite.tir import Tensor
from edgec.graph.model import attr, const_of
from edgec.tensors import Array, DType

_NON_NEGATIVE = {"Relu", "Sigmoid", "Softmax", "HardSigmoid", "Abs", "Exp", "Softplus", "ReduceL2", "Sqrt"}
_TRANSPARENT = {"QuantizeLinear", "DequantizeLinear", "Identity", "Reshape", "Transpose", "MaxPool"}


def is_non_negative(value: ir.Value | None) -> bool:
    """Whether a value can be proven ≥ 0 from what computes it."""
    while value is not None and (node := value.producer()) is not None:
        if node.op_type in _NON_NEGATIVE:
            return True
        if node.op_type == "Clip" and len(node.inputs) > 1:
            low = const_of(node.inputs[1])
            return low is not None and float(low) >= 0
        if node.op_type not in _TRANSPARENT:
            return False
        value = node.inputs[0]
    return False


_NONE = {"fusedActivationFunction": "NONE"}
#: Types whose maxima need no cast; float32 holds every integer of fewer than 25 bits.
_MAXIMA = frozenset({DType.FLOAT32, DType.INT32, DType.INT64})
_POOLED_EXACTLY = (DType.INT8, DType.UINT8, DType.INT16, DType.UINT16, DType.FLOAT16)
#: MaxPool with indices compares that many slices at most.
_MAX_TAPS = 128


def _windows_of(ctx: Context, node: ir.Node) -> tuple[Tensor, list[Window]]:
    x = ctx.tensor(node.inputs[0])
    if x.rank < 3:
        raise Refusal("rank", f"{node.op_type} needs at least one spatial axis")
    spans = windows(node, x.shape[2:], attr(node, "kernel_shape"))
    if min(w.out for w in spans) < 1:
        raise Refusal("window", "a window is larger than what it slides over")
    return x, spans


def _pool_2d(ctx: Context, kind: str, x: Tensor, spans: list[Window], padding: str) -> Tensor:
    """A pooling operator on an NHWC tensor."""
    return ctx.emit(
        kind,
        [x],
        (x.shape[0], *(s.out for s in spans), x.shape[3]),
        x.dtype,
        padding=padding,
        strideH=spans[0].stride,
        strideW=spans[1].stride,
        filterHeight=spans[0].kernel,
        filterWidth=spans[1].kernel,
        **_NONE,
    )


_POINT = Window(1, 1, 1, 1, 0, 0)


def _pool_padded(ctx: Context, kind: str, x: Tensor, spans: list[Window]) -> Tensor:
    """Windows without padding over an N…C tensor of any rank: two axes at a time."""
    if len(spans) == 1:
        flat = ctx.reshape(x, (x.shape[0], 1, *x.shape[1:]))
        y = _pool_2d(ctx, kind, flat, [_POINT, spans[0]], "VALID")
        return ctx.reshape(y, (x.shape[0], spans[0].out, x.shape[-1]))
    lead, inner = x.shape[: 1 + len(spans) - 2], spans[-2:]
    flat = ctx.reshape(x, (int(np.prod(lead)), *x.shape[-3:]))
    y = _pool_2d(ctx, kind, flat, inner, "VALID")
    sizes = [w.out for w in inner]
    if len(spans) == 2:
        return y
    planes = ctx.reshape(y, (*lead, sizes[0] * sizes[1] * x.shape[-1]))
    y = _pool_padded(ctx, kind, planes, spans[:-2])
    return ctx.reshape(y, (*y.shape[:-1], *sizes, x.shape[-1]))


def _slices(ctx: Context, x: Tensor, axis: int, w: Window) -> list[Tensor]:
    """For every tap of a window the elements under it, one slice along the (padded) axis."""
    parts = []
    for tap in range(w.kernel):
        spans = [slice(0, d, 1) for d in x.shape]
        start = tap * w.dilation
        spans[axis] = slice(start, start + (w.out - 1) * w.stride + 1, w.stride)
        parts.append(take_slices(ctx, x, spans))
    return parts


def _fold(ctx: Context, x: Tensor, spans: list[Window], combine: Callable[[Expr, Expr], Expr]) -> Tensor:
    """Slices under the taps of an NC… tensor, combined one axis after the other."""
    for axis, w in enumerate(spans, 2):
        parts = [expr(ctx, t) for t in _slices(ctx, x, axis, w)]
        total = parts[0]
        for p in parts[1:]:
            total = combine(total, p)
        x = total.t
    return x


def _padded(ctx: Context, x: Tensor, spans: list[Window], value: float) -> Tensor:
    """An NC… tensor with what its windows need around it."""
    pads = needed_pads(spans)
    crops = [slice(max(-b, 0), d - max(-a, 0), 1) for d, (b, a) in zip(x.shape[2:], pads, strict=True)]
    x = take_slices(ctx, x, [slice(0, d, 1) for d in x.shape[:2]] + crops)
    grow = [(0, 0), (0, 0), *((max(b, 0), max(a, 0)) for b, a in pads)]
    return constant_pad(ctx, x, grow, value) if any(b or a for b, a in grow) else x


def max_pool(ctx: Context, node: ir.Node) -> list[Tensor]:
    """MaxPool in any number of dimensions, with dilation; with indices by comparing slices."""
    x, spans = _windows_of(ctx, node)
    if len(node.outputs) > 1 and node.outputs[1].name and (node.outputs[1].uses() or node.outputs[1].is_graph_output()):
        return _max_pool_indices(ctx, node, x, spans)
    if any(s.dilation > 1 for s in spans):
        return [_max_of_slices(ctx, x, spans)]
    if x.dtype != DType.FLOAT32 and x.dtype not in _POOLED_EXACTLY:
        return [_max_of_slices(ctx, x, spans)]
    y = _plain_max_pool(ctx, node, convert(ctx, x, DType.FLOAT32), spans)
    return [convert(ctx, y, x.dtype)]


def _plain_max_pool(ctx: Context, node: ir.Node, x: Tensor, spans: list[Window]) -> Tensor:
    last = ctx.transpose(x, channels_last(x.rank))
    if len(spans) == 2 and not all(s.valid for s in spans) and all(s.same for s in spans):
        return ctx.transpose(_pool_2d(ctx, "MAX_POOL_2D", last, spans, "SAME"), channels_first(4))
    # zero is neutral among non-negative values, and PAD stays in the delegate where PADV2 does not
    value = None if is_non_negative(node.inputs[0]) else float(np.finfo(np.float32).min)
    last = pad_spatial(ctx, last, needed_pads(spans), value)
    return ctx.transpose(_pool_padded(ctx, "MAX_POOL_2D", last, spans), channels_first(x.rank))


def _lowest(dtype: DType) -> float:
    return float(np.finfo(np.float32).min) if dtype.is_float else dtype.limits[0]


def _max_of_slices(ctx: Context, x: Tensor, spans: list[Window]) -> Tensor:
    def fold(t: Tensor) -> Tensor:
        return _fold(ctx, _padded(ctx, t, spans, _lowest(t.dtype)), spans, lambda a, b: a.maximum(b))

    return computed(ctx, "MaxPool", [x], _MAXIMA, fold)


def _max_pool_indices(ctx: Context, node: ir.Node, x: Tensor, spans: list[Window]) -> list[Tensor]:
    """The largest element under each window and its place in the flat input; the first one among equals."""
    taps = list(np.ndindex(*(w.kernel for w in spans)))
    if len(taps) > _MAX_TAPS:
        raise Refusal("indices", f"MaxPool with indices over windows of {len(taps)} elements is too large")
    inner = compute_type(x.dtype, _MAXIMA, "MaxPool")
    padded = _padded(ctx, convert(ctx, x, inner), spans, _lowest(inner))
    sizes, column_major = x.shape[2:], bool(attr(node, "storage_order", 0))
    outs = tuple(w.out for w in spans)
    best: Expr | None = None
    for tap in taps:
        cut = [slice(0, d, 1) for d in padded.shape[:2]]
        for t, w in zip(tap, spans, strict=True):
            cut.append(slice(t * w.dilation, t * w.dilation + (w.out - 1) * w.stride + 1, w.stride))
        values = expr(ctx, take_slices(ctx, padded, cut))
        place = number(ctx, _places(tap, spans, sizes, column_major)[None, None], DType.INT32)
        if best is None:
            best, where = values, place
            continue
        better = values > best
        best, where = better.where(values, best), better.where(place, where)
    assert best is not None
    shape = (*x.shape[:2], *outs)
    planes = np.arange(x.shape[0] * x.shape[1]).reshape(*x.shape[:2], *[1] * len(outs)) * int(np.prod(sizes))
    flat = number(ctx, np.zeros(shape), DType.INT32) + where + number(ctx, planes, DType.INT32)
    return [convert(ctx, best.t, x.dtype), ctx.cast(flat.t, DType.INT64)]


def _places(tap: tuple[int, ...], spans: list[Window], sizes: tuple[int, ...], column_major: bool) -> Array:
    """Flat places in one plane of what a tap sees."""
    order = range(len(sizes)) if column_major else range(len(sizes) - 1, -1, -1)
    total, stride = np.zeros([w.out for w in spans], np.int64), 1
    for axis in order:
        w = spans[axis]
        along = np.arange(w.out) * w.stride - w.before + tap[axis] * w.dilation
        view = [1] * len(sizes)
        view[axis] = w.out
        total = total + (along * stride).reshape(view)
        stride *= sizes[axis]
    return total


def _counts(window: Window, include_pad: bool, declared_after: int) -> Array:
    """How many elements each window averages over."""
    start = np.arange(window.out) * window.stride - window.before
    low, high = (-window.before, window.size + declared_after) if include_pad else (0, window.size)
    taps = start[:, None] + np.arange(window.kernel) * window.dilation
    return np.asarray(((taps >= low) & (taps < high)).sum(1))


def average_pool(ctx: Context, node: ir.Node) -> Tensor:
    """AveragePool; where windows average over different counts, a constant mask corrects the sum."""
    x, spans = _windows_of(ctx, node)
    return computed(ctx, "AveragePool", [x], FLOAT, lambda t: _average(ctx, node, t, spans))


def _average(ctx: Context, node: ir.Node, x: Tensor, spans: list[Window]) -> Tensor:
    include = bool(attr(node, "count_include_pad", 0))
    if len(spans) == 2 and not include and all(s.same and s.dilation == 1 for s in spans):
        padding = "VALID" if all(s.valid for s in spans) else "SAME"
        last = ctx.transpose(x, channels_last(4))
        return ctx.transpose(_pool_2d(ctx, "AVERAGE_POOL_2D", last, spans, padding), channels_first(4))
    declared = attr(node, "pads", (0,) * 2 * len(spans))
    after = list(declared[len(spans) :])
    if attr(node, "auto_pad", "NOTSET") != "NOTSET":
        after = [s.after for s in spans]
    counts = np.ones((), np.float64)
    for w, a in zip(spans, after, strict=True):
        counts = counts[..., None] * _counts(w, include, a)
    if any(s.dilation > 1 for s in spans):
        total = _fold(ctx, _padded(ctx, x, spans, 0), spans, lambda a, b: a + b)
        return (expr(ctx, total) * number(ctx, (1 / np.maximum(counts, 1))[None, None], DType.FLOAT32)).t
    last = pad_spatial(ctx, ctx.transpose(x, channels_last(x.rank)), needed_pads(spans))
    y = _pool_padded(ctx, "AVERAGE_POOL_2D", last, spans)
    mask = int(np.prod([w.kernel for w in spans])) / np.maximum(counts, 1)
    if not np.all(mask == 1):
        y = ctx.binary("MUL", y, ctx.constant(mask[None, ..., None], DType.FLOAT32), **_NONE)
    return ctx.transpose(y, channels_first(x.rank))


def lp_pool(ctx: Context, node: ir.Node) -> Tensor:
    """LpPool: (Σ|x|^p)^(1/p)."""
    x, spans = _windows_of(ctx, node)
    p = attr(node, "p", 2)

    def run(t: Tensor) -> Tensor:
        total = _fold(ctx, _padded(ctx, _powered(ctx, t, p), spans, 0), spans, lambda a, b: a + b)
        return _root(ctx, total, p)

    return computed(ctx, "LpPool", [x], FLOAT, run)


def _powered(ctx: Context, t: Tensor, p: int) -> Tensor:
    if p == 2:
        return ctx.binary("MUL", t, t, **_NONE)
    magnitude = ctx.unary("ABS", t)
    return magnitude if p == 1 else ctx.binary("POW", magnitude, ctx.scalar(p, t))


def _root(ctx: Context, t: Tensor, p: int) -> Tensor:
    if p == 1:
        return t
    return ctx.unary("SQRT", t) if p == 2 else ctx.binary("POW", t, ctx.scalar(1 / p, t))


def _reduced(ctx: Context, kind: str, t: Tensor) -> Tensor:
    axes = list(range(2, t.rank))
    return ctx.emit(kind, [t, ctx.int32(axes)], (*t.shape[:2], *(1 for _ in axes)), t.dtype, keepDims=True)


def _global(kind: str) -> Lowering:
    def lower(ctx: Context, node: ir.Node) -> Tensor:
        """Global pooling as a reduction over the spatial axes."""
        x = ctx.tensor(node.inputs[0])
        return computed(ctx, node.op_type, [x], FLOAT, lambda t: _reduced(ctx, kind, t))

    return lower


def _global_lp(ctx: Context, node: ir.Node) -> Tensor:
    """GlobalLpPool: (Σ|x|^p)^(1/p) over the spatial axes."""
    p = attr(node, "p", 2)

    def run(t: Tensor) -> Tensor:
        return _root(ctx, _reduced(ctx, "SUM", _powered(ctx, t, p)), p)

    return computed(ctx, "GlobalLpPool", [ctx.tensor(node.inputs[0])], FLOAT, run)


LOWERINGS: dict[str, Lowering] = {
    "MaxPool": max_pool,
    "AveragePool": average_pool,
    "LpPool": lp_pool,
    "GlobalAveragePool": _global("MEAN"),
    "GlobalMaxPool": _global("REDUCE_MAX"),
    "GlobalLpPool": _global_lp,
}
