"""Narrow types are carried by wider ones: what is computed, what the border remembers, and what is left alone."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import onnx_ir as ir
import pytest

from edgec.artifact import IoBinding
from edgec.errors import EdgecError
from edgec.graph.model import Model
from edgec.passes.carry_types import CarryTypes
from edgec.passes.pipelines import canonicalize
from edgec.tensors import Array, DType
from tests.support.graphs import graph, run_ort


def at_the_border(model: Model, **feeds: Array) -> list[Array]:
    """What the model gives to somebody who uses the source's types."""
    specs = zip(model.source_inputs(), model.inputs(), strict=True)
    inputs = {s.name: IoBinding(source=s, artifact=c).to_artifact(feeds[s.name]) for s, c in specs}
    results = run_ort(model, inputs)
    ends = zip(model.source_outputs(), model.outputs(), strict=True)
    return [IoBinding(source=s, artifact=c).to_source(results[s.name]) for s, c in ends]


def test_bfloat16_is_computed_in_float32_and_rounded_once() -> None:
    model = canonicalize(graph("(bfloat16[4] x, bfloat16[4] z) => (bfloat16[4] y) { a = Mul(x, z) y = Add(a, x) }"))
    assert {v.dtype for v in (*model.graph.inputs, *model.graph.outputs)} == {ir.DataType.FLOAT}
    assert [s.dtype for s in (*model.source_inputs(), *model.source_outputs())] == [DType.BFLOAT16] * 3
    x = np.asarray([1.0, 2.5, -3.0, 0.1], ml_dtypes.bfloat16)
    (y,) = at_the_border(model, x=x, z=x)
    wide = x.astype(np.float32)
    np.testing.assert_array_equal(
        y.astype(np.float32), (wide * wide + wide).astype(ml_dtypes.bfloat16).astype(np.float32)
    )


@pytest.mark.parametrize(
    ("name", "code", "largest"),
    [("float8_e4m3fn", 17, 448.0), ("float8_e5m2", 19, 57344.0), ("float4_e2m1fn", 23, 6.0)],
)
def test_casts_to_small_floats_saturate(name: str, code: int, largest: float) -> None:
    kind = name.replace("_", "").removesuffix("fn") if code == 23 else name.replace("_", "")
    model = canonicalize(graph(f"(float[5] x) => ({kind}[5] y) {{ y = Cast<to={code}>(x) }}"))
    x = np.asarray([0.5, 1e9, -1e9, np.inf, -1.5], np.float32)
    (y,) = at_the_border(model, x=x)
    assert y.dtype == np.dtype(getattr(ml_dtypes, name))
    np.testing.assert_array_equal(y.astype(np.float32), np.asarray([0.5, largest, -largest, largest, -1.5], np.float32))


def test_casts_to_few_bits_wrap() -> None:
    model = canonicalize(graph("(float[4] x) => (int4[4] y) { y = Cast<to=22>(x) }"))
    (y,) = at_the_border(model, x=np.asarray([-9, -8, 7, 8], np.float32))
    np.testing.assert_array_equal(y.astype(np.int8), np.asarray([7, -8, 7, -8], np.int8))


def test_quantization_to_few_bits_saturates_and_comes_back() -> None:
    text = """(float[4] x) => (uint4[4] q, float[4] y) <float s = {0.5}, uint4 z = {3}>
    { q = QuantizeLinear(x, s, z) y = DequantizeLinear(q, s, z) }"""
    model = canonicalize(graph(text))
    q, y = at_the_border(model, x=np.asarray([-9.0, 0.0, 1.0, 99.0], np.float32))
    np.testing.assert_array_equal(q.astype(np.uint8), np.asarray([0, 3, 5, 15], np.uint8))
    np.testing.assert_array_equal(y, np.asarray([-1.5, 0.0, 1.0, 6.0], np.float32))


def test_small_floats_are_read_exactly() -> None:
    text = "(float8e4m3fn[3] x, float s) => (float[3] y) { y = DequantizeLinear(x, s) }"
    model = canonicalize(graph(text))
    x = np.asarray([0.0625, -448.0, 3.5], ml_dtypes.float8_e4m3fn)
    (y,) = at_the_border(model, x=x, s=np.asarray(2.0, np.float32))
    np.testing.assert_array_equal(y, np.asarray([0.125, -896.0, 7.0], np.float32))


def test_a_small_float_between_operators_is_left_for_the_backend_to_refuse() -> None:
    model = graph("(float[3] x) => (float[3] y) { c = Cast<to=17>(x) y = Cast<to=1>(c) }")
    assert CarryTypes().run(model.clone()) is False


def test_a_cast_that_rounds_in_its_own_way_is_left() -> None:
    model = canonicalize(graph("(float[3] x) => (float8e8m0[3] y) { y = Cast<to=24>(x) }"))
    with pytest.raises(EdgecError) as caught:
        model.outputs()
    assert caught.value.code == "graph/unsupported-type"


def test_models_of_ordinary_types_are_not_touched() -> None:
    assert CarryTypes().run(graph("(float[3] x) => (float[3] y) { y = Relu(x) }")) is False


#: Every way to round: down, up, ties to even on both sides, into infinity, and numbers that stay.
ROUNDED = np.asarray(
    [
        1.0,
        1 + 2**-8,
        1 + 3 * 2**-8,
        1 + 2**-8 + 2**-20,
        -1.2345678,
        3.4e38,
        -3.38e38,
        np.inf,
        -np.inf,
        np.nan,
        0.0,
        3e-38,
    ],
    np.float32,
)
THERE_AND_BACK = "(float[12] x) => (float[12] y) { a = Cast<to=16>(x) y = Cast<to=1>(a) }"


def test_a_cast_to_bfloat16_and_back_rounds() -> None:
    model = canonicalize(graph(THERE_AND_BACK))
    with np.errstate(over="ignore"):
        expected = ROUNDED.astype(ml_dtypes.bfloat16).astype(np.float32)
    np.testing.assert_array_equal(run_ort(model, {"x": ROUNDED})["y"], expected)
    again = canonicalize(model)
    assert [n.op_type for n in again.nodes()] == [n.op_type for n in model.nodes()] == ["Cast", "Cast"]


def test_arithmetic_in_bfloat16_is_not_rounded_before() -> None:
    text = "(float[4] x) => (float[4] y) { a = Cast<to=16>(x) b = Mul(a, a) y = Cast<to=1>(b) }"
    assert [n.op_type for n in canonicalize(graph(text)).nodes()] == ["Mul"]
