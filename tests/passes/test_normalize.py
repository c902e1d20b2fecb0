"""One form for what ONNX says in several ways."""

from __future__ import annotations

import numpy as np
import pytest

from edgec.graph.model import attr
from edgec.passes.fold_constants import FoldConstants
from edgec.passes.merge_reshapes import RESHAPE_RULES
from edgec.passes.normalize import ARITHMETIC_RULES, FORM_RULES
from edgec.passes.pipelines import canonicalize
from edgec.passes.rewrite import RewritePass
from edgec.tensors import Array
from tests.support.graphs import assert_same, graph, operators, random_feeds
from tests.support.rewriting import refused, rewritten

RNG = np.random.default_rng(8)


def weight(*shape: int) -> Array:
    return RNG.normal(0, 0.5, shape).astype(np.float32)


@pytest.mark.parametrize("mode", ["SAME_UPPER", "SAME_LOWER", "VALID"])
@pytest.mark.parametrize("stride", [1, 2, 3])
def test_explicit_pads(mode: str, stride: int) -> None:
    dilation = 2 if mode == "VALID" else 1  # ONNX Runtime takes no other with SAME
    ops = {
        "Conv": f'Conv <auto_pad="{mode}", strides=[{stride},{stride}], dilations=[1,{dilation}]> (x, w)',
        "MaxPool": f'MaxPool <auto_pad="{mode}", strides=[{stride},{stride}], kernel_shape=[3,3]> (x)',
        "AveragePool": f'AveragePool <auto_pad="{mode}", strides=[{stride},{stride}], kernel_shape=[2,3]> (x)',
    }
    for op, text in ops.items():
        constants = {"w": weight(3, 2, 3, 3)} if op == "Conv" else {}
        source = graph(f"(float[1,2,7,9] x) => (float[1,?,?,?] y) {{ y = {text} }}", constants=constants)
        assert rewritten(source, FORM_RULES, relative=1e-6) == {op: 1}
        model = canonicalize(source)
        assert attr(model.ir.graph[0], "auto_pad", "NOTSET") == "NOTSET"


@pytest.mark.parametrize("mode", ["SAME_UPPER", "SAME_LOWER", "VALID"])
def test_explicit_pads_of_transposed_conv(mode: str) -> None:
    source = graph(
        f'(float[1,2,5,6] x) => (float[1,?,?,?] y) {{ y = ConvTranspose <auto_pad="{mode}", strides=[2,3]> (x, w) }}',
        constants={"w": weight(2, 3, 4, 3)},
    )
    assert rewritten(source, FORM_RULES, relative=1e-6) == {"ConvTranspose": 1}


GEMMS = {
    "as torch writes it": ("Gemm <transB=1> (x, w, b)", (3, 4), (5, 4), (5,), {"Gemm": 1}),
    "as keras writes it": ("Gemm(x, w, b)", (3, 4), (4, 5), (5,), {"Gemm": 1}),
    "scaled": ("Gemm <alpha=0.5, beta=2.0, transB=1> (x, w, b)", (3, 4), (5, 4), (5,), {"Gemm": 1}),
    "bias of one": ("Gemm(x, w, b)", (3, 4), (4, 5), (1,), {"Gemm": 1}),
    "bias of a row": ("Gemm(x, w, b)", (3, 4), (4, 5), (1, 5), {"Gemm": 1}),
    "bias of a column": ("Gemm(x, w, b)", (3, 4), (4, 5), (3, 1), {"Gemm": 1, "Add": 1}),
    "bias of a matrix": ("Gemm <beta=3.0> (x, w, b)", (3, 4), (4, 5), (3, 5), {"Gemm": 1, "Add": 1, "Mul": 1}),
    "transposed data": ("Gemm <transA=1> (x, w, b)", (4, 3), (4, 5), (5,), {"Gemm": 1, "Transpose": 1}),
}


@pytest.mark.parametrize("name", GEMMS)
def test_gemm_has_one_form(name: str) -> None:
    text, data, shape, bias, wanted = GEMMS[name]
    source = graph(
        f"(float[{data[0]},{data[1]}] x) => (float[3,5] y) {{ y = {text} }}",
        constants={"w": weight(*shape), "b": weight(*bias)},
    )
    assert rewritten(source, FORM_RULES, relative=1e-6) == wanted
    model = canonicalize(source)
    gemm = next(node for node in model.ir.graph if node.op_type == "Gemm")
    assert attr(gemm, "transB") == 1 and attr(gemm, "alpha", 1.0) == 1.0 and attr(gemm, "transA", 0) == 0


def test_gemm_of_two_activations_keeps_its_factor_outside() -> None:
    source = graph("(float[3,4] x, float[4,5] z) => (float[3,5] y) { y = Gemm <alpha=0.5> (x, z) }")
    assert rewritten(source, FORM_RULES, relative=1e-6) == {"Gemm": 1, "Mul": 1}


def test_matmul_of_a_matrix_and_its_bias_are_a_gemm() -> None:
    source = graph(
        "(float[3,4] x) => (float[3,5] y) { m = MatMul(x, w) y = Add(b, m) }",
        constants={"w": weight(4, 5), "b": weight(5)},
    )
    model = canonicalize(source)
    assert operators(model) == {"Gemm": 1}
    assert_same(source, model, random_feeds(source), relative=1e-6)


def test_matmul_of_higher_rank_stays() -> None:
    source = graph(
        "(float[2,3,4] x) => (float[2,3,5] y) { m = MatMul(x, w) y = Add(b, m) }",
        constants={"w": weight(4, 5), "b": weight(5)},
    )
    assert operators(canonicalize(source)) == {"MatMul": 1, "Add": 1}
    assert "the data is no matrix" in refused(source, FORM_RULES)


def test_division_by_a_constant_is_a_product() -> None:
    source = graph("(float[2,3] x) => (float[2,3] y) { y = Div(x, c) }", constants={"c": weight(3) + 2})
    assert rewritten(source, ARITHMETIC_RULES, relative=1e-6) == {"Mul": 1}


def test_division_by_zero_stays() -> None:
    source = graph("(float[3] x) => (float[3] y) { y = Div(x, c) }", constants={"c": np.asarray([1, 0, 2], np.float32)})
    assert refused(source, ARITHMETIC_RULES) == ["the reciprocal is no normal number"]


def test_integer_division_stays() -> None:
    source = graph("(int64[3] x) => (int64[3] y) { y = Div(x, c) }", constants={"c": np.asarray([2], np.int64)})
    assert refused(source, ARITHMETIC_RULES) == []


def test_difference_with_a_constant_is_a_sum() -> None:
    source = graph("(float[2,3] x) => (float[2,3] y) { y = Sub(x, c) }", constants={"c": weight(3)})
    assert rewritten(source, ARITHMETIC_RULES, relative=0) == {"Add": 1}


@pytest.mark.parametrize(("exponent", "op"), [(2.0, "Mul"), (0.5, "Sqrt"), (3.0, "Pow")])
def test_simple_powers(exponent: float, op: str) -> None:
    source = graph("(float[4] x) => (float[4] y) { y = Pow(x, e) }", constants={"e": np.asarray(exponent, np.float32)})
    assert rewritten(source, ARITHMETIC_RULES, relative=1e-6, low=0.1) == {op: 1}


CHAINS = {
    "reshape twice": ("a = Reshape(x, p) y = Reshape(a, q)", {"p": [4, 6], "q": [2, 12]}, {"Reshape": 1}),
    "unsqueeze, squeeze": ("a = Unsqueeze(x, p) b = Relu(a) c = Squeeze(b, p) y = Flatten(c)", {"p": [0]}, 3),
    "transposes cancel": (
        "a = Transpose <perm=[1,2,0]> (x) b = Transpose <perm=[2,0,1]> (a) y = Relu(b)",
        {},
        {"Relu": 1},
    ),
    "transposes merge": (
        "a = Transpose <perm=[1,2,0]> (x) b = Transpose <perm=[0,2,1]> (a) y = Relu(b)",
        {},
        {"Transpose": 1, "Relu": 1},
    ),
    "softmax in between": (
        "a = Reshape(x, p) s = Softmax <axis=-1> (a) y = Reshape(s, q)",
        {"p": [6, 4], "q": [2, 3, 4]},
        {"Softmax": 1},
    ),
    "columns of columns": (
        "a = Gather <axis=-1> (x, p) y = Gather <axis=2> (a, q)",
        {"p": [3, 0, -2], "q": [-1, 0]},
        {"Gather": 1},
    ),
    "columns of columns, as scikit-learn's come": (
        "a = ai.onnx.ml.ArrayFeatureExtractor(x, p) y = ai.onnx.ml.ArrayFeatureExtractor(a, q)",
        {"p": [3, 0, 2], "q": [2, 0]},
        {"Gather": 1},
    ),
    "rows of columns": ("a = Gather <axis=2> (x, p) y = Gather <axis=1> (a, p)", {"p": [1, 0]}, {"Gather": 2}),
}


@pytest.mark.parametrize("name", CHAINS)
def test_chains_of_movers_merge(name: str) -> None:
    text, shapes, wanted = CHAINS[name]
    constants = {key: np.asarray(value, np.int64) for key, value in shapes.items()}
    source = graph(f"(float[2,3,4] x) => (float y) {{ {text} }}", constants=constants)
    source.ir.opset_imports["ai.onnx.ml"] = 3
    model = canonicalize(source)
    found = operators(model)
    assert (found.total() if isinstance(wanted, int) else dict(found)) == wanted
    assert_same(source, model, random_feeds(source), relative=1e-6)


def test_softmax_over_another_axis_keeps_its_reshapes() -> None:
    source = graph(
        "(float[2,3,4] x) => (float[2,3,4] y) { a = Reshape(x, p) s = Softmax <axis=-1> (a) y = Reshape(s, q) }",
        constants={"p": np.asarray([2, 12], np.int64), "q": np.asarray([2, 3, 4], np.int64)},
    )
    step = RewritePass("test", RESHAPE_RULES)
    FoldConstants().run(source)
    step.run(source)
    assert "the softmax runs over other axes" in [refusal.reason for refusal in step.refusals]
    assert operators(source)["Softmax"] == 1
