"""Convolution and pooling in LiteRT against ONNX Runtime: dimensions, strides, groups, paddings, rounding."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from edgec.errors import EdgecError
from edgec.tensors import Array
from tests.support.single_op import Node, check, draw
from tests.support.tflite import emit


def conv(x: tuple[int, ...], w: tuple[int, ...], *, bias: bool = True, **attributes: Any) -> Node:
    operands = [draw(*x), draw(*w, seed=1)]
    if bias:
        operands.append(draw(w[0], seed=2))
    return Node("Conv", *operands, **attributes)


def transposed(x: tuple[int, ...], w: tuple[int, ...], *, bias: bool = True, **attributes: Any) -> Node:
    operands = [draw(*x), draw(*w, seed=1)]
    if bias:
        operands.append(draw(w[1] * int(attributes.get("group", 1)), seed=2))
    return Node("ConvTranspose", *operands, **attributes)


CONVOLUTIONS = [
    conv((1, 4, 11), (6, 4, 3), pads=[2, 1]),
    conv((2, 4, 11), (6, 2, 3), group=2, strides=[2], dilations=[2]),
    conv((1, 4, 11), (4, 1, 3), group=4, auto_pad="SAME_LOWER"),
    conv((2, 3, 9, 8), (5, 3, 3, 2), pads=[0, 1, 2, 0], strides=[2, 1]),
    conv((1, 3, 9, 8), (5, 3, 3, 3), dilations=[2, 3], pads=[1, 2, 2, 3], bias=False),
    conv((1, 3, 9, 8), (5, 3, 2, 4), strides=[2, 3], auto_pad="SAME_LOWER"),
    conv((1, 3, 9, 8), (5, 3, 3, 3), auto_pad="VALID"),
    conv((1, 4, 9, 8), (6, 2, 3, 3), group=2),
    conv((1, 4, 9, 8), (6, 2, 3, 3), group=2, dilations=[2, 1], pads=[1, 1, 1, 1]),
    conv((1, 4, 9, 8), (8, 1, 3, 3), group=4, strides=[2, 2], pads=[1, 1, 0, 0]),
    conv((1, 1, 5, 5), (1, 1, 3, 3), group=1),
    conv((1, 2, 5, 6, 7), (4, 2, 3, 2, 3), pads=[1, 0, 2, 0, 1, 1], strides=[1, 2, 2]),
    conv((1, 4, 5, 6, 7), (6, 2, 2, 2, 3), group=2, auto_pad="SAME_UPPER"),
    conv((1, 2, 7, 7, 7), (4, 2, 2, 2, 2), dilations=[2, 2, 3]),
]
TRANSPOSED = [
    transposed((1, 4, 7), (4, 3, 3), strides=[2], pads=[1, 0], output_padding=[1]),
    transposed((1, 4, 7), (4, 3, 3), strides=[3], dilations=[2], group=2),
    transposed((2, 4, 5, 6), (4, 3, 3, 3), strides=[2, 2], pads=[1, 1, 1, 1], output_padding=[1, 1]),
    transposed((1, 4, 5, 6), (4, 3, 2, 2), strides=[2, 2]),
    transposed((1, 4, 5, 6), (4, 3, 3, 4), strides=[2, 3], auto_pad="SAME_UPPER"),
    transposed((1, 4, 5, 6), (4, 3, 3, 4), strides=[2, 3], auto_pad="SAME_LOWER"),
    transposed((1, 4, 5, 6), (4, 3, 3, 3), strides=[2, 2], output_shape=[11, 14]),
    transposed((1, 4, 5, 6), (4, 3, 3, 3), strides=[1, 1], dilations=[2, 2], bias=False),
    transposed((1, 6, 5, 6), (6, 2, 3, 3), strides=[2, 2], group=3, pads=[1, 0, 0, 1]),
    transposed((1, 6, 5, 6), (6, 1, 3, 3), strides=[2, 2], group=6),
    transposed((1, 4, 3, 3), (4, 2, 3, 3), strides=[2, 2], output_padding=[1, 0], pads=[0, 0, 0, 0]),
    transposed((1, 2, 3, 4, 3), (2, 3, 2, 3, 2), strides=[2, 1, 2], pads=[0, 1, 0, 0, 1, 1]),
    transposed((1, 4, 3, 4, 3), (4, 1, 2, 3, 2), strides=[2, 2, 2], group=4, output_padding=[1, 0, 1]),
]
FLAT, IMAGE, CUBE = draw(2, 3, 13), draw(1, 3, 11, 9), draw(1, 2, 7, 8, 6)
POOLS = [
    *(
        Node(op, x, kernel_shape=k, **attributes)
        for op in ("MaxPool", "AveragePool")
        for x, k, attributes in (
            (FLAT, [3], {"strides": [2]}),
            (FLAT, [4], {"strides": [3], "ceil_mode": 1, "pads": [1, 2]}),
            (FLAT, [3], {"dilations": [2], "opset": 22}),
            (IMAGE, [3, 2], {"strides": [2, 2], "pads": [1, 0, 1, 1]}),
            (IMAGE, [3, 3], {"strides": [2, 2], "ceil_mode": 1}),
            (IMAGE, [3, 3], {"strides": [2, 2], "auto_pad": "SAME_UPPER"}),
            (IMAGE, [2, 4], {"strides": [1, 3], "auto_pad": "SAME_LOWER"}),
            (IMAGE, [2, 2], {"auto_pad": "VALID"}),
            (IMAGE, [3, 2], {"dilations": [2, 3], "pads": [2, 1, 0, 1], "opset": 22}),
            (CUBE, [3, 2, 3], {"strides": [2, 1, 2], "pads": [1, 1, 1, 0, 0, 1]}),
            (CUBE, [2, 2, 2], {"strides": [2, 3, 2], "ceil_mode": 1}),
            (CUBE, [2, 2, 2], {"dilations": [1, 2, 2], "opset": 22}),
        )
    ),
    Node("AveragePool", IMAGE, kernel_shape=[3, 3], pads=[1, 1, 1, 1], count_include_pad=1),
    Node(
        "AveragePool", IMAGE, kernel_shape=[3, 3], pads=[1, 0, 1, 2], strides=[2, 2], count_include_pad=1, ceil_mode=1
    ),
    Node("AveragePool", CUBE, kernel_shape=[2, 3, 3], pads=[1, 1, 1, 1, 1, 1], count_include_pad=1),
    Node("MaxPool", IMAGE, kernel_shape=[3, 3], pads=[1, 1, 1, 1], strides=[2, 2], outputs=2),
    Node("MaxPool", draw(2, 2, 5, 6), kernel_shape=[2, 2], strides=[2, 2], outputs=2, storage_order=1),
    Node("MaxPool", FLAT, kernel_shape=[3], strides=[2], outputs=2),
    Node("MaxPool", CUBE, kernel_shape=[2, 2, 2], strides=[2, 2, 2], outputs=2),
    Node("MaxPool", -abs(IMAGE) - 1, kernel_shape=[3, 3], pads=[1, 1, 1, 1]),
    Node("MaxPool", draw(1, 2, 5, 5, dtype="uint8"), kernel_shape=[2, 2]),
    Node("MaxPool", draw(1, 2, 5, 5, dtype="int8"), kernel_shape=[3, 3], pads=[1, 1, 1, 1], strides=[2, 2]),
    Node("LpPool", IMAGE, kernel_shape=[3, 2], p=3, strides=[2, 2], opset=18),
    Node("LpPool", IMAGE, kernel_shape=[3, 2], p=1, pads=[1, 0, 1, 1], opset=18),
    Node("LpPool", FLAT, kernel_shape=[3], opset=18),
    Node("GlobalAveragePool", CUBE),
    Node("GlobalMaxPool", FLAT),
    Node("GlobalLpPool", IMAGE, p=3),
]


@pytest.mark.parametrize("constant", [True, False], ids=["constant", "run-time"])
@pytest.mark.parametrize("node", CONVOLUTIONS + TRANSPOSED, ids=repr)
def test_convolution(node: Node, constant: bool) -> None:
    check(node, constant=constant)


@pytest.mark.parametrize("node", POOLS, ids=repr)
def test_pooling(node: Node) -> None:
    check(node, constant=True)


@pytest.mark.parametrize("dtype", ["float16", "float64"])
def test_other_floats_are_computed_in_float32(dtype: str) -> None:
    x, w = draw(1, 3, 6, 6, dtype=dtype), draw(4, 3, 3, 3, dtype=dtype, seed=1)
    single = Node("Conv", x.astype(np.float32), w.astype(np.float32))
    check(Node("Conv", x, w), constant=False, expected=[single.reference()[0].astype(dtype)], tolerance=1e-3)
    pool = Node("AveragePool", x.astype(np.float32), kernel_shape=[2, 2])
    node = Node("AveragePool", x, kernel_shape=[2, 2])
    check(node, constant=False, expected=[pool.reference()[0].astype(dtype)], tolerance=1e-3)


@pytest.mark.parametrize(
    ("node", "rule"),
    [
        (conv((1, 1, 3, 3, 3, 3), (1, 1, 1, 1, 1, 1), bias=False), "tflite/rank"),
        (Node("MaxPool", draw(1, 1, 40, 40), kernel_shape=[20, 20], outputs=2), "tflite/indices"),
    ],
    ids=repr,
)
def test_what_has_no_kernel_is_refused(node: Node, rule: str) -> None:
    shape = (1, 1, 3, 3, 3, 3) if node.op == "Conv" else (1, 1, 21, 21)
    declared: list[Array] = [np.zeros(shape, np.float32), np.zeros(shape, np.int64)]
    with pytest.raises(EdgecError) as caught:
        emit(node.model(constant=True, declared=declared[: node.outputs]))
    assert [f.rule for f in caught.value.findings] == [rule]
