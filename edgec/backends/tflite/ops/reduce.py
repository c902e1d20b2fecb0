"""Reductions at all ranks and element types; ARG_MAX and ARG_MIN.

1. Axes that are computed at run time are read off the output's declared shape; axes of size 1 do not matter.
   Only where that leaves a choice does the kernel get them at run time.
2. A reduction over an empty axis is the operation's neutral element.
3. Integers are reduced in int32 or int64: the kernels know no other without quantization.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from edgec.backends.tflite.context import Context, Lowering, Refusal, normalize_axis
from edgec.backends.tflite.ops.dtypes import ARITHMETIC, FLOAT, FLOATS, computed
from edgec.backends.tflite.ops.elementwise import absolute, arithmetic, ordered, select, unordered
from edgec.backends.tflite.ops.integer import quotient
from edgec.backends.tflite.tir import Tensor
from edgec.graph.model import attr
from edgec.tensors import DType


@dataclass(frozen=True, kw_only=True, slots=True)
class Axes:
    """What a node reduces over: `fixed` axes, or `runtime` ones for an output of `shape`."""

    fixed: list[int]
    keep: bool
    runtime: Tensor | None = None
    shape: tuple[int, ...] = ()

    def result(self, x: Tensor, keep: bool | None = None) -> tuple[int, ...]:
        """The output's shape."""
        if self.runtime is not None:
            return self.shape
        kept = self.keep if keep is None else keep
        return tuple(1 if i in self.fixed else d for i, d in enumerate(x.shape) if kept or i not in self.fixed)


def read_axes(ctx: Context, node: ir.Node, x: Tensor) -> Axes:
    """The axes of a reduction node (rule 1)."""
    keep = bool(attr(node, "keepdims", 1))
    axes = attr(node, "axes")
    if axes is None and len(node.inputs) > 1 and node.inputs[1] is not None:
        t = ctx.tensor(node.inputs[1])
        if t.data is None and t.size > 0:
            return _declared(ctx, node, x, t, keep)
        axes = [] if t.data is None else [int(a) for a in t.real()]
    if not axes:
        noop = bool(attr(node, "noop_with_empty_axes", 0))
        return Axes(fixed=[] if noop else list(range(x.rank)), keep=keep)
    return Axes(fixed=sorted({normalize_axis(int(a), x.rank) for a in axes}), keep=keep)


def _declared(ctx: Context, node: ir.Node, x: Tensor, t: Tensor, keep: bool) -> Axes:
    _, shape, _ = ctx.out_spec(node)
    if keep:
        return Axes(fixed=[i for i, (d, o) in enumerate(zip(x.shape, shape, strict=True)) if d != o], keep=True)
    wide = [i for i, d in enumerate(x.shape) if d != 1]
    count = x.rank - len(shape)
    found = [
        list(combo)
        for combo in itertools.combinations(range(x.rank), count)
        if tuple(d for i, d in enumerate(x.shape) if i not in combo) == shape
    ]
    if len({tuple(i for i in combo if i in wide) for combo in found}) == 1:
        return Axes(fixed=found[0], keep=False)
    return Axes(fixed=[], keep=False, runtime=ctx.cast(t, DType.INT32), shape=shape)


def reduce(ctx: Context, kind: str, x: Tensor, axes: list[int], keep: bool) -> Tensor:
    """One reduction operator over known axes."""
    return reduce_over(ctx, kind, x, Axes(fixed=axes, keep=keep))


_NEUTRAL = {"SUM": 0, "REDUCE_PROD": 1, "REDUCE_ANY": False, "REDUCE_ALL": True, "MEAN": np.nan}


def _neutral(kind: str, dtype: DType) -> float:
    if kind in _NEUTRAL:
        return _NEUTRAL[kind]
    if dtype in FLOATS:
        return -np.inf if kind == "REDUCE_MAX" else np.inf
    return dtype.limits[0 if kind == "REDUCE_MAX" else 1]


def reduce_over(ctx: Context, kind: str, x: Tensor, axes: Axes, keep: bool | None = None) -> Tensor:
    """One reduction operator; `keep` overrides what the node says."""
    kept = axes.keep if keep is None else keep
    if axes.runtime is not None:
        if kept != axes.keep:
            raise Refusal("axes-constant", "axes must be known when compiling")
        return ctx.emit(kind, [x, axes.runtime], axes.shape, x.dtype, keepDims=kept)
    shape = axes.result(x, kept)
    if x.size == 0 and int(np.prod(shape)) > 0:  # rule 2
        return ctx.constant(np.full(shape, _neutral(kind, x.dtype), x.dtype.numpy), x.dtype)
    moving = [a for a in axes.fixed if x.shape[a] != 1]
    if not moving or x.size == 0:
        return ctx.reshape(x, shape)
    return ctx.emit(kind, [x, ctx.int32(axes.fixed)], shape, x.dtype, keepDims=kept)


# --- plain reductions ---------------------------------------------------------------------------------

_KINDS = {"ReduceSum": "SUM", "ReduceProd": "REDUCE_PROD"}
_EXTREMES = {"ReduceMax": "REDUCE_MAX", "ReduceMin": "REDUCE_MIN"}
_LOGICAL = {"ReduceMax": "REDUCE_ANY", "ReduceMin": "REDUCE_ALL"}


def _reduce(ctx: Context, node: ir.Node) -> Tensor:
    """SUM or REDUCE_PROD."""
    x = ctx.tensor(node.inputs[0])
    axes = read_axes(ctx, node, x)
    return computed(
        ctx, node.op_type, [x], ARITHMETIC, lambda t: reduce_over(ctx, _KINDS[node.op_type], t, axes), modular=True
    )


def _extreme(ctx: Context, node: ir.Node) -> Tensor:
    """REDUCE_MAX or REDUCE_MIN; REDUCE_ANY or REDUCE_ALL of bool."""
    x = ctx.tensor(node.inputs[0])
    axes = read_axes(ctx, node, x)
    if x.size == 0 and x.dtype != DType.BOOL and int(np.prod(axes.result(x))) > 0:
        value = _neutral(_EXTREMES[node.op_type], x.dtype)
        return ctx.constant(np.full(axes.result(x), value, x.dtype.numpy), x.dtype)
    if x.dtype == DType.BOOL:
        return reduce_over(ctx, _LOGICAL[node.op_type], x, axes)
    kind = _EXTREMES[node.op_type]
    y = computed(ctx, node.op_type, [ordered(ctx, x)], ARITHMETIC, lambda t: reduce_over(ctx, kind, t, axes))
    return unordered(ctx, y, x.dtype)


def _mean(ctx: Context, node: ir.Node) -> Tensor:
    """MEAN; of integers the sum divided by the count, towards zero."""
    x = ctx.tensor(node.inputs[0])
    axes = read_axes(ctx, node, x)
    if x.dtype in FLOATS:
        return computed(ctx, "ReduceMean", [x], FLOAT, lambda t: reduce_over(ctx, "MEAN", t, axes))

    def mean(t: Tensor) -> Tensor:
        total = reduce_over(ctx, "SUM", t, axes)
        return quotient(ctx, total, ctx.scalar(max(x.size // max(total.size, 1), 1), total))

    return computed(ctx, "ReduceMean", [x], ARITHMETIC - FLOAT, mean)


Unary = Callable[[Context, Tensor], Tensor]


def _square(ctx: Context, t: Tensor) -> Tensor:
    return ctx.unary("SQUARE", t) if t.dtype == DType.FLOAT32 else arithmetic(ctx, "MUL", t, t)


def _through_float(kind: str) -> Unary:
    """A function of floats; of integers too, rounded towards zero as C casts do."""

    def apply(ctx: Context, t: Tensor) -> Tensor:
        return ctx.cast(ctx.unary(kind, ctx.cast(t, DType.FLOAT32)), t.dtype)

    return apply


def _compound(before: Unary | None, after: Unary | None, formula: str) -> Lowering:
    def lower(ctx: Context, node: ir.Node) -> Tensor:
        x = ctx.tensor(node.inputs[0])
        axes = read_axes(ctx, node, x)

        def run(t: Tensor) -> Tensor:
            y = reduce_over(ctx, "SUM", t if before is None else before(ctx, t), axes)
            return y if after is None else after(ctx, y)

        return computed(ctx, node.op_type, [x], ARITHMETIC, run)

    lower.__doc__ = formula
    return lower


def log_sum_exp(ctx: Context, x: Tensor, axes: Axes) -> Tensor:
    """log Σ exp(x − m) + m with the largest element m, kept finite so that ∞ − ∞ does not occur."""
    if axes.runtime is not None:
        return ctx.unary("LOG", reduce_over(ctx, "SUM", ctx.unary("EXP", x), axes))
    if x.size == 0:
        return ctx.constant(np.full(axes.result(x), -np.inf, np.float32), DType.FLOAT32)
    limit = float(np.finfo(np.float32).max)
    top = reduce_over(ctx, "REDUCE_MAX", x, axes, keep=True)
    top = ctx.binary("MINIMUM", ctx.binary("MAXIMUM", top, ctx.scalar(-limit, x)), ctx.scalar(limit, x))
    total = reduce_over(ctx, "SUM", ctx.unary("EXP", arithmetic(ctx, "SUB", x, top)), axes, keep=True)
    return ctx.reshape(arithmetic(ctx, "ADD", ctx.unary("LOG", total), top), axes.result(x))


def _log_sum_exp(ctx: Context, node: ir.Node) -> Tensor:
    """log Σ exp(x − m) + m with the largest element m."""
    x = ctx.tensor(node.inputs[0])
    axes = read_axes(ctx, node, x)
    if x.dtype not in FLOATS:
        y = log_sum_exp(ctx, ctx.cast(x, DType.FLOAT32), axes)
        return ctx.cast(y, x.dtype)
    return computed(ctx, "ReduceLogSumExp", [x], FLOAT, lambda t: log_sum_exp(ctx, t, axes))


# --- positions ----------------------------------------------------------------------------------------

_ARG_TYPES = {DType.FLOAT32, DType.INT32}


def _arg(kind: str) -> Lowering:
    def lower(ctx: Context, node: ir.Node) -> Tensor:
        x = ctx.tensor(node.inputs[0])
        axis = normalize_axis(attr(node, "axis", 0), x.rank)
        kept = [1 if i == axis else d for i, d in enumerate(x.shape)]
        dropped = [d for i, d in enumerate(x.shape) if i != axis]
        out = kept if attr(node, "keepdims", 1) else dropped
        if x.rank == 0:
            return ctx.constant(0, DType.INT64)
        last = bool(attr(node, "select_last_index", 0))
        if last or x.dtype in (DType.INT64, DType.UINT64, DType.UINT32):
            return ctx.reshape(_by_comparison(ctx, node.op_type, kind, x, axis, last), out)

        def run(t: Tensor) -> Tensor:
            return ctx.emit(kind, [t, ctx.int32(axis)], dropped, DType.INT64, outputType=DType.INT64)

        return ctx.reshape(computed(ctx, node.op_type, [x], _ARG_TYPES, run, result=DType.INT64), out)

    lower.__doc__ = f"{kind}; the last of equals, and 64-bit integers, by comparison with the extreme."
    return lower


def _by_comparison(ctx: Context, op_type: str, kind: str, x: Tensor, axis: int, last: bool) -> Tensor:
    """The first or last place that holds the largest (smallest) value."""
    best = "REDUCE_MAX" if kind == "ARG_MAX" else "REDUCE_MIN"
    count = x.shape[axis]
    numbers = ctx.int32(np.arange(count).reshape([-1 if i == axis else 1 for i in range(x.rank)]))

    def run(t: Tensor) -> Tensor:
        top = ctx.emit(best, [t, ctx.int32([axis])], kept, t.dtype, keepDims=True)
        hit = ctx.emit("EQUAL", [t, top], t.shape, DType.BOOL)
        place = select(ctx, hit, numbers, ctx.int32(-1 if last else count))
        return ctx.cast(reduce(ctx, "REDUCE_MAX" if last else "REDUCE_MIN", place, [axis], True), DType.INT64)

    kept = [1 if i == axis else d for i, d in enumerate(x.shape)]
    return computed(ctx, op_type, [ordered(ctx, x)], ARITHMETIC, run, result=DType.INT64)


LOWERINGS: dict[str, Lowering] = {
    **dict.fromkeys(_KINDS, _reduce),
    **dict.fromkeys(_EXTREMES, _extreme),
    "ReduceMean": _mean,
    "ReduceSumSquare": _compound(_square, None, "Σ x²"),
    "ReduceL1": _compound(absolute, None, "Σ |x|"),
    "ReduceL2": _compound(_square, _through_float("SQRT"), "√Σ x²"),
    "ReduceLogSum": _compound(None, _through_float("LOG"), "log Σ x"),
    "ReduceLogSumExp": _log_sum_exp,
    "ArgMax": _arg("ARG_MAX"),
    "ArgMin": _arg("ARG_MIN"),
}
