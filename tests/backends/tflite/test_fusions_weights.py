"""Factors and offsets in weights: they fire where the result is the same, and leave weights alone that must stay."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest

from edgec.backends.base import Precision
from edgec.graph.model import Model
from edgec.tensors import Array
from tests.support.plans import kernel, typed
from tests.support.tflite import assert_equal_to_ort, emit, emit_qdq

RELATIVE = 1e-5


def operators(text: str, constants: Mapping[str, Array], *, precision: Precision = "float32") -> dict[str, int]:
    """What a graph becomes; it computes the same."""
    model: Model = typed(text, constants)
    artifact = emit(model, precision=precision, io_layout="source")
    assert_equal_to_ort(model, artifact, relative=RELATIVE)
    return dict(artifact.operators)


W = {"w": kernel(6, 12)}
THIRD = {"c": np.asarray(0.3, np.float32)}
TAIL = "(float[1,5,6] x) => (float[1,4,5,3] y)"


# --- rule 1: factors behind a product -----------------------------------------------------------------


def test_a_factor_behind_movers_goes_into_the_weights() -> None:
    text = f"{TAIL} {{ a = MatMul(x, w) r = Reshape(a, s) t = Transpose<perm=[0,2,1,3]>(r) y = Mul(t, c) }}"
    found = operators(text, {**W, **THIRD, "s": np.asarray([1, 5, 4, 3])})
    assert found == {"FULLY_CONNECTED": 1, "RESHAPE": 1, "TRANSPOSE": 1}


def test_a_factor_on_one_part_of_a_split() -> None:
    text = """(float[1,5,6] x) => (float[1,5,6] y, float[1,5,6] z) {
        a = MatMul(x, w) p, q = Split<axis=2, num_outputs=2>(a) m = Mul(p, c) y = Sin(m) z = Sin(q) }"""
    assert operators(text, {**W, **THIRD}) == {"FULLY_CONNECTED": 1, "SPLIT": 1, "SIN": 2}


def test_a_factor_a_channel() -> None:
    text = (
        "(float[1,5,6] x) => (float[1,5,12] y) { a = MatMul(x, w) r = Reshape(a, s) m = Mul(r, g) y = Reshape(m, t) }"
    )
    shapes = {"s": np.asarray([1, 5, 4, 3]), "t": np.asarray([1, 5, 12])}
    assert operators(text, {**W, **shapes, "g": kernel(4, 3)}) == {"FULLY_CONNECTED": 1}


def test_a_factor_that_differs_within_a_channel_stays() -> None:
    text = "(float[1,5,6] x) => (float[1,5,12] y) { a = MatMul(x, w) y = Mul(a, g) }"
    assert operators(text, {**W, "g": kernel(5, 1)}) == {"FULLY_CONNECTED": 1, "MUL": 1}


def test_a_split_across_channels_stays() -> None:
    # both parts hold values of every channel
    text = """(float[1,4,6] x) => (float[1,2,12] y, float[1,2,12] z) {
        a = MatMul(x, w) p, q = Split<axis=1, num_outputs=2>(a) m = Mul(p, c) y = Sin(m) z = Sin(q) }"""
    assert operators(text, {**W, **THIRD})["MUL"] == 1


def test_a_product_that_is_read_elsewhere_stays() -> None:
    text = """(float[1,5,6] x) => (float[1,5,12] y, float[1,5,12] z) {
        a = MatMul(x, w) m = Mul(a, c) y = Sin(m) z = Cos(a) }"""
    assert operators(text, {**W, **THIRD})["MUL"] == 1


@pytest.mark.parametrize(("factor", "left"), [(0.5, 0), (-0.5, 1)])
def test_behind_a_relu_only_positive_factors_move(factor: float, left: int) -> None:
    text = """(float[1,5,6] x) => (float[1,12,5] y) {
        a = MatMul(x, w) r = Relu(a) t = Transpose<perm=[0,2,1]>(r) y = Mul(t, c) }"""
    found = operators(text, {**W, "c": np.asarray(factor, np.float32)})
    assert found.get("MUL", 0) == left and "RELU" not in found


def test_float16_weights_take_only_factors_that_round_nothing() -> None:
    text = f"{TAIL} {{ a = MatMul(x, w) r = Reshape(a, s) t = Transpose<perm=[0,2,1,3]>(r) y = Mul(t, c) }}"
    half = {"w": kernel(6, 12).astype(np.float16).astype(np.float32), "s": np.asarray([1, 5, 4, 3])}
    assert "MUL" in operators(text, {**half, **THIRD}, precision="float16")
    assert "MUL" not in operators(text, {**half, "c": np.asarray(0.25, np.float32)}, precision="float16")
    # 2⁻²⁰ is a power of two, but so small that 16 bits lose digits
    assert "MUL" in operators(text, {**half, "c": np.asarray(2.0**-20, np.float32)}, precision="float16")


def test_int8_weights_of_float_data_keep_their_integers() -> None:
    constants: dict[str, Array] = {
        "k": np.arange(-36, 36, dtype=np.int8).reshape(6, 12), "ws": np.asarray(0.05, np.float32),
        "wz": np.asarray(0, np.int8), **THIRD,
    }  # fmt: skip
    text = """(float[1,5,6] x) => (float[1,12,5] y) {
        w = DequantizeLinear(k, ws, wz) a = MatMul(x, w) t = Transpose<perm=[0,2,1]>(a) y = Mul(t, c) }"""
    model = typed(text, constants)
    artifact = emit_qdq(model, precision="dynamic")
    assert "MUL" not in artifact.operators
    assert_equal_to_ort(model, artifact, relative=0.03)  # the runtime rounds the data to 8 bits


# --- rule 2: scale and offset in front of products ----------------------------------------------------

NORM = {"g": kernel(6), "o": kernel(6, seed=1)}


def test_a_norms_own_scale_and_bias_go_into_the_products_behind_it() -> None:
    text = """(float[1,5,6] x) => (float[1,5,12] y, float[1,5,12] z) {
        n = LayerNormalization<axis=-1>(x, g, o) y = MatMul(n, w) z = MatMul(n, v) }"""
    found = operators(text, {**W, "v": kernel(6, 12, seed=2), **NORM})
    assert found["MUL"] == 1 and found["ADD"] == 1  # x · rsqrt(…) and variance + ε
    assert found["FULLY_CONNECTED"] == 2


def test_a_norm_that_others_read_too_keeps_them() -> None:
    text = """(float[1,5,6] x) => (float[1,5,12] y, float[1,5,6] z) {
        n = LayerNormalization<axis=-1>(x, g, o) y = MatMul(n, w) z = Sin(n) }"""
    found = operators(text, {**W, **NORM})
    assert found["MUL"] == 2 and found["ADD"] == 2


def test_an_offset_a_row_stays() -> None:
    text = "(float[1,5,6] x) => (float[1,5,12] y) { a = Add(x, o) y = MatMul(a, w) }"
    assert operators(text, {**W, "o": kernel(5, 1)}) == {"ADD": 1, "FULLY_CONNECTED": 1}
    assert operators(text, {**W, "o": kernel(6)}) == {"FULLY_CONNECTED": 1}


def test_products_of_two_computed_matrices_have_no_weights() -> None:
    text = "(float[1,5,6] x, float[1,6,4] z) => (float[1,5,4] y) { a = Mul(x, g) y = MatMul(a, z) }"
    assert operators(text, {"g": kernel(6)}) == {"MUL": 1, "BATCH_MATMUL": 1}


def test_float16_weights_take_no_scale() -> None:
    text = "(float[1,5,6] x) => (float[1,5,12] y) { a = Mul(x, g) y = MatMul(a, w) }"
    assert operators(text, {**W, "g": kernel(6)}, precision="float16") == {"MUL": 1, "FULLY_CONNECTED": 1}
    # a bias stays in 32 bits
    text = "(float[1,5,6] x) => (float[1,5,12] y) { a = Add(x, g) y = MatMul(a, w) }"
    assert operators(text, {**W, "g": kernel(6)}, precision="float16") == {"FULLY_CONNECTED": 1}


def test_int8_weights_take_an_offset_but_no_scale() -> None:
    constants: dict[str, Array] = {
        "k": np.arange(-36, 36, dtype=np.int8).reshape(6, 12), "ws": np.asarray(0.05, np.float32),
        "wz": np.asarray(0, np.int8), "g": kernel(6),
    }  # fmt: skip
    for op, left in (("Add", {"FULLY_CONNECTED": 1}), ("Mul", {"FULLY_CONNECTED": 1, "MUL": 1})):
        body = f"w = DequantizeLinear(k, ws, wz) a = {op}(x, g) y = MatMul(a, w)"
        text = f"(float[1,5,6] x) => (float[1,5,12] y) {{ {body} }}"
        model = typed(text, constants)
        artifact = emit_qdq(model, precision="dynamic")
        assert artifact.operators == left
        assert_equal_to_ort(model, artifact, relative=0.03)
