"""Activations that were taken apart come back, and only where they are what they look like."""

from __future__ import annotations

import pytest

from edgec.passes.fuse_activations import (
    ACTIVATION_RULES,
    Bounds,
    Gelu,
    HardSigmoid,
    HardSwish,
    LeakyRelu,
)
from tests.support.graphs import graph
from tests.support.rewriting import refused, rewritten


def unary(body: str) -> str:
    return f"(float[2,8] x) => (float[2,8] y) {{ {body} }}"


C = "{n} = Constant <value = float {{{v}}}> ()"


def const(name: str, value: float) -> str:
    return C.format(n=name, v=value)


SIX = f"{const('t', 3.0)} {const('z', 0.0)} {const('s', 6.0)} a = Add(x, t) c = Clip(a, z, s)"
ROOT2 = f"{const('r', 1.41421356)} {const('o', 1.0)} {const('h', 0.5)}"

POSITIVE = {
    "relu6 of max and min": (f"{const('z', 0.0)} {const('s', 6.0)} m = Max(x, z) y = Min(m, s)", {"Clip": 1}),
    "relu6 of relu and clip": (f"{const('s', 6.0)} r = Relu(x) y = Clip(r, , s)", {"Clip": 1}),
    "relu of clip": (f"{const('z', 0.0)} y = Clip(x, z)", {"Relu": 1}),
    "relu of max": (f"{const('z', 0.0)} y = Max(z, x)", {"Relu": 1}),
    "clip of clip": (
        (
            f"{const('a', -3.0)} {const('b', 1.0)} {const('c', -2.0)} {const('d', 2.0)} "
            "p = Clip(x, a, b) y = Clip(p, c, d)"
        ),
        {"Clip": 1},
    ),
    "hard sigmoid": (f"{SIX} y = Div(c, s)", {"HardSigmoid": 1}),
    "hard sigmoid by product": (f"{SIX} {const('i', 0.16666667)} y = Mul(i, c)", {"HardSigmoid": 1}),
    "hard swish, product first": (f"{SIX} m = Mul(x, c) y = Div(m, s)", {"HardSwish": 1}),
    "hard swish, quotient first": (f"{SIX} d = Div(c, s) y = Mul(d, x)", {"HardSwish": 1}),
    "hard swish of hard sigmoid": (
        "h = HardSigmoid <alpha=0.16666667, beta=0.5> (x) y = Mul(h, x)",
        {"HardSwish": 1},
    ),
    "gelu": (
        f"{ROOT2} d = Div(x, r) e = Erf(d) p = Add(e, o) m = Mul(x, p) y = Mul(m, h)",
        {"Gelu": 1},
    ),
    "gelu, half first": (
        f"{ROOT2} d = Div(x, r) e = Erf(d) p = Add(o, e) m = Mul(h, x) y = Mul(m, p)",
        {"Gelu": 1},
    ),
    "gelu by tanh": (
        (
            f"{const('k', 0.7978846)} {const('c', 0.044715)} {const('e3', 3.0)} {ROOT2} q = Pow(x, e3) w = Mul(q, c) "
            "a = Add(x, w) b = Mul(a, k) t = Tanh(b) p = Add(t, o) m = Mul(x, p) y = Mul(m, h)"
        ),
        {"Gelu": 1},
    ),
    "leaky relu": (f"{const('a', 0.1)} m = Mul(x, a) y = Max(x, m)", {"LeakyRelu": 1}),
    "mish": ("s = Softplus(x) t = Tanh(s) y = Mul(x, t)", {"Mish": 1}),
    "swish stays": ("s = Sigmoid(x) y = Mul(x, s)", {"Sigmoid": 1, "Mul": 1}),
}


@pytest.mark.parametrize("name", POSITIVE)
def test_pattern_becomes_one_operator(name: str) -> None:
    body, wanted = POSITIVE[name]
    assert rewritten(graph(unary(body)), ACTIVATION_RULES, relative=5e-7) == wanted


def test_hard_sigmoid_of_another_slope_is_no_swish() -> None:
    source = graph(unary("h = HardSigmoid <alpha=0.2, beta=0.5> (x) y = Mul(h, x)"))
    assert refused(source, [HardSwish()]) == ["HardSigmoid has slope 0.2, not 1/6"]


def test_value_inside_read_elsewhere() -> None:
    text = f"(float[4] x) => (float[4] y, float[4] w) {{ {SIX} y = Div(c, s) w = Neg(a) }}"
    assert refused(graph(text), [HardSigmoid()]) == ["a value inside the pattern is read elsewhere"]


def test_value_inside_is_an_output() -> None:
    text = f"(float[4] x) => (float[4] y, float[4] c) {{ {SIX} y = Div(c, s) }}"
    assert refused(graph(text), [HardSigmoid()]) == ["a value inside the pattern is read elsewhere"]


def test_other_constant_is_no_gelu() -> None:
    body = f"{ROOT2} {const('q', 1.5)} d = Div(x, q) e = Erf(d) p = Add(e, o) m = Mul(x, p) y = Mul(m, h)"
    assert refused(graph(unary(body)), [Gelu()]) == []


def test_slope_above_one_is_no_leaky_relu() -> None:
    source = graph(unary(f"{const('a', 1.5)} m = Mul(x, a) y = Max(x, m)"))
    assert refused(source, [LeakyRelu()]) == ["slope 1.5 is not in [0, 1)"]


def test_bounds_that_exclude_each_other() -> None:
    bounds = " ".join(const(name, value) for name, value in (("a", 1.0), ("b", 2.0), ("c", -2.0), ("d", -1.0)))
    source = graph(unary(f"{bounds} p = Clip(x, a, b) y = Clip(p, c, d)"))
    assert refused(source, [Bounds()]) == ["the bounds exclude each other"]


def test_constant_that_broadcasts_is_no_bound() -> None:
    text = "(float[4] x) => (float[2,4] y) { k = Constant <value = float[2,1] {0.0, 0.0}> () y = Max(x, k) }"
    assert refused(graph(text), [Bounds()]) == []
