"""ONNX Runtime's own operators in the standard's terms, against ONNX Runtime."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgec.frontends._onnx_model import from_proto
from edgec.frontends.base import Loaded
from edgec.graph.model import SourceInfo
from edgec.passes.pipelines import canonicalize
from edgec.tensors import Array

rng = np.random.default_rng(0)


def _model(
    nodes: list[onnx.NodeProto], feeds: Mapping[str, Array], constants: Mapping[str, Array], outputs: Mapping[str, int]
) -> onnx.ModelProto:
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info(k, helper.np_dtype_to_tensor_dtype(v.dtype), v.shape) for k, v in feeds.items()],
        [helper.make_tensor_value_info(name, kind, None) for name, kind in outputs.items()],
        [numpy_helper.from_array(np.asarray(v), k) for k, v in constants.items()],
    )
    imports = [helper.make_opsetid("", 21), helper.make_opsetid("com.microsoft", 1)]
    return helper.make_model(graph, opset_imports=imports, ir_version=10)


def _loaded(proto: onnx.ModelProto) -> Loaded:
    source = SourceInfo(kind="onnx", name="g.onnx", digest="0" * 64)
    return from_proto(proto, source=source, name="g", inputs={})


def _both(proto: onnx.ModelProto, feeds: Mapping[str, Array]) -> tuple[list[Array], list[Array], ir.Model]:
    """Outputs of ONNX Runtime on what was given, and on what edgec made of it."""
    plain = ort.SessionOptions()
    plain.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    plain.log_severity_level = 4
    expected = ort.InferenceSession(proto.SerializeToString(), plain).run(None, dict(feeds))
    model = canonicalize(_loaded(proto).model)
    assert not [node.op_type for node in model.nodes() if node.domain == "com.microsoft"]
    made = ir.serde.serialize_model(model.ir)
    return expected, ort.InferenceSession(made.SerializeToString(), plain).run(None, dict(feeds)), model.ir


def _f(*shape: int) -> Array:
    return rng.standard_normal(shape).astype(np.float32)


def _node(op: str, inputs: str, outputs: str = "y", **attributes: Any) -> onnx.NodeProto:
    names = ["" if name == "-" else name for name in inputs.split()]
    made = ["" if name == "-" else name for name in outputs.split()]
    return helper.make_node(op, names, made, domain="com.microsoft", **attributes)


def _lens(*values: int) -> Array:
    return np.asarray(values, np.int32)


FLOAT_CASES: dict[str, tuple[onnx.NodeProto, dict[str, Array], dict[str, Array]]] = {
    "Gelu": (_node("Gelu", "x"), {"x": _f(2, 5)}, {}),
    "BiasGelu": (_node("BiasGelu", "x b"), {"x": _f(2, 5)}, {"b": _f(5)}),
    "FastGelu": (_node("FastGelu", "x b"), {"x": _f(2, 5)}, {"b": _f(5)}),
    "FastGelu, no bias": (_node("FastGelu", "x"), {"x": _f(2, 5)}, {}),
    "QuickGelu": (_node("QuickGelu", "x", alpha=1.5), {"x": _f(2, 5)}, {}),
    "FusedConv": (
        _node("FusedConv", "x w b", activation="LeakyRelu", activation_params=[0.2], pads=[1, 1, 1, 1]),
        {"x": _f(1, 3, 6, 6)},
        {"w": _f(4, 3, 3, 3), "b": _f(4)},
    ),
    "FusedConv with a sum": (
        _node("FusedConv", "x w b z", activation="Relu"),
        {"x": _f(1, 3, 6, 6), "z": _f(1, 4, 4, 4)},
        {"w": _f(4, 3, 3, 3), "b": _f(4)},
    ),
    "FusedGemm": (
        _node("FusedGemm", "x w b", activation="LeakyRelu", activation_alpha=0.3, transB=1, alpha=0.5),
        {"x": _f(2, 5)},
        {"w": _f(3, 5), "b": _f(3)},
    ),
    "FusedMatMul": (_node("FusedMatMul", "x w", alpha=0.25, transB=1), {"x": _f(2, 3, 4), "w": _f(2, 5, 4)}, {}),
    "SkipLayerNormalization": (
        _node("SkipLayerNormalization", "x s g b c", "y - - t", epsilon=1e-5),
        {"x": _f(2, 3, 8), "s": _f(2, 3, 8)},
        {"g": _f(8), "b": _f(8), "c": _f(8)},
    ),
    "SkipSimplifiedLayerNormalization": (
        _node("SkipSimplifiedLayerNormalization", "x s g", epsilon=1e-5),
        {"x": _f(2, 3, 8), "s": _f(2, 3, 8)},
        {"g": _f(8)},
    ),
    "EmbedLayerNormalization": (
        _node("EmbedLayerNormalization", "i t w p k g b", "y m", epsilon=1e-5),
        {"i": np.asarray([[1, 4, 2]], np.int32), "t": np.asarray([[0, 1, 1]], np.int32)},
        {"w": _f(6, 8), "p": _f(5, 8), "k": _f(2, 8), "g": _f(8), "b": _f(8)},
    ),
    "Attention": (_node("Attention", "x w b", num_heads=2), {"x": _f(2, 5, 8)}, {"w": _f(8, 24), "b": _f(24)}),
    "Attention, causal": (
        _node("Attention", "x w b", num_heads=2, unidirectional=1),
        {"x": _f(2, 5, 8)},
        {"w": _f(8, 24), "b": _f(24)},
    ),
    "Attention, mask": (
        _node("Attention", "x w b m", num_heads=2),
        {"x": _f(2, 5, 8), "m": np.asarray([[1, 1, 1, 0, 0], [1, 1, 1, 1, 1]], np.int32)},
        {"w": _f(8, 24), "b": _f(24)},
    ),
    "Attention, lengths": (
        _node("Attention", "x w b m", num_heads=2),
        {"x": _f(2, 5, 8), "m": _lens(3, 5)},
        {"w": _f(8, 24), "b": _f(24)},
    ),
    "Attention, mask of all pairs, bias": (
        _node("Attention", "x w b m - e", num_heads=2, scale=0.3),
        {"x": _f(2, 5, 8), "m": np.tril(np.ones((2, 5, 5), np.int32)), "e": _f(1, 2, 5, 5)},
        {"w": _f(8, 24), "b": _f(24)},
    ),
    "MultiHeadAttention": (
        _node("MultiHeadAttention", "q k v b", num_heads=2),
        {"q": _f(2, 5, 8), "k": _f(2, 7, 8), "v": _f(2, 7, 8)},
        {"b": _f(24)},
    ),
    "MultiHeadAttention, mask": (
        _node("MultiHeadAttention", "q k v - m", num_heads=2),
        {"q": _f(2, 5, 8), "k": _f(2, 4, 8), "v": _f(2, 4, 8), "m": np.asarray([[1, 1, 1, 0], [1, 1, 0, 0]], np.int32)},
        {},
    ),
    "MultiHeadAttention, keys by heads": (
        _node("MultiHeadAttention", "q k v", num_heads=2),
        {"q": _f(2, 5, 8), "k": _f(2, 2, 7, 4), "v": _f(2, 2, 7, 4)},
        {},
    ),
    "MatMulNBits": (
        _node("MatMulNBits", "x w s z", bits=4, block_size=16, K=40, N=3),
        {"x": _f(2, 40)},
        {
            "w": rng.integers(0, 256, (3, 3, 8)).astype(np.uint8),
            "s": np.abs(_f(9)),
            "z": rng.integers(0, 256, 6).astype(np.uint8),
        },
    ),
    "ExpandDims": (_node("ExpandDims", "x a"), {"x": _f(2, 5)}, {"a": np.asarray(1, np.int32)}),
    "Trilu": (_node("Trilu", "x", upper=0), {"x": _f(4, 4)}, {}),
}


@pytest.mark.parametrize("name", FLOAT_CASES)
def test_what_the_optimiser_fused(name: str) -> None:
    node, feeds, constants = FLOAT_CASES[name]
    outputs = {output: TensorProto.FLOAT for output in node.output if output and output != "m"}
    expected, actual, _ = _both(_model([node], feeds, constants, outputs), feeds)
    for want, got in zip(expected, actual, strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-4, atol=2e-5)  # sums in another order


def test_a_norm_that_strayed_into_the_standard_domain() -> None:
    node = helper.make_node("SimplifiedLayerNormalization", ["x", "g"], ["y"], axis=-1, epsilon=1e-5)
    feeds = {"x": _f(2, 3, 8)}
    expected, actual, _ = _both(_model([node], feeds, {"g": _f(8)}, {"y": TensorProto.FLOAT}), feeds)
    np.testing.assert_allclose(actual[0], expected[0], rtol=1e-5, atol=1e-6)


def test_a_cache_of_past_keys_is_refused_by_its_name() -> None:
    node = _node("Attention", "x w b - p", "y n", num_heads=2)
    feeds = {"x": _f(2, 5, 8), "p": _f(2, 2, 2, 3, 4)}
    proto = _model([node], feeds, {"w": _f(8, 24), "b": _f(24)}, {"y": TensorProto.FLOAT, "n": TensorProto.FLOAT})
    model = canonicalize(_loaded(proto).model)
    assert [(n.domain, n.op_type) for n in model.nodes()] == [("com.microsoft", "Attention")]


def _u8(*shape: int) -> Array:
    return rng.integers(0, 256, shape).astype(np.uint8)


def _scale(value: float) -> Array:
    return np.asarray(value, np.float32)


_Z = np.asarray(120, np.uint8)
_QUANT = {"s": _scale(0.02), "t": _scale(0.03), "u": _scale(0.05), "z": _Z}
INTEGER_CASES: dict[str, tuple[onnx.NodeProto, dict[str, Array], dict[str, Array]]] = {
    "QLinearAdd": (_node("QLinearAdd", "a s z b t z u z"), {"a": _u8(2, 9), "b": _u8(2, 9)}, _QUANT),
    "QLinearMul": (_node("QLinearMul", "a s z b t z u z"), {"a": _u8(2, 9), "b": _u8(2, 9)}, _QUANT),
    "QLinearSigmoid": (
        _node("QLinearSigmoid", "a s z o n"),
        {"a": _u8(2, 9)},
        {**_QUANT, "o": _scale(1 / 256), "n": _Z},
    ),
    "QLinearLeakyRelu": (_node("QLinearLeakyRelu", "a s z u z", alpha=0.1), {"a": _u8(2, 9)}, _QUANT),
    "QLinearGlobalAveragePool": (_node("QLinearGlobalAveragePool", "a s z s z"), {"a": _u8(1, 3, 4, 4)}, _QUANT),
    "QLinearAveragePool": (
        _node("QLinearAveragePool", "a s z s z", kernel_shape=[2, 2], strides=[2, 2]),
        {"a": _u8(1, 3, 4, 4)},
        _QUANT,
    ),
    "QLinearConcat": (_node("QLinearConcat", "u z a s z b t z", axis=1), {"a": _u8(2, 3), "b": _u8(2, 4)}, _QUANT),
    "QLinearSoftmax": (
        _node("QLinearSoftmax", "a s z o n", axis=-1, opset=13),
        {"a": _u8(2, 9)},
        {**_QUANT, "o": _scale(1 / 256), "n": np.asarray(0, np.uint8)},
    ),
    "QGemm": (
        _node("QGemm", "a s z w t n c u z", transB=1),
        {"a": _u8(2, 6)},
        {**_QUANT, "w": _u8(4, 6), "n": np.asarray(128, np.uint8), "c": rng.integers(-500, 500, 4).astype(np.int32)},
    ),
    "QLinearConv": (
        helper.make_node("QLinearConv", ["a", "s", "z", "w", "v", "n", "u", "z", "c"], ["y"], kernel_shape=[3, 3]),
        {"a": _u8(1, 3, 6, 6)},
        {
            **_QUANT,
            "w": rng.integers(-127, 128, (4, 3, 3, 3)).astype(np.int8),
            "v": np.abs(_f(4)) * np.float32(0.01),
            "n": np.zeros(4, np.int8),
            "c": rng.integers(-500, 500, 4).astype(np.int32),
        },
    ),
    "QLinearMatMul": (
        helper.make_node("QLinearMatMul", ["a", "s", "z", "w", "t", "n", "u", "z"], ["y"]),
        {"a": _u8(2, 6)},
        {**_QUANT, "w": rng.integers(-127, 128, (6, 4)).astype(np.int8), "n": np.asarray(0, np.int8)},
    ),
}


@pytest.mark.parametrize("name", INTEGER_CASES)
def test_what_the_static_quantizer_wrote(name: str) -> None:
    node, feeds, constants = INTEGER_CASES[name]
    used = {key: value for key, value in constants.items() if key in node.input}
    expected, actual, made = _both(_model([node], feeds, used, {"y": TensorProto.UINT8}), feeds)
    assert {n.op_type for n in made.graph} & {"QuantizeLinear"}
    difference = np.abs(expected[0].astype(int) - actual[0].astype(int))
    assert difference.max() <= 1  # one step: ONNX Runtime's tables and fixed point round otherwise here and there
    assert (difference > 0).mean() <= 0.1


def _dynamic(*, convolves: bool) -> tuple[onnx.ModelProto, dict[str, Array]]:
    weight = rng.integers(0, 256, (4, 3, 3, 3) if convolves else (6, 4)).astype(np.uint8)
    nodes = [
        helper.make_node("DynamicQuantizeLinear", ["x"], ["q", "s", "z"]),
        helper.make_node("ConvInteger" if convolves else "MatMulInteger", ["q", "w", "z", "n"], ["i"]),
        helper.make_node("Cast", ["i"], ["f"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["s", "t"], ["st"]),
        helper.make_node("Mul", ["f", "st"], ["y"]),
    ]
    feeds = {"x": _f(1, 3, 6, 6) if convolves else _f(5, 6)}
    constants = {"w": weight, "n": np.asarray(131, np.uint8), "t": _scale(0.01)}
    return _model(nodes, feeds, constants, {"y": TensorProto.FLOAT}), feeds


@pytest.mark.parametrize("convolves", [False, True])
def test_what_the_dynamic_quantizer_wrote_becomes_a_product_of_floats(convolves: bool) -> None:
    proto, feeds = _dynamic(convolves=convolves)
    expected, actual, made = _both(proto, feeds)
    assert [n.op_type for n in made.graph] == ["Conv" if convolves else "Gemm"]
    spread = float(np.abs(expected[0]).max())
    # the activations have 8 bits there and all of them here: half a step on each of the products
    assert np.abs(expected[0] - actual[0]).max() < 0.03 * spread
    codes = [f.code for f in _loaded(proto).findings]
    assert codes == ["source/dynamic-quantization"]


def test_a_dynamically_quantized_lstm() -> None:
    inputs, hidden = 5, 4
    constants: dict[str, Array] = {
        "w": rng.integers(0, 256, (1, inputs, 4 * hidden)).astype(np.uint8),
        "r": rng.integers(0, 256, (1, hidden, 4 * hidden)).astype(np.uint8),
        "b": _f(1, 8 * hidden) * np.float32(0.1),
        "ws": np.asarray([0.004], np.float32),
        "wz": np.asarray([128], np.uint8),
        "rs": np.asarray([0.005], np.float32),
        "rz": np.asarray([128], np.uint8),
    }
    node = _node("DynamicQuantizeLSTM", "x w r b - - - - ws wz rs rz", "y h", hidden_size=hidden)
    feeds: dict[str, Array] = {"x": _f(6, 2, inputs)}
    proto = _model([node], feeds, constants, {"y": TensorProto.FLOAT, "h": TensorProto.FLOAT})
    expected, actual, _ = _both(proto, feeds)
    for want, got in zip(expected, actual, strict=True):
        assert np.abs(want - got).max() < 0.02  # of values within ±1: 8-bit activations there


def test_a_table_of_8_bit_rows_beside_dynamic_products_becomes_one_of_numbers() -> None:
    proto, feeds = _dynamic(convolves=False)
    graph = proto.graph
    table = rng.integers(0, 256, (7, 6)).astype(np.uint8)
    graph.initializer.append(numpy_helper.from_array(table, "rows"))
    first = [
        helper.make_node("Gather", ["rows", "i0"], ["g"]),
        helper.make_node("DequantizeLinear", ["g", "t", "n"], ["e"]),
        helper.make_node("Add", ["x", "e"], ["sum"]),
    ]
    later = [*graph.node]
    later[0].input[0] = "sum"
    del graph.node[:]
    graph.node.extend([*first, *later])
    graph.input.append(helper.make_tensor_value_info("i0", TensorProto.INT64, (5,)))
    expected, actual, made = _both(proto, {**feeds, "i0": np.asarray([0, 3, 6, 1, 2])})
    assert sorted(n.op_type for n in made.graph) == ["Add", "Gather", "Gemm"]
    assert np.abs(expected[0] - actual[0]).max() < 0.03 * float(np.abs(expected[0]).max())  # as above


def test_moves_of_integers_stand_between_pairs() -> None:
    nodes = [
        _node("QLinearAdd", "a s z b t z u z", "c"),
        helper.make_node("Transpose", ["c"], ["d"], perm=[1, 0]),
        helper.make_node("Slice", ["d", "from", "to"], ["e"]),
        _node("QLinearMul", "e u z e u z s z"),
    ]
    constants: dict[str, Array] = {**_QUANT, "from": np.asarray([1]), "to": np.asarray([5])}
    feeds = {"a": _u8(2, 9), "b": _u8(2, 9)}
    expected, actual, made = _both(_model(nodes, feeds, constants, {"y": TensorProto.UINT8}), feeds)
    assert np.abs(expected[0].astype(int) - actual[0].astype(int)).max() <= 2  # a step of the sum, squared
    for node in made.graph:
        if node.op_type in ("Slice", "Transpose"):
            assert node.inputs[0] is not None and node.inputs[0].dtype == ir.DataType.FLOAT
