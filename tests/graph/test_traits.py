"""The operator table: roles of inputs, weight axes, and what stays within its inputs' range."""

from __future__ import annotations

import math

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from edgec.graph.model import Model
from edgec.graph.traits import (
    ALL,
    TRAITS,
    Kind,
    bias_of,
    clip_bounds,
    data_inputs,
    is_vector_bias,
    pad_value,
    trait_of,
    weight_axis,
    weight_of,
    within_inputs,
)
from edgec.passes.shapes import schema_of
from tests.support.graphs import constant
from tests.support.plans import kernel, typed


def only(model: Model) -> ir.Node:
    return next(iter(model.nodes()))


@pytest.mark.parametrize("op", sorted(TRAITS))
def test_each_row_is_a_real_operator_with_those_inputs(op: str) -> None:
    schema = schema_of("", op, 24)
    assert schema is not None, op
    row = TRAITS[op]
    positions = [*(p for p in row.activations if row.activations != ALL), row.weight, row.bias]
    highest = max((p for p in positions if p is not None), default=0)
    assert highest < schema.max_input
    assert (row.activations == ALL) == (schema.inputs[0].option == onnx.defs.OpSchema.FormalParameterOption.Variadic)


def test_anchors_are_the_operators_with_weights() -> None:
    assert {op for op, row in TRAITS.items() if row.kind is Kind.ANCHOR} == {
        "Conv",
        "ConvTranspose",
        "Gemm",
        "MatMul",
    }


def test_an_unknown_operator_and_another_domain_have_no_row() -> None:
    model = typed("(float[2,2] x) => (float[2,2] y) { y = Relu(x) }")
    node = only(model)
    assert trait_of(node) is not None
    node.domain = "my.ops"
    assert trait_of(node) is None and data_inputs(node) == ()


def test_conv_roles() -> None:
    model = typed(
        "(float[1,3,4,4] x) => (float[1,2,4,4] y) { y = Conv<kernel_shape=[1,1]>(x, w, b) }",
        {"w": kernel(2, 3, 1, 1), "b": kernel(2)},
    )
    node = only(model)
    assert (data_inputs(node), weight_of(node), bias_of(node)) == ((0,), 1, 2)


def test_matmul_of_activations_has_two_data_inputs_and_no_weight() -> None:
    with_weight = only(typed("(float[2,3] x) => (float[2,4] y) { y = MatMul(x, w) }", {"w": kernel(3, 4)}))
    without = only(typed("(float[2,3] x, float[3,4] z) => (float[2,4] y) { y = MatMul(x, z) }"))
    assert (data_inputs(with_weight), weight_of(with_weight)) == ((0,), 1)
    assert (data_inputs(without), weight_of(without)) == ((0, 1), None)


@pytest.mark.parametrize(
    ("text", "shape", "axis"),
    [
        ("(float[1,3,4,4] x) => (float[1,2,4,4] y) { y = Conv(x, w) }", (2, 3, 1, 1), 0),
        ("(float[1,3,4,4] x) => (float[1,2,4,4] y) { y = ConvTranspose(x, w) }", (3, 2, 1, 1), 1),
        ("(float[2,3] x) => (float[2,4] y) { y = Gemm(x, w) }", (3, 4), 1),
        ("(float[2,3] x) => (float[2,4] y) { y = Gemm<transB=1>(x, w) }", (4, 3), 0),
        ("(float[2,3] x) => (float[2,4] y) { y = MatMul(x, w) }", (3, 4), 1),
        ("(float[5,2,3] x) => (float[5,2,4] y) { y = MatMul(x, w) }", (5, 3, 4), None),
    ],
)
def test_weight_axis_is_where_output_channels_are(text: str, shape: tuple[int, ...], axis: int | None) -> None:
    assert weight_axis(only(typed(text, {"w": kernel(*shape)})), len(shape)) == axis


@pytest.mark.parametrize(
    ("body", "inside"),
    [
        ("y = MaxPool<kernel_shape=[2,2]>(x)", True),
        ("y = Transpose(x)", True),
        ("y = GlobalAveragePool(x)", True),
        ("y = Relu(x)", False),
        ('y = Resize<mode="linear">(x, e, s)', True),
        ('y = Resize<mode="cubic">(x, e, s)', False),
    ],
)
def test_within_inputs(body: str, inside: bool) -> None:
    constants = {"e": np.zeros(0, np.float32), "s": constant(1, 1, 2, 2)} if "Resize" in body else {}
    assert within_inputs(only(typed(f"(float[1,1,4,4] x) => (float[a,b,c,d] y) {{ {body} }}", constants))) is inside


def test_pad_value_is_zero_unless_given_and_only_in_constant_mode() -> None:
    pads = {"p": constant(0, 1, dtype="int64"), "v": np.asarray(-7.5, np.float32)}
    text = "(float[4] x) => (float[5] y) { y = Pad%s(x, p, v) }"
    assert pad_value(only(typed(text % "", pads))) == -7.5
    assert pad_value(only(typed(text % '<mode="edge">', pads))) == 0.0
    assert pad_value(only(typed("(float[4] x) => (float[4] y) { y = Relu(x) }"))) == 0.0


def test_clip_bounds() -> None:
    limits = {"lo": np.asarray(-1, np.float32), "hi": np.asarray(6, np.float32)}
    assert clip_bounds(only(typed("(float[4] x) => (float[4] y) { y = Clip(x, lo, hi) }", limits))) == (-1.0, 6.0)
    assert clip_bounds(only(typed("(float[4] x) => (float[4] y) { y = Relu(x) }"))) == (0.0, math.inf)
    moving = only(typed("(float[4] x, float m) => (float[4] y) { y = Clip(x, m) }"))
    assert clip_bounds(moving) == (-math.inf, math.inf)


def test_vector_bias_is_one_number_a_channel_along_the_last_axis() -> None:
    model = typed("(float[2,4] x) => (float[2,4] y) { y = Add(x, b) }", {"b": kernel(4)})
    column = typed("(float[4,4] x) => (float[4,4] y) { y = Add(x, b) }", {"b": kernel(4, 1)})
    assert is_vector_bias(only(model).inputs[1], 4)
    assert not is_vector_bias(only(model).inputs[1], 8)
    assert not is_vector_bias(only(column).inputs[1], 4)
