"""Parts of one tensor: SLICEs as a SPLIT, reshapes of parts as one of the whole, attention with two transposes."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgec.artifact import Artifact
from edgec.backends.tflite.fusions.splits import regroup, whole_shape
from edgec.backends.tflite.tir import Graph, Op, Storage, Tensor, constant
from edgec.graph.model import Model
from edgec.tensors import Array, DType, QParams
from tests.support.plans import kernel, typed
from tests.support.tflite import assert_equal_to_ort, emit


def value(name: str, *shape: int) -> Tensor:
    return Tensor(name=name, shape=shape, dtype=DType.FLOAT32)


def cut(x: Tensor, begin: tuple[int, ...], size: tuple[int, ...]) -> Op:
    inputs: list[Tensor | None] = [x, constant("b", begin, DType.INT32), constant("s", size, DType.INT32)]
    return Op("SLICE", inputs, [value(f"part{begin}", *size)])


def regrouped(x: Tensor, *cuts: Op) -> Graph:
    graph = Graph("main", [x], [op.outputs[0] for op in cuts], list(cuts))
    regroup(graph)
    return graph


# --- rule 1 -------------------------------------------------------------------------------------------


def test_slices_that_cover_an_axis_are_a_split() -> None:
    x = value("x", 2, 6)
    cuts = [cut(x, (0, begin), (2, 2)) for begin in (4, 0, 2)]
    graph = regrouped(x, *cuts)
    (split,) = graph.ops
    assert split.kind == "SPLIT" and split.options == {"numSplits": 3}
    assert split.outputs == [cuts[1].outputs[0], cuts[2].outputs[0], cuts[0].outputs[0]]


@pytest.mark.parametrize(
    ("begins", "size"),
    [
        ((0, 2), 2),  # something left out
        ((0, 1, 3), 3),  # they overlap
        ((0,), 3),  # one alone
        ((0, 1, 2, 3, 4, 5), 1),  # more than the delegate takes
    ],
)
def test_other_slices_stay(begins: tuple[int, ...], size: int) -> None:
    x = value("x", 2, 6)
    graph = regrouped(x, *(cut(x, (0, b), (2, size)) for b in begins))
    assert {op.kind for op in graph.ops} == {"SLICE"}


def test_unequal_parts_stay() -> None:
    x = value("x", 2, 6)
    assert {op.kind for op in regrouped(x, cut(x, (0, 0), (2, 2)), cut(x, (0, 2), (2, 4))).ops} == {"SLICE"}


def test_parts_kept_in_different_integers_stay() -> None:
    x = value("x", 2, 6)
    cuts = [cut(x, (0, b), (2, 3)) for b in (0, 3)]
    cuts[0].outputs[0].storage = Storage(DType.INT8, QParams.per_tensor(0.1, 0))
    assert {op.kind for op in regrouped(x, *cuts).ops} == {"SLICE"}


def test_a_slice_that_two_axes_shrink_is_no_part() -> None:
    x = value("x", 4, 6)
    graph = regrouped(x, cut(x, (0, 0), (4, 3)), cut(x, (0, 3), (2, 3)))
    assert {op.kind for op in graph.ops} == {"SLICE"}


def test_types_that_split_has_no_kernel_for_stay() -> None:
    x = value("x", 2, 6)
    x.dtype = DType.INT64
    assert {op.kind for op in regrouped(x, cut(x, (0, 0), (2, 3)), cut(x, (0, 3), (2, 3))).ops} == {"SLICE"}


# --- rule 2 -------------------------------------------------------------------------------------------


@st.composite
def reshaped_parts(draw: st.DrawFn) -> tuple[tuple[int, ...], int, int, tuple[int, ...]]:
    """A shape, the axis to split, the number of parts, and a shape for each part."""
    part = draw(st.lists(st.integers(1, 3), min_size=1, max_size=4))
    axis, parts = draw(st.integers(0, len(part) - 1)), draw(st.integers(2, 4))
    before = (*part[:axis], part[axis] * parts, *part[axis + 1 :])
    after, rest = [], int(np.prod(part))
    while rest > 1:
        factor = draw(st.sampled_from([d for d in range(2, rest + 1) if rest % d == 0]))
        after.append(factor)
        rest //= factor
    for _ in range(draw(st.integers(0, 2))):
        after.insert(draw(st.integers(0, len(after))), 1)
    return before, axis, parts, tuple(after) or (1,)


@settings(max_examples=200, deadline=None)
@given(reshaped_parts())
def test_the_whole_reshaped_splits_into_the_parts_reshaped(
    case: tuple[tuple[int, ...], int, int, tuple[int, ...]],
) -> None:
    before, axis, parts, part = case
    found = whole_shape(before, axis, parts, part)
    if found is None:
        return
    x = np.arange(np.prod(before)).reshape(before)
    shape, k = found
    for expected, got in zip(np.split(x, parts, axis), np.split(x.reshape(shape), parts, k), strict=True):
        np.testing.assert_array_equal(got, expected.reshape(part))


def test_parts_that_take_from_both_sides_have_no_whole() -> None:
    # each part [2, 3] of [2, 6] read as [3, 2]: its rows are not rows of the whole
    assert whole_shape((2, 6), 1, 2, (3, 2)) is None


# --- as they come out of a model ----------------------------------------------------------------------


def attention(tokens: int = 5, width: int = 12, heads: int = 3) -> Model:
    """Self-attention as exporters write it: one product for q, k and v, permuted and taken apart."""
    constants: dict[str, Array] = {
        "w": kernel(width, 3 * width), "b": kernel(3 * width, seed=1), "w2": kernel(width, width, seed=2),
        "five": np.asarray([1, tokens, 3, heads, width // heads]), "zero": np.asarray([0]),
        "three": np.asarray([1, tokens, width]),
    }  # fmt: skip
    return typed(
        f"""(float[1,{tokens},{width}] x) => (float[1,{tokens},{width}] y) {{
        f = MatMul(x, w) g = Add(f, b) r = Reshape(g, five) p = Transpose<perm=[2,0,3,1,4]>(r)
        qa, ka, va = Split<axis=0, num_outputs=3>(p) q = Squeeze(qa, zero) k = Squeeze(ka, zero) v = Squeeze(va, zero)
        kt = Transpose<perm=[0,1,3,2]>(k) a = MatMul(q, kt) m = Softmax<axis=-1>(a) o = MatMul(m, v)
        ot = Transpose<perm=[0,2,1,3]>(o) oo = Reshape(ot, three) y = MatMul(oo, w2) }}""",
        constants,
    )


def test_attention_keeps_two_transposes_and_two_reshapes() -> None:
    model = attention()
    artifact: Artifact = emit(model)
    assert_equal_to_ort(model, artifact, relative=1e-5)
    assert artifact.operators == {
        "FULLY_CONNECTED": 2, "RESHAPE": 2, "TRANSPOSE": 2, "SPLIT": 1, "BATCH_MATMUL": 2, "SOFTMAX": 1,
    }  # fmt: skip


def test_gathered_parts_too() -> None:
    model = typed(
        "(float[2,3,4] x) => (float[2,4] y) "
        "{ a = Gather<axis=1>(x, i) b = Gather<axis=1>(x, j) c = Gather<axis=1>(x, k) d = Add(a, b) y = Mul(d, c) }",
        {"i": np.asarray(0), "j": np.asarray(1), "k": np.asarray(2)},
    )
    artifact = emit(model)
    assert_equal_to_ort(model, artifact, relative=1e-6)
    assert artifact.operators == {"RESHAPE": 1, "SPLIT": 1, "ADD": 1, "MUL": 1}
