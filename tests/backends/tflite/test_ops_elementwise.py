"""Elementwise operators in LiteRT against numpy, at every element type, with the values that go wrong."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from edgec.errors import EdgecError
from edgec.tensors import Array
from tests.support.graphs import graph
from tests.support.operators import check
from tests.support.tflite import emit

INTEGERS = ["int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"]
NUMBERS = ["float16", "float32", *INTEGERS]


def edges(dtype: str, seed: int = 0) -> Array:
    """Random values with the type's own limits among them."""
    rng = np.random.default_rng(seed)
    if dtype.startswith("float"):
        return rng.uniform(-4, 4, (3, 4)).astype(dtype)
    info = np.iinfo(dtype)
    values = rng.integers(info.min, info.max, (3, 4), dtype=dtype, endpoint=True)
    values.flat[:4] = [info.max, info.min, 0, 1]
    return values


@pytest.mark.parametrize("dtype", NUMBERS)
@pytest.mark.parametrize(("op", "function"), [("Add", np.add), ("Sub", np.subtract), ("Mul", np.multiply)])
def test_arithmetic_wraps_around_like_onnx(op: str, function: Any, dtype: str) -> None:
    a, b = edges(dtype), edges(dtype, 1)
    with np.errstate(over="ignore"):
        expected = function(a, b)
    check(f"y = {op}(a, b)", expected, a=a, b=b, rtol=1e-3 if dtype == "float16" else 1e-6)


@pytest.mark.parametrize("dtype", INTEGERS)
def test_division_truncates(dtype: str) -> None:
    a, b = edges(dtype), edges(dtype, 5)
    b = np.where(b == 0, 3, b).astype(dtype)
    b.flat[4:] = np.resize(np.array([2, 3, 7], dtype), 8)
    if dtype.startswith("int"):
        b.flat[1::2] = -b.flat[1::2]
        b.flat[1] = 5  # the smallest number by -1 overflows
    expected = [
        abs(int(x)) // abs(int(d)) * (1 if (x < 0) == (d < 0) else -1) for x, d in zip(a.flat, b.flat, strict=True)
    ]
    check("y = Div(a, b)", np.array(expected, dtype).reshape(3, 4), a=a, b=b)


@pytest.mark.parametrize("dtype", ["uint64", "int64"])
def test_division_of_large_numbers_is_exact(dtype: str) -> None:
    top = np.iinfo(dtype).max
    a = np.array([top, top, top - 1, top // 3, 10**18 + 7, 2**53 + 1], dtype)
    b = np.array([1, 3, top, 7, 10**9 + 7, 2], dtype)
    check("y = Div(a, b)", np.array([int(x) // int(d) for x, d in zip(a, b, strict=True)], dtype), a=a, b=b)
    check("y = Mod(a, b)", np.array([int(x) % int(d) for x, d in zip(a, b, strict=True)], dtype), a=a, b=b)


@pytest.mark.parametrize("dtype", ["int8", "int16", "int32", "int64"])
def test_the_sign_of_a_remainder(dtype: str) -> None:
    a, b = np.array([-4, 7, 5, 4, -7, 8, -8], dtype), np.array([2, -3, 8, -2, 3, 5, -5], dtype)
    check("y = Mod(a, b)", np.mod(a, b), a=a, b=b)
    check("y = Mod <fmod=1> (a, b)", np.fmod(a, b), a=a, b=b)


def test_the_remainder_of_floats_has_the_sign_of_the_dividend() -> None:
    a, b = np.float32([-4.3, 7.2, 5.0, 4.3, -7.2, 8.0]), np.float32([2.1, -3.4, 8.0, -2.1, 3.4, 5.0])
    check("y = Mod <fmod=1> (a, b)", np.fmod(a, b), a=a, b=b, rtol=1e-6)


@pytest.mark.parametrize("exponent", ["int32", "int64", "uint8", "float32"])
@pytest.mark.parametrize("dtype", ["int32", "int64"])
def test_integer_powers_are_exact(dtype: str, exponent: str) -> None:
    a, b = np.array([3, -2, 7, 0, 1, -1], dtype), np.array([19, 5, 0, 0, 60, 61], exponent)
    check("y = Pow(a, b)", np.array([3**19, -32, 1, 1, 1, -1], dtype), a=a, b=b)


def test_negative_powers_of_integers() -> None:
    a, b = np.array([2, 1, -1, -1], np.int32), np.array([-1, -5, -3, -2], np.int32)
    check("y = Pow(a, b)", np.array([0, 1, -1, 1], np.int32), a=a, b=b)


@pytest.mark.parametrize("dtype", [*NUMBERS, "bool"])
def test_equality(dtype: str) -> None:
    a = edges(dtype) if dtype != "bool" else np.array([True, False, True])
    b = np.where(np.arange(a.size).reshape(a.shape) % 2 == 0, a, np.roll(a, 1)).astype(dtype)
    check("y = Equal(a, b)", a == b, a=a, b=b)


@pytest.mark.parametrize("dtype", NUMBERS)
@pytest.mark.parametrize(("op", "function"), [("Less", np.less), ("GreaterOrEqual", np.greater_equal)])
def test_order(op: str, function: Any, dtype: str) -> None:
    a, b = edges(dtype), edges(dtype)[:, ::-1].copy()
    check(f"y = {op}(a, b)", function(a, b), a=a, b=b)


@pytest.mark.parametrize("dtype", NUMBERS)
@pytest.mark.parametrize(("op", "function"), [("Max", np.maximum), ("Min", np.minimum)])
def test_extremes_of_three(op: str, function: Any, dtype: str) -> None:
    a, b, c = edges(dtype), edges(dtype, 2), edges(dtype, 3)
    check(f"y = {op}(a, b, c)", function(function(a, b), c), a=a, b=b, c=c)


@pytest.mark.parametrize("dtype", ["float32", "int8", "uint8", "int64", "uint64"])
def test_clip_with_computed_bounds(dtype: str) -> None:
    x = edges(dtype)
    low, high = np.asarray(1, dtype), np.asarray(3, dtype)
    expected = np.clip(x, low, high)
    check("y = Clip(x, low, high)", expected, x=x, low=low, high=high)
    check("y = Clip(x, , high)", np.minimum(x, high), x=x, high=high)


@pytest.mark.parametrize(("op", "function"), [("Abs", np.abs), ("Sign", np.sign), ("Neg", np.negative)])
@pytest.mark.parametrize("dtype", NUMBERS)
def test_signs(op: str, function: Any, dtype: str) -> None:
    if op == "Neg" and dtype.startswith("u"):
        pytest.skip("Neg is for signed types")
    x = edges(dtype)
    if dtype.startswith("int"):
        x.flat[1] += 1  # the smallest number has no positive counterpart
    check(f"y = {op}(x)", function(x), x=x)


@pytest.mark.parametrize("dtype", ["bool", *NUMBERS, "float64"])
def test_where_of_every_type(dtype: str) -> None:
    a = np.arange(6).reshape(2, 3).astype(dtype)
    b = (np.arange(6)[::-1].reshape(2, 3)).astype(dtype)
    c = np.array([True, False, True])
    check("y = Where(c, a, b)", np.where(c, a, b), c=c, a=a, b=b)


@pytest.mark.parametrize("rank", [0, 1, 5, 6])
def test_broadcasting_at_every_rank(rank: int) -> None:
    rng = np.random.default_rng(rank)
    a = rng.uniform(-1, 1, [2 if i % 2 else 1 for i in range(rank)]).astype(np.float32)
    b = rng.uniform(-1, 1, [1 if i % 2 else 3 for i in range(rank)]).astype(np.float32)
    check("y = Add(a, b)", a + b, a=a, b=b, rtol=1e-6)
    check("y = Less(a, b)", np.less(a, b), a=a, b=b)
    check("c = Less(a, b) y = Where(c, a, b)", np.where(a < b, a, b), a=a, b=b)


def test_tensors_without_elements() -> None:
    a = np.zeros((0, 3), np.float32)
    check("y = Add(a, a)", a, a=a)


# --- bits ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", INTEGERS)
@pytest.mark.parametrize(
    ("op", "function"),
    [("BitwiseAnd", np.bitwise_and), ("BitwiseOr", np.bitwise_or), ("BitwiseXor", np.bitwise_xor)],
)
def test_bits(op: str, function: Any, dtype: str) -> None:
    a, b = edges(dtype), edges(dtype, 4)[0]
    check(f"y = {op}(a, b)", function(a, b), a=a, b=b)


def test_bits_of_six_axes() -> None:
    a = np.arange(8, dtype=np.int64).reshape(2, 1, 2, 1, 2, 1) * 10**12
    b = np.arange(4, dtype=np.int64).reshape(1, 2, 1, 2, 1, 1) - 2
    check("y = BitwiseAnd(a, b)", a & b, a=a, b=b)
    check("y = BitwiseNot(a)", ~a, a=a)


@pytest.mark.parametrize("dtype", INTEGERS)
def test_complement(dtype: str) -> None:
    check("y = BitwiseNot(x)", np.invert(edges(dtype)), x=edges(dtype))


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "uint32", "uint64"])
@pytest.mark.parametrize("direction", ["LEFT", "RIGHT"])
def test_shifts(direction: str, dtype: str) -> None:
    width = np.iinfo(dtype).bits
    x = np.resize(edges(dtype), 8)
    s = np.array([0, 1, 3, width // 2, width // 2 + 1, width - 1, width, 7], dtype)
    mask = (1 << width) - 1
    shifted = [int(v) << int(n) & mask if direction == "LEFT" else int(v) >> int(n) for v, n in zip(x, s, strict=True)]
    check(f'y = BitShift <direction="{direction}"> (x, s)', np.array(shifted, dtype), x=x, s=s)


# --- casts --------------------------------------------------------------------------------------------

CODES = {"float16": 10, "float32": 1, "float64": 11, "int8": 3, "uint8": 2, "int16": 5, "uint16": 4, "int32": 6}
CODES |= {"uint32": 12, "int64": 7, "uint64": 13, "bool": 9}


@pytest.mark.parametrize("target", CODES)
@pytest.mark.parametrize("source", CODES)
def test_casts_keep_what_both_types_hold(source: str, target: str) -> None:
    x = np.array([0, 1, 2, 100], source)
    check(f"y = Cast <to={CODES[target]}> (x)", x.astype(target), x=x)


@pytest.mark.parametrize("target", ["int8", "uint8", "int16", "uint32", "uint64"])
def test_casts_between_integers_wrap_around(target: str) -> None:
    x = np.array([-1, 300, -(2**40) - 5, 2**35 + 9], np.int64)
    check(f"y = Cast <to={CODES[target]}> (x)", x.astype(target), x=x)


def test_casts_of_large_unsigned_numbers() -> None:
    x = np.array([2**63, 2**64 - 1, 2**62, 5], np.uint64)
    check("y = Cast <to=1> (x)", x.astype(np.float32), x=x, rtol=1e-7)
    f = np.float32([2.0**63, 1.5 * 2.0**63, 7.0])
    check("y = Cast <to=13> (f)", f.astype(np.uint64), f=f)


def test_casts_of_floats_truncate() -> None:
    x = np.float32([-1.9, 1.9, -0.5, 2.5])
    check("y = Cast <to=6> (x)", np.array([-1, 1, 0, 2], np.int32), x=x)


@pytest.mark.parametrize("code", [8, 17])  # string, float8
def test_types_that_tflite_lacks_are_refused(code: int) -> None:
    model = graph(f"(float[2] x) => (float[2] y) {{ c = Cast <to={code}> (x) y = Cast <to=1> (c) }}")
    with pytest.raises(EdgecError) as caught:
        emit(model)
    assert caught.value.code.split("/")[0] in ("backend", "graph")


# --- functions ----------------------------------------------------------------------------------------

FUNCTIONS: dict[str, tuple[Any, Array]] = {
    "Erf": (np.vectorize(math.erf), np.float32([-6, -2, -0.5, -1e-6, 0, 1e-3, 0.7, 1, 3, 3.9, 5])),
    "Tan": (np.tan, np.float32([-1.5, -0.3, 0, 1e-4, 1.2])),
    "Asin": (np.arcsin, np.float32([-1, -0.5, -1e-5, 0, 0.999, 1])),
    "Acos": (np.arccos, np.float32([-1, -0.5, 0, 0.5, 0.99])),
    "Atan": (np.arctan, np.float32([-1e8, -1, 0, 1e-6, 30])),
    "Sinh": (np.sinh, np.float32([-80, -1, -1e-4, 0, 1e-6, 0.5, 2, 89])),
    "Cosh": (np.cosh, np.float32([-80, -1, 0, 1e-6, 2, 89])),
    "Asinh": (np.arcsinh, np.float32([-1e20, -3, -1e-5, 0, 1e-4, 0.5, 1e10])),
    "Acosh": (np.arccosh, np.float32([1, 1.0001, 1.5, 30, 1e15])),
    "Atanh": (np.arctanh, np.float32([-0.999, -0.5, -1e-5, 0, 1e-4, 0.3, 0.9])),
}


@pytest.mark.parametrize("op", FUNCTIONS)
def test_functions_keep_their_digits(op: str) -> None:
    function, x = FUNCTIONS[op]
    expected = function(x.astype(np.float64)).astype(np.float32)
    # 2e-5: float32's own rounding of the argument of exp at ±89 is 4e-6, of tan near its pole 1e-5
    check(f"y = {op}(x)", expected, x=x, rtol=2e-5, atol=1e-30)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_infinities_and_nan(dtype: str) -> None:
    x = np.array([1, np.nan, np.inf, -np.inf, 1e30], dtype)
    check("y = IsNaN(x)", np.isnan(x), x=x)
    check("y = IsInf(x)", np.isinf(x), x=x)
    check("y = IsInf <detect_negative=0> (x)", np.isposinf(x), x=x)
    check("y = IsInf <detect_positive=0> (x)", np.isneginf(x), x=x)


def test_float64_beyond_float32_is_refused_when_it_is_fed() -> None:
    with pytest.raises(EdgecError, match="float32 cannot") as raised:
        check("y = Abs(x)", np.float64([1e300]), x=np.float64([1e300]))
    assert raised.value.code == "io/value-range"


def test_rounding_goes_to_the_even_number() -> None:
    x = np.float32([0.5, 1.5, 2.5, -0.5, -2.5, 1.2])
    check("y = Round(x)", np.rint(x), x=x)
