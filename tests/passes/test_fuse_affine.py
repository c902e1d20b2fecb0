"""Scales and shifts go into the linear operator beside them, exactly where that is allowed."""

from __future__ import annotations

import numpy as np
import pytest

from edgec.passes.fuse_affine import AFFINE_RULES, AffineAfter, AffineBefore, BatchNorm
from edgec.tensors import Array
from tests.support.graphs import graph
from tests.support.rewriting import refused, rewritten

RNG = np.random.default_rng(3)


def weight(*shape: int) -> Array:
    return RNG.normal(0, 0.5, shape).astype(np.float32)


def norm(channels: int) -> dict[str, Array]:
    return {
        "g": weight(channels),
        "be": weight(channels),
        "mu": weight(channels),
        "va": RNG.uniform(0.1, 2, channels).astype(np.float32),
    }


BN = "BatchNormalization({}, g, be, mu, va)"
CONVS = {
    "plain": ("c = Conv(x, w)", (6, 4, 3, 3), 6),
    "with bias": ("c = Conv(x, w, b)", (6, 4, 3, 3), 6),
    "grouped": ("c = Conv <group=2> (x, w)", (6, 2, 3, 3), 6),
    "depthwise": ("c = Conv <group=4> (x, w)", (4, 1, 3, 3), 4),
    "transposed": ("c = ConvTranspose(x, w)", (4, 5, 3, 3), 5),
    "transposed, grouped": ("c = ConvTranspose <group=2> (x, w, b)", (4, 3, 2, 2), 6),
}


@pytest.mark.parametrize("name", CONVS)
def test_batchnorm_after_conv(name: str) -> None:
    text, shape, channels = CONVS[name]
    constants = {"w": weight(*shape), "b": weight(channels)} | norm(channels)
    source = graph(f"(float[1,4,8,8] x) => (float[?,?,?,?] y) {{ {text} y = {BN.format('c')} }}", constants=constants)
    wanted = "ConvTranspose" if "Transpose" in text else "Conv"
    assert rewritten(source, AFFINE_RULES, relative=2e-6) == {wanted: 1}


@pytest.mark.parametrize("transposed", [0, 1])
def test_batchnorm_after_gemm(transposed: int) -> None:
    shape = (5, 4) if transposed else (4, 5)
    source = graph(
        f"(float[3,4] x) => (float[3,5] y) {{ c = Gemm <transB={transposed}> (x, w, b) y = {BN.format('c')} }}",
        constants={"w": weight(*shape), "b": weight(5)} | norm(5),
    )
    assert rewritten(source, AFFINE_RULES, relative=2e-6) == {"Gemm": 1}


def test_batchnorm_alone_becomes_product_and_sum() -> None:
    source = graph(f"(float[2,4,5,5] x) => (float[2,4,5,5] y) {{ y = {BN.format('x')} }}", constants=norm(4))
    assert rewritten(source, [BatchNorm()], relative=2e-6) == {"Mul": 1, "Add": 1}


def test_batchnorm_before_conv_without_padding() -> None:
    source = graph(
        f"(float[2,4,5,5] x) => (float[2,6,3,3] y) {{ r = Relu(x) n = {BN.format('r')} y = Conv(n, w) }}",
        constants=norm(4) | {"w": weight(6, 4, 3, 3)},
    )
    step = rewritten(source, AFFINE_RULES, relative=4e-6)
    assert step == {"Relu": 1, "Mul": 1, "Conv": 1}  # the shift first; the scale in the next round


def test_shift_before_padded_conv_is_refused() -> None:
    source = graph(
        "(float[2,4,5,5] x) => (float[2,6,5,5] y) { n = Add(x, t) y = Conv <pads=[1,1,1,1]> (n, w) }",
        constants={"t": weight(4, 1, 1), "w": weight(6, 4, 3, 3)},
    )
    assert refused(source, [AffineBefore()]) == ["the padding would have to be shifted too"]


@pytest.mark.parametrize("group", [1, 2, 4])
def test_scale_before_padded_conv(group: int) -> None:
    source = graph(
        f"(float[2,4,5,5] x) => (float[2,8,5,5] y) {{ n = Mul(x, t) y = Conv <pads=[1,1,1,1], group={group}> (n, w) }}",
        constants={"t": weight(1, 4, 1, 1), "w": weight(8, 4 // group, 3, 3)},
    )
    assert rewritten(source, AFFINE_RULES, relative=2e-6) == {"Conv": 1}


def test_non_constant_statistics_are_refused() -> None:
    text = (
        "(float[2,4,5,5] x, float[4] g, float[4] be, float[4] mu, float[4] va) => (float[2,4,5,5] y) "
        f"{{ y = {BN.format('x')} }}"
    )
    assert refused(graph(text), [BatchNorm()]) == ["its statistics are not constant"]


def test_negative_variance_is_refused() -> None:
    source = graph(
        f"(float[2,4,5,5] x) => (float[2,4,5,5] y) {{ y = {BN.format('x')} }}",
        constants=norm(4) | {"va": np.full(4, -1, np.float32)},
    )
    assert refused(source, [BatchNorm()]) == ["its statistics are not finite"]


AFTER = {
    "bias of a vector": ("Add(c, t)", (6, 1, 1)),
    "bias of a full shape": ("Add(t, c)", (1, 6, 1, 1)),
    "a number": ("Mul(c, t)", ()),
    "a scale": ("Mul(c, t)", (6, 1, 1)),
}


@pytest.mark.parametrize("name", AFTER)
def test_constant_after_conv(name: str) -> None:
    text, shape = AFTER[name]
    source = graph(
        f"(float[1,4,8,8] x) => (float[1,6,6,6] y) {{ c = Conv(x, w) y = {text} }}",
        constants={"w": weight(6, 4, 3, 3), "t": np.asarray(weight(*shape), np.float32)},
    )
    assert rewritten(source, AFFINE_RULES, relative=2e-6) == {"Conv": 1}


REFUSED = {
    "another axis": ("y = Add(c, t)", (6,), "the constant does not run along the output channels alone"),
    "higher rank": ("y = Add(c, t)", (1, 1, 6, 1, 1), "the constant raises the rank"),
    "bigger result": ("y = Mul(c, t)", (2, 1, 1, 1), "the constant does not run along the output channels alone"),
    "read elsewhere": (
        "z = Add(c, t) n = Neg(c) y = Add(z, n)",
        (6, 1, 1),
        "the linear operator's result is read elsewhere",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_constant_after_conv_refused(name: str) -> None:
    text, shape, reason = REFUSED[name]
    source = graph(
        f"(float[1,4,8,8] x) => (float y) {{ c = Conv(x, w) {text} }}",
        constants={"w": weight(6, 4, 3, 3), "t": weight(*shape)},
    )
    assert reason in refused(source, [AffineAfter()])


def test_weight_from_an_input_is_refused() -> None:
    source = graph(
        "(float[1,4,8,8] x, float[6,4,3,3] w) => (float[1,6,6,6] y) { c = Conv(x, w) y = Mul(c, t) }",
        constants={"t": weight(6, 1, 1)},
    )
    assert refused(source, [AffineAfter()]) == ["the weight or bias is not constant"]


def test_matmul_takes_a_scale_but_no_bias() -> None:
    constants = {"w": weight(4, 5), "t": weight(5)}
    text = "(float[2,3,4] x) => (float[2,3,5] y) {{ c = MatMul(x, w) y = {}(c, t) }}"
    assert rewritten(graph(text.format("Mul"), constants=constants), AFFINE_RULES, relative=2e-6) == {"MatMul": 1}
    assert refused(graph(text.format("Add"), constants=constants), AFFINE_RULES) == ["MatMul takes no bias"]
