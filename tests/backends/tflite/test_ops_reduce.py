"""Reductions in LiteRT against numpy: element types, axes known and at run time, empty sets, positions."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from edgec.errors import EdgecError
from edgec.tensors import Array
from tests.support.operators import check, compute

KINDS: dict[str, Any] = {"ReduceSum": np.sum, "ReduceProd": np.prod, "ReduceMax": np.max, "ReduceMin": np.min}
NUMBERS = ["float16", "float32", "int8", "uint8", "int32", "int64", "uint32", "uint64"]


def values(dtype: str, *shape: int) -> Array:
    low = 0 if dtype.startswith("u") else -3
    return np.random.default_rng(1).integers(low, 5, shape).astype(dtype)


def axes(*numbers: int) -> dict[str, Array]:
    return {"axes": np.array(numbers, np.int64)}


@pytest.mark.parametrize("dtype", NUMBERS)
@pytest.mark.parametrize("op", KINDS)
def test_every_element_type(op: str, dtype: str) -> None:
    if dtype in ("int8", "uint8") and op in ("ReduceSum", "ReduceProd"):
        pytest.skip("ONNX sums no bytes")
    x = values(dtype, 2, 3, 4)
    expected = KINDS[op](x, axis=1, keepdims=True).astype(dtype)
    check(f"y = {op}(x, axes)", expected, constants=axes(-2), x=x)


@pytest.mark.parametrize("op", [*KINDS, "ReduceMean"])
@pytest.mark.parametrize("chosen", [(0,), (-1,), (0, 2), (1, -1, 0), (3, 4)])
@pytest.mark.parametrize("keep", [0, 1])
def test_axes_at_rank_five(op: str, chosen: tuple[int, ...], keep: int) -> None:
    x = np.random.default_rng(2).uniform(0.5, 1.5, (2, 3, 2, 1, 3)).astype(np.float32)
    expected = {**KINDS, "ReduceMean": np.mean}[op](x, axis=tuple(a % 5 for a in chosen), keepdims=bool(keep))
    check(f"y = {op} <keepdims={keep}> (x, axes)", expected, constants=axes(*chosen), x=x, rtol=1e-5)


@pytest.mark.parametrize("keep", [0, 1])
def test_axes_at_run_time_follow_from_the_declared_shape(keep: int) -> None:
    x = values("float32", 2, 3, 4)
    check(f"y = ReduceSum <keepdims={keep}> (x, a)", x.sum(1, keepdims=bool(keep)), x=x, a=np.array([1]))


@pytest.mark.parametrize("axis", [0, 1])
def test_axes_at_run_time_that_the_shape_leaves_open(axis: int) -> None:
    x = values("float32", 3, 3)
    check("y = ReduceSum <keepdims=0> (x, a)", x.sum(axis), x=x, a=np.array([axis]))


def test_no_axes() -> None:
    x = values("float32", 2, 3)
    check("y = ReduceSum <noop_with_empty_axes=1> (x)", x, x=x)
    check("y = ReduceSum <keepdims=0> (x)", x.sum(), x=x)
    check("y = ReduceSum(x, a)", x.sum(keepdims=True), x=x, a=np.zeros(0, np.int64))


def test_axes_as_an_attribute_of_old_opsets() -> None:
    x = values("float32", 2, 3, 4)
    check("y = ReduceMax <axes=[-1], keepdims=0> (x)", x.max(-1), opset=11, x=x)


@pytest.mark.parametrize(
    ("op", "neutral"), [("ReduceSum", 0.0), ("ReduceProd", 1.0), ("ReduceMax", -np.inf), ("ReduceMin", np.inf)]
)
def test_empty_sets_give_the_neutral_element(op: str, neutral: float) -> None:
    x = np.zeros((2, 0, 3), np.float32)
    check(f"y = {op}(x, axes)", np.full((2, 1, 3), neutral, np.float32), constants=axes(1), x=x)


def test_means_of_integers_truncate() -> None:
    x = np.array([[1, 2, 2], [-1, -2, -2]], np.int32)
    check("y = ReduceMean <keepdims=0> (x, axes)", np.array([1, -1], np.int32), constants=axes(1), x=x)


def test_logical_reductions() -> None:
    x = np.array([[True, False], [True, True]])
    check("y = ReduceMax <keepdims=0> (x, axes)", x.any(1), constants=axes(1), x=x)
    check("y = ReduceMin <keepdims=0> (x, axes)", x.all(1), constants=axes(1), x=x)


@pytest.mark.parametrize(
    ("op", "function"),
    [
        ("ReduceL1", lambda x: np.abs(x).sum(1)),
        ("ReduceL2", lambda x: np.sqrt((x * x).sum(1))),
        ("ReduceSumSquare", lambda x: (x * x).sum(1)),
        ("ReduceLogSum", lambda x: np.log(x.sum(1))),
        ("ReduceLogSumExp", lambda x: np.log(np.exp(x).sum(1))),
    ],
)
@pytest.mark.parametrize("dtype", ["float32", "float64", "int32"])
def test_compound_reductions(op: str, function: Any, dtype: str) -> None:
    x = np.array([[3, 4, 5], [1, 2, 2]], dtype)
    expected = function(x.astype(np.float64)).astype(dtype)
    check(f"y = {op} <keepdims=0> (x, axes)", expected, constants=axes(1), x=x, rtol=1e-6)


def test_log_sum_exp_of_large_and_infinite_values() -> None:
    x = np.float32([[1000, 1001, 999], [-np.inf, -np.inf, -np.inf], [1, np.inf, 2], [-1000, -1001, -np.inf]])
    expected = np.logaddexp.reduce(x.astype(np.float64), axis=1).astype(np.float32)
    check("y = ReduceLogSumExp <keepdims=0> (x, axes)", expected, constants=axes(1), x=x, rtol=1e-6)


@pytest.mark.parametrize("dtype", [*NUMBERS, "float64"])
@pytest.mark.parametrize(("op", "function"), [("ArgMax", np.argmax), ("ArgMin", np.argmin)])
@pytest.mark.parametrize("last", [0, 1])
def test_positions_of_equal_values(op: str, function: Any, dtype: str, last: int) -> None:
    x = np.array([[1, 3, 3, 1], [2, 0, 0, 2], [4, 4, 4, 4]], dtype)
    expected = 3 - function(x[:, ::-1], axis=1) if last else function(x, axis=1)
    body = f"y = {op} <axis=-1, keepdims=0, select_last_index={last}> (x)"
    check(body, expected.astype(np.int64), x=x)
    check(body.replace("keepdims=0", "keepdims=1"), expected.astype(np.int64)[:, None], x=x)


def test_an_axis_out_of_range_is_an_error() -> None:
    with pytest.raises(EdgecError):
        compute("y = ArgMax <axis=5> (x)", np.zeros((1, 3), np.int64), x=np.zeros((2, 3), np.float32))
