"""Gathering, scattering, choosing and running sums in LiteRT against ONNX Runtime."""

from __future__ import annotations

import numpy as np
import pytest

from edgec.errors import EdgecError
from edgec.tensors import CARRIED, Array, DType
from tests.support.graphs import graph
from tests.support.single_op import Node, check, draw, ints
from tests.support.tflite import assert_equal_to_ort, emit

X = draw(2, 5, 3)
TYPES = [t.value for t in DType if t not in {DType.STRING, DType.COMPLEX64, *CARRIED}]
REDUCTIONS = ["none", "add", "mul", "max", "min"]


def places(*shape: int, size: int, seed: int = 0, dtype: str = "int64") -> Array:
    """Random indices from −size to size − 1."""
    return np.random.default_rng(seed).integers(-size, size, shape).astype(dtype)


def distinct(rows: int, size: int, seed: int = 0) -> Array:
    """Different indices, some counted from the end."""
    rng = np.random.default_rng(seed)
    chosen = rng.permutation(size)[:rows]
    return np.where(rng.integers(0, 2, rows), chosen, chosen - size)


SCALAR = np.asarray(1, np.int64)
NODES = [
    Node("Gather", X, places(2, 2, size=5), axis=1),
    Node("Gather", X, places(4, size=3, dtype="int32"), axis=-1),
    Node("Gather", X, np.asarray(-2, np.int64), axis=1),
    Node("GatherElements", X, places(2, 2, 3, size=5), axis=1),
    Node("GatherElements", X, places(1, 5, 7, size=3), axis=-1),
    Node("GatherND", X, places(4, 2, size=2)),
    Node("GatherND", X, places(2, 2, 1, size=5), batch_dims=1),
    Node("GatherND", X, places(2, 5, 1, size=3), batch_dims=2),
    Node("GatherND", X, places(1, 4, 3, size=2)),
    Node("TopK", X, ints(2), outputs=2),
    Node("TopK", X, ints(3), outputs=2, axis=1, largest=0),
    Node("TopK", draw(3, 6, dtype="int64"), ints(4), outputs=2),
    Node("TopK", draw(3, 6, dtype="int32"), ints(4), outputs=2, largest=0),
    Node("TopK", draw(4), ints(4), outputs=2, axis=0),
    Node("Trilu", draw(2, 3, 4), SCALAR),
    Node("Trilu", draw(2, 3, 4), np.asarray(-1, np.int64), upper=0),
    Node("Trilu", draw(3, 3, dtype="bool")),
    Node("OneHot", places(2, 3, size=9), np.asarray(6, np.int64), np.asarray([-1.5, 2.5], np.float32), axis=1),
    Node("CumSum", X, SCALAR),
    Node("CumSum", X, np.asarray(-1, np.int32), exclusive=1, reverse=1),
    Node("CumSum", draw(2, 3, dtype="int32"), SCALAR, reverse=1),
    Node("ReverseSequence", draw(4, 3, 2), ints(4, 1, 3)),
    Node("ReverseSequence", draw(3, 4, 2), ints(4, 1, 3), batch_axis=0, time_axis=1),
    Node("Range", np.asarray(1.5, np.float32), np.asarray(7, np.float32), np.asarray(1.25, np.float32), data=()),
    Node("Range", np.asarray(9, np.int64), np.asarray(-2, np.int64), np.asarray(-3, np.int64), data=()),
    Node("EyeLike", draw(3, 5), k=1, dtype=6),
    Node("Size", X),
    Node("Shape", X, start=-2),
]


@pytest.mark.parametrize("constant", [True, False], ids=["constant", "run-time"])
@pytest.mark.parametrize("node", NODES, ids=repr)
def test_like_onnx_runtime(node: Node, constant: bool) -> None:
    check(node, constant=constant)


@pytest.mark.parametrize("constant", [True, False], ids=["constant", "run-time"])
@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("dtype", ["float32", "int32", "int64"])
def test_scatter(reduction: str, dtype: str, constant: bool) -> None:
    kept = reduction == "none"
    x = draw(4, 5, 3, dtype=dtype)
    along = np.stack([distinct(3, 5, s) for s in range(8)]).reshape(4, 2, 3).transpose(0, 2, 1)
    where = along if kept else places(4, 3, 2, size=5)
    elements = Node(
        "ScatterElements", x, where, draw(4, 3, 2, dtype=dtype, seed=1), data=(0, 2), axis=1, reduction=reduction
    )
    check(elements, constant=constant)
    rows = distinct(3, 20).reshape(3, 1) if kept else places(6, 1, size=20)
    flat = x.reshape(20, 3)
    updates = draw(len(rows), 3, dtype=dtype, seed=2)
    check(Node("ScatterND", flat, rows, updates, data=(0, 2), reduction=reduction), constant=constant)
    if not kept:
        pairs = np.concatenate([places(7, 1, size=4), places(7, 1, size=5, seed=3)], 1)
        updates = draw(7, 3, dtype=dtype, seed=4)
        check(Node("ScatterND", x, pairs, updates, data=(0, 2), reduction=reduction), constant=constant)


@pytest.mark.parametrize("dtype", TYPES)
def test_every_element_type_is_gathered_and_scattered(dtype: str) -> None:
    x, where = draw(6, 2, dtype=dtype), distinct(3, 6)
    check(Node("Gather", x, where), constant=False, expected=[x[where]])
    updates, expected = draw(3, 2, dtype=dtype, seed=3), x.copy()
    expected[where] = updates
    check(Node("ScatterND", x, where[:, None], updates, data=(0, 2)), constant=False, expected=[expected])
    grid = np.repeat(where[:, None], 2, 1)
    check(Node("ScatterElements", x, grid, updates, data=(0, 2)), constant=False, expected=[expected])
    check(Node("Trilu", x), constant=True, expected=[np.triu(x)])
    lengths = ints(2, 5)
    turned = x.copy()
    turned[:2, 0], turned[:5, 1] = x[1::-1, 0], x[4::-1, 1]
    check(Node("ReverseSequence", x, lengths), constant=False, expected=[turned])


@pytest.mark.parametrize("dtype", ["uint8", "int8", "int16", "uint32", "uint64", "int64", "float16"])
@pytest.mark.parametrize("largest", [0, 1])
def test_top_k_of_extreme_values(dtype: str, largest: int) -> None:
    if dtype == "float16":
        x = draw(9, dtype=dtype)
    else:
        info = np.iinfo(dtype)
        x = np.asarray([3, info.max, 0, info.min, 3, info.max - 1, 1, info.min + 1, 2], dtype)
    order = np.argsort(x, kind="stable")
    if largest:
        order = np.asarray(sorted(range(9), key=lambda i: (-int(x[i]) if dtype != "float16" else -float(x[i]), i)))
    node = Node("TopK", x, ints(5), outputs=2, largest=largest)
    check(node, constant=True, expected=[x[order[:5]], order[:5]])


@pytest.mark.parametrize("axis", [0, 1, -1])
@pytest.mark.parametrize(("exclusive", "reverse"), [(0, 0), (1, 0), (0, 1), (1, 1)])
@pytest.mark.parametrize("dtype", ["float32", "int32", "uint32", "uint64"])
def test_running_products(axis: int, exclusive: int, reverse: int, dtype: str) -> None:
    x = draw(3, 5, dtype=dtype)
    t = np.flip(x, axis) if reverse else x
    expected = np.cumprod(t, axis, dtype=dtype)
    if exclusive:
        expected = np.roll(expected, 1, axis)
        np.moveaxis(expected, axis, 0)[0] = 1
    expected = np.flip(expected, axis) if reverse else expected
    node = Node("CumProd", x, np.asarray(axis, np.int64), opset=26, exclusive=exclusive, reverse=reverse)
    for constant in (True, False):
        check(node, constant=constant, expected=[expected])


@pytest.mark.parametrize(
    "node",
    [
        Node("NonZero", np.asarray([[0, 1.5, 0], [0.25, 0, -1]], np.float32)),
        Node("NonZero", draw(3, 4, 2, dtype="bool")),
        Node("NonZero", draw(5, dtype="int64")),
        Node("Compress", X, np.asarray([True, False, True, True, False]), axis=1),
        Node("Compress", X, np.asarray([True, False, True, True, False, False, True])),
        Node("Unique", draw(12, dtype="int64"), outputs=4),
        Node("Unique", np.round(draw(3, 7)), outputs=4),
        Node("Unique", draw(12, dtype="int8"), outputs=4, sorted=0),
        Node("Unique", np.asarray([[1, 0, 0], [1, 0, 0], [2, 3, 4], [1, -1, 9]], np.float32), outputs=4, axis=0),
        Node("Unique", draw(2, 6, 2, dtype="int64") % 2, outputs=4, axis=1),
    ],
    ids=repr,
)
def test_results_whose_size_depends_on_the_data(node: Node) -> None:
    check(node, constant=False)


@pytest.mark.parametrize("mode", ["linear", "circular"])
def test_cache_update(mode: str) -> None:
    past, update = draw(2, 3, 6, 4), draw(2, 3, 2, 4, seed=1)
    begin = ints(3, 5 if mode == "circular" else 4)
    expected = past.copy()
    for b, start in enumerate(begin):
        for i in range(2):
            expected[b, :, (start + i) % 6] = update[b, :, i]
    node = Node("TensorScatter", past, update, begin, data=(0, 1), opset=24, mode=mode, axis=2)
    check(node, constant=False, expected=[expected])


def test_too_many_pairs_are_refused() -> None:
    x = np.zeros((5000, 1), np.float32)
    node = Node("ScatterND", x, np.zeros((5000, 1), np.int64), x, reduction="max")
    with pytest.raises(EdgecError) as caught:
        emit(node.model(constant=False, declared=[x]))
    assert [f.rule for f in caught.value.findings] == ["tflite/scatter"]


BOXES = np.random.default_rng(0).uniform(0, 1, (1, 6, 4)).astype(np.float32)
SCORES = np.random.default_rng(1).uniform(0, 1, (1, 2, 6)).astype(np.float32)
SELECTED = "m = Constant<value=int64[1]{3}>() t = Constant<value=float[1]{0.5}>() k = NonMaxSuppression(b, s, m, t)"


@pytest.mark.parametrize(
    "body",
    [
        "(int64[n,3] y) { %s y = Identity(k) }",
        """(float[n,4] y) { %s i = Constant<value=int64{2}>() z = Constant<value=int64[1]{0}>()
        j = Gather<axis=1>(k, i) c = Squeeze(b, z) y = Gather(c, j) }""",
        "(float[n] y) { %s a = Constant<value=int64[3]{0,1,2}>() j = Gather<axis=1>(k, a) y = GatherND(s, j) }",
        """(float[n,2] y) { %s f = Cast<to=1>(k) o = Constant<value=int64[1]{1}>() e = Constant<value=int64[1]{3}>()
        u = Slice(f, o, e, o) v = Add(u, u) w = Sigmoid(v) y = Concat<axis=0>(w, v) }""",
        "(float[3,n] y) { %s f = Cast<to=1>(k) y = Transpose(f) }",
    ],
)
def test_boxes_are_followed_by_what_picks_them(body: str) -> None:
    model = graph(f"(float[1,6,4] b, float[1,2,6] s) => {body % SELECTED}")
    assert_equal_to_ort(model, emit(model), relative=1e-6, feeds={"b": BOXES, "s": SCORES})


def test_what_needs_a_size_is_refused_after_boxes() -> None:
    model = graph(
        f"(float[1,6,4] b, float[1,2,6] s) => (float[n,3] y) {{ {SELECTED} f = Cast<to=1>(k) y = Softmax(f) }}"
    )
    with pytest.raises(EdgecError) as caught:
        emit(model)
    assert {f.rule for f in caught.value.findings} == {"tflite/dynamic-shape"}


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        *(("float", f"y = {op}(g)") for op in ("Cos", "Erf", "LeakyRelu", "Round", "Softplus", "Gelu", "Reciprocal")),
        *(("float", f"y = {op}(g, two)") for op in ("Max", "Pow", "Div", "Sub")),
        *(("bool", f"y = {op}(g, two)") for op in ("Equal", "Less", "GreaterOrEqual")),
        ("bool", "b = Less(g, two) c = Not(b) y = And(b, c)"),
        ("float", "b = Less(g, two) y = Where(b, g, two)"),
        ("float", "c = Constant<value=float{1.5}>() d = Constant<value=float{2.5}>() y = Clip(g, c, d)"),
    ],
)
def test_elementwise_operators_on_values_of_unknown_size(kind: str, body: str) -> None:
    two = "two = Constant<value=float[1]{2.0}>()"
    model = graph(
        f"(float[2,3] x) => ({kind}[2,n] y) {{ i = NonZero(x) f = Cast<to=1>(i) {two} g = Add(f, two) {body} }}"
    )
    x = np.asarray([[1, 0, 2], [0, 3, 4]], np.float32)
    assert_equal_to_ort(model, emit(model), relative=1e-6, feeds={"x": x})
