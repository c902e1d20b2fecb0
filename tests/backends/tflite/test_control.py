"""If, Loop and Scan in LiteRT against ONNX Runtime: written out where short, as IF and WHILE otherwise."""

from __future__ import annotations

import numpy as np
import pytest

from edgec.errors import EdgecError
from edgec.graph.model import Model
from edgec.tensors import Array
from tests.support.graphs import graph
from tests.support.tflite import assert_equal_to_ort, emit

X = np.linspace(-1, 1, 6, dtype=np.float32).reshape(2, 3)

BRANCHES = (
    "(bool c, float[2,3] x) => (float[2,3] y) { z = Mul(x, x) y = If (c) <"
    "then_branch = t () => (float[2,3] a) { u = Add(z, x) a = Relu(u) }, "
    "else_branch = e () => (float[2,3] b) { v = Transpose <perm=[1,0]> (z) w = MatMul(x, v) b = MatMul(w, x) }> }"
)


@pytest.mark.parametrize("condition", [True, False])
def test_if_that_reads_values_from_outside(condition: bool) -> None:
    model = graph(BRANCHES)
    artifact = emit(model)
    assert artifact.operators["IF"] == 1
    assert_equal_to_ort(model, artifact, relative=2e-6, feeds={"c": np.asarray(condition), "x": X})


@pytest.mark.parametrize("condition", [True, False])
def test_branch_that_passes_a_value_through(condition: bool) -> None:
    model = graph(
        "(bool c, float[2,3] x) => (float[2,3] y) { r = Relu(x) y = If (c) <"
        "then_branch = t () => (float[2,3] a) { a = Identity(r) }, "
        "else_branch = e () => (float[2,3] b) { b = Constant <value = float[2,3] {1,2,3,4,5,6}> () }> }"
    )
    assert_equal_to_ort(model, emit(model), relative=0, feeds={"c": np.asarray(condition), "x": X})


def test_branches_of_different_shapes_are_refused() -> None:
    model = graph(
        "(bool c, float[2,3] x) => (float[n,3] y) { y = If (c) <"
        "then_branch = t () => (float[2,3] a) { a = Relu(x) }, "
        "else_branch = e () => (float[4,3] b) { b = Concat <axis=0> (x, x) }> }"
    )
    with pytest.raises(EdgecError) as raised:
        emit(model)
    assert raised.value.findings[0].rule == "tflite/dynamic-shape"


def counted(trips: int, *, scan: bool = True) -> Model:
    """A loop that sums x·i and gives every partial sum."""
    outputs, names, rows = "float[2,3] y", "y", ""
    if scan:
        outputs, names, rows = outputs + f", float[{trips},2,3] z", "y, z", ", float[2,3] row"
    text = (
        f"(float[2,3] x) => ({outputs}) {{ start = Sub(x, x) {names} = Loop (trips, , start) <body = b "
        f"(int64 i, bool go, float[2,3] s) => (bool on, float[2,3] next{rows}) {{ on = Identity(go) "
        "f = Cast <to = 1> (i) p = Mul(x, f) next = Add(s, p) " + ("row = Neg(next) " if scan else "") + "}> }"
    )
    return graph(text, constants={"trips": np.asarray(trips, np.int64)})


@pytest.mark.parametrize("trips", [1, 3, 100])
@pytest.mark.parametrize("scan", [True, False])
def test_counted_loop(trips: int, scan: bool) -> None:
    model = counted(trips, scan=scan)
    artifact = emit(model)
    assert artifact.operators.get("WHILE", 0) == (1 if trips > 64 else 0)
    assert_equal_to_ort(model, artifact, relative=3e-6, feeds={"x": X})


@pytest.mark.parametrize(("trips", "start"), [(0, True), (5, True), (5, False), (500, True)])
def test_loop_that_decides_when_it_runs(trips: int, start: bool) -> None:
    """The state doubles until its sum passes 100, or the trips are over."""
    model = graph(
        "(int64 trips, bool start, float[2,3] x) => (float[2,3] y) { y = Loop (trips, start, x) <body = b "
        "(int64 i, bool go, float[2,3] s) => (bool on, float[2,3] next) { next = Add(s, s) "
        "total = ReduceSum <keepdims=0> (next) on = Less(total, hundred) }> }",
        constants={"hundred": np.asarray(100, np.float32)},
    )
    feeds: dict[str, Array] = {"trips": np.asarray(trips), "start": np.asarray(start), "x": np.abs(X)}
    assert_equal_to_ort(model, emit(model), relative=1e-6, feeds=feeds)


def test_state_that_grows_is_refused() -> None:
    model = graph(
        "(int64 trips, float[1,3] x) => (float[n,3] y) { y = Loop (trips, , x) <body = b "
        "(int64 i, bool go, float[m,3] s) => (bool on, float[k,3] next) { on = Identity(go) "
        "next = Concat <axis=0> (s, x) }> }"
    )
    with pytest.raises(EdgecError) as raised:
        emit(model)
    assert raised.value.findings[0].rule == "tflite/dynamic-shape"


def test_state_that_grows_for_a_few_rounds_is_written_out() -> None:
    model = graph(
        "(float[1,3] x) => (float[4,3] y) { y = Loop (trips, , x) <body = b "
        "(int64 i, bool go, float[m,3] s) => (bool on, float[k,3] next) { on = Identity(go) "
        "next = Concat <axis=0> (s, x) }> }",
        constants={"trips": np.asarray(3, np.int64)},
    )
    assert_equal_to_ort(model, emit(model), relative=0, feeds={"x": X[:1]})


@pytest.mark.parametrize("length", [4, 200])
@pytest.mark.parametrize("backwards", [0, 1])
@pytest.mark.parametrize("axis", [0, 1])
def test_scan(length: int, backwards: int, axis: int) -> None:
    shape = (length, 3) if axis == 0 else (3, length)
    wide = (3, length) if axis == 0 else (length, 3)
    model = graph(
        f"(float[3] h, float[{shape[0]},{shape[1]}] x) => (float[3] last, float[{wide[0]},{wide[1]}] ys) "
        "{ last, ys = Scan (h, x) <num_scan_inputs=1, "
        f"scan_input_axes=[{axis}], scan_input_directions=[{backwards}], "
        f"scan_output_axes=[{1 - axis}], scan_output_directions=[{backwards}], "
        "body = b (float[3] s, float[3] row) => (float[3] next, float[3] out) "
        "{ d = Mul(s, half) next = Add(d, row) out = Tanh(next) }> }",
        constants={"half": np.asarray(0.5, np.float32)},
    )
    artifact = emit(model)
    assert artifact.operators.get("WHILE", 0) == (1 if length > 64 else 0)
    x = np.random.default_rng(1).uniform(-1, 1, shape).astype(np.float32)
    assert_equal_to_ort(model, artifact, relative=2e-6, feeds={"h": X[0], "x": x})


def test_loop_inside_a_branch() -> None:
    model = graph(
        "(bool c, float[2,3] x) => (float[2,3] y) { y = If (c) <"
        "then_branch = t () => (float[2,3] a) { a = Loop (trips, , x) <body = b "
        "(int64 i, bool go, float[2,3] s) => (bool on, float[2,3] next) { on = Identity(go) h = Mul(s, half) "
        "next = Add(h, x) }> }, "
        "else_branch = e () => (float[2,3] b) { b = Neg(x) }> }",
        constants={"trips": np.asarray(300, np.int64), "half": np.asarray(0.5, np.float32)},
    )
    for condition in (True, False):
        assert_equal_to_ort(model, emit(model), relative=2e-6, feeds={"c": np.asarray(condition), "x": X})


SEQUENCES = {
    "insert-at": "(float[2,3] x) => (float[2,3] y) { n = Neg(x) e = SequenceConstruct(x, x) "
    "s = SequenceInsert(e, n, one) y = SequenceAt(s, one) }",
    "erase": "(float[2,3] x) => (float[2,3] y) { n = Neg(x) s = SequenceConstruct(x, n, x) "
    "t = SequenceErase(s, zero) y = SequenceAt(t, zero) }",
    "concat": "(float[2,3] x) => (float[2,9] y) { n = Neg(x) s = SequenceConstruct(x, n, x) "
    "y = ConcatFromSequence <axis=1> (s) }",
    "stack": "(float[2,3] x) => (float[2,2,3] y) { n = Neg(x) s = SequenceConstruct(x, n) "
    "y = ConcatFromSequence <axis=0, new_axis=1> (s) }",
    "split": "(float[2,3] x) => (float[3] y) { s = SplitToSequence <axis=0, keepdims=0> (x) y = SequenceAt(s, one) }",
    "split-uneven": "(float[2,3] x) => (float[2,1] y) { s = SplitToSequence <axis=1> (x, two) "
    "y = SequenceAt(s, one) }",
    "map": "(float[2,3] x) => (float[2,6] y) { n = Neg(x) s = SequenceConstruct(x, n) m = SequenceMap (s) <"
    "body = b (float[2,3] v) => (float[2,3] w) { w = Exp(v) }> y = ConcatFromSequence <axis=1> (m) }",
    "loop": "(float[2,3] x) => (float[6,3] y) { e = SequenceEmpty() s = Loop (three, , e) <body = b "
    "(int64 i, bool go, seq(float[2,3]) q) => (bool on, seq(float[2,3]) r) { on = Identity(go) "
    "f = Cast <to=1> (i) p = Mul(x, f) r = SequenceInsert(q, p) }> y = ConcatFromSequence <axis=0> (s) }",
}  # fmt: skip


@pytest.mark.parametrize("name", SEQUENCES)
def test_sequences_of_known_length(name: str) -> None:
    numbers = {"zero": 0, "one": 1, "two": 2, "three": 3}
    text = SEQUENCES[name]
    used = {n: np.asarray(v, np.int64) for n, v in numbers.items() if f"{n})" in text or f"{n}," in text}
    model = graph(text, constants=used)
    assert_equal_to_ort(model, emit(model), relative=1e-6, feeds={"x": X})
