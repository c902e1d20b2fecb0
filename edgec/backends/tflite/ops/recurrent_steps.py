"""The steps of a recurrent layer in order: written out where few, else rounds of a WHILE loop.

1. The runtime packs the recurrent weights once for each time they are written: a round holds as many steps as have
   their copies in the cache, and all loops of a layer share one body.
2. All that a loop carries is copied in every round, inputs and outputs of all its steps too: a long sequence is several
   loops over a part each.
3. Beyond a sequence's length the state stays and the output is 0.

Everything is one step after the other along the first axis: with two directions, a step has two rows there.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from edgec.backends.tflite.context import Context
from edgec.backends.tflite.ops.loops import counted_loop
from edgec.backends.tflite.ops.recurrent_cells import Cell, step
from edgec.backends.tflite.tir import Graph, Tensor, constant
from edgec.tensors import DType

#: Steps that are written out, each with a copy of the recurrent weights of its own that should stay in the cache.
UNROLL_MOST, UNROLL_BYTES = 64, 2_500_000
#: The same for the steps of one round of a loop.
ROUND_MOST, ROUND_BYTES = 8, 400 << 10
#: What a loop may carry of its input and output.
CARRIED_BYTES = 96 << 10
_NONE = {"fusedActivationFunction": "NONE"}


@dataclass(slots=True, kw_only=True)
class Layer:
    """What all steps have in common. The state is [batch, hidden], with two directions [2, batch, hidden].

    `against` runs one direction from the last step to the first.
    """

    cell: Cell
    steps: int
    batch: int
    directions: int
    lengths: Tensor | None
    wants_sequence: bool
    against: bool

    @property
    def state_shape(self) -> tuple[int, ...]:
        """The shape of a state."""
        shape = (self.batch, self.cell.hidden)
        return shape if self.directions == 1 else (self.directions, *shape)

    def rows(self, steps: int, width: int) -> tuple[int, ...]:
        """The shape of so many steps."""
        lead, *rest = self.state_shape[:-1]
        return (steps * lead, *rest, width)


@dataclass(slots=True)
class _Span:
    """Some steps: W·x + b of theirs, the state before them, and which the first of them is."""

    count: int
    xs: list[Tensor]
    state: list[Tensor]
    first: Tensor


def run_steps(ctx: Context, layer: Layer, xs: list[Tensor], state: list[Tensor]) -> tuple[Tensor | None, list[Tensor]]:
    """The outputs of all steps, if anybody reads them, and the last state; xs holds W·x + b by the cell's parts."""
    span = _Span(layer.steps, xs, state, ctx.constant([0], DType.INT32))
    most = max(_copies(layer, UNROLL_MOST, UNROLL_BYTES), 2 * _copies(layer, ROUND_MOST, ROUND_BYTES))
    return (_written_out if layer.steps <= most else _looped)(ctx, layer, span)


def _copies(layer: Layer, most: int, budget: int) -> int:
    """How many steps may be written out, each with a copy of the recurrent weights of its own."""
    size = sum(4 * w.size for w in layer.cell.weights)
    return max(1, min(most, budget // max(size, 1)))


def _written_out(ctx: Context, layer: Layer, span: _Span) -> tuple[Tensor | None, list[Tensor]]:
    rows = [_cut(ctx, layer, x, [1] * span.count) for x in span.xs]
    state, ys = span.state, {}
    for i in _order(layer, span.count):
        state, ys[i] = _step(ctx, layer, [x[i] for x in rows], state, span.first, i)
    return _join(ctx, layer, [ys[i] for i in range(span.count)]), state


def _order(layer: Layer, count: int) -> range:
    return range(count)[::-1] if layer.against else range(count)


def _step(
    ctx: Context, layer: Layer, x: list[Tensor], state: list[Tensor], first: Tensor, offset: int
) -> tuple[list[Tensor], Tensor]:
    new = step(ctx, layer.cell, x, state)
    if layer.lengths is None:
        return new, new[0]
    at = _place(ctx, first, offset)
    inside = ctx.emit("LESS", [at, ctx.cast(layer.lengths, DType.INT32)], (layer.batch,), DType.BOOL)  # rule 3
    inside = ctx.reshape(inside, (layer.batch, 1))
    kept = [ctx.emit("SELECT_V2", [inside, a, b], a.shape, a.dtype) for a, b in zip(new, state, strict=True)]
    zero = ctx.scalar(0.0, new[0])
    return kept, ctx.emit("SELECT_V2", [inside, new[0], zero], new[0].shape, new[0].dtype)


def _place(ctx: Context, first: Tensor, offset: int) -> Tensor:
    """first + offset"""
    if first.data is not None:
        return constant(ctx.name("at"), first.data + np.int32(offset))
    return ctx.binary("ADD", first, ctx.constant([offset], DType.INT32), **_NONE) if offset else first


def _cut(ctx: Context, layer: Layer, x: Tensor, counts: list[int]) -> list[Tensor]:
    """x in parts of so many steps each."""
    if len(counts) == 1:
        return [x]
    parts = [ctx.new(layer.rows(count, x.shape[-1]), x.dtype, "x") for count in counts]
    axis = ctx.int32(0)
    if len(set(counts)) == 1:  # up to four, the delegate cuts them too
        ctx.emit_multi("SPLIT", [axis, x], parts, numSplits=len(parts))
    else:
        sizes = ctx.int32([t.shape[0] for t in parts])
        ctx.emit_multi("SPLIT_V", [x, sizes, axis], parts, numSplits=len(parts))
    return parts


def _join(ctx: Context, layer: Layer, parts: list[Tensor]) -> Tensor | None:
    """The outputs of all steps, one after the other."""
    if not layer.wants_sequence or len(parts) == 1:
        return parts[0] if layer.wants_sequence else None
    count = sum(t.shape[0] for t in parts)
    return ctx.emit("CONCATENATION", parts, (count, *parts[0].shape[1:]), parts[0].dtype, axis=0, **_NONE)


# --- loops --------------------------------------------------------------------------------------------


def _looped(ctx: Context, layer: Layer, span: _Span) -> tuple[Tensor | None, list[Tensor]]:
    """Rules 1 and 2: loops of equal length, and what is left written out after them."""
    rounds = _copies(layer, ROUND_MOST, ROUND_BYTES)
    length, count = _lengths(layer, rounds)
    counts = [length] * count
    if span.count > length * count:
        counts.append(span.count - length * count)
    parts = [_cut(ctx, layer, x, counts) for x in span.xs]
    graphs: list[Graph] = []
    state, ys = span.state, {}
    for i in _order(layer, len(counts)):
        one = _Span(counts[i], [x[i] for x in parts], state, _place(ctx, span.first, i * length))
        if i < count:
            ys[i], state = _loop(ctx, layer, one, rounds, graphs)
        else:
            ys[i], state = _written_out(ctx, layer, one)
    kept = [y for i in range(len(counts)) if (y := ys[i]) is not None]
    return (_join(ctx, layer, kept) if kept else None), state


def _lengths(layer: Layer, rounds: int) -> tuple[int, int]:
    """How long loops are that carry no more than they should, and how many: as many as leave the fewest steps."""
    width = 4 * layer.directions * layer.batch * (sum(layer.cell.parts) + layer.cell.hidden)
    most = max(CARRIED_BYTES // width, 4 * rounds)
    least = -(-layer.steps // most)
    choices = [(layer.steps // count // rounds * rounds, count) for count in range(least, 2 * least)]
    return min((c for c in choices if c[0]), key=lambda c: (layer.steps - c[0] * c[1], c[1]))


def _loop(
    ctx: Context, layer: Layer, span: _Span, rounds: int, graphs: list[Graph]
) -> tuple[Tensor | None, list[Tensor]]:
    """One WHILE over the steps, so many of them in each round."""
    count, lead = len(span.state), layer.state_shape[0]
    carried = list(span.state)
    if layer.wants_sequence:
        shape = layer.rows(span.count, layer.cell.hidden)
        carried.append(ctx.constant(np.zeros(shape, np.float32), DType.FLOAT32))
    lengths = [] if layer.lengths is None else [layer.lengths]
    if lengths:
        carried.append(span.first)  # as a constant, it would be the same in all loops that share the body
    fixed = [*span.xs, *layer.cell.weights, *lengths]

    def body(inner: Context, number: Tensor, values: list[Tensor], outside: list[Tensor]) -> list[Tensor]:
        at = inner.binary("MUL", number, inner.constant([rounds], DType.INT32), **_NONE)
        if layer.against:
            at = inner.binary("SUB", inner.constant([span.count - rounds], DType.INT32), at, **_NONE)
        place = _corner(inner, at, lead, len(layer.state_shape))
        given = iter(outside)
        whole, weights = [next(given) for _ in span.xs], [next(given) for _ in layer.cell.weights]
        shapes = [layer.rows(rounds, x.shape[-1]) for x in whole]
        xs = [inner.emit("SLICE", [x, place, inner.int32(s)], s, x.dtype) for x, s in zip(whole, shapes, strict=True)]
        here = replace(layer, cell=replace(layer.cell, weights=weights))
        first = at
        if layer.lengths is not None:
            here.lengths = next(given)
            first = inner.binary("ADD", at, values[-1], **_NONE)
        ys, state = _written_out(inner, here, _Span(rounds, xs, values[:count], first))
        results = list(state)
        if ys is not None:
            results.append(
                inner.emit("DYNAMIC_UPDATE_SLICE", [values[count], ys, place], values[count].shape, ys.dtype)
            )
        return results if layer.lengths is None else [*results, values[-1]]

    results = counted_loop(ctx, span.count // rounds, carried, fixed, body, graphs)
    return (results[count] if layer.wants_sequence else None), results[:count]


def _corner(ctx: Context, at: Tensor, lead: int, rank: int) -> Tensor:
    """Where a step begins in a tensor of several."""
    if lead > 1:
        at = ctx.binary("MUL", at, ctx.constant([lead], DType.INT32), **_NONE)
    return ctx.emit(
        "CONCATENATION", [at, ctx.constant([0] * (rank - 1), DType.INT32)], (rank,), DType.INT32, axis=0, **_NONE
    )
