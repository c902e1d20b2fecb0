"""What depends on constants alone is computed once, and bombs are left unexploded."""

from __future__ import annotations

import numpy as np
import pytest

from edgec.errors import EdgecError
from edgec.passes.common_subexpressions import CommonSubexpressions
from edgec.passes.eliminate import Eliminate
from edgec.passes.fold_constants import FoldConstants
from edgec.passes.pipelines import canonicalize
from tests.support.graphs import assert_same, graph, has_static_shapes, operators, random_feeds


def test_shape_chain_vanishes() -> None:
    source = graph(
        "(float[2,3,4] x) => (float[?,?] y) { s = Shape(x) i = Constant <value_ints=[0]> () b = Gather(s, i) "
        "m = Constant <value_ints=[-1]> () t = Concat <axis=0> (b, m) y = Reshape(x, t) }"
    )
    model = canonicalize(source)
    assert operators(model) == {"Reshape": 1}
    assert model.outputs()[0].shape == (2, 12)
    assert_same(source, model, random_feeds(source), relative=0)


def test_constant_result_stays_an_output() -> None:
    source = graph("(float[2,3] x) => (int64[2] s, float[2,3] y) { s = Shape(x) y = Relu(x) }")
    model = canonicalize(source)
    assert operators(model) == {"Identity": 1, "Relu": 1}
    assert_same(source, model, random_feeds(source), relative=0)


def test_if_with_a_constant_condition_becomes_its_branch() -> None:
    text = (
        "(float[2,3] x) => (float[2,3] y, float[2,3] z) {{ c = Constant <value = bool {{{}}}> () y, z = If (c) <"
        "then_branch = t () => (float[2,3] a, float[2,3] p) {{ a = Relu(x) p = Neg(a) }}, "
        "else_branch = e () => (float[2,3] b, float[2,3] q) {{ b = Neg(x) q = Identity(b) }}> }}"
    )
    for value, wanted in ((1, {"Relu": 1, "Neg": 1}), (0, {"Neg": 1, "Identity": 1})):
        source = graph(text.format(value))
        model = canonicalize(source)
        assert operators(model) == wanted
        assert_same(source, model, random_feeds(source), relative=0)


@pytest.mark.parametrize("size", [2**13, 2**31, 2**38])
def test_constant_of_shape_is_not_blown_up(size: int) -> None:
    source = graph(
        "(float[1] x) => (float y) { c = ConstantOfShape(n) s = ReduceSum <keepdims=0> (c) y = Add(x, s) }",
        constants={"n": np.asarray([size, 1024], np.int64)},
    )
    if size * 1024 > 2**32:
        with pytest.raises(EdgecError) as raised:
            canonicalize(source)
        assert raised.value.code == "graph/shape-mismatch"
        return
    model = canonicalize(source)
    assert operators(model)["ConstantOfShape"] == 1


def test_growth_is_bounded_in_all() -> None:
    names = [f"c{i}" for i in range(8)]
    body = " ".join(f"{name} = Expand(k{name}, n)" for name in names) + f" y = Concat <axis=0> (x, {', '.join(names)})"
    constants = {f"k{name}": np.asarray([i], np.float32) for i, name in enumerate(names)}
    source = graph(
        f"(float[1024] x) => (float y) {{ {body} }}",
        constants=constants | {"n": np.asarray([1024], np.int64)},
    )
    FoldConstants(grown_bytes=4 * 4096).run(source)
    assert operators(source)["Expand"] == 4


def test_gathered_elements_of_many_rows() -> None:
    table = np.random.default_rng(0).normal(0, 1, (90, 3)).astype(np.float32)
    places = np.random.default_rng(1).integers(-90, 90, (70, 3))
    source = graph(
        "(float[70,3] x) => (float[70,3] y) { g = GatherElements(t, i) y = Add(x, g) }",
        constants={"t": table, "i": places},
    )
    folded = canonicalize(source)
    assert operators(folded) == {"Add": 1}
    assert_same(source, folded, random_feeds(source), relative=0)


def test_quantized_weights_stay_quantized() -> None:
    source = graph(
        "(float[1,3] x) => (float[1,2] y) { w = DequantizeLinear(q, s, z) y = MatMul(x, w) }",
        constants={
            "q": np.asarray([[1, 2], [3, 4], [5, 6]], np.int8),
            "s": np.asarray(0.5, np.float32),
            "z": np.asarray(0, np.int8),
        },
    )
    assert operators(canonicalize(source)) == {"DequantizeLinear": 1, "MatMul": 1}


def test_shapes_that_do_not_fit_name_the_node() -> None:
    source = graph(
        "(float[2,3] x) => (float y) { a = Relu(x) y = MatMul(a, w) }", constants={"w": np.ones((4, 5), np.float32)}
    )
    with pytest.raises(EdgecError, match="MatMul") as raised:
        canonicalize(source)
    assert raised.value.code == "graph/shape-mismatch"
    assert raised.value.finding.where == source.ir.graph[1].name
    assert "[2,3]" in raised.value.finding.hint


def test_attribute_of_the_wrong_type_names_the_node() -> None:
    source = graph("(float[2,3] x) => (float y) { y = Transpose <perm=1> (x) }")
    with pytest.raises(EdgecError, match="perm") as raised:
        canonicalize(source)
    assert raised.value.code == "graph/invalid-node"


NO_OPS = {
    "identity": "y = Identity(a)",
    "dropout": "y = Dropout(a)",
    "cast": "y = Cast <to=1> (a)",
    "transpose": "y = Transpose <perm=[0,1,2]> (a)",
    "transpose of ones": "y = Transpose <perm=[1,0,2]> (a)",
    "concat of one": "y = Concat <axis=0> (a)",
    "slice of all": "s = Constant <value_ints=[0]> () e = Constant <value_ints=[99]> () y = Slice(a, s, e)",
    "reshape": "s = Constant <value_ints=[1,1,4]> () y = Reshape(a, s)",
    "expand": "s = Constant <value_ints=[1,1]> () y = Expand(a, s)",
    "pad": "s = Constant <value_ints=[0,0,0,0,0,0]> () y = Pad(a, s)",
    "plus zero": "z = Constant <value_float=0.0> () y = Add(z, a)",
    "times one": "z = Constant <value_float=1.0> () y = Mul(a, z)",
    "split in one": "y = Split <num_outputs=1> (a)",
}


@pytest.mark.parametrize("name", NO_OPS)
def test_no_op_goes(name: str) -> None:
    source = graph(f"(float[1,1,4] x) => (float[1,1,4] y) {{ a = Relu(x) {NO_OPS[name]} }}")
    model = canonicalize(source)
    assert operators(model) == {"Relu": 1}
    assert model.outputs()[0].name == "y"
    assert_same(source, model, random_feeds(source), relative=0)


OPS = {
    "transpose": "y = Transpose <perm=[1,0,2]> (a)",
    "plus zeros that broadcast": "z = Constant <value = float[2,1,1,1] {0.0, 0.0}> () y = Add(z, a)",
    "reversed slice": "s = Constant <value_ints=[-1]> () e = Constant <value_ints=[-99]> () "
    "i = Constant <value_ints=[2]> () t = Constant <value_ints=[-1]> () y = Slice(a, s, e, i, t)",
    "cast": "y = Cast <to=10> (a)",
}


@pytest.mark.parametrize("name", OPS)
def test_what_does_something_stays(name: str) -> None:
    source = graph(f"(float[2,2,4] x) => (float y) {{ a = Relu(x) {OPS[name]} }}")
    source.ir.graph.outputs[0].type = None
    model = source.clone()
    FoldConstants().run(model)
    Eliminate().run(model)
    assert sum(operators(model).values()) == 2


def test_an_input_that_is_an_output_keeps_its_identity() -> None:
    source = graph("(float[4] x) => (float[4] y) { y = Identity(x) }")
    assert operators(canonicalize(source)) == {"Identity": 1}


def test_equal_nodes_merge_and_outputs_stay() -> None:
    source = graph(
        "(float[4] x) => (float[4] y, float[4] z) { c = Constant <value_float=2.0> () "
        "d = Constant <value_float=2.0> () "
        "a = Mul(x, c) b = Mul(x, d) y = Relu(a) z = Neg(b) }"
    )
    model = source.clone()
    FoldConstants().run(model)
    assert CommonSubexpressions().run(model)
    assert operators(model) == {"Mul": 1, "Relu": 1, "Neg": 1}
    assert_same(source, model, random_feeds(source), relative=0)


def test_random_and_different_nodes_do_not_merge() -> None:
    source = graph(
        "(float[4] x) => (float[4] y) { a = RandomNormalLike(x) b = RandomNormalLike(x) c = Sub(a, b) "
        "d = Elu <alpha=0.1> (c) e = Elu <alpha=0.2> (c) y = Add(d, e) }"
    )
    model = source.clone()
    FoldConstants().run(model)
    assert not CommonSubexpressions().run(model)


def test_data_dependent_shapes_stay_open_and_named() -> None:
    source = graph("(float[4] x) => (int64[1,?] y) { y = NonZero(x) }")
    assert not has_static_shapes(canonicalize(source))
