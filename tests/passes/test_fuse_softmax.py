"""A Softmax in pieces comes back as one operator, and nothing else is taken for one."""

from __future__ import annotations

import numpy as np
import pytest

from edgec.passes.fuse_softmax import SOFTMAX_RULES, DropShift, FuseSoftmax
from edgec.tensors import Array
from tests.support.graphs import graph
from tests.support.rewriting import refused, rewritten

CONSTANTS: dict[str, Array] = {"last": np.asarray([-1], np.int64), "shape": np.asarray([2, 3, 1], np.int64)}


@pytest.mark.parametrize(
    "body",
    [
        "e = Exp(x) t = ReduceSum(e, last) y = Div(e, t)",
        "e = Exp(x) t = ReduceSum<keepdims=0>(e, last) k = Reshape(t, shape) y = Div(e, k)",
        "e = Exp(x) t = ReduceSum<keepdims=0>(e, last) k = Unsqueeze(t, last) y = Div(e, k)",
        "e = Exp(x) t = ReduceSum(e, last) r = Reciprocal(t) y = Mul(e, r)",
        "m = ReduceMax<keepdims=0>(x, last) c = Clip(m) k = Reshape(c, shape) s = Sub(x, k) y = Softmax(s)",
    ],
)
def test_softmax_in_pieces(body: str) -> None:
    source = graph(f"(float[2,3,8] x) => (float[2,3,8] y) {{ {body} }}", constants=CONSTANTS)
    assert rewritten(source, SOFTMAX_RULES, relative=2e-6) == {"Softmax": 1}


def test_a_sum_over_several_axes_is_refused() -> None:
    constants = {"axes": np.asarray([1, 2], np.int64)}
    body = "e = Exp(x) t = ReduceSum(e, axes) y = Div(e, t)"
    source = graph(f"(float[2,3,8] x) => (float[2,3,8] y) {{ {body} }}", constants=constants)
    assert refused(source, [FuseSoftmax()]) == ["the sum does not run over one known axis"]


def test_a_divisor_that_lies_across_is_refused() -> None:
    body = "e = Exp(x) t = ReduceSum<keepdims=0>(e, last) y = Div(e, t)"
    source = graph(f"(float[3,3] x) => (float[3,3] y) {{ {body} }}", constants=CONSTANTS)
    # Without a place for the axis the sums lie along the columns.
    assert refused(source, [FuseSoftmax()]) == ["the divisor is not one number for each Softmax"]


def test_a_shift_that_is_not_the_largest_stays() -> None:
    source = graph("(float[2,3,8] x, float[2,3,1] m) => (float[2,3,8] y) { s = Sub(x, m) y = Softmax(s) }")
    assert refused(source, [DropShift()]) == ["the shift is not the largest value"]


def test_exponentials_that_are_read_elsewhere_stay() -> None:
    body = "e = Exp(x) t = ReduceSum(e, last) y = Div(e, t)"
    source = graph(f"(float[2,3,8] x) => (float[2,3,8] y, float[2,3,8] e) {{ {body} }}", constants=CONSTANTS)
    assert refused(source, [FuseSoftmax()]) == ["a value inside the pattern is read elsewhere"]
