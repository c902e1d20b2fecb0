"""Gradients as ordinary nodes: held against central differences of the same graph, and refused by name."""

from __future__ import annotations

import numpy as np
import pytest

from edgec.errors import EdgecError
from edgec.graph.model import Model
from edgec.passes.pipelines import canonicalize
from edgec.tensors import Array
from tests.support.graphs import graph, run_ort

_STEP = 2e-3


def with_gradient(text: str) -> Model:
    """A model that uses the operator's domain."""
    model = graph(text)
    model.ir.opset_imports["ai.onnx.preview.training"] = 1
    return model


def apart(rng: np.random.Generator, shape: tuple[int, ...], low: float) -> Array:
    """Numbers with gaps between them, so that no step crosses a kink."""
    count = int(np.prod(shape))
    return rng.permutation(np.linspace(low, low + 1.4, count)).reshape(shape).astype(np.float32)


def differences(plain: Model, feeds: dict[str, Array], name: str) -> Array:
    """Central differences of the sum of y."""
    slope = np.zeros(feeds[name].shape, np.float64)
    for index in np.ndindex(*slope.shape):
        sides = []
        for step in (_STEP, -_STEP):
            moved = feeds[name].copy()
            moved[index] += step
            sides.append(float(run_ort(plain, {**feeds, name: moved})["y"].astype(np.float64).sum()))
        slope[index] = (sides[0] - sides[1]) / (2 * _STEP)
    return slope


A23, B23, B3, B34, ROW = "float[2,3] a", "float[2,3] b", "float[3] b", "float[3,4] b", "float[2,1] b"
#: Second input, shape of y, the body.
CASES = {
    "add-broadcast": (B3, "2,3", "s = Add(a, b) y = Mul(s, s)"),
    "sub-neg": (ROW, "2,3", "n = Neg(b) s = Sub(a, n) y = Mul(s, s)"),
    "div": (ROW, "2,3", "y = Div(b, a)"),
    "pow": (B23, "2,3", "three = Constant<value_float=3.0>() p = Pow(a, three) y = Mul(p, b)"),
    "exp-log": (B23, "2,3", "e = Exp(a) l = Log(b) y = Mul(e, l)"),
    "tanh-sigmoid": (B23, "2,3", "t = Tanh(a) s = Sigmoid(b) y = Mul(t, s)"),
    "sqrt-recip": (B23, "2,3", "t = Sqrt(a) s = Reciprocal(b) y = Mul(t, s)"),
    "relu": (B23, "2,3", "n = Sub(a, b) r = Relu(n) l = LeakyRelu<alpha=0.1>(n) m = Mul(r, b) y = Add(m, l)"),
    "softmax": (B23, "2,3", "s = Softmax<axis=1>(a) y = Mul(s, b)"),
    "softplus-erf": (B23, "2,3", "s = Softplus(a) e = Erf(b) y = Mul(s, e)"),
    "sin-cos-abs": (B23, "2,3", "s = Sin(a) c = Cos(b) m = Mul(s, c) k = Abs(a) y = Mul(m, k)"),
    "matmul": (B34, "2,4", "m = MatMul(a, b) y = Mul(m, m)"),
    "matmul-vector": (B3, "2", "m = MatMul(a, b) y = Mul(m, m)"),
    "matmul-row": ("float[2] b", "3", "m = MatMul(b, a) y = Mul(m, m)"),
    "matmul-batches": ("float[5,3,4] b", "5,2,4", "m = MatMul(a, b) y = Mul(m, m)"),
    "gemm": (B34, "2,4", "m = Gemm<alpha=0.5>(a, b) y = Mul(m, m)"),
    "gemm-turned": ("float[4,2] b", "3,4", "m = Gemm<transA=1, transB=1>(a, b) y = Mul(m, m)"),
    "gemm-turned-left": ("float[2,4] b", "3,4", "m = Gemm<transA=1>(a, b) y = Mul(m, m)"),
    "gemm-turned-right": ("float[4,3] b", "2,4", "m = Gemm<transB=1>(a, b) y = Mul(m, m)"),
    "gemm-bias": ("float[2] b", "2,2", "m = Gemm<transB=1, beta=2.0>(a, a, b) y = Mul(m, m)"),
    "reduce-sum": (
        B3,
        "3",
        "k = Constant<value_ints=[0]>() s = ReduceSum<keepdims=0>(a, k) y = Mul(s, b)",
    ),
    "reduce-mean": (ROW, "2,1", "k = Constant<value_ints=[-1]>() s = ReduceMean(a, k) p = Mul(s, s) y = Mul(p, b)"),
    "reduce-all": (B3, "3", "s = ReduceMean<keepdims=0>(a) y = Mul(s, b)"),
    "move": (
        "float[3,2] b",
        "3,2",
        """t = Transpose<perm=[1,0]>(a) k = Constant<value_ints=[6]>() r = Reshape(b, k)
        l = Constant<value_ints=[3,2]>() u = Reshape(r, l) m = Mul(t, u) y = Identity(m)""",
    ),
    "concat": ("float[2,1] b", "2,4", "c = Concat<axis=1>(a, b) y = Mul(c, c)"),
    "expand-where": (
        ROW,
        "2,3",
        "k = Constant<value_ints=[2,3]>() e = Expand(b, k) g = Greater(a, e) p = Mul(a, a) y = Where(g, p, e)",
    ),
    "unused": (B3, "2,3", "y = Mul(a, a)"),
    "twice": (B3, "2,3", "s = Mul(a, b) t = Mul(s, a) y = Add(t, s)"),
}


@pytest.mark.parametrize("name", CASES)
def test_the_gradient_is_the_slope(name: str) -> None:
    second, out, body = CASES[name]
    shape = tuple(int(d) for d in second[6:].split("]")[0].split(","))
    head = f"({A23}, {second}) => (float[{out}] y"
    gradient = 'da, db = ai.onnx.preview.training.Gradient<xs=["a","b"], y="y">(a, b)'
    made = with_gradient(f"{head}, float[2,3] da, float{list(shape)} db) {{ {body} {gradient} }}")
    plain = graph(f"{head}) {{ {body} }}")
    rng = np.random.default_rng(7)
    feeds = {"a": apart(rng, (2, 3), 0.5), "b": apart(rng, shape, 0.55)}
    got = run_ort(canonicalize(made), feeds)
    for x in ("a", "b"):
        np.testing.assert_allclose(got[f"d{x}"], differences(plain, feeds, x), rtol=2e-2, atol=2e-2, err_msg=x)


def test_a_gradient_of_a_gradient() -> None:
    made = with_gradient(
        """(float[3] a, float[3] b) => (float[3] dda, float[3] ddb)
        { p = Mul(a, a) q = Mul(p, a) y = Mul(q, b)
          da = ai.onnx.preview.training.Gradient<xs=["a"], zs=["b"], y="y">(a, b)
          dda, ddb = ai.onnx.preview.training.Gradient<xs=["a", "b"], y="da">(a, b) }"""
    )
    a, b = np.array([1, 2, 3], np.float32), np.array([0.5, -1, 2], np.float32)
    got = run_ort(canonicalize(made), {"a": a, "b": b})
    np.testing.assert_allclose(got["dda"], 6 * a * b, rtol=1e-5)
    np.testing.assert_allclose(got["ddb"], 3 * a * a, rtol=1e-5)


def test_at_other_values_than_those_of_the_graph() -> None:
    made = with_gradient(
        """(float[3] a, float[3] other) => (float[3] y, float[3] d)
        { y = Mul(a, a) d = ai.onnx.preview.training.Gradient<xs=["a"], y="y">(other) }"""
    )
    feeds = {"a": np.array([1, 2, 3], np.float32), "other": np.array([5, 6, 7], np.float32)}
    got = run_ort(canonicalize(made), feeds)
    np.testing.assert_allclose(got["y"], [1, 4, 9], rtol=1e-6)
    np.testing.assert_allclose(got["d"], [10, 12, 14], rtol=1e-6)


def test_by_a_tensor_inside() -> None:
    made = with_gradient(
        """(float[3] a) => (float[3] d)
        { h = Mul(a, a) y = Mul(h, h) d = ai.onnx.preview.training.Gradient<xs=["h"], y="y">(h) }"""
    )
    got = run_ort(canonicalize(made), {"a": np.array([1, 2, 3], np.float32)})
    np.testing.assert_allclose(got["d"], [2, 8, 18], rtol=1e-6)


def test_all_operators_without_a_derivative_are_named() -> None:
    made = with_gradient(
        """(float[1,1,4,4] a, float[1,1,1,1] w) => (float[1,1,4,4] d)
        { c = Conv(a, w) e = Elu(c) y = Mul(e, a)
          d = ai.onnx.preview.training.Gradient<xs=["a"], y="y">(a) }"""
    )
    with pytest.raises(EdgecError, match="no derivative") as caught:
        canonicalize(made)
    assert caught.value.code == "graph/no-derivative"
    assert [("Conv" in f.message, "Elu" in f.message) for f in caught.value.findings] == [(True, False), (False, True)]


def test_an_operator_off_the_path_needs_no_derivative() -> None:
    made = with_gradient(
        """(float[3] a, float[3] b) => (float[3] d)
        { e = Elu(b) y = Mul(e, a) d = ai.onnx.preview.training.Gradient<xs=["a"], y="y">(a) }"""
    )
    got = run_ort(canonicalize(made), {"a": np.ones(3, np.float32), "b": np.array([1, 2, 3], np.float32)})
    np.testing.assert_allclose(got["d"], [1, 2, 3], rtol=1e-6)


def test_an_exponent_that_arrives_at_run_time_is_refused() -> None:
    made = with_gradient(
        """(float[3] a, float[3] b) => (float[3] d)
        { y = Pow(a, b) d = ai.onnx.preview.training.Gradient<xs=["a"], y="y">(a) }"""
    )
    with pytest.raises(EdgecError, match="constant axes and exponents"):
        canonicalize(made)


def test_a_tensor_that_is_not_there_is_named() -> None:
    made = with_gradient(
        """(float[3] a) => (float[3] d)
        { y = Exp(a) d = ai.onnx.preview.training.Gradient<xs=["q"], y="y">(a) }"""
    )
    with pytest.raises(EdgecError, match="'q'") as caught:
        canonicalize(made)
    assert caught.value.code == "graph/unknown-tensor"
