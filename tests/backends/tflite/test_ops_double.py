"""float64 that LiteRT computes as float64, and float64 that is carried in float32, in LiteRT against numpy."""

from __future__ import annotations

import numpy as np
import pytest

from edgec.errors import EdgecError
from tests.support.graphs import graph
from tests.support.operators import check
from tests.support.tflite import emit

WIDE = np.array([[1e300, -2.5, 1e-310], [3e-8, 4.0, -1e200]])
ROW = np.array([[2e299, 1 / 3, -0.0]])


def test_sums_and_products_keep_range_and_digits() -> None:
    check("t = Sub(a, b)\n y = Add(t, b)", (WIDE - ROW) + ROW, a=WIDE, b=ROW, rtol=0, atol=0)
    check("y = Mul(a, b)", WIDE[1:] * ROW, a=WIDE[1:], b=ROW, rtol=0, atol=0)
    check("y = Neg(a)", -WIDE, a=WIDE, rtol=0, atol=0)
    check("y = Sum(a, b, a)", WIDE + ROW + WIDE, a=WIDE, b=ROW, rtol=0, atol=0)


def test_mean_rounds_once_more_than_a_division() -> None:
    check("y = Mean(a, b, b)", (WIDE + ROW + ROW) / 3, a=WIDE, b=ROW, rtol=1e-15, atol=0)


def test_moving_in_between_keeps_float64() -> None:
    check("t = Transpose <perm=[1, 0]> (a)\n y = Add(t, t)", 2 * WIDE.T, a=WIDE, rtol=0, atol=0)


@pytest.mark.parametrize("body", ["y = Sqrt(a)", "t = Add(a, a)\n y = Sqrt(t)"])
def test_a_model_with_anything_else_refuses_what_float32_cannot_hold(body: str) -> None:
    with pytest.raises(EdgecError, match="float32 cannot") as raised:
        check(body, np.abs(WIDE), a=np.abs(WIDE))
    assert raised.value.code == "io/value-range"


def test_a_runtime_with_a_table_of_kernels_computes_in_float32() -> None:
    model = graph("(double[2, 3] a) => (double[2, 3] y) { y = Add(a, a) }")
    assert emit(model).operators == {"STABLEHLO_ADD": 1}
    assert emit(model, target="cortex-m7").operators == {"ADD": 1}
