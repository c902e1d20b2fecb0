"""Matrix products, Einsum, norms, losses and determinants in LiteRT against numpy and ONNX Runtime."""

from __future__ import annotations

import numpy as np
import pytest

from edgec.errors import EdgecError
from edgec.tensors import Array
from tests.support.graphs import graph
from tests.support.operators import check, compute, one_output
from tests.support.tflite import assert_equal_to_ort, emit

RNG = np.random.default_rng(5)


def normal(*shape: int) -> Array:
    return RNG.normal(size=shape).astype(np.float32)


SHAPES = [
    ((3,), (3,)),
    ((3,), (3, 2)),
    ((2, 3), (3,)),
    ((2, 3), (3, 4)),
    ((5, 2, 3), (3, 4)),
    ((2, 3), (5, 3, 4)),
    ((1, 5, 2, 3), (2, 1, 3, 4)),
    ((2, 1, 2, 2, 3), (1, 3, 2, 3, 4)),
    ((2, 1, 1, 2, 2, 3), (1, 3, 2, 1, 3, 4)),
    ((4, 2, 3), (3,)),
    ((2, 0), (0, 3)),
]


@pytest.mark.parametrize(("a", "b"), SHAPES)
@pytest.mark.parametrize("fixed", [True, False])
def test_matmul_of_every_rank(a: tuple[int, ...], b: tuple[int, ...], fixed: bool) -> None:
    x, w = normal(*a), normal(*b)
    given: dict[str, Array] = {"x": x} if fixed else {"x": x, "w": w}
    check("y = MatMul(x, w)", x @ w, constants={"w": w} if fixed else {}, rtol=1e-4, atol=1e-5, **given)


@pytest.mark.parametrize("dtype", ["int32", "int64", "uint32", "uint64"])
def test_integer_products_are_exact(dtype: str) -> None:
    x = RNG.integers(0, 2**31 - 1, (2, 3)).astype(dtype)
    w = RNG.integers(0, 2**31 - 1, (4, 3, 2)).astype(dtype)
    check("y = MatMul(x, w)", x @ w, x=x, w=w)


def test_an_integer_product_that_would_need_too_much_memory_is_refused() -> None:
    x, w = np.zeros((4096, 4096), np.int32), np.zeros((4096, 4096), np.int32)
    with pytest.raises(EdgecError) as caught:
        compute("y = MatMul(x, w)", x, x=x, w=w)
    assert caught.value.findings[0].rule == "tflite/dtype"


@pytest.mark.parametrize("attributes", ["", "transA=1", "transB=1", "transA=1, transB=1", "alpha=0.5, beta=2.0"])
@pytest.mark.parametrize("c", [None, (), (1,), (4,), (2, 1), (2, 4)])
@pytest.mark.parametrize("fixed", [True, False])
def test_gemm(attributes: str, c: tuple[int, ...] | None, fixed: bool) -> None:
    a = normal(*((3, 2) if "transA" in attributes else (2, 3)))
    b = normal(*((4, 3) if "transB" in attributes else (3, 4)))
    rest = {"b": b} if c is None else {"b": b, "c": normal(*c)}
    body = f"y = Gemm {f'<{attributes}>' if attributes else ''} (a, {', '.join(rest)})"
    feeds = {"a": a} if fixed else {"a": a, **rest}
    model = one_output(body, np.zeros((2, 4), np.float32), 21, rest if fixed else {}, feeds)
    assert_equal_to_ort(model, emit(model), relative=1e-6, feeds=feeds)


def test_gemm_of_integers() -> None:
    a, b, c = (RNG.integers(-9, 9, s).astype(np.int32) for s in ((2, 3), (3, 4), (4,)))
    check("y = Gemm <alpha=2.0, beta=3.0> (a, b, c)", 2 * (a @ b) + 3 * c, a=a, b=b, c=c)
    with pytest.raises(EdgecError):
        compute("y = Gemm <alpha=0.5> (a, b)", a @ b, a=a, b=b)


EQUATIONS = [
    ("ij,jk->ik", [(2, 3), (3, 4)]),
    ("ij,jk", [(2, 3), (3, 4)]),
    ("bij,bjk->bik", [(5, 2, 3), (5, 3, 4)]),
    ("...ij,...jk->...ik", [(2, 1, 2, 3), (1, 5, 3, 4)]),
    ("i,i->", [(4,), (4,)]),
    ("i,j->ij", [(4,), (3,)]),
    ("ij->ji", [(2, 3)]),
    ("ij->", [(2, 3)]),
    ("ii->i", [(4, 4)]),
    ("ii", [(4, 4)]),
    ("...ii->...i", [(2, 3, 3)]),
    ("iji->j", [(3, 2, 3)]),
    ("bhqd,bhkd->bhqk", [(2, 3, 4, 5), (2, 3, 6, 5)]),
    ("bqhd,bkhd->bhqk", [(2, 4, 3, 5), (2, 6, 3, 5)]),
    ("ij,jk,kl->il", [(2, 3), (3, 4), (4, 5)]),
    ("ijk,k->ij", [(2, 3, 4), (4,)]),
    ("ij,kl->ik", [(2, 3), (4, 5)]),
    ("bn,anm,bm->ba", [(2, 3), (4, 3, 5), (2, 5)]),
    ("ij,ij->ij", [(2, 3), (2, 3)]),
    ("ij,ij->j", [(2, 3), (2, 3)]),
    ("i...->...", [(3, 2, 2)]),
    (",ij->ij", [(), (2, 3)]),
    ("  i j , j k -> i k ", [(2, 3), (3, 4)]),
]


@pytest.mark.parametrize(("equation", "shapes"), EQUATIONS)
def test_einsum(equation: str, shapes: list[tuple[int, ...]]) -> None:
    feeds = {f"x{i}": np.asarray(RNG.normal(size=s), np.float32) for i, s in enumerate(shapes)}
    expected = np.einsum(equation, *(v.astype(np.float64) for v in feeds.values())).astype(np.float32)
    check(f'y = Einsum <equation="{equation}"> ({", ".join(feeds)})', expected, rtol=1e-5, atol=1e-5, **feeds)


def test_einsum_of_integers_and_half_precision() -> None:
    a, b = RNG.integers(-9, 9, (2, 3)), RNG.integers(-9, 9, (3, 4))
    check('y = Einsum <equation="ij,jk->ik"> (a, b)', a @ b, a=a, b=b)
    x, w = a.astype(np.float16), b.astype(np.float16)
    check('y = Einsum <equation="ij,jk->ik"> (x, w)', x @ w, x=x, w=w)


# --- norms --------------------------------------------------------------------------------------------

NORMS = [
    ("LayerNormalization <axis=1> (x, s, b)", (2, 3, 4), (3, 4)),
    ("LayerNormalization <axis=-1, epsilon=0.1> (x, s)", (2, 3, 4), (4,)),
    ("InstanceNormalization(x, s, b)", (2, 3, 4, 5), (3,)),
    ("InstanceNormalization <epsilon=0.1> (x, s, b)", (2, 3, 7), (3,)),
    ("GroupNormalization <num_groups=2> (x, s, b)", (2, 4, 3, 3), (4,)),
    ("BatchNormalization(x, s, b, m, v)", (2, 3, 4, 4), (3,)),
    ("BatchNormalization <epsilon=0.1> (x, s, b, m, v)", (4, 3), (3,)),
    ("LpNormalization <axis=1, p=1> (x)", (2, 3, 4), ()),
    ("LpNormalization(x)", (2, 3, 4), ()),
    ("LRN <size=3> (x)", (2, 5, 3, 3), ()),
    ("LRN <size=5, alpha=0.5, beta=0.6, bias=2.0> (x)", (1, 7, 4, 4), ()),
    ("MeanVarianceNormalization(x)", (2, 3, 4, 4), ()),
]


@pytest.mark.parametrize(("scale", "bias", "left"), [(1.0, 0.0, set()), (1.5, 0.0, {"MUL"}), (1.0, 0.25, {"ADD"})])
def test_a_scale_of_ones_and_a_bias_of_zeros_are_no_operators(scale: float, bias: float, left: set[str]) -> None:
    values = {"s": np.full(4, scale, np.float32), "b": np.full(4, bias, np.float32)}
    text = "(float[2,3,4] x) => (float[2,3,4] y) { y = LayerNormalization(x, s, b) }"
    model = graph(text, opset=17, constants=values)
    artifact = emit(model)
    assert {kind for kind in ("MUL", "ADD") if artifact.operators[kind] == 2} == left  # one is the normalisation's own
    assert_equal_to_ort(model, artifact, relative=2e-6)


@pytest.mark.parametrize(("text", "shape", "parameters"), NORMS)
@pytest.mark.parametrize("fixed", [True, False])
def test_norms(text: str, shape: tuple[int, ...], parameters: tuple[int, ...], fixed: bool) -> None:
    x = normal(*shape)
    names = [n for n in "sbmv" if f" {n}" in text.partition("(")[2]]
    rest = {n: np.abs(normal(*parameters)) + np.float32(0.1) for n in names}
    feeds = {"x": x} if fixed else {"x": x, **rest}
    model = one_output(f"y = {text}", x, 21, rest if fixed else {}, feeds)
    assert_equal_to_ort(model, emit(model), relative=5e-6, feeds=feeds)


def test_an_even_neighbourhood_reaches_further_up() -> None:
    x = normal(1, 6, 2, 2)
    wide = np.pad(x.astype(np.float64) ** 2, ((0, 0), (1, 2), (0, 0), (0, 0)))
    total = sum(wide[:, i : i + 6] for i in range(4))
    expected = (x / (1 + 0.5 / 4 * total) ** 0.75).astype(np.float32)
    check("y = LRN <size=4, alpha=0.5> (x)", expected, x=x, rtol=1e-5)


def test_a_vector_of_zeros_has_no_direction() -> None:
    x = np.float32([[0, 0], [3, 4]])
    check("y = LpNormalization(x)", np.float32([[0, 0], [0.6, 0.8]]), x=x, rtol=1e-6)


# --- losses and determinants --------------------------------------------------------------------------


@pytest.mark.parametrize("reduction", ["none", "mean", "sum"])
@pytest.mark.parametrize("weighted", [True, False])
@pytest.mark.parametrize("ignored", ["", ", ignore_index=1", ", ignore_index=-7"])
@pytest.mark.parametrize("op", ["NegativeLogLikelihoodLoss", "SoftmaxCrossEntropyLoss"])
def test_losses(op: str, ignored: str, weighted: bool, reduction: str) -> None:
    # Log-probabilities are of one sign: a sum that cancels would have no relative accuracy to compare.
    x, target = -np.abs(normal(2, 4, 3)), RNG.integers(0, 4, (2, 3))
    if "-7" in ignored:
        target[0, 1] = -7
    feeds = {"x": x, "t": target} | ({"w": np.float32([0.2, 0.5, 1.0, 2.0])} if weighted else {})
    result = np.zeros((2, 3) if reduction == "none" else (), np.float32)
    body = f'y = {op} <reduction="{reduction}"{ignored}> ({", ".join(feeds)})'
    model = one_output(body, result, 21, {}, feeds)
    assert_equal_to_ort(model, emit(model), relative=2e-6, feeds=feeds)


@pytest.mark.parametrize("size", [1, 2, 3, 5])
def test_determinants(size: int) -> None:
    x = normal(3, 2, size, size)
    x[0, 0] = 0.0  # singular
    x[1, 0, 0, 0] = 0.0  # a pivot that must be exchanged
    check("y = Det(x)", np.linalg.det(x.astype(np.float64)).astype(np.float32), x=x, rtol=1e-4, atol=1e-6)


def test_a_large_determinant_is_refused() -> None:
    with pytest.raises(EdgecError) as caught:
        compute("y = Det(x)", np.float32(0), x=normal(40, 40))
    assert caught.value.findings[0].rule == "tflite/size"
