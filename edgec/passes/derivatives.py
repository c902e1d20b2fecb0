"""Vector-Jacobian products: from the gradient of a node's output to those of its inputs, as nodes.

A rule gives one gradient for each input, in the shape of the node's output where the input was broadcast (the caller
sums those back), and None where an input has none (axes, shapes, conditions).
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import onnx_ir as ir

from edgec.graph.build import Builder
from edgec.graph.model import attr, const_of, static_shape

Gradients = list[ir.Value | None]
Rule = Callable[[Builder, ir.Node, ir.Value], Gradients | None]


def _unary(slope: Callable[[Builder, ir.Value, ir.Value], ir.Value]) -> Rule:
    """g · f'(x), where f' is written with x and y = f(x)."""

    def rule(b: Builder, node: ir.Node, g: ir.Value) -> Gradients:
        x, y = node.inputs[0], node.outputs[0]
        assert x is not None
        return [b("Mul", g, slope(b, x, y))]

    return rule


def _sub(b: Builder, _node: ir.Node, g: ir.Value) -> Gradients:
    return [g, b("Neg", g)]


def _mul(b: Builder, node: ir.Node, g: ir.Value) -> Gradients:
    return [b("Mul", g, node.inputs[1]), b("Mul", g, node.inputs[0])]


def _div(b: Builder, node: ir.Node, g: ir.Value) -> Gradients:
    left = b("Div", g, node.inputs[1])
    return [left, b("Neg", b("Mul", left, node.outputs[0]))]


def _pow(b: Builder, node: ir.Node, g: ir.Value) -> Gradients | None:
    """g · p · x^(p − 1), for an exponent that is constant."""
    exponent = const_of(node.inputs[1])
    if exponent is None:
        return None
    lower = b("Pow", node.inputs[0], exponent - np.asarray(1, exponent.dtype))
    kind = g.dtype.numpy() if g.dtype is not None else np.float32
    return [b("Mul", g, b("Mul", lower, exponent.astype(kind))), None]


def _relu(b: Builder, node: ir.Node, g: ir.Value) -> Gradients:
    return [b("Where", b("Greater", node.inputs[0], 0.0), g, 0.0)]


def _leaky_relu(b: Builder, node: ir.Node, g: ir.Value) -> Gradients:
    below = b("Mul", g, float(attr(node, "alpha", 0.01)))
    return [b("Where", b("Greater", node.inputs[0], 0.0), g, below)]


def _where(b: Builder, node: ir.Node, g: ir.Value) -> Gradients:
    return [None, b("Where", node.inputs[0], g, 0.0), b("Where", node.inputs[0], 0.0, g)]


def _matmul(b: Builder, node: ir.Node, g: ir.Value) -> Gradients | None:
    """∂A = g·Bᵀ and ∂B = Aᵀ·g; a vector is a matrix of one row (left) or one column (right)."""
    a, c = node.inputs[0], node.inputs[1]
    left, right, out = static_shape(a), static_shape(c), static_shape(node.outputs[0])
    if not left or not right or out is None or a is None or c is None:
        return None
    if len(left) == 1:
        out = (*out[:-1], 1, *out[-1:]) if len(right) > 1 else (1,)
        left = (1, *left)
        a = b("Reshape", a, b.ints(*left))
    if len(right) == 1:
        out = (*out, 1)
        right = (*right, 1)
        c = b("Reshape", c, b.ints(*right))
    g = b("Reshape", g, b.ints(*out))
    made = [b("MatMul", g, _swapped(b, c, len(right))), b("MatMul", _swapped(b, a, len(left)), g)]
    batch = out[:-2]
    results: Gradients = []
    for value, shape, given in zip(made, (left, right), node.inputs, strict=True):
        own = static_shape(given)
        summed = summed_to(b, value, (*batch, *shape[-2:]), shape)
        results.append(summed if own == shape else b("Reshape", summed, b.ints(*(own or ()))))
    return results


def _swapped(b: Builder, value: ir.Value, rank: int) -> ir.Value:
    return b("Transpose", value, perm=(*range(rank - 2), rank - 1, rank - 2))


def _gemm(b: Builder, node: ir.Node, g: ir.Value) -> Gradients:
    """As MatMul, with α, β and the operands that come transposed."""
    a, c = node.inputs[0], node.inputs[1]
    alpha, beta = float(attr(node, "alpha", 1.0)), float(attr(node, "beta", 1.0))
    turned = (int(attr(node, "transA", 0)), int(attr(node, "transB", 0)))
    scaled = g if alpha == 1.0 else b("Mul", g, alpha)
    # With A' = op(A): ∂A' = g·B'ᵀ, and ∂A is its transpose where A came transposed.
    first = (c, scaled, turned[1], 1) if turned[0] else (scaled, c, 0, 1 - turned[1])
    second = (scaled, a, 1, turned[0]) if turned[1] else (a, scaled, 1 - turned[0], 0)
    made: Gradients = [b("Gemm", x, y, transA=p, transB=q) for x, y, p, q in (first, second)]
    return [*made, g if beta == 1.0 else b("Mul", g, beta)][: len(node.inputs)]


def _reduced(mean: bool) -> Rule:
    def rule(b: Builder, node: ir.Node, g: ir.Value) -> Gradients | None:
        """Every element that went into a sum gets its gradient; of a mean, its share."""
        shape = static_shape(node.inputs[0])
        if shape is None:
            return None
        given = node.inputs[1] if len(node.inputs) > 1 else None
        axes = const_of(given)
        if given is not None and axes is None:
            return None
        if (axes is None or axes.size == 0) and attr(node, "noop_with_empty_axes", 0):
            return [g, None][: len(node.inputs)]
        gone = set(range(len(shape))) if axes is None or axes.size == 0 else {int(a) % len(shape) for a in axes}
        kept = b("Reshape", g, b.ints(*(1 if i in gone else size for i, size in enumerate(shape))))
        wide = b("Expand", kept, b.ints(*shape))
        if mean:
            wide = b("Mul", wide, 1 / math.prod(shape[i] for i in gone))
        return [wide, None][: len(node.inputs)]

    return rule


def _reshaped(b: Builder, node: ir.Node, g: ir.Value) -> Gradients | None:
    shape = static_shape(node.inputs[0])
    return None if shape is None else [b("Reshape", g, b.ints(*shape)), *([None] * (len(node.inputs) - 1))]


def _transposed(b: Builder, node: ir.Node, g: ir.Value) -> Gradients | None:
    shape = static_shape(node.inputs[0])
    if shape is None:
        return None
    perm = attr(node, "perm", tuple(reversed(range(len(shape)))))
    return [b("Transpose", g, perm=tuple(int(i) for i in np.argsort(perm)))]


def _concatenated(b: Builder, node: ir.Node, g: ir.Value) -> Gradients | None:
    """Each input's part of the gradient."""
    shapes = [static_shape(v) for v in node.inputs]
    results: Gradients = []
    begin = 0
    for shape in shapes:
        if shape is None:
            return None
        axis = int(attr(node, "axis")) % len(shape)
        results.append(b("Slice", g, b.ints(begin), b.ints(begin + shape[axis]), b.ints(axis)))
        begin += shape[axis]
    return results


def _cast(b: Builder, node: ir.Node, g: ir.Value) -> Gradients | None:
    x = node.inputs[0]
    if x is None or x.dtype is None:
        return None
    return [b("Cast", g, to=int(x.dtype))] if x.dtype.is_floating_point() else [None]


def _softmax(b: Builder, node: ir.Node, g: ir.Value) -> Gradients:
    """y · (g − Σ g·y)"""
    y = node.outputs[0]
    total = b("ReduceSum", b("Mul", g, y), b.ints(int(attr(node, "axis", -1))), keepdims=1)
    return [b("Mul", y, b("Sub", g, total))]


def _one_each(_b: Builder, node: ir.Node, g: ir.Value) -> Gradients:
    return [g] * len(node.inputs)


def _first(_b: Builder, node: ir.Node, g: ir.Value) -> Gradients:
    return [g, *([None] * (len(node.inputs) - 1))]


def _nothing(_b: Builder, node: ir.Node, _g: ir.Value) -> Gradients:
    return [None] * len(node.inputs)


#: Operator and its rule. What steps (Floor, Sign, comparisons) has the gradient 0.
RULES: dict[str, Rule] = {
    "Abs": _unary(lambda b, x, _: b("Sign", x)),
    "Add": _one_each,
    "Cast": _cast,
    "Ceil": _nothing,
    "Concat": _concatenated,
    "Cos": _unary(lambda b, x, _: b("Neg", b("Sin", x))),
    "Div": _div,
    "Equal": _nothing,
    "Erf": _unary(lambda b, x, _: b("Mul", b("Exp", b("Neg", b("Mul", x, x))), 2 / math.sqrt(math.pi))),
    "Exp": _unary(lambda _b, _x, y: y),
    "Expand": _first,
    "Flatten": _reshaped,
    "Floor": _nothing,
    "Gemm": _gemm,
    "Greater": _nothing,
    "Identity": _first,
    "LeakyRelu": _leaky_relu,
    "Less": _nothing,
    "Log": _unary(lambda b, x, _: b("Div", 1.0, x)),
    "MatMul": _matmul,
    "Mul": _mul,
    "Neg": lambda b, _node, g: [b("Neg", g)],
    "Pow": _pow,
    "Reciprocal": _unary(lambda b, _x, y: b("Neg", b("Mul", y, y))),
    "ReduceMean": _reduced(mean=True),
    "ReduceSum": _reduced(mean=False),
    "Relu": _relu,
    "Reshape": _reshaped,
    "Round": _nothing,
    "Shape": _nothing,
    "Sigmoid": _unary(lambda b, _x, y: b("Mul", y, b("Sub", 1.0, y))),
    "Sign": _nothing,
    "Sin": _unary(lambda b, x, _: b("Cos", x)),
    "Softmax": _softmax,
    "Softplus": _unary(lambda b, x, _: b("Sigmoid", x)),
    "Sqrt": _unary(lambda b, _x, y: b("Div", 0.5, y)),
    "Squeeze": _reshaped,
    "Sub": _sub,
    "Sum": _one_each,
    "Tanh": _unary(lambda b, _x, y: b("Sub", 1.0, b("Mul", y, y))),
    "Transpose": _transposed,
    "Unsqueeze": _reshaped,
    "Where": _where,
}


def summed_to(b: Builder, value: ir.Value, shape: tuple[int, ...], wanted: tuple[int, ...]) -> ir.Value:
    """A gradient of shape `shape`, summed over the axes along which an input of shape `wanted` was broadcast."""
    if shape == wanted:
        return value
    padded = (*([1] * (len(shape) - len(wanted))), *wanted)
    axes = [i for i, (have, want) in enumerate(zip(shape, padded, strict=True)) if have != want]
    summed = b("ReduceSum", value, b.ints(*axes), keepdims=1) if axes else value
    return summed if padded == wanted else b("Reshape", summed, b.ints(*wanted))
