"""Fusions on TIR: each fires where it may, and not where it would change a result."""

from __future__ import annotations

import numpy as np
import pytest

from edgec.backends.tflite.fuse import flatten_into_fully_connected, fuse
from edgec.backends.tflite.tir import Graph, Op, Storage, Tensor, constant
from edgec.tensors import Array, DType, QParams
from tests.support.plans import kernel, typed
from tests.support.tflite import assert_equal_to_ort, emit

NONE = {"fusedActivationFunction": "NONE"}
STORED = Storage(DType.INT8, QParams.per_tensor(0.1, 0))


def value(name: str, *shape: int) -> Tensor:
    return Tensor(name=name, shape=shape, dtype=DType.FLOAT32)


def floats(*values: float) -> Tensor:
    return constant("c", np.asarray(values, np.float32))


def fused(inputs: list[Tensor], outputs: list[Tensor], *ops: Op) -> Graph:
    graph = Graph(name="main", inputs=inputs, outputs=outputs, ops=list(ops))
    fuse(graph)
    return graph


def kinds(graph: Graph) -> list[str]:
    return [op.kind for op in graph.ops]


def fully_connected(x: Tensor, y: Tensor, **options: object) -> Op:
    w = constant("w", np.ones((y.shape[-1], x.shape[-1]), np.float32))
    bias = constant("b", np.zeros(y.shape[-1], np.float32))
    return Op("FULLY_CONNECTED", [x, w, bias], [y], {**NONE, **options})


# --- rule 1 -------------------------------------------------------------------------------------------


def flattened(shape: tuple[int, ...], matrix: tuple[int, int], **options: object) -> Graph:
    x, h, f, y = value("x", *shape), value("h", *shape), value("f", *matrix), value("y", matrix[0], 4)
    reshape = Op("RESHAPE", [h, constant("s", matrix, DType.INT32)], [f])
    graph = Graph("main", [x], [y], [Op("SIN", [x], [h]), reshape, fully_connected(f, y, **options)])
    flatten_into_fully_connected(graph)
    return graph


def test_a_reshape_in_front_of_fully_connected_goes_away() -> None:
    assert kinds(flattened((2, 3, 4, 5), (2, 60))) == ["SIN", "FULLY_CONNECTED"]


def test_also_where_several_axes_are_rows() -> None:
    assert kinds(flattened((2, 3, 20), (6, 20))) == ["SIN", "FULLY_CONNECTED"]


def test_a_reshape_that_splits_an_axis_between_rows_and_columns_stays() -> None:
    assert kinds(flattened((4, 10), (8, 5))) == ["SIN", "RESHAPE", "FULLY_CONNECTED"]


def test_a_reshape_in_front_of_one_that_keeps_its_axes_stays() -> None:
    assert kinds(flattened((2, 3, 20), (6, 20), keepNumDims=True)) == ["SIN", "RESHAPE", "FULLY_CONNECTED"]


# --- rule 2 -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("offset", [(1.0, 2.0, 3.0, 4.0), (0.5,)])
@pytest.mark.parametrize("swapped", [False, True])
def test_a_constant_added_is_the_bias(offset: tuple[float, ...], swapped: bool) -> None:
    x, y, z = value("x", 2, 3), value("y", 2, 4), value("z", 2, 4)
    operands: list[Tensor | None] = [floats(*offset), y] if swapped else [y, floats(*offset)]
    graph = fused([x], [z], fully_connected(x, y), Op("ADD", operands, [z], dict(NONE)))
    assert kinds(graph) == ["FULLY_CONNECTED"]
    bias = graph.ops[0].inputs[2]
    assert bias is not None and bias.data is not None and graph.ops[0].outputs == [z]
    np.testing.assert_array_equal(bias.data, np.broadcast_to(np.asarray(offset, np.float32), (4,)))


def test_a_constant_that_differs_from_row_to_row_is_no_bias() -> None:
    x, y, z = value("x", 2, 3), value("y", 2, 4), value("z", 2, 4)
    rows = constant("c", np.ones((2, 4), np.float32))
    graph = fused([x], [z], fully_connected(x, y), Op("ADD", [y, rows], [z], dict(NONE)))
    assert kinds(graph) == ["FULLY_CONNECTED", "ADD"]


def test_a_product_that_others_read_too_keeps_its_bias() -> None:
    x, y, z = value("x", 2, 3), value("y", 2, 4), value("z", 2, 4)
    graph = fused([x], [y, z], fully_connected(x, y), Op("ADD", [y, floats(1.0)], [z], dict(NONE)))
    assert kinds(graph) == ["FULLY_CONNECTED", "ADD"]


def test_nothing_is_added_behind_an_activation() -> None:
    x, y, z = value("x", 2, 3), value("y", 2, 4), value("z", 2, 4)
    product = fully_connected(x, y, fusedActivationFunction="RELU")
    graph = fused([x], [z], product, Op("ADD", [y, floats(1.0)], [z], dict(NONE)))
    assert kinds(graph) == ["FULLY_CONNECTED", "ADD"]


def test_quantized_products_keep_their_own_bias() -> None:
    x, y, z = value("x", 2, 3), value("y", 2, 4), value("z", 2, 4)
    y.storage = STORED
    graph = fused([x], [z], fully_connected(x, y), Op("ADD", [y, floats(1.0)], [z], dict(NONE)))
    assert kinds(graph) == ["FULLY_CONNECTED", "ADD"]


# --- rule 3 -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("activation", ["RELU", "RELU6", "RELU_N1_TO_1"])
def test_activations_fuse(activation: str) -> None:
    x, y, z = value("x", 4), value("y", 4), value("z", 4)
    graph = fused([x], [z], Op("ADD", [x, x], [y], dict(NONE)), Op(activation, [y], [z]))
    assert kinds(graph) == ["ADD"]
    assert graph.ops[0].options["fusedActivationFunction"] == activation and graph.ops[0].outputs == [z]


def test_a_second_activation_does_not_fuse() -> None:
    x, y, z, u = value("x", 4), value("y", 4), value("z", 4), value("u", 4)
    graph = fused([x], [u], Op("ADD", [x, x], [y], dict(NONE)), Op("RELU6", [y], [z]), Op("RELU_N1_TO_1", [z], [u]))
    assert kinds(graph) == ["ADD", "RELU_N1_TO_1"]


@pytest.mark.parametrize("kind", ["SIN", "TANH"])
def test_operators_without_a_fused_form_keep_their_activation(kind: str) -> None:
    x, y, z = value("x", 4), value("y", 4), value("z", 4)
    assert kinds(fused([x], [z], Op(kind, [x], [y]), Op("RELU", [y], [z]))) == [kind, "RELU"]


def test_an_activation_whose_input_is_quantized_stays() -> None:
    x, y, z = value("x", 4), value("y", 4), value("z", 4)
    y.storage = z.storage = STORED
    assert kinds(fused([x], [z], Op("ADD", [x, x], [y], dict(NONE)), Op("RELU", [y], [z]))) == ["ADD", "RELU"]


def test_an_activation_whose_input_is_read_elsewhere_stays() -> None:
    x, y, z = value("x", 4), value("y", 4), value("z", 4)
    assert kinds(fused([x], [y, z], Op("ADD", [x, x], [y], dict(NONE)), Op("RELU", [y], [z]))) == ["ADD", "RELU"]


# --- rules 4 and 5 ------------------------------------------------------------------------------------


def reshape(x: Tensor, y: Tensor) -> Op:
    return Op("RESHAPE", [x, constant("s", y.shape, DType.INT32)], [y])


def test_reshapes_in_a_row_are_one() -> None:
    x, h, a, b = value("x", 2, 6), value("h", 2, 6), value("a", 12), value("b", 3, 4)
    graph = fused([x], [b], Op("SIN", [x], [h]), reshape(h, a), reshape(a, b))
    assert kinds(graph) == ["SIN", "RESHAPE"] and graph.ops[1].inputs[0] is h


def test_a_reshape_there_and_back_is_none() -> None:
    x, h, a, b, y = value("x", 2, 6), value("h", 2, 6), value("a", 12), value("b", 2, 6), value("y", 2, 6)
    graph = fused([x], [y], Op("SIN", [x], [h]), reshape(h, a), reshape(a, b), Op("COS", [b], [y]))
    assert kinds(graph) == ["SIN", "COS"]


def test_an_output_that_is_only_reshaped_keeps_its_operator() -> None:
    x, y = value("x", 2, 6), value("y", 2, 6)
    assert kinds(fused([x], [y], reshape(x, y))) == ["RESHAPE"]


def test_equal_operators_are_one() -> None:
    x, a, b, y = value("x", 4), value("a", 4), value("b", 4), value("y", 4)
    graph = fused([x], [y], Op("SIN", [x], [a]), Op("SIN", [x], [b]), Op("MUL", [a, b], [y], dict(NONE)))
    assert kinds(graph) == ["SIN", "MUL"]


def test_operators_that_differ_in_an_option_are_two() -> None:
    x, a, b, y = value("x", 4), value("a", 4), value("b", 4), value("y", 4)
    graph = fused(
        [x], [y], Op("GELU", [x], [a], {"approximate": True}), Op("GELU", [x], [b], {"approximate": False}),
        Op("MUL", [a, b], [y], dict(NONE)),
    )  # fmt: skip
    assert kinds(graph).count("GELU") == 2


# --- as they come out of a model ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "operators"),
    [
        ("a = MatMul(x, w) b = Add(a, c) y = Relu(b)", {"FULLY_CONNECTED": 1}),
        ("a = Add(x, x) b = Relu(a) y = Relu(b)", {"ADD": 1}),
        ("a = Reshape(x, s) b = Reshape(a, t) y = Exp(b)", {"EXP": 1}),
        ("a = Exp(x) b = Exp(x) y = Add(a, b)", {"EXP": 1, "ADD": 1}),
    ],
)
def test_models(text: str, operators: dict[str, int]) -> None:
    constants: dict[str, Array] = {"w": kernel(4, 4), "c": kernel(4), "s": np.asarray([8]), "t": np.asarray([2, 4])}
    used = {name: data for name, data in constants.items() if f" {name})" in text}
    model = typed(f"(float[2,4] x) => (float[2,4] y) {{ {text} }}", used)
    artifact = emit(model)
    assert artifact.operators == operators
    assert_equal_to_ort(model, artifact, relative=1e-6)
