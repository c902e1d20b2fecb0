"""RNN, GRU and LSTM: unrolled when short, WHILE loops when long; no state survives a call.

TFLite's fused LSTM is not used: it keeps its state in variable tensors, and the next call would begin with it.
1. W·x + b is one product for all steps.
2. A backward layer goes through the steps backwards; with sequence lengths, each sequence is reversed in itself.
3. Two directions whose steps are alike are one layer: a step's products are one BATCH_MATMUL over both, everything
   else has twice the width. The input of the backward one is reversed first, its output afterwards.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from edgec.backends.tflite.context import Context, Lowering, Refusal
from edgec.backends.tflite.ops.recurrent_cells import FUNCTIONS, GATES, Cell, add, functions, names_of, part, product
from edgec.backends.tflite.ops.recurrent_steps import Layer, run_steps
from edgec.backends.tflite.tir import Tensor, constant
from edgec.graph.model import attr
from edgec.tensors import DType

_NONE = {"fusedActivationFunction": "NONE"}


def _recurrent(ctx: Context, node: ir.Node) -> list[Tensor]:
    """Written out where short, else WHILE loops; both directions at once, no state kept between calls."""
    x, w, r, bias, lengths, *rest = [*ctx.inputs(node), None, None, None, None, None][:8]
    assert x is not None and w is not None and r is not None
    if x.dtype != DType.FLOAT32:
        raise Refusal("dtype", f"{node.op_type} on {x.dtype} has no TFLite form", "insert a Cast")
    batch_first = attr(node, "layout", 0) == 1
    initial = rest[: 2 if node.op_type == "LSTM" else 1]
    if batch_first:
        x = ctx.transpose(x, (1, 0, 2))
        initial = [t if t is None else ctx.transpose(t, (1, 0, 2)) for t in initial]
    if lengths is not None and lengths.data is not None and bool(np.all(lengths.data == x.shape[0])):
        lengths = None
    backwards = {"forward": [False], "reverse": [True], "bidirectional": [False, True]}[
        attr(node, "direction", "forward")
    ]
    sequences: list[Tensor] = []
    finals: list[list[Tensor]] = []
    for group in _groups(node, [t for t in (w, r, bias, rest[2]) if t is not None]):
        taken = [None if t is None else _directions(ctx, t, group) for t in (w, r, bias, rest[2], *initial)]
        layer = Layer(
            cell=_cell(ctx, node, taken[1], taken[2], taken[3], group[0]),
            steps=x.shape[0],
            batch=x.shape[1],
            directions=len(group),
            lengths=lengths,
            wants_sequence=_used(node, 0),
            against=len(group) == 1 and backwards[group[0]] and lengths is None,
        )
        state = [_state(ctx, layer, t) for t in taken[4:]]
        turned = [backwards[i] and not layer.against for i in group]
        ys, state = run_steps(ctx, layer, _inputs(ctx, layer, x, taken[0], taken[2], turned), state)
        if ys is not None:
            sequences.append(_turned_back(ctx, layer, ys, turned))
        finals.append([ctx.reshape(t, (len(group), layer.batch, layer.cell.hidden)) for t in state])
    return _outputs(ctx, node, sequences, finals, batch_first)


def _used(node: ir.Node, index: int) -> bool:
    return len(node.outputs) > index and (bool(node.outputs[index].uses()) or node.outputs[index].is_graph_output())


def _groups(node: ir.Node, weights: list[Tensor]) -> list[list[int]]:
    """Directions that run together (rule 3): alike in their functions, and their weights plain floats."""
    if attr(node, "direction", "forward") != "bidirectional":
        return [[0]]
    names = [name.lower() for name in names_of(node)]
    parameters = attr(node, "activation_alpha", ()) or attr(node, "activation_beta", ())
    alike = names[: len(names) // 2] == names[len(names) // 2 :] and not parameters
    return [[0, 1]] if alike and all(t.storage is None for t in weights) else [[0], [1]]


def _directions(ctx: Context, t: Tensor, group: list[int]) -> Tensor:
    """Of a tensor [directions, …], those of a group: without the axis when there is one only."""
    return t if len(group) == 2 else ctx.reshape(part(ctx, t, group[0], group[0] + 1, 0), t.shape[1:])


def _cell(
    ctx: Context, node: ir.Node, r: Tensor | None, bias: Tensor | None, peepholes: Tensor | None, index: int
) -> Cell:
    """The step of a group of directions, whose first is `index`."""
    assert r is not None
    kind, hidden = node.op_type, r.shape[-1]
    names, each = names_of(node), FUNCTIONS[kind]
    chosen = functions(names, attr(node, "activation_alpha", ()), attr(node, "activation_beta", ()))
    count, axis = GATES[kind], r.rank - 2
    cell = Cell(
        kind=kind,
        hidden=hidden,
        functions=chosen[index * each : (index + 1) * each],
        clip=float(attr(node, "clip", 0.0)),
        coupled=bool(attr(node, "input_forget", 0)),
        reset_after=kind == "GRU" and bool(attr(node, "linear_before_reset", 0)),
        weights=[r],
        parts=(count * hidden,),
    )
    if kind == "LSTM" and peepholes is not None:
        cell.weights += [_row(ctx, part(ctx, peepholes, i * hidden, (i + 1) * hidden, axis)) for i in range(3)]
    elif count > 1:  # the gates that share a function, and the candidate
        gates = (count - 1) * hidden
        cell.parts = (gates, hidden)
        cell.weights = [part(ctx, r, 0, gates, axis), part(ctx, r, gates, count * hidden, axis)]
    if r.rank == 3:  # once for all steps
        matrices = len(cell.parts)
        cell.weights[:matrices] = [ctx.transpose(t, (0, 2, 1)) for t in cell.weights[:matrices]]
    if cell.reset_after and bias is not None:
        cell.weights.append(part(ctx, bias, 5 * hidden, 6 * hidden, axis))
    return cell


def _row(ctx: Context, t: Tensor) -> Tensor:
    """[directions, n] against [directions, batch, n]."""
    return ctx.reshape(t, (t.shape[0], 1, t.shape[1])) if t.rank == 2 else t


def _state(ctx: Context, layer: Layer, t: Tensor | None) -> Tensor:
    if t is None:
        return ctx.constant(np.zeros(layer.state_shape, np.float32), DType.FLOAT32)
    return ctx.reshape(t, layer.state_shape)


# --- what goes in, and what comes out -----------------------------------------------------------------


def _inputs(
    ctx: Context, layer: Layer, x: Tensor, w: Tensor | None, bias: Tensor | None, turned: Sequence[bool]
) -> list[Tensor]:
    """Rule 1: W·x + b by the parts in which a step reads it, each [steps · lead of the state, …, width]."""
    assert w is not None
    pieces: list[list[Tensor]] = []
    for i, backwards in enumerate(turned):
        source = _reversed(ctx, x, layer.lengths) if backwards else x
        own = [None if t is None else (_pick(ctx, t, i) if len(turned) == 2 else t) for t in (w, bias)]
        pieces.append(_products(ctx, layer, source, own[0], own[1]))
    if len(pieces) == 1:
        return pieces[0]
    wide = (layer.steps, 1, layer.batch)
    result = []
    for both in zip(*pieces, strict=True):
        views = [ctx.reshape(t, (*wide, t.shape[1])) for t in both]
        shape = (layer.steps, 2, layer.batch, both[0].shape[1])
        joined = ctx.emit("CONCATENATION", views, shape, DType.FLOAT32, axis=1, **_NONE)
        result.append(ctx.reshape(joined, (layer.steps * 2, layer.batch, both[0].shape[1])))
    return result


def _products(ctx: Context, layer: Layer, x: Tensor, w: Tensor | None, bias: Tensor | None) -> list[Tensor]:
    """Of one direction, each [steps · batch, width]."""
    assert w is not None
    flat = ctx.reshape(x, (layer.steps * layer.batch, x.shape[2]))
    result, begin = [], 0
    for width in layer.cell.parts:
        end = begin + width
        own = None if bias is None else _input_bias(ctx, layer.cell, bias, begin, end)
        result.append(product(ctx, flat, part(ctx, w, begin, end, 0), own))
        begin = end
    return result


def _input_bias(ctx: Context, cell: Cell, bias: Tensor, begin: int, end: int) -> Tensor:
    """Both biases of some rows; without the state's where the candidate adds it before the reset."""
    rows = GATES[cell.kind] * cell.hidden
    own, states = part(ctx, bias, begin, end, 0), part(ctx, bias, rows + begin, rows + end, 0)
    if cell.reset_after and begin:
        return own
    if own.data is not None and states.data is not None:
        return constant(ctx.name("bias"), own.real() + states.real())
    return add(ctx, own, states)


def _pick(ctx: Context, t: Tensor, index: int) -> Tensor:
    """t[index]"""
    return ctx.reshape(part(ctx, t, index, index + 1, 0), t.shape[1:])


def _reversed(ctx: Context, x: Tensor, lengths: Tensor | None) -> Tensor:
    """The steps [steps, batch, …] backwards; rule 2 with lengths."""
    if lengths is None:
        return ctx.emit("REVERSE_V2", [x, ctx.int32([0])], x.shape, x.dtype)
    return ctx.emit("REVERSE_SEQUENCE", [x, ctx.cast(lengths, DType.INT32)], x.shape, x.dtype, seqDim=0, batchDim=1)


def _turned_back(ctx: Context, layer: Layer, ys: Tensor, turned: Sequence[bool]) -> Tensor:
    """[steps, directions, batch, hidden] of the outputs of all steps, in the order of the input."""
    count, hidden = len(turned), layer.cell.hidden
    ys = ctx.reshape(ys, (layer.steps, count, layer.batch, hidden))
    if not any(turned):
        return ys
    shape = (layer.steps, 1, layer.batch, hidden)
    parts = [ys]
    if count == 2:
        parts = [ctx.new(shape, ys.dtype, "direction") for _ in turned]
        ctx.emit_multi("SPLIT", [ctx.int32(1), ys], parts, numSplits=2)
    rows = (layer.steps, layer.batch, hidden)
    parts = [
        ctx.reshape(_reversed(ctx, ctx.reshape(t, rows), layer.lengths), shape) if backwards else t
        for t, backwards in zip(parts, turned, strict=True)
    ]
    return _joined(ctx, parts, 1)


def _outputs(
    ctx: Context,
    node: ir.Node,
    sequences: list[Tensor],
    finals: list[list[Tensor]],
    batch_first: bool,
) -> list[Tensor]:
    """Y [steps, directions, batch, hidden], Y_h and Y_c [directions, batch, hidden]; with layout 1, batch first."""
    results: list[Tensor] = []
    if sequences:
        y = _joined(ctx, sequences, 1)
        results.append(ctx.transpose(y, (2, 0, 1, 3)) if batch_first else y)
    else:
        results.append(ctx.new(ctx.out_spec(node)[1] if node.outputs[0].name else (), DType.FLOAT32))
    for number in range(len(finals[0])):
        last = _joined(ctx, [state[number] for state in finals], 0)
        results.append(ctx.transpose(last, (1, 0, 2)) if batch_first else last)
    return results


def _joined(ctx: Context, parts: list[Tensor], axis: int) -> Tensor:
    if len(parts) == 1:
        return parts[0]
    shape = list(parts[0].shape)
    shape[axis] = sum(t.shape[axis] for t in parts)
    return ctx.emit("CONCATENATION", parts, shape, parts[0].dtype, axis=axis, **_NONE)


LOWERINGS: dict[str, Lowering] = dict.fromkeys(("RNN", "GRU", "LSTM"), _recurrent)
