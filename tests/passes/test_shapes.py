"""Shapes of one node's outputs, from ONNX's inference."""

from __future__ import annotations

import onnx_ir as ir
import pytest

from edgec.errors import EdgecError
from edgec.passes.shapes import infer_node


def _value(name: str, shape: tuple[int | None, ...], kind: ir.DataType = ir.DataType.FLOAT) -> ir.Value:
    return ir.Value(name=name, shape=ir.Shape(shape), type=ir.TensorType(kind))


def _resize(sizes: ir.Value) -> ir.Node:
    nothing = _value("none", (0,))
    image = _value("x", (1, 2, 4, 4))
    return ir.node("Resize", [image, nothing, nothing, sizes], {"mode": "nearest"}, outputs=[ir.Value(name="y")])


def test_a_list_of_sizes_whose_length_is_not_known_yet_is_no_mismatch() -> None:
    node = _resize(_value("sizes", (None,), ir.DataType.INT64))
    infer_node(node, {"": 19})
    assert node.outputs[0].shape is None


def test_a_list_of_sizes_of_the_wrong_length_is_one() -> None:
    with pytest.raises(EdgecError) as caught:
        infer_node(_resize(_value("sizes", (2,), ir.DataType.INT64)), {"": 19})
    assert caught.value.code == "graph/shape-mismatch"
