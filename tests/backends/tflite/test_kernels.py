"""A runtime with few kernels: what it lacks is found, decomposed where it can be, and kept in float where it must."""

from __future__ import annotations

import pytest

from edgec.backends.base import load_backend
from edgec.backends.tflite.kernels import has_kernel, kernels_of, working_type
from edgec.backends.tflite.tir import Op, Storage, Tensor
from edgec.errors import EdgecError
from edgec.passes.pipelines import canonicalize
from edgec.targets.load import load_target
from edgec.tensors import DType, QParams
from tests.support.graphs import graph
from tests.support.plans import typed
from tests.support.tflite import emit, emit_qdq

MICRO, LINUX = load_target("cortex-m4"), load_target("linux-x86_64")
GELU = "(float[1,8] x) => (float[1,8] y) { y = Gelu(x) }"


def test_a_table_without_rows_has_every_kernel() -> None:
    assert kernels_of(LINUX) == {}
    assert has_kernel({}, "ANYTHING", DType.INT16)


def test_rows() -> None:
    table = {"CONV_2D": ["float32", "int8"], "WHILE": []}
    assert has_kernel(table, "CONV_2D", DType.INT8)
    assert has_kernel(table, "CONV_2D")
    assert not has_kernel(table, "CONV_2D", DType.INT16)
    assert has_kernel(table, "WHILE", DType.INT64), "no types: any"
    assert not has_kernel(table, "ATAN2")


def test_the_working_type_is_that_of_the_computed_values() -> None:
    stored = Storage(DType.INT8, QParams.per_tensor(0.1, 0))
    x = Tensor("x", (1, 8), DType.FLOAT32, storage=stored)
    shape = Tensor("s", (1,), DType.INT32)
    assert working_type(Op("RESHAPE", [x, shape], [Tensor("y", (8,), DType.FLOAT32, storage=stored)])) == DType.INT8


def test_an_operator_that_works_on_nothing_has_no_working_type() -> None:
    assert working_type(Op("CALL_ONCE", [], [])) is None


def test_an_operator_that_the_runtime_has_not_is_taken_apart() -> None:
    assert "GELU" in emit(graph(GELU)).operators
    micro = emit(graph(GELU), target="cortex-m4").operators
    assert "GELU" not in micro
    assert set(micro) <= set(kernels_of(MICRO))


def test_what_cannot_be_taken_apart_is_named_with_the_remedy() -> None:
    text = "(float[4] x) => (float[2] v, int64[2] i) <int64[1] k = {2}> { v, i = TopK(x, k) }"
    model = canonicalize(graph(text))
    findings = load_backend("tflite").check(model, MICRO)
    missing = [f for f in findings if f.code == "backend/no-kernel"]
    assert missing, findings
    assert all("tflite-micro has no kernel" in f.message and f.hint for f in missing)
    assert not [f for f in load_backend("tflite").check(model, LINUX) if f.code == "backend/no-kernel"]
    with pytest.raises(EdgecError) as caught:
        emit(graph(text), target="cortex-m4")
    assert caught.value.exit_code == 5


QDQ = """(float[1,8] x) => (float[1,8] y)
<float s = {0.05}, int8 z = {0}>
{
    qx = QuantizeLinear(x, s, z)
    dx = DequantizeLinear(qx, s, z)
    e = EXPRESSION(dx)
    qe = QuantizeLinear(e, s, z)
    y = DequantizeLinear(qe, s, z)
}"""


@pytest.mark.parametrize(
    ("operator", "kind", "stays"), [("Relu", "RELU", True), ("Abs", "ABS", True), ("Exp", "EXP", False)]
)
def test_an_operator_without_an_int8_kernel_stays_in_float(operator: str, kind: str, stays: bool) -> None:
    operators = emit_qdq(typed(QDQ.replace("EXPRESSION", operator)), target="cortex-m4").operators
    assert kind in operators
    assert ("DEQUANTIZE" in operators) != stays
    assert ("int8" in kernels_of(MICRO)[kind]) == stays
