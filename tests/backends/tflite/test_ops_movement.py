"""Slicing, padding and reshaping in LiteRT against ONNX Runtime, with constant and run-time parameters."""

from __future__ import annotations

import numpy as np
import pytest

from edgec.errors import EdgecError
from edgec.tensors import CARRIED, DType
from tests.support.single_op import Node, check, draw, ints
from tests.support.tflite import emit

FAR = np.iinfo(np.int64).max
TYPES = [t.value for t in DType if t not in {DType.STRING, DType.COMPLEX64, *CARRIED}]
X = draw(2, 3, 4)


def scalar(value: float, dtype: str = "float32") -> np.ndarray:
    return np.asarray(value, np.dtype(dtype))


NODES = [
    Node("Slice", X, ints(1), ints(FAR), ints(-1)),
    Node("Slice", X, ints(0, -3), ints(2, -1), ints(0, 2)),
    Node("Slice", X, ints(-1), ints(-FAR), ints(2), ints(-1)),
    Node("Slice", X, ints(3, 2), ints(-99, -99), ints(2, 1), ints(-2, -1)),
    Node("Slice", X, ints(0, 0, 1), ints(2, 3, 4)),
    Node("Slice", X, ints(1, dtype="int32"), ints(99, dtype="int32"), ints(1, dtype="int32")),
    Node("Slice", draw(1, 2, 2, 2, 2, 4), ints(0), ints(4), ints(5), ints(2)),
    Node("Slice", X, ints(1), ints(3), ints(2), ints(1)),
    Node("Slice", X, ints(-9, 1), ints(-12, 9), ints(1, 0), ints(-1, 1)),
    Node("Pad", draw(1, 2, 1, 2, 3, 2), ints(0, 1, 0, 2, 0, 1, 1, 0, 0, 1, 2, 0), scalar(1.5)),
    Node("Pad", X, ints(0, 1, 2, 1, 0, 0)),
    Node("Pad", X, ints(0, 1, 2, 1, 0, 0), scalar(3.5)),
    Node("Pad", X, ints(0, 1, 2, 1, 0, 0), scalar(-np.inf)),
    Node("Pad", X, ints(1, 2), None, ints(-1)),
    Node("Pad", X, ints(1, 2, 0, 3), scalar(-1.0), ints(2, 0)),
    Node("Pad", X, ints(0, 1, 2, 0, 2, 3), mode="reflect"),
    Node("Pad", X, ints(0, 1, 2, 1, 2, 7), mode="edge"),
    Node("Pad", X, ints(0, 1, 2, 1, 2, 3), mode="wrap"),
    Node("Tile", X, ints(2, 1, 3)),
    Node("Expand", draw(3, 1), ints(2, 1, 4)),
    Node("Expand", draw(2, 3), ints(1, 1)),
    Node("Reshape", X, ints(0, -1)),
    Node("Reshape", X, ints(4, 6)),
    Node("Unsqueeze", X, ints(0, -1)),
    Node("Squeeze", draw(1, 3, 1), ints(0, -1)),
    Node("Split", draw(7, 2), ints(2, 4, 1), outputs=3),
    Node("Split", draw(7, 2), outputs=3, num_outputs=3),
    Node("Split", draw(2, 6), outputs=2, axis=-1, num_outputs=2),
    Node("Split", draw(2, 6), ints(6, 0), outputs=2, axis=1),
    Node("CenterCropPad", draw(5, 4, 3), ints(2, 7), axes=[0, -1]),
]
CONSTANT_ONLY = [
    Node("Pad", X, ints(0, -1, 2, 1, 0, -1)),
    Node("Pad", X, ints(0, 0, 5, 0, 4, 5), mode="edge"),
    Node("Pad", draw(1, 1, 2, 1, 2, 2), ints(0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 2), scalar(2.0)),
    Node("Slice", X, ints(5), ints(9), ints(1)),
    Node("Transpose", draw(1, 2, 1, 3, 2, 2), perm=[5, 3, 0, 1, 4, 2]),
    Node("Transpose", X),
    Node("Flatten", draw(2, 3, 4), axis=-1),
    Node("Flatten", draw(2, 3, 4), axis=0),
    Node("Concat", X, draw(2, 1, 4, seed=1), draw(2, 0, 4), data=(0, 1, 2), axis=-2),
    Node("Concat", X, draw(2, 3, 4, seed=1), axis=2),
    Node("Pad", draw(4), ints(1, 2), scalar(1.0)),
]


@pytest.mark.parametrize("node", NODES, ids=repr)
def test_parameters_at_run_time(node: Node) -> None:
    check(node, constant=False)


@pytest.mark.parametrize("node", NODES + CONSTANT_ONLY, ids=repr)
def test_constant_parameters(node: Node) -> None:
    check(node, constant=True)


@pytest.mark.parametrize("dtype", TYPES)
def test_every_element_type_moves(dtype: str) -> None:
    x = draw(2, 4, 4, 4, dtype=dtype)
    for node in (
        Node("Slice", x, ints(-1), ints(-FAR), ints(1), ints(-2)),
        Node("Pad", x, ints(0, 0, 1, 0, 0, 0, 0, 2), mode="edge"),
        Node("Pad", x, ints(0, 0, 1, 0, 0, 0, 0, 2)),
        Node("Concat", x, draw(2, 4, 4, 4, dtype=dtype, seed=1), data=(0, 1), axis=1),
        Node("Tile", x, ints(1, 1, 2, 1)),
        Node("Transpose", x, perm=[3, 1, 0, 2]),
        Node("Split", x, ints(1, 3), outputs=2, axis=2),
        Node("Expand", x[:, :1], ints(2, 4, 4, 4)),
    ):
        check(node, constant=True, expected=_numpy(node, x))


def _numpy(node: Node, x: np.ndarray) -> list[np.ndarray]:
    """What numpy computes: ONNX Runtime lacks some types."""
    if node.op == "Slice":
        return [x[:, ::-2]]
    if node.op == "Pad":
        pads = [(0, 0), (0, 0), (1, 0), (0, 2)]
        return [np.pad(x, pads, mode=node.attributes.get("mode", "constant"))]
    if node.op == "Concat":
        return [np.concatenate([a for a in node.operands if a is not None], 1)]
    if node.op == "Tile":
        return [np.tile(x, (1, 1, 2, 1))]
    if node.op == "Transpose":
        return [x.transpose(3, 1, 0, 2)]
    if node.op == "Split":
        return [x[:, :, :1], x[:, :, 1:]]
    return [np.broadcast_to(x[:, :1], x.shape)]


@pytest.mark.parametrize("dtype", ["float32", "float16", "int8", "uint8", "int16", "bool", "int64", "float64"])
@pytest.mark.parametrize("mode", ["DCR", "CRD"])
def test_depth_to_space(dtype: str, mode: str) -> None:
    x = draw(2, 12, 2, 3, dtype=dtype)
    split = x.reshape(2, 2, 2, 3, 2, 3) if mode == "DCR" else x.reshape(2, 3, 2, 2, 2, 3)
    order = (0, 3, 4, 1, 5, 2) if mode == "DCR" else (0, 1, 4, 2, 5, 3)
    expected = split.transpose(order).reshape(2, 3, 4, 6)
    check(Node("DepthToSpace", x, blocksize=2, mode=mode), constant=True, expected=[expected])
    if mode == "DCR":
        check(Node("SpaceToDepth", expected, blocksize=2), constant=True, expected=[x])


def test_scalars_reshape_both_ways() -> None:
    check(Node("Reshape", draw(1, 1), ints()), constant=True)
    check(Node("Reshape", draw(), ints(1, 1)), constant=True)


def test_random_training_dropout_is_refused() -> None:
    node = Node("Dropout", X, scalar(0.5), np.asarray(True), outputs=2)
    with pytest.raises(EdgecError) as caught:
        emit(node.model(constant=False, declared=[X, X > 0]))
    assert [f.rule for f in caught.value.findings] == ["tflite/training"]


def test_dropout_at_inference_gives_a_mask_of_ones() -> None:
    node = Node("Dropout", X, scalar(0.5), np.asarray(False), outputs=2)
    check(node, constant=True, expected=[X, np.ones(X.shape, bool)])
