"""A factor goes up into what made its operand, as long as nobody else reads anything on the way."""

from __future__ import annotations

import numpy as np
import pytest

from edgec.passes.fold_constants import FoldConstants
from edgec.passes.lift_scale import LiftScale
from edgec.tensors import Array
from tests.support.graphs import assert_same, graph, operators, random_feeds

RNG = np.random.default_rng(2)
W = RNG.normal(0, 1, (8, 8)).astype(np.float32)
B = RNG.normal(0, 1, 8).astype(np.float32)
CONSTANTS: dict[str, Array] = {
    "w": W,
    "v": W.T.copy(),
    "b": B,
    "c": np.full((), 0.35, np.float32),
    "shape": np.asarray([1, 6, 2, 4], np.int64),
}
ATTENTION = """(float[1,6,8] x) => (float[1,2,6,6] y) {
    q = MatMul(x, w) qb = Add(q, b) qr = Reshape(qb, shape) qt = Transpose <perm=[0,2,1,3]> (qr)
    k = MatMul(x, v) kr = Reshape(k, shape) kt = Transpose <perm=[0,2,3,1]> (kr)
    s = MatMul(qt, kt) y = Mul(s, c) }"""


def lifted(text: str) -> dict[str, int]:
    source = graph(text, constants={name: value for name, value in CONSTANTS.items() if name in text})
    FoldConstants().run(source)  # also infers shapes
    result = source.clone()
    LiftScale().run(result)
    assert_same(source, result, random_feeds(source), relative=2e-6)
    return operators(result)


def test_the_scores_of_attention_are_scaled_by_the_queries_weights_and_bias() -> None:
    assert "Mul" not in lifted(ATTENTION)


def test_the_keys_take_it_where_the_queries_are_read_elsewhere() -> None:
    text = ATTENTION.replace("y = Mul(s, c)", "y = Mul(s, c) z = Relu(q)").replace("y) {", "y, float[1,6,8] z) {")
    assert "Mul" not in lifted(text)


@pytest.mark.parametrize(
    "body",
    [
        "s = Relu(x) y = Mul(s, c)",
        "y = Mul(x, c)",
        "s = MatMul(x, w) a = Add(s, x) y = Mul(a, c)",
        "s = MatMul(x, w) t = Mul(s, c) u = Relu(s) y = Add(t, u)",
        "s = MatMul(x, x) y = Mul(s, c)",
    ],
)
def test_stays_where_nothing_above_can_take_it(body: str) -> None:
    assert lifted(f"(float[8,8] x) => (float[8,8] y) {{ {body} }}")["Mul"] == 1


def test_weights_that_half_precision_holds_stay_so() -> None:
    half = {"w": W.astype(np.float16).astype(np.float32), "c": CONSTANTS["c"]}
    source = graph("(float[8,8] x) => (float[8,8] y) { s = MatMul(x, w) y = Mul(s, c) }", constants=half)
    FoldConstants().run(source)
    assert not LiftScale().run(source.clone())
    quarter = {**half, "c": np.full((), 0.25, np.float32)}
    source = graph("(float[8,8] x) => (float[8,8] y) { s = MatMul(x, w) y = Mul(s, c) }", constants=quarter)
    FoldConstants().run(source)
    assert LiftScale().run(source.clone())
