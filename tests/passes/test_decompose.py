"""Operators taken apart compute the same, and nothing of them is left."""

from __future__ import annotations

import numpy as np
import pytest

from edgec.passes.decompose import decompose
from edgec.passes.decompose.expand import can_decompose
from edgec.passes.pipelines import canonicalize
from tests.support.graphs import assert_same, graph, has_static_shapes, operators, random_feeds

#: operator → (its text, opset)
UNARY: dict[str, tuple[str, int]] = {
    "Celu": ("Celu <alpha=0.7> (x)", 21),
    "DepthToSpace": ("DepthToSpace <blocksize=2> (x)", 21),
    "DepthToSpace CRD": ('DepthToSpace <blocksize=2, mode="CRD"> (x)', 21),
    "Elu": ("Elu <alpha=0.5> (x)", 21),
    "Gelu": ("Gelu(x)", 21),
    "Gelu tanh": ('Gelu <approximate="tanh"> (x)', 21),
    "GlobalAveragePool": ("GlobalAveragePool(x)", 21),
    "GlobalMaxPool": ("GlobalMaxPool(x)", 21),
    "HardSigmoid": ("HardSigmoid(x)", 21),
    "HardSigmoid of a swish": ("HardSigmoid <alpha=0.16666667> (x)", 21),
    "HardSwish": ("HardSwish(x)", 21),
    "LeakyRelu": ("LeakyRelu(x)", 21),
    "LogSoftmax": ("LogSoftmax <axis=1> (x)", 21),
    "MeanVarianceNormalization": ("MeanVarianceNormalization(x)", 21),
    "Mish": ("Mish(x)", 21),
    "ReduceL1": ("ReduceL1(x)", 21),
    "ReduceL2": ("ReduceL2 <keepdims=0> (x)", 21),
    "ReduceLogSumExp": ("ReduceLogSumExp(x)", 21),
    "ReduceSumSquare": ("ReduceSumSquare(x)", 21),
    "Selu": ("Selu(x)", 21),
    "Shrink": ("Shrink <bias=0.3, lambd=0.4> (x)", 21),
    "Softmax": ("Softmax <axis=-1> (x)", 21),
    "Softplus": ("Softplus(x)", 21),
    "Softsign": ("Softsign(x)", 21),
    "SpaceToDepth": ("SpaceToDepth <blocksize=2> (x)", 21),
    "Swish": ("Swish(x)", 24),
    "ThresholdedRelu": ("ThresholdedRelu <alpha=0.3> (x)", 21),
}


@pytest.mark.parametrize("name", UNARY)
def test_one_input(name: str) -> None:
    text, opset = UNARY[name]
    source = graph(f"(float[1,4,6,8] x) => (float y) {{ y = {text} }}", opset=opset)
    op = name.split()[0]
    result = decompose(canonicalize(source), {op})
    assert op not in operators(result)
    assert has_static_shapes(result)
    assert_same(source, result, random_feeds(source), relative=2e-6)


WEIGHTS = {
    "s": np.linspace(0.5, 2, 4, dtype=np.float32),
    "b": np.linspace(-1, 1, 4, dtype=np.float32),
    "m": np.linspace(0, 1, 4, dtype=np.float32),
    "v": np.linspace(0.5, 1, 4, dtype=np.float32),
    "l": np.linspace(0.5, 2, 8, dtype=np.float32),
    "w": np.linspace(-1, 1, 40, dtype=np.float32).reshape(8, 5),
    "three": np.asarray(3, np.float32),
}
WITH_WEIGHTS: dict[str, tuple[str, tuple[str, ...], int]] = {
    "InstanceNormalization": ("InstanceNormalization(x, s, b)", ("s", "b"), 21),
    "GroupNormalization": ("GroupNormalization <num_groups=2> (x, s, b)", ("s", "b"), 21),
    "LayerNormalization": ("LayerNormalization(x, l)", ("l",), 21),
    "RMSNormalization": ("RMSNormalization(x, l)", ("l",), 23),
    "PRelu": ("PRelu(x, l)", ("l",), 21),
    "Pow": ("Pow(x, three)", ("three",), 21),
    "Mean": ("Mean(x, l, l)", ("l",), 21),
    "Sum": ("Sum(x, l, x)", ("l",), 21),
    "Max": ("Max(x, l, x)", ("l",), 21),
}


@pytest.mark.parametrize("name", WITH_WEIGHTS)
def test_with_weights(name: str) -> None:
    text, used, opset = WITH_WEIGHTS[name]
    constants = {key: WEIGHTS[key] for key in used}
    source = graph(f"(float[2,4,6,8] x) => (float y) {{ y = {text} }}", opset=opset, constants=constants)
    result = decompose(canonicalize(source), {name} - {"Max"})
    if name != "Max":
        assert name not in operators(result)
    assert_same(source, result, random_feeds(source), relative=4e-6)


def test_max_of_three_becomes_two_of_two() -> None:
    source = graph("(float[4] x, float[4] y, float[4] z) => (float[4] m) { m = Max(x, y, z) }")
    result = decompose(source, {"Max"})
    assert operators(result) == {"Max": 2}
    assert_same(source, result, random_feeds(source), relative=0)


def test_gemm_of_two_activations() -> None:
    source = graph(
        "(float[4,3] x, float[5,4] z, float[5] c) => (float[3,5] y) "
        "{ y = Gemm <transA=1, transB=1, alpha=0.5, beta=2.0> (x, z, c) }"
    )
    result = decompose(source, {"Gemm"})
    assert "Gemm" not in operators(result)
    assert_same(source, result, random_feeds(source), relative=1e-6)


def test_what_a_body_makes_is_taken_apart_too() -> None:
    source = graph("(float[2,8] x) => (float[2,8] y) { y = Selu(x) }")
    result = decompose(source, {"Selu", "Clip"})
    assert not {"Selu", "Clip"} & operators(result).keys()
    assert_same(source, result, random_feeds(source), relative=1e-6)


def test_others_stay_and_the_source_is_left_alone() -> None:
    source = graph("(float[2,8] x) => (float[2,8] y) { a = HardSwish(x) y = Elu(a) }")
    result = decompose(source, {"Elu"})
    assert operators(result)["HardSwish"] == 1
    assert operators(source) == {"HardSwish": 1, "Elu": 1}


def test_what_has_no_body_stays() -> None:
    source = graph("(float[2,8] x) => (float[2,8] y) { y = Sigmoid(x) }")
    assert operators(decompose(source, {"Sigmoid"})) == {"Sigmoid": 1}
    assert not can_decompose("Sigmoid", 21)
    assert can_decompose("HardSwish", 21) and can_decompose("Selu", 21)


def test_many_of_a_kind_get_names_of_their_own_and_keep_their_origin() -> None:
    source = graph("(float[2,8] x) => (float[2,8] y) { a = Elu(x) b = Selu(a) c = Elu(b) y = Selu(c) }")
    for node in source.ir.graph:
        node.metadata_props["edgec.origin"] = f"layer {node.name}"
    result = decompose(source, {"Elu", "Selu"})
    names = [node.name for node in result.ir.graph]
    assert len(set(names)) == len(names)
    assert all(node.metadata_props["edgec.origin"].startswith("layer ") for node in result.ir.graph)
    assert_same(source, result, random_feeds(source), relative=2e-6)
