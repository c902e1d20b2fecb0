"""RNN, GRU and LSTM: unrolled when short, a WHILE loop when long; no state survives a call.

TFLite's fused LSTM is not used: it keeps its state in variable tensors, and the next call would begin with it.
1. W·x + b is one product for all steps that are written out together. A loop carries x, not the products: all
   that it carries is copied in every round.
2. A reverse layer goes through the steps backwards; with sequence lengths, each sequence is reversed in itself.
3. Beyond a sequence's length the state stays and the output is 0.
4. A long sequence is several loops over a part each, for the same reason as rule 1; they share one body.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import onnx_ir as ir

from edgec.backends.tflite.context import Context, Lowering, Refusal
from edgec.backends.tflite.ops.loops import counted_loop
from edgec.backends.tflite.ops.recurrent_cells import Cell, add, functions, product, step
from edgec.backends.tflite.tir import Graph, Tensor, constant
from edgec.graph.model import attr
from edgec.tensors import DType

#: Sequences up to this length are unrolled. Measured (hidden size 32 and 128, one thread): unrolled steps take 0.5
#: to 0.9 of a loop's time up to 16 steps; beyond 32 the activations of all steps no longer fit into the cache.
UNROLL_STEPS = 16
#: Longer ones up to `UNROLL_MOST` are, where the copies of the weights that the delegate packs, one a step, take no
#: more than `UNROLL_BYTES` together (50 steps of a GRU of 64: 0.7 of a loop's time).
UNROLL_MOST, UNROLL_BYTES = 64, 2_500_000
#: Steps of one round of a loop: more take less time each while all copies of the recurrent weights (the runtime
#: packs one for each step) stay in the cache (an LSTM of 96: four take 0.77 of the time of two).
ROUND_STEPS, FEW_ROUND_STEPS = 4, 2
SMALL_WEIGHTS_BYTES = 160 << 10
#: What a loop may carry of its input, and of its output: beyond it, several loops follow each other.
CARRIED_BYTES = 32 << 10
_NONE = {"fusedActivationFunction": "NONE"}
_GATES = {"RNN": 1, "GRU": 3, "LSTM": 4}
_DEFAULTS = {"RNN": ["Tanh"], "GRU": ["Sigmoid", "Tanh"], "LSTM": ["Sigmoid", "Tanh", "Tanh"]}


@dataclass(slots=True)
class _Layer:
    """The node, read: x is [steps, batch, input]; the states of all directions are [batch, hidden] each."""

    kind: str
    steps: int
    batch: int
    hidden: int
    directions: list[bool]  # True: backwards
    lengths: Tensor | None
    wants_sequence: bool

    @property
    def round_steps(self) -> int:
        """Steps of one round of a loop."""
        small = 4 * _GATES[self.kind] * self.hidden * self.hidden <= SMALL_WEIGHTS_BYTES
        return ROUND_STEPS if small else FEW_ROUND_STEPS


@dataclass(slots=True)
class _Input:
    """What one direction reads: x [steps, batch, input], the input's weights and bias."""

    x: Tensor
    w: Tensor
    bias: Tensor | None


def _recurrent(ctx: Context, node: ir.Node) -> list[Tensor]:
    """See the module."""
    x, w, r, bias, lengths, *rest = [*ctx.inputs(node), None, None, None, None, None][:8]
    assert x is not None and w is not None and r is not None
    if x.dtype != DType.FLOAT32:
        raise Refusal("dtype", f"{node.op_type} on {x.dtype} has no TFLite form", "insert a Cast")
    batch_first = attr(node, "layout", 0) == 1
    if batch_first:
        x = ctx.transpose(x, (1, 0, 2))
    direction = attr(node, "direction", "forward")
    directions = {"forward": [False], "reverse": [True], "bidirectional": [False, True]}[direction]
    layer = _Layer(
        kind=node.op_type,
        steps=x.shape[0],
        batch=x.shape[1],
        hidden=r.shape[2],
        directions=directions,
        lengths=_lengths(lengths, x.shape[0]),
        wants_sequence=_used(node, 0),
    )
    sequences, finals = [], []
    for index, backwards in enumerate(directions):
        cell, input_bias = _cell(ctx, node, index, r, bias, rest[2])
        state = [_initial(ctx, layer, t, index, batch_first) for t in rest[: 2 if layer.kind == "LSTM" else 1]]
        ys, final = _direction(ctx, layer, cell, x, _pick(ctx, w, index), input_bias, state, backwards)
        sequences.append(ys)
        finals.append(final)
    return _outputs(ctx, node, sequences, finals, batch_first)


def _used(node: ir.Node, index: int) -> bool:
    return len(node.outputs) > index and (bool(node.outputs[index].uses()) or node.outputs[index].is_graph_output())


def _lengths(lengths: Tensor | None, steps: int) -> Tensor | None:
    if lengths is not None and lengths.data is not None and bool(np.all(lengths.data == steps)):
        return None
    return lengths


def _pick(ctx: Context, t: Tensor, index: int) -> Tensor:
    """t[index]"""
    return _part(ctx, t, index, index + 1, drop=True)


def _part(ctx: Context, t: Tensor, begin: int, end: int, *, drop: bool = False) -> Tensor:
    """t[begin:end], or t[begin] with `drop`; constants are cut at once."""
    if not drop and (begin, end) == (0, t.shape[0]):
        return t
    if t.data is not None and t.storage is None:
        data = t.data[begin:end]
        return constant(ctx.name("part"), np.ascontiguousarray(data[0] if drop else data))
    shape = (end - begin, *t.shape[1:])
    if shape != t.shape:
        start = [begin] + [0] * (t.rank - 1)
        t = ctx.emit("SLICE", [t, ctx.int32(start), ctx.int32(list(shape))], shape, t.dtype)
    return ctx.reshape(t, shape[1:]) if drop else t


def _cell(
    ctx: Context, node: ir.Node, index: int, r: Tensor, bias: Tensor | None, peepholes: Tensor | None
) -> tuple[Cell, Tensor | None]:
    """The step of one direction, and the bias that goes with the input's product."""
    kind, hidden = node.op_type, r.shape[2]
    count = _GATES[kind]
    names = list(attr(node, "activations", ())) or _DEFAULTS[kind] * 2
    each = len(_DEFAULTS[kind])
    chosen = functions(names, attr(node, "activation_alpha", ()), attr(node, "activation_beta", ()))
    chosen = chosen[index * each : (index + 1) * each]
    recurrent = _pick(ctx, r, index)
    cell = Cell(
        kind=kind,
        hidden=hidden,
        functions=chosen,
        clip=float(attr(node, "clip", 0.0)),
        coupled=bool(attr(node, "input_forget", 0)),
        reset_after=kind == "GRU" and bool(attr(node, "linear_before_reset", 0)),
        weights=[recurrent],
        parts=(count * hidden,),
    )
    both = None if bias is None else _pick(ctx, bias, index)
    input_bias = None if both is None else _part(ctx, both, 0, count * hidden)
    state_bias = None if both is None else _part(ctx, both, count * hidden, 2 * count * hidden)
    if kind == "LSTM" and peepholes is not None:
        own = _pick(ctx, peepholes, index)
        cell.weights += [_part(ctx, own, i * hidden, (i + 1) * hidden) for i in range(3)]
    elif count > 1:  # the gates that share a function, and the candidate
        gates = (count - 1) * hidden
        cell.parts = (gates, hidden)
        cell.weights = [_part(ctx, recurrent, 0, gates), _part(ctx, recurrent, gates, count * hidden)]
    if cell.reset_after:
        if state_bias is None:
            state_bias = ctx.constant(np.zeros(count * hidden, np.float32), DType.FLOAT32)
        cell.weights += [_part(ctx, state_bias, 0, 2 * hidden), _part(ctx, state_bias, 2 * hidden, 3 * hidden)]
        return cell, input_bias
    if input_bias is None or state_bias is None:
        return cell, None
    if input_bias.data is not None and state_bias.data is not None:
        return cell, constant(ctx.name("bias"), input_bias.real() + state_bias.real())
    return cell, add(ctx, input_bias, state_bias)


def _initial(ctx: Context, layer: _Layer, t: Tensor | None, index: int, batch_first: bool) -> Tensor:
    shape = (layer.batch, layer.hidden)
    if t is None:
        return ctx.constant(np.zeros(shape, np.float32), DType.FLOAT32)
    if batch_first:
        t = ctx.transpose(t, (1, 0, 2))
    return _pick(ctx, t, index)


def _direction(
    ctx: Context,
    layer: _Layer,
    cell: Cell,
    x: Tensor,
    w: Tensor,
    bias: Tensor | None,
    state: list[Tensor],
    backwards: bool,
) -> tuple[Tensor | None, list[Tensor]]:
    """The outputs of all steps, [steps, batch, hidden], if anybody reads them, and the last state."""
    if backwards and layer.lengths is not None:  # rule 2
        x = _reversed(ctx, x, layer.lengths)
    against = backwards and layer.lengths is None
    run = _written_out if layer.steps <= _unroll_limit(cell) else _looped
    ys, final = run(ctx, layer, cell, _Input(x, w, bias), state, against)
    if ys is not None and backwards and layer.lengths is not None:
        ys = _reversed(ctx, ys, layer.lengths)
    return ys, final


def _unroll_limit(cell: Cell) -> int:
    """How many steps are written out: each has its own packed copy of the weights, and all should stay cached."""
    size = sum(4 * w.size for w in cell.weights)
    return max(UNROLL_STEPS, min(UNROLL_MOST, UNROLL_BYTES // max(size, 1)))


def _parts(ctx: Context, cell: Cell, source: _Input) -> list[Tensor]:
    """W·x + b of all steps of an input, by the parts in which a step reads it, each [steps · batch, width]."""
    steps, batch, size = source.x.shape
    flat = ctx.reshape(source.x, (steps * batch, size))
    ends = np.cumsum(cell.parts).tolist()
    return [
        product(ctx, flat, _part(ctx, source.w, a, b), None if source.bias is None else _part(ctx, source.bias, a, b))
        for a, b in zip([0, *ends[:-1]], ends, strict=True)
    ]


def _reversed(ctx: Context, x: Tensor, lengths: Tensor) -> Tensor:
    return ctx.emit("REVERSE_SEQUENCE", [x, ctx.cast(lengths, DType.INT32)], x.shape, x.dtype, seqDim=0, batchDim=1)


def _written_out(
    ctx: Context, layer: _Layer, cell: Cell, source: _Input, state: list[Tensor], against: bool
) -> tuple[Tensor | None, list[Tensor]]:
    return _steps(ctx, layer, cell, _parts(ctx, cell, source), state, 0, against)


def _steps(
    ctx: Context,
    layer: _Layer,
    cell: Cell,
    parts: list[Tensor],
    state: list[Tensor],
    first: int | Tensor,
    against: bool,
) -> tuple[Tensor | None, list[Tensor]]:
    """Write out the steps of `parts`, which begin at step `first` of the sequence."""
    number = parts[0].shape[0] // layer.batch
    xs = [_cut_rows(ctx, part, number) for part in parts]
    ys: dict[int, Tensor] = {}
    for i in range(number)[::-1] if against else range(number):
        state, ys[i] = _step(ctx, layer, cell, [x[i] for x in xs], state, first, i)
    if not layer.wants_sequence:
        return None, state
    return _join_rows(ctx, [ys[i] for i in range(number)]), state


def _cut_rows(ctx: Context, x: Tensor, number: int) -> list[Tensor]:
    """The rows of x in so many equal parts: up to four, the delegate cuts them too."""
    if number == 1:
        return [x]
    rows = [ctx.new((x.shape[0] // number, x.shape[1]), x.dtype, "x") for _ in range(number)]
    ctx.emit_multi("SPLIT", [ctx.int32(0), x], rows, numSplits=number)
    return rows


def _join_rows(ctx: Context, parts: list[Tensor]) -> Tensor:
    """[steps, batch, hidden] of the outputs of all steps."""
    batch, hidden = parts[0].shape
    flat = parts[0]
    if len(parts) > 1:
        flat = ctx.emit("CONCATENATION", parts, (len(parts) * batch, hidden), flat.dtype, axis=0, **_NONE)
    return ctx.reshape(flat, (len(parts), batch, hidden))


def _step(
    ctx: Context,
    layer: _Layer,
    cell: Cell,
    x: list[Tensor],
    state: list[Tensor],
    first: int | Tensor,
    offset: int,
) -> tuple[list[Tensor], Tensor]:
    new = step(ctx, cell, x, state)
    if layer.lengths is None:
        return new, new[0]
    t = ctx.constant([(first if isinstance(first, int) else 0) + offset], DType.INT32)
    if isinstance(first, Tensor):
        t = ctx.binary("ADD", first, t, **_NONE)
    inside = ctx.emit("LESS", [t, ctx.cast(layer.lengths, DType.INT32)], (layer.batch,), DType.BOOL)  # rule 3
    inside = ctx.reshape(inside, (layer.batch, 1))
    kept = [ctx.emit("SELECT_V2", [inside, a, b], a.shape, a.dtype) for a, b in zip(new, state, strict=True)]
    zero = ctx.scalar(0.0, new[0])
    return kept, ctx.emit("SELECT_V2", [inside, new[0], zero], new[0].shape, new[0].dtype)


def _looped(
    ctx: Context, layer: _Layer, cell: Cell, source: _Input, state: list[Tensor], against: bool
) -> tuple[Tensor | None, list[Tensor]]:
    """What does not fill a loop is written out first; then one loop after the other (rule 4)."""
    length, count = _segments(layer, source)
    rest = layer.steps - count * length
    pieces: list[Tensor | None] = []
    if rest:  # the steps that come first: at the end when running backwards
        begin = layer.steps - rest if against else 0
        head = replace(source, x=_rows(ctx, source.x, begin, rest))
        piece, state = _steps(ctx, layer, cell, _parts(ctx, cell, head), state, begin, against)
        pieces.append(piece)
    graphs: list[Graph] = []
    for number in range(count):
        begin = (count - 1 - number) * length if against else rest + number * length
        part = replace(source, x=_rows(ctx, source.x, begin, length))
        # with sequence lengths, a body knows at which step it begins
        shared = graphs if layer.lengths is None else None
        piece, state = _loop(ctx, layer, cell, part, state, begin, against, shared)
        pieces.append(piece)
    ys = [p for p in (pieces[::-1] if against else pieces) if p is not None]
    if not ys:
        return None, state
    shape = (layer.steps, layer.batch, layer.hidden)
    return ys[0] if len(ys) == 1 else ctx.emit("CONCATENATION", ys, shape, ys[0].dtype, axis=0, **_NONE), state


def _segments(layer: _Layer, source: _Input) -> tuple[int, int]:
    """Steps of one loop, and how many loops."""
    width = 4 * layer.batch * max(source.x.shape[2], layer.hidden)
    most = max(CARRIED_BYTES // width, 4 * layer.round_steps)
    count = -(-layer.steps // most)
    return layer.steps // count // layer.round_steps * layer.round_steps, count


def _loop(
    ctx: Context,
    layer: _Layer,
    cell: Cell,
    source: _Input,
    state: list[Tensor],
    begin: int,
    against: bool,
    graphs: list[Graph] | None,
) -> tuple[Tensor | None, list[Tensor]]:
    """One WHILE over the steps of `source`, `round_steps` in each round."""
    rounds, count = source.x.shape[0] // layer.round_steps, len(state)
    carried = list(state)
    if layer.wants_sequence:
        empty = np.zeros((rounds * layer.round_steps, layer.batch, layer.hidden), np.float32)
        carried.append(ctx.constant(empty, DType.FLOAT32))
    extra = [t for t in (source.bias, layer.lengths) if t is not None]
    fixed = [source.x, source.w, *cell.weights, *extra]

    def body(inner: Context, number: Tensor, values: list[Tensor], outside: list[Tensor]) -> list[Tensor]:
        at = inner.binary("MUL", number, inner.constant([layer.round_steps], DType.INT32), **_NONE)
        if against:
            last = inner.constant([(rounds - 1) * layer.round_steps], DType.INT32)
            at = inner.binary("SUB", last, at, **_NONE)
        shape = (layer.round_steps, *source.x.shape[1:])
        x = inner.emit("SLICE", [outside[0], _place(inner, at), inner.int32(list(shape))], shape, source.x.dtype)
        rest = outside[2 + len(cell.weights) :]
        bias = None if source.bias is None else rest[0]
        own = replace(cell, weights=outside[2 : 2 + len(cell.weights)])
        here, first = layer, at
        if layer.lengths is not None:
            here = replace(layer, lengths=rest[-1])
            first = inner.binary("ADD", at, inner.constant([begin], DType.INT32), **_NONE)
        rows = _parts(inner, own, _Input(x, outside[1], bias))
        ys, new = _steps(inner, here, own, rows, values[:count], first, against)
        if ys is None:
            return new
        buffer = values[count]
        return [*new, inner.emit("DYNAMIC_UPDATE_SLICE", [buffer, ys, _place(inner, at)], buffer.shape, ys.dtype)]

    results = counted_loop(ctx, rounds, carried, fixed, body, graphs)
    return (results[count] if layer.wants_sequence else None), results[:count]


def _place(ctx: Context, at: Tensor) -> Tensor:
    """Where a row of [steps, batch, …] begins."""
    return ctx.emit("CONCATENATION", [at, ctx.constant([0, 0], DType.INT32)], (3,), DType.INT32, axis=0, **_NONE)


def _rows(ctx: Context, x: Tensor, begin: int, count: int) -> Tensor:
    if count == x.shape[0]:
        return x
    shape = (count, *x.shape[1:])
    return ctx.emit("SLICE", [x, ctx.int32([begin, 0, 0]), ctx.int32(list(shape))], shape, x.dtype)


def _outputs(
    ctx: Context,
    node: ir.Node,
    sequences: list[Tensor | None],
    finals: list[list[Tensor]],
    batch_first: bool,
) -> list[Tensor]:
    """Y [steps, directions, batch, hidden], Y_h and Y_c [directions, batch, hidden]; with layout 1, batch first."""
    results: list[Tensor] = []
    ys = [t for t in sequences if t is not None]
    if ys:
        y = _stack(ctx, ys, 1)
        results.append(ctx.transpose(y, (2, 0, 1, 3)) if batch_first else y)
    else:
        results.append(ctx.new(ctx.out_spec(node)[1] if node.outputs[0].name else (), DType.FLOAT32))
    for number in range(len(finals[0])):
        last = _stack(ctx, [state[number] for state in finals], 0)
        results.append(ctx.transpose(last, (1, 0, 2)) if batch_first else last)
    return results


def _stack(ctx: Context, parts: list[Tensor], axis: int) -> Tensor:
    shape = list(parts[0].shape)
    shape.insert(axis, len(parts))
    if len(parts) == 1:
        return ctx.reshape(parts[0], shape)
    return ctx.emit("PACK", parts, shape, parts[0].dtype, valuesCount=len(parts), axis=axis)


LOWERINGS: dict[str, Lowering] = dict.fromkeys(("RNN", "GRU", "LSTM"), _recurrent)
