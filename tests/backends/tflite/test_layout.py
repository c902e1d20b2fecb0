"""Whole-graph layout: what is emitted computes the same, and known nets keep as few transposes as they must."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import numpy as np
import pytest

from edgec.artifact import Artifact
from edgec.graph.model import Model
from edgec.tensors import Array
from tests.support.plans import kernel, typed
from tests.support.random_graphs import random_model
from tests.support.tflite import assert_equal_to_ort, emit

RELATIVE = 2e-5
CONV = "kernel_shape=[3,3], pads=[1,1,1,1]"


def emitted(text: str, constants: Mapping[str, Array] | None = None, *, transposes: int) -> Artifact:
    """The artifact of a graph, which computes the same and has that many transposes."""
    model = typed(text, constants)
    artifact = emit(model)
    assert_equal_to_ort(model, artifact, relative=RELATIVE)
    assert artifact.operators.get("TRANSPOSE", 0) == transposes == len(artifact.transposes), artifact.transposes
    return artifact


@pytest.mark.parametrize("seed", range(40))
def test_random_graphs_compute_the_same(seed: int) -> None:
    model = random_model(seed, steps=16)
    artifact = emit(model, io_layout="auto" if seed % 3 else "source")
    assert_equal_to_ort(model, artifact, relative=RELATIVE)
    assert artifact.operators.get("TRANSPOSE", 0) <= len(artifact.transposes)


def test_plain_convolutions_need_none() -> None:
    emitted(
        f"(float[1,3,8,8] x) => (float[1,4,8,8] y) "
        f"{{ a = Conv <{CONV}> (x, w) b = Relu (a) y = Conv <{CONV}> (b, v) }}",
        {"w": kernel(4, 3, 3, 3), "v": kernel(4, 4, 3, 3, seed=1)},
        transposes=0,
    )


def test_squeeze_and_excite_needs_none() -> None:
    emitted(
        f"""(float[1,3,8,8] x) => (float[1,8,8,8] y) {{
            a = Conv <{CONV}> (x, w) p = GlobalAveragePool (a) r = Conv <kernel_shape=[1,1]> (p, v) s = Relu (r)
            e = Conv <kernel_shape=[1,1]> (s, u) g = Sigmoid (e) y = Mul (a, g) }}""",
        {"w": kernel(8, 3, 3, 3), "v": kernel(2, 8, 1, 1, seed=1), "u": kernel(8, 2, 1, 1, seed=2)},
        transposes=0,
    )


def test_squeeze_and_excite_through_matrices_needs_none() -> None:
    emitted(
        f"""(float[1,3,8,8] x) => (float[1,8,8,8] y) {{
            a = Conv <{CONV}> (x, w) p = ReduceMean <keepdims=0> (a, axes) r = MatMul (p, v) g = Sigmoid (r)
            h = Reshape (g, shape) y = Mul (a, h) }}""",
        {
            "w": kernel(8, 3, 3, 3), "axes": np.asarray([2, 3]), "v": kernel(8, 8, seed=1),
            "shape": np.asarray([1, 8, 1, 1]),
        },
        transposes=0,
    )  # fmt: skip


def test_channel_shuffle_needs_one() -> None:
    # groups and channels of a group change places: that much moves in memory, whatever the order
    artifact = emitted(
        f"""(float[1,3,8,8] x) => (float[1,8,8,8] y) {{
            a = Conv <{CONV}> (x, w) r = Reshape (a, split) t = Transpose <perm=[0,2,1,3,4]> (r)
            m = Reshape (t, merge) y = Conv <{CONV}> (m, v) }}""",
        {
            "w": kernel(8, 3, 3, 3), "v": kernel(8, 8, 3, 3, seed=1), "split": np.asarray([1, 2, 4, 8, 8]),
            "merge": np.asarray([1, 8, 8, 8]),
        },
        transposes=1,
    )  # fmt: skip
    assert "keeps axes as" in artifact.transposes[0] and "needs" in artifact.transposes[0]


def test_detection_head_needs_none() -> None:
    # torch's permute(0, 2, 3, 1).reshape(…) of each map, concatenated, is what NHWC has anyway
    emitted(
        f"""(float[1,3,8,8] x) => (float[1,160,3] boxes) {{
            a = Conv <{CONV}> (x, w) h1 = Conv <{CONV}> (a, v) t1 = Transpose <perm=[0,2,3,1]> (h1)
            b = MaxPool <kernel_shape=[2,2], strides=[2,2]> (a)
            h2 = Conv <{CONV}> (b, u) t2 = Transpose <perm=[0,2,3,1]> (h2)
            r1 = Reshape (t1, s) r2 = Reshape (t2, s) boxes = Concat <axis=1> (r1, r2) }}""",
        {
            "w": kernel(4, 3, 3, 3), "v": kernel(6, 4, 3, 3, seed=1), "u": kernel(6, 4, 3, 3, seed=2),
            "s": np.asarray([1, -1, 3]),
        },
        transposes=0,
    )  # fmt: skip


def test_classifier_after_flatten_takes_the_order_into_its_weights() -> None:
    artifact = emitted(
        f"""(float[1,3,8,8] x) => (float[1,5] y) {{
            a = Conv <{CONV}> (x, w) f = Flatten (a) y = Gemm <transB=1> (f, v, b) }}""",
        {"w": kernel(4, 3, 3, 3), "v": kernel(5, 256, seed=1), "b": kernel(5, seed=2)},
        transposes=0,
    )
    assert artifact.operators == {"CONV_2D": 1, "FULLY_CONNECTED": 1}


def test_axis_attributes_follow() -> None:
    artifact = emitted(
        f"""(float[1,4,8,8] x) => (float[1,4,6,8] y) {{
            a = Conv <{CONV}> (x, w) s0, s1 = Split <axis=1, num_outputs=2> (a) c = Concat <axis=1> (s1, a, s0)
            k = Slice (c, one, five, one, one) p = Pad (k, pads) q = Slice (p, zero, six, rows, one)
            z = Softmax <axis=1> (q) m = ReduceMax <keepdims=1> (z, last) n = Sub (z, m) y = Conv <{CONV}> (n, v) }}""",
        {
            "w": kernel(4, 4, 3, 3), "v": kernel(4, 4, 3, 3, seed=1), "one": np.asarray([1]), "five": np.asarray([5]),
            "pads": np.asarray([0, 0, 1, 0, 0, 0, 0, 0]), "zero": np.asarray([0]), "six": np.asarray([6]),
            "rows": np.asarray([2]), "last": np.asarray([-1]),
        },
        transposes=0,
    )  # fmt: skip
    assert artifact.operators["SPLIT"] == artifact.operators["PAD"] == artifact.operators["REDUCE_MAX"] == 1


@pytest.mark.parametrize(
    ("io_layout", "shapes", "transposes"),
    [("auto", (1, 6, 6, 3), 0), ("nhwc", (1, 6, 6, 3), 0), ("source", (1, 3, 6, 6), 2)],
)
def test_io_layout(io_layout: Literal["auto", "source", "nhwc"], shapes: tuple[int, ...], transposes: int) -> None:
    model = typed(
        f"(float[1,3,6,6] x) => (float[1,4,6,6] y) {{ a = Conv <{CONV}> (x, w) y = Relu (a) }}",
        {"w": kernel(4, 3, 3, 3)},
    )
    artifact = emit(model, io_layout=io_layout)
    assert artifact.inputs[0].artifact.shape == shapes
    assert artifact.operators.get("TRANSPOSE", 0) == transposes
    assert artifact.inputs[0].perm == (None if io_layout == "source" else (0, 2, 3, 1))
    assert_equal_to_ort(model, artifact, relative=RELATIVE)


def test_nhwc_io_is_kept_also_where_the_graph_has_no_use_for_it() -> None:
    model = typed("(float[1,3,6,6] x) => (float[1,3,6,6] y) { y = Relu (x) }")
    artifact = emit(model, io_layout="nhwc")
    assert artifact.inputs[0].artifact.shape == artifact.outputs[0].artifact.shape == (1, 6, 6, 3)
    assert emit(model).inputs[0].perm is None


def test_a_value_read_in_two_orders_is_transposed_once() -> None:
    model: Model = typed(
        f"""(float[1,4,8,8] x) => (float[1,4,8,8] y, float[256] z, float[1,256] u) {{
            a = Conv <{CONV}> (x, w) y = Relu (a) z = Reshape (a, flat) v = Reshape (a, row)
            u = Softmax <axis=1> (v) }}""",
        {"w": kernel(4, 4, 3, 3), "flat": np.asarray([256]), "row": np.asarray([1, 256])},
    )
    artifact = emit(model)
    assert artifact.operators["TRANSPOSE"] == 1
    assert_equal_to_ort(model, artifact, relative=RELATIVE)
