"""One step of RNN, GRU and LSTM, with the equations of the ONNX specification.

x stands for the input's part W·x + b, computed for all steps at once before; h and c are the state, [batch, hidden].
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from edgec.backends.tflite.context import Context, Refusal
from edgec.backends.tflite.ops.activation import clamp
from edgec.backends.tflite.ops.linear import batch_matmul, fully_connected
from edgec.backends.tflite.tir import Tensor, constant
from edgec.graph.model import attr
from edgec.tensors import DType

_NONE = {"fusedActivationFunction": "NONE"}
#: Matrices that each kind stacks on one another, and the functions of a direction.
GATES = {"RNN": 1, "GRU": 3, "LSTM": 4}
_DEFAULTS = {"RNN": ["Tanh"], "GRU": ["Sigmoid", "Tanh"], "LSTM": ["Sigmoid", "Tanh", "Tanh"]}
FUNCTIONS = {kind: len(names) for kind, names in _DEFAULTS.items()}
Function = Callable[[Context, Tensor], Tensor]


@dataclass(slots=True)
class Cell:
    """What a step needs. `weights` are the tensors that it reads: recurrent ones first, in the cell's own order.

    With two directions that run together, weights are [2, …], their matrices transposed, states [2, batch, hidden].

    `parts` are the widths in which a step reads W·x + b; separate products cost less than cutting one up, because
    the delegate cuts into equal parts only.
    """

    kind: str
    hidden: int
    functions: Sequence[Function]
    clip: float
    coupled: bool
    reset_after: bool
    weights: list[Tensor]
    parts: tuple[int, ...]


def add(ctx: Context, a: Tensor, b: Tensor) -> Tensor:
    """a + b"""
    return ctx.binary("ADD", a, b, **_NONE)


def mul(ctx: Context, a: Tensor, b: Tensor) -> Tensor:
    """a · b"""
    return ctx.binary("MUL", a, b, **_NONE)


def part(ctx: Context, t: Tensor, begin: int, end: int, axis: int) -> Tensor:
    """t from begin to end along an axis; constants are cut at once."""
    if (begin, end) == (0, t.shape[axis]):
        return t
    if t.data is not None and t.storage is None:
        return constant(ctx.name("part"), np.ascontiguousarray(t.data.take(range(begin, end), axis)))
    start, shape = [0] * t.rank, list(t.shape)
    start[axis], shape[axis] = begin, end - begin
    return ctx.emit("SLICE", [t, ctx.int32(start), ctx.int32(shape)], shape, t.dtype)


def product(ctx: Context, x: Tensor, w: Tensor, bias: Tensor | None = None) -> Tensor:
    """x · wᵀ + bias, for a weight that may be computed. Of two directions at once, w is transposed already."""
    if w.rank == 2 and w.data is not None and (bias is None or bias.data is not None):
        return fully_connected(ctx, x, w, bias)
    y = batch_matmul(ctx, x, ctx.transpose(w, (1, 0)) if w.rank == 2 else w)
    if bias is None:
        return y
    return add(ctx, y, bias if w.rank == 2 else ctx.reshape(bias, (bias.shape[0], 1, bias.shape[1])))


def split(ctx: Context, x: Tensor, sizes: Sequence[int]) -> list[Tensor]:
    """Equal parts of the last axis."""
    assert len(set(sizes)) == 1
    outputs = [ctx.new((*x.shape[:-1], size), x.dtype, "part") for size in sizes]
    ctx.emit_multi("SPLIT", [ctx.int32(x.rank - 1), x], outputs, numSplits=len(sizes))
    return outputs


def one_minus(ctx: Context, x: Tensor) -> Tensor:
    """1 − x"""
    return ctx.binary("SUB", ctx.scalar(1.0, x), x, **_NONE)


def step(ctx: Context, cell: Cell, x: Sequence[Tensor], state: Sequence[Tensor]) -> list[Tensor]:
    """The state after one step; its first tensor is the output."""
    return _STEPS[cell.kind](ctx, cell, x, state)


def _clipped(ctx: Context, cell: Cell, x: Tensor) -> Tensor:
    return clamp(ctx, x, -cell.clip, cell.clip) if cell.clip else x


def _rnn(ctx: Context, cell: Cell, x: Sequence[Tensor], state: Sequence[Tensor]) -> list[Tensor]:
    """h = f(x + R·h)"""
    (f,) = cell.functions
    return [f(ctx, _clipped(ctx, cell, add(ctx, x[0], product(ctx, state[0], cell.weights[0]))))]


def _gru(ctx: Context, cell: Cell, x: Sequence[Tensor], state: Sequence[Tensor]) -> list[Tensor]:
    """z, r = f(x + R·h); n = g(x + R·(r·h) + b), or g(x + r·(R·h + b)); h = (1 − z)·n + z·h"""
    h, size = state[0], cell.hidden
    f, g = cell.functions
    gates, candidate, *biases = cell.weights
    zr = add(ctx, x[0], product(ctx, h, gates))
    z, r = split(ctx, f(ctx, _clipped(ctx, cell, zr)), (size, size))
    if cell.reset_after:
        inner = mul(ctx, r, product(ctx, h, candidate, *biases))
    else:
        inner = product(ctx, mul(ctx, r, h), candidate)
    n = g(ctx, _clipped(ctx, cell, add(ctx, x[1], inner)))
    # (1 − z)·n + z·h = n + z·(h − n)
    return [add(ctx, n, mul(ctx, z, ctx.binary("SUB", h, n, **_NONE)))]


def _lstm(ctx: Context, cell: Cell, x: Sequence[Tensor], state: Sequence[Tensor]) -> list[Tensor]:
    """i, o, f = σ(x + R·h + P·c); c' = f·c + i·g(x + R·h); h = o·g(c'); o sees c', i and f see c."""
    h, c = state
    size = cell.hidden
    f, g, k = cell.functions
    if len(cell.parts) == 1:
        return _lstm_with_peepholes(ctx, cell, add(ctx, x[0], product(ctx, h, cell.weights[0])), c)
    sigmoids, fresh = (add(ctx, part, product(ctx, h, w)) for part, w in zip(x, cell.weights, strict=True))
    i, o, forget = split(ctx, f(ctx, _clipped(ctx, cell, sigmoids)), (size,) * 3)
    if cell.coupled:
        forget = one_minus(ctx, i)
    n = g(ctx, _clipped(ctx, cell, fresh))
    c = add(ctx, mul(ctx, forget, c), mul(ctx, i, n))
    return [mul(ctx, o, k(ctx, c)), c]


def _lstm_with_peepholes(ctx: Context, cell: Cell, gates: Tensor, c: Tensor) -> list[Tensor]:
    size = cell.hidden
    f, g, k = cell.functions
    i, o, forget, fresh = split(ctx, gates, (size,) * 4)
    p_i, p_o, p_f = cell.weights[1:]
    i = f(ctx, _clipped(ctx, cell, add(ctx, i, mul(ctx, p_i, c))))
    forget = one_minus(ctx, i) if cell.coupled else f(ctx, _clipped(ctx, cell, add(ctx, forget, mul(ctx, p_f, c))))
    n = g(ctx, _clipped(ctx, cell, fresh))
    c = add(ctx, mul(ctx, forget, c), mul(ctx, i, n))
    o = f(ctx, _clipped(ctx, cell, add(ctx, o, mul(ctx, p_o, c))))
    return [mul(ctx, o, k(ctx, c)), c]


_STEPS: dict[str, Callable[[Context, Cell, Sequence[Tensor], Sequence[Tensor]], list[Tensor]]] = {
    "RNN": _rnn,
    "GRU": _gru,
    "LSTM": _lstm,
}


def _scaled(ctx: Context, x: Tensor, factor: float, offset: float = 0.0) -> Tensor:
    y = x if factor == 1.0 else mul(ctx, x, ctx.scalar(factor, x))
    return y if offset == 0.0 else add(ctx, y, ctx.scalar(offset, y))


def _elu(ctx: Context, x: Tensor, alpha: float, _beta: float) -> Tensor:
    negative = ctx.unary("ELU", ctx.binary("MINIMUM", x, ctx.scalar(0.0, x)))
    return add(ctx, ctx.unary("RELU", x), _scaled(ctx, negative, alpha))


def _thresholded(ctx: Context, x: Tensor, alpha: float, _beta: float) -> Tensor:
    above = ctx.emit("GREATER", [x, ctx.scalar(alpha, x)], x.shape, DType.BOOL)
    return ctx.emit("SELECT_V2", [above, x, ctx.scalar(0.0, x)], x.shape, x.dtype)


def _softsign(ctx: Context, x: Tensor, _alpha: float, _beta: float) -> Tensor:
    return ctx.binary("DIV", x, add(ctx, ctx.unary("ABS", x), ctx.scalar(1.0, x)), **_NONE)


def _softplus(ctx: Context, x: Tensor, _alpha: float, _beta: float) -> Tensor:
    tail = ctx.unary("LOG", ctx.unary("LOGISTIC", ctx.unary("ABS", x)))
    return ctx.binary("SUB", ctx.unary("RELU", x), tail, **_NONE)


_Formula = Callable[[Context, Tensor, float, float], Tensor]
#: Lower-case name → formula, default alpha, default beta; None where it has no such parameter.
_FUNCTIONS: dict[str, tuple[_Formula, float | None, float | None]] = {
    "tanh": (lambda ctx, x, _a, _b: ctx.unary("TANH", x), None, None),
    "sigmoid": (lambda ctx, x, _a, _b: ctx.unary("LOGISTIC", x), None, None),
    "relu": (lambda ctx, x, _a, _b: ctx.unary("RELU", x), None, None),
    "leakyrelu": (lambda ctx, x, a, _b: ctx.unary("LEAKY_RELU", x, alpha=a), 0.01, None),
    "thresholdedrelu": (_thresholded, 1.0, None),
    "affine": (lambda ctx, x, a, b: _scaled(ctx, x, a, b), 1.0, 0.0),
    "scaledtanh": (lambda ctx, x, a, b: _scaled(ctx, ctx.unary("TANH", _scaled(ctx, x, b)), a), 1.0, 1.0),
    "hardsigmoid": (lambda ctx, x, a, b: clamp(ctx, _scaled(ctx, x, a, b), 0.0, 1.0), 0.2, 0.5),
    "elu": (_elu, 1.0, None),
    "softsign": (_softsign, None, None),
    "softplus": (_softplus, None, None),
}


def names_of(node: ir.Node) -> list[str]:
    """The functions of a node, all directions of it."""
    count = 2 if attr(node, "direction", "forward") == "bidirectional" else 1
    return list(attr(node, "activations", ())) or _DEFAULTS[node.op_type] * count


def functions(names: Sequence[str], alphas: Sequence[float], betas: Sequence[float]) -> list[Function]:
    """Activations by name. Parameters go, in order, to those that have one. Raises Refusal for an unknown name."""
    alpha_values, beta_values = iter(alphas), iter(betas)
    result: list[Function] = []
    for name in names:
        if name.lower() not in _FUNCTIONS:
            raise Refusal("activation", f"activation {name!r} of a recurrent layer is not known")
        formula, alpha, beta = _FUNCTIONS[name.lower()]
        a = 0.0 if alpha is None else next(alpha_values, alpha)
        b = 0.0 if beta is None else next(beta_values, beta)
        result.append(lambda ctx, x, formula=formula, a=a, b=b: formula(ctx, x, a, b))  # type: ignore[misc]
    return result
