"""A factor goes into the weights that read it, through everything that commutes with it, and nowhere else."""

from __future__ import annotations

import numpy as np
import pytest

from edgec.passes.absorb_scale import AbsorbScale
from edgec.passes.fold_constants import FoldConstants
from edgec.tensors import Array
from tests.support.graphs import assert_same, graph, operators, random_feeds

RNG = np.random.default_rng(2)
W = RNG.normal(0, 1, (4, 4, 1, 1)).astype(np.float32)
SIXTH = np.float32(1 / 6)


def absorbed(text: str, **constants: Array) -> dict[str, int]:
    source = graph(text, constants={"w": W, "c": np.asarray(SIXTH), **constants})
    FoldConstants().run(source)  # also infers shapes
    result = source.clone()
    AbsorbScale().run(result)
    assert_same(source, result, random_feeds(source), relative=1e-6)
    return operators(result)


def test_into_a_convolution() -> None:
    assert absorbed("(float[1,4,5,5] x) => (float[1,4,5,5] y) { s = Mul(x, c) y = Conv(s, w) }") == {"Conv": 1}


def test_through_pooling_and_gate_of_a_squeeze_and_excite_block() -> None:
    text = """(float[1,4,5,5] x) => (float[1,4,5,5] y) {
        s = Mul(c, x) g = GlobalAveragePool(s) e = Conv(g, w) h = Sigmoid(e) m = Mul(s, h) y = Conv(m, w) }"""
    assert absorbed(text) == {"GlobalAveragePool": 1, "Conv": 2, "Sigmoid": 1, "Mul": 1}


def test_through_a_sum_only_when_every_operand_carries_it() -> None:
    both = "(float[1,4,5,5] x) => (float[1,4,5,5] y) { s = Mul(x, c) r = Relu(s) a = Add(s, r) y = Conv(a, w) }"
    assert "Mul" not in absorbed(both)
    one = "(float[1,4,5,5] x) => (float[1,4,5,5] y) { s = Mul(x, c) a = Add(s, x) y = Conv(a, w) }"
    assert absorbed(one)["Mul"] == 1


@pytest.mark.parametrize(
    "body",
    [
        "s = Mul(x, c) y = Sigmoid(s)",
        "y = Mul(x, c)",
        "s = Mul(x, c) q = Mul(s, s) y = Conv(q, w)",
        "s = Mul(x, c) k = Sigmoid(s) v = Conv(s, w) y = Add(k, v)",
    ],
)
def test_stays_where_somebody_needs_it(body: str) -> None:
    assert absorbed(f"(float[1,4,5,5] x) => (float[1,4,5,5] y) {{ {body} }}")["Mul"] >= 1


def test_through_a_sum_with_a_constant() -> None:
    """c·x + b = c·(x + b/c), in front of weights: a hard swish and an affine of single numbers, as PP-LCNet has."""
    text = """(float[1,4,5,5] x) => (float[1,4,5,5] y) {
        s = Mul(x, c) t = Mul(s, k) a = Add(t, b) y = Conv<pads = [1, 1, 1, 1]>(a, v) }"""
    constants = {"k": np.asarray(np.float32(0.7)), "b": RNG.normal(0, 1, (1, 4, 1, 1)).astype(np.float32)}
    v = RNG.normal(0, 1, (4, 4, 3, 3)).astype(np.float32)
    assert absorbed(text, v=v, **constants) == {"Add": 1, "Conv": 1}
    both = "(float[1,4,5,5] x) => (float[1,4,5,5] y) { s = Mul(x, c) a = Sub(b, s) r = Relu(a) y = Conv(r, w) }"
    assert absorbed(both, b=constants["b"]) == {"Sub": 1, "Relu": 1, "Conv": 1}


def test_weights_that_float16_holds_stay_so_where_that_is_asked_for() -> None:
    source = graph(
        "(float[1,4,5,5] x) => (float[1,4,5,5] y) { s = Mul(x, c) y = Conv(s, w) }",
        constants={"w": W.astype(np.float16).astype(np.float32), "c": np.asarray(SIXTH)},
    )
    FoldConstants().run(source)
    assert not AbsorbScale(half=True).run(source)
    assert AbsorbScale().run(source)


def test_a_negative_factor_stays() -> None:
    text = "(float[1,4,5,5] x) => (float[1,4,5,5] y) { s = Mul(x, n) y = Conv(s, w) }"
    assert absorbed(text, n=np.asarray(np.float32(-0.5)))["Mul"] == 1


def test_shared_weights_are_not_changed_for_the_others() -> None:
    text = """(float[1,4,5,5] x) => (float[1,4,5,5] y) {
        s = Mul(x, c) a = Conv(s, w) b = Conv(x, w) y = Add(a, b) }"""
    assert absorbed(text) == {"Conv": 2, "Add": 1}
