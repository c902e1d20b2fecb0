"""What legalization takes apart, and what it leaves."""

from __future__ import annotations

import pytest

from edgec.backends.base import Precision, load_backend
from edgec.passes.pipelines import canonicalize
from edgec.targets.load import load_target
from tests.support.graphs import assert_same, graph, operators, random_feeds
from tests.support.tflite import assert_equal_to_ort, emit

TEXT = "(float[2,8] x) => (float[2,8] y) { r = Relu(x) y = HardSwish(r) }"


def legal(text: str, precision: Precision, *, opset: int = 21) -> dict[str, int]:
    model = canonicalize(graph(text, opset=opset))
    result = load_backend("tflite").legalize(model, load_target("raspberrypi"), precision)
    assert_same(model, result, random_feeds(model), relative=2e-6)
    return operators(result)


@pytest.mark.parametrize("precision", ["int8", "int16x8"])
def test_integers_get_operators_with_integer_kernels(precision: Precision) -> None:
    found = legal(TEXT, precision)
    assert "HardSwish" not in found
    assert found["Clip"] == 1 and found["Mul"] == 2


@pytest.mark.parametrize("precision", ["float32", "float16", "dynamic"])
def test_floats_keep_the_operator(precision: Precision) -> None:
    assert legal(TEXT, precision) == {"Relu": 1, "HardSwish": 1}


def test_operator_without_a_lowering_becomes_its_body() -> None:
    text = "(float[2,3,4,5] x) => (float[2,3,4,5] y) { y = MeanVarianceNormalization(x) }"
    assert "MeanVarianceNormalization" not in legal(text, "float32")
    model = graph(text)
    assert_equal_to_ort(model, emit(model), relative=5e-6)


def test_node_that_its_lowering_refuses_becomes_its_body() -> None:
    text = "(float[2,8] x, float[8] s) => (float[2,8] y, float[2,1] m) { y, m = LayerNormalization <axis=1> (x, s) }"
    assert "LayerNormalization" not in legal(text, "float32")
    model = graph(text)
    assert_equal_to_ort(model, emit(model), relative=5e-6)


def test_body_inside_a_branch_is_taken_apart_too() -> None:
    text = (
        "(bool c, float[2,8] x) => (float[2,8] y) { y = If (c) <"
        "then_branch = t () => (float[2,8] a) { a = HardSwish(x) }, "
        "else_branch = e () => (float[2,8] b) { b = Neg(x) }> }"
    )
    model = canonicalize(graph(text))
    result = load_backend("tflite").legalize(model, load_target("raspberrypi"), "int8")
    assert all(node.op_type != "HardSwish" for node in result.ir.graph.all_nodes())
