"""Sibling products as one: queries, keys and values of attention; and what keeps siblings apart."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest

from edgec.tensors import Array
from tests.support.plans import kernel, typed
from tests.support.tflite import assert_equal_to_ort, emit, emit_qdq

HEADS = {"s": np.asarray([1, 5, 2, 3])}


def operators(text: str, constants: Mapping[str, Array]) -> dict[str, int]:
    model = typed(text, constants)
    artifact = emit(model, io_layout="source")
    assert_equal_to_ort(model, artifact, relative=1e-5)
    return dict(artifact.operators)


def products(count: int, *, rows: int = 6) -> tuple[str, dict[str, Array]]:
    """`count` products of x with biases, each read as heads and transposed, then summed."""
    body, constants = "", dict[str, Array](HEADS)
    for i in range(count):
        constants |= {f"w{i}": kernel(4, rows, seed=i), f"b{i}": kernel(rows, seed=9 + i)}
        body += f"f{i} = MatMul(x, w{i}) g{i} = Add(f{i}, b{i}) r{i} = Reshape(g{i}, s) "
        body += f"t{i} = Transpose<perm=[0,2,1,3]>(r{i}) "
    total = ", ".join(f"t{i}" for i in range(count))
    return f"(float[1,5,4] x) => (float[1,2,5,3] y) {{ {body} y = Sum({total}) }}", constants


def test_three_products_are_one() -> None:
    assert operators(*products(3)) == {"FULLY_CONNECTED": 1, "RESHAPE": 1, "SPLIT": 1, "TRANSPOSE": 1, "ADD": 2}


def test_one_alone_stays() -> None:
    assert "SPLIT" not in operators(*products(1))


def test_groups_are_no_larger_than_the_delegate_splits() -> None:
    found = operators(*products(6))
    assert found["FULLY_CONNECTED"] == found["SPLIT"] == 2


def test_products_of_different_inputs_stay_apart() -> None:
    text, constants = products(2)
    text = text.replace("(float[1,5,4] x)", "(float[1,5,4] x, float[1,5,4] z)").replace(
        "MatMul(x, w1)", "MatMul(z, w1)"
    )
    assert operators(text, constants)["FULLY_CONNECTED"] == 2


def test_a_product_that_is_read_elsewhere_stays_apart() -> None:
    text, constants = products(2)
    text = text.replace("y) {", "y, float[1,5,6] g0) {")
    assert operators(text, constants)["FULLY_CONNECTED"] == 2


def test_reshapes_that_are_not_heads_stay_apart() -> None:
    text, constants = products(2)
    # the rows are regrouped too
    text = text.replace("float[1,2,5,3]", "float[1,3,5,2]").replace("perm=[0,2,1,3]", "perm=[0,3,1,2]")
    constants["s"] = np.asarray([1, 5, 2, 3])
    assert operators(text, constants)["FULLY_CONNECTED"] == 1
    constants["s"] = np.asarray([1, 10, 1, 3])
    text = text.replace("float[1,3,5,2]", "float[1,3,10,1]")
    assert operators(text, constants)["FULLY_CONNECTED"] == 2


@pytest.mark.parametrize("per_row", [True, False])
def test_integer_weights_merge_where_their_scales_run_along_rows(per_row: bool) -> None:
    text, constants = products(2)
    for i in range(2):
        scale = np.asarray([0.01, 0.02, 0.03, 0.04, 0.05, 0.06] if per_row else 0.03, np.float32)
        constants[f"k{i}"] = np.random.default_rng(i).integers(-100, 100, (4, 6)).astype(np.int8)
        constants[f"z{i}"] = np.zeros(scale.shape, np.int8)
        constants[f"w{i}"] = scale
        text = text.replace(
            f"f{i} = MatMul(x, w{i})", f"d{i} = DequantizeLinear<axis=1>(k{i}, w{i}, z{i}) f{i} = MatMul(x, d{i})"
        )
    model = typed(text, constants)
    artifact = emit_qdq(model, precision="dynamic")
    assert artifact.operators["FULLY_CONNECTED"] == (1 if per_row else 2)
    assert_equal_to_ort(model, artifact, relative=0.03)  # the runtime rounds the data to 8 bits


def test_quantized_results_stay_apart() -> None:
    text, constants = products(2)
    constants |= {"qs": np.asarray(0.05, np.float32), "qz": np.asarray(0, np.int8)}
    for i in range(2):
        text = text.replace(
            f"r{i} = Reshape(g{i}, s)",
            f"q{i} = QuantizeLinear(g{i}, qs, qz) e{i} = DequantizeLinear(q{i}, qs, qz) r{i} = Reshape(e{i}, s)",
        )
    model = typed(text, constants)
    assert emit_qdq(model).operators["FULLY_CONNECTED"] == 2


def test_pointwise_convolutions_do_not_care_how_positions_are_ordered() -> None:
    # the head of a detector: bins of a distribution, softmax over them, their mean by a 1 × 1 convolution
    model = typed(
        """(float[1,3,6,6] x) => (float[1,4,36] y) {
        a = Conv<kernel_shape=[1,1]>(x, w) r = Reshape(a, bins) t = Transpose<perm=[0,2,1,3]>(r)
        m = Softmax<axis=1>(t) c = Conv<kernel_shape=[1,1]>(m, v) y = Reshape(c, flat) }""",
        {
            "w": kernel(32, 3, 1, 1), "v": kernel(1, 8, 1, 1), "bins": np.asarray([1, 4, 8, 36]),
            "flat": np.asarray([1, 4, 36]),
        },
    )  # fmt: skip
    artifact = emit(model)
    assert_equal_to_ort(model, artifact, relative=1e-5)
    assert artifact.operators.get("TRANSPOSE", 0) == 0
