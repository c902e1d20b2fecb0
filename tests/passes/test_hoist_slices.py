"""Where one slice of a value is read, only that slice is computed."""

from __future__ import annotations

from collections import Counter

import pytest

from edgec.graph.model import Model, shape_of
from edgec.graph.verify import verify
from edgec.passes.fold_constants import FoldConstants
from edgec.passes.hoist_slices import HoistSlices
from tests.support.graphs import assert_same, graph, random_feeds

FIRST = "zero = Constant <value_ints = [0]> () one = Constant <value_ints = [1]> ()"


def hoisted(text: str) -> Model:
    source = graph(text)
    model = source.clone()
    FoldConstants().run(model)
    assert HoistSlices().run(model)
    verify(model.ir)
    assert_same(source, model, random_feeds(source, low=-2.0, high=2.0), relative=1e-6)
    assert not HoistSlices().run(model)
    return model


def unmoved(text: str) -> None:
    model = graph(text)
    FoldConstants().run(model)
    before = Counter(node.op_type for node in model.nodes())
    assert not HoistSlices().run(model)
    assert Counter(node.op_type for node in model.nodes()) == before


def shapes(model: Model, kind: str) -> list[tuple[int, ...]]:
    return [shape_of(node.outputs[0]) for node in model.nodes() if node.op_type == kind]


def test_one_token_of_a_block_needs_one_row_of_its_mlp() -> None:
    model = hoisted(
        f"""(float[1, 5, 8] x, float[8, 16] w) => (float[1, 16] y) {{
            {FIRST} scale = Constant <value = float[8] {{1, 2, 3, 4, 5, 6, 7, 8}}> ()
            i = Constant <value = int64 {{0}}> ()
            r = Relu(x) a = Add(x, r) n = LayerNormalization(a, scale) m = MatMul(n, w) t = Tanh(m)
            y = Gather <axis = 1> (t, i)
        }}"""
    )
    assert shapes(model, "MatMul") == [(1, 1, 16)]
    assert shapes(model, "LayerNormalization") == [(1, 1, 8)]
    assert shapes(model, "Relu") == [(1, 1, 8)]


def test_attention_of_one_query() -> None:
    model = hoisted(
        f"""(float[1, 3, 6, 4] q, float[1, 3, 4, 6] k, float[1, 3, 6, 4] v) => (float[1, 1, 12] y) {{
            {FIRST} shape = Constant <value_ints = [1, 6, 12]> ()
            s = MatMul(q, k) p = Softmax <axis = -1> (s) o = MatMul(p, v)
            t = Transpose <perm = [0, 2, 1, 3]> (o) f = Reshape(t, shape) y = Slice(f, zero, one, one)
        }}"""
    )
    assert shapes(model, "MatMul") == [(1, 3, 1, 6), (1, 3, 1, 4)]


def test_operands_that_broadcast_stay_whole() -> None:
    model = hoisted(
        f"""(float[4, 6] x, float[6] row, float[4, 1] column) => (float[4, 1] y) {{
            {FIRST} a = Mul(x, row) b = Add(a, column) y = Slice(b, zero, one, one)
        }}"""
    )
    assert shapes(model, "Slice") == [(4, 1), (1,)]


def test_rows_of_a_gemm() -> None:
    model = hoisted(
        f"""(float[5, 4] x, float[4, 3] w, float[3] c) => (float[1, 3] y) {{
            {FIRST} two = Constant <value_ints = [2]> () a = Gemm(x, w, c) y = Slice(a, one, two, zero)
        }}"""
    )
    assert shapes(model, "Gemm") == [(1, 3)]


@pytest.mark.parametrize(("direction", "step"), [("forward", 6), ("reverse", 0)])
def test_last_step_of_a_sequence_is_the_final_state(direction: str, step: int) -> None:
    model = hoisted(
        f"""(float[7, 2, 3] x, float[1, 12, 3] w, float[1, 12, 4] r) => (float[1, 2, 4] y) {{
            i = Constant <value = int64 {{{step}}}> ()
            s = GRU <hidden_size = 4, direction = "{direction}"> (x, w, r) y = Gather <axis = 0> (s, i)
        }}"""
    )
    (layer,) = [node for node in model.nodes() if node.op_type == "GRU"]
    assert [bool(v.name) for v in layer.outputs] == [False, True]


BODIES = {
    "another step of a sequence": """(float[7, 2, 3] x, float[1, 12, 3] w, float[1, 12, 4] r) => (float[1, 2, 4] y) {
        i = Constant <value = int64 {5}> () s = GRU <hidden_size = 4> (x, w, r) y = Gather <axis = 0> (s, i) }""",
    "an axis that a softmax runs over": f"""(float[4, 6] x) => (float[4, 1] y) {{
        {FIRST} a = Softmax <axis = 1> (x) y = Slice(a, zero, one, one) }}""",
    "two readers of different parts": f"""(float[4, 6] x) => (float[1, 6] y, float[1, 6] z) {{
        {FIRST} two = Constant <value_ints = [2]> () a = Relu(x) y = Slice(a, zero, one, zero)
        z = Slice(a, one, two, zero) }}""",
    "a reader of the whole": f"""(float[4, 6] x) => (float[1, 6] y, float[4, 6] z) {{
        {FIRST} a = Relu(x) y = Slice(a, zero, one, zero) z = Neg(a) }}""",
    "a graph output": f"""(float[4, 6] x) => (float[1, 6] y, float[4, 6] a) {{
        {FIRST} a = Relu(x) y = Slice(a, zero, one, zero) }}""",
    "steps": f"""(float[4, 6] x) => (float[2, 6] y) {{
        {FIRST} two = Constant <value_ints = [2]> () four = Constant <value_ints = [4]> ()
        a = Relu(x) y = Slice(a, zero, four, zero, two) }}""",
    "a reshape that mixes the axis": f"""(float[4, 6] x) => (float[1, 8] y) {{
        {FIRST} shape = Constant <value_ints = [3, 8]> () a = Reshape(x, shape) y = Slice(a, zero, one, zero) }}""",
    "indices": """(int64[1] i, float[4, 6] x) => (float[1, 6] y) {
        a = Relu(x) y = Gather <axis = 0> (a, i) }""",
}


@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES.keys())
def test_stays_where_it_is(body: str) -> None:
    unmoved(body)
