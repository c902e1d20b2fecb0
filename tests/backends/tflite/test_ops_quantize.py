"""Quantization operators outside of pairs: exact to the last step against ONNX Runtime or ONNX's reference."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest
from onnx.reference import ReferenceEvaluator

from edgec.graph.model import Model
from edgec.tensors import Array
from tests.support.graphs import graph, run_ort
from tests.support.tflite import emit, run

RNG = np.random.default_rng(3)
#: Values on and beside the middle between two steps, and far outside.
X = np.concatenate([np.arange(-8, 8, 0.25), [-1e4, 1e4, 0.125, -0.0]]).astype(np.float32).reshape(4, 17)


def assert_exact(model: Model, feeds: dict[str, Array], *, reference: bool = False) -> None:
    """The same integers, and the same floats to their last bit but one."""
    if reference:
        names = [o.name or "" for o in model.ir.graph.outputs]
        evaluator = ReferenceEvaluator(ir.serde.serialize_model(model.ir))
        wanted = {n: np.asarray(v) for n, v in zip(names, evaluator.run(None, feeds), strict=True)}
    else:
        wanted = run_ort(model, feeds)
    got = run(emit(model), feeds)
    for name, value in wanted.items():
        assert got[name].dtype == value.dtype
        np.testing.assert_allclose(got[name], value, rtol=1e-6 if value.dtype.kind == "f" else 0, atol=0)


@pytest.mark.parametrize("kind", ["uint8", "int8", "uint16", "int16"])
@pytest.mark.parametrize("fixed", [True, False])
def test_quantize(kind: str, fixed: bool) -> None:
    zero = np.asarray(3, kind)
    constants = {"s": np.asarray(0.5, np.float32), "z": zero}
    text = f"(float[4,17] x) => ({kind}[4,17] y) {{ y = QuantizeLinear(x, s, z) }}"
    feeds: dict[str, Array] = {"x": X}
    if not fixed:
        text = f"(float[4,17] x, float s, {kind} z) => ({kind}[4,17] y) {{ y = QuantizeLinear(x, s, z) }}"
        feeds |= constants
        constants = {}
    assert_exact(graph(text, constants=constants), feeds)


@pytest.mark.parametrize("axis", [0, 1, -1])
def test_quantize_along_an_axis(axis: int) -> None:
    length = X.shape[axis]
    constants: dict[str, Array] = {
        "s": np.linspace(0.3, 0.9, length, dtype=np.float32),
        "z": RNG.integers(-5, 5, length).astype(np.int8),
    }
    text = f"(float[4,17] x) => (int8[4,17] y) {{ y = QuantizeLinear <axis={axis}> (x, s, z) }}"
    assert_exact(graph(text, constants=constants), {"x": X})


def test_quantize_in_blocks_with_a_smaller_last_one() -> None:
    constants = {"s": RNG.uniform(0.2, 0.9, (4, 5)).astype(np.float32)}
    text = "(float[4,17] x) => (int8[4,17] y) { y = QuantizeLinear <axis=1, block_size=4, output_dtype=3> (x, s) }"
    assert_exact(graph(text, constants=constants), {"x": X}, reference=True)


@pytest.mark.parametrize("kind", ["uint8", "int8", "int16", "int32"])
def test_dequantize(kind: str) -> None:
    q = RNG.integers(0, 100, (4, 17)).astype(kind)
    constants = {"s": np.asarray(0.25, np.float32), "z": np.asarray(0 if kind == "int32" else 7, kind)}
    text = f"({kind}[4,17] x) => (float[4,17] y) {{ y = DequantizeLinear(x, s, z) }}"
    assert_exact(graph(text, constants=constants), {"x": q})


def test_pair_with_two_readers_of_its_integers() -> None:
    text = (
        "(float[4,17] x) => (uint8[4,17] q, float[4,17] y) { r = Relu(x) q = QuantizeLinear(r, s, z) "
        "y = DequantizeLinear(q, s, z) }"
    )
    constants: dict[str, Array] = {"s": np.asarray(0.5, np.float32), "z": np.asarray(3, np.uint8)}
    assert_exact(graph(text, constants=constants), {"x": X})


def test_dequantize_with_another_scale_is_no_pair() -> None:
    text = "(float[4,17] x) => (float[4,17] y) { q = QuantizeLinear(x, s, z) y = DequantizeLinear(q, t, z) }"
    constants: dict[str, Array] = {
        "s": np.asarray(0.5, np.float32),
        "t": np.asarray(0.25, np.float32),
        "z": np.asarray(3, np.int8),
    }
    assert_exact(graph(text, constants=constants), {"x": X})


def test_constants_that_tflite_cannot_store_become_float() -> None:
    weights: dict[str, Array] = {
        "w": RNG.integers(-100, 100, (3, 6)).astype(np.int8),
        "s": np.asarray([0.1, 0.2, 0.3], np.float32),
        "z": np.asarray([1, -2, 3], np.int8),
    }
    text = "(float[2,3] x) => (float[2,6] y) { f = DequantizeLinear <axis=0> (w, s, z) y = MatMul(x, f) }"
    model = graph(text, constants=weights)
    x = RNG.uniform(-1, 1, (2, 3)).astype(np.float32)
    np.testing.assert_allclose(run(emit(model), {"x": x})["y"], run_ort(model, {"x": x})["y"], rtol=2e-6, atol=1e-5)


def test_four_bit_weights() -> None:
    packed = ir.Tensor(RNG.integers(-8, 8, (4, 6)).astype(np.int8)).numpy()
    model = graph(
        "(float[2,4] x) => (float[2,6] y) { f = DequantizeLinear <axis=0, block_size=2> (w, s) y = MatMul(x, f) }",
        constants={"w": packed, "s": RNG.uniform(0.1, 0.3, (2, 6)).astype(np.float32)},
    )
    weight = model.ir.graph.initializers["w"]
    weight.const_value = ir.Tensor(packed.astype(ir.DataType.INT4.numpy()), name="w")
    weight.type = ir.TensorType(ir.DataType.INT4)
    x = RNG.uniform(-1, 1, (2, 4)).astype(np.float32)
    scale = np.repeat(np.asarray(model.ir.graph.initializers["s"].const_value.numpy()), 2, axis=0)  # type: ignore[union-attr]
    np.testing.assert_allclose(run(emit(model), {"x": x})["y"], x @ (packed * scale), rtol=2e-6, atol=1e-6)


@pytest.mark.parametrize("low", [-3.0, 1.0])
def test_dynamic_quantization(low: float) -> None:
    text = "(float[4,17] x) => (uint8[4,17] y, float s, uint8 z) { y, s, z = DynamicQuantizeLinear(x) }"
    x = RNG.uniform(low, 5, (4, 17)).astype(np.float32)
    assert_exact(graph(text), {"x": x})


@pytest.mark.parametrize("length", [16, 256, 257, 1000])
def test_integer_product_is_exact_at_every_length(length: int) -> None:
    text = f"(uint8[3,{length}] a, uint8[{length},4] b) => (int32[3,4] y) {{ y = MatMulInteger(a, b, za, zb) }}"
    constants = {"za": np.asarray(0, np.uint8), "zb": np.asarray(1, np.uint8)}
    feeds = {
        "a": RNG.integers(250, 256, (3, length)).astype(np.uint8),
        "b": RNG.integers(250, 256, (length, 4)).astype(np.uint8),
    }
    assert_exact(graph(text, constants=constants), feeds)


@pytest.mark.parametrize("channels", [1, 8])
def test_integer_convolution(channels: int) -> None:
    text = f"(uint8[1,{channels},6,6] x) => (int32[1,4,6,6] y) {{ y = ConvInteger <pads=[1,1,1,1]> (x, w, zx, zw) }}"
    constants: dict[str, Array] = {
        "w": RNG.integers(0, 256, (4, channels, 3, 3)).astype(np.uint8),
        "zx": np.asarray(7, np.uint8),
        "zw": np.asarray(100, np.uint8),
    }
    feeds = {"x": RNG.integers(0, 256, (1, channels, 6, 6)).astype(np.uint8)}
    assert_exact(graph(text, constants=constants), feeds)


def test_quantized_convolution_with_bias_and_channels() -> None:
    text = (
        "(uint8[1,3,6,6] x) => (uint8[1,4,3,3] y) "
        "{ y = QLinearConv <pads=[1,1,1,1], strides=[2,2]> (x, sx, zx, w, sw, zw, sy, zy, b) }"
    )
    constants: dict[str, Array] = {
        "sx": np.asarray(0.02, np.float32),
        "zx": np.asarray(120, np.uint8),
        "w": RNG.integers(-128, 128, (4, 3, 3, 3)).astype(np.int8),
        "sw": RNG.uniform(0.001, 0.01, 4).astype(np.float32),
        "zw": np.zeros(4, np.int8),
        "sy": np.asarray(0.05, np.float32),
        "zy": np.asarray(100, np.uint8),
        "b": RNG.integers(-1000, 1000, 4).astype(np.int32),
    }
    feeds = {"x": RNG.integers(0, 256, (1, 3, 6, 6)).astype(np.uint8)}
    assert_exact(graph(text, constants=constants), feeds)


def test_integers_that_are_only_dequantized_are_not_cast() -> None:
    constants: dict[str, Array] = {"s": np.asarray(0.01, np.float32), "z": np.asarray(700, np.uint16)}
    text = """(float[4,17] x) => (float[4,17] y)
    { q = QuantizeLinear(x, s, z) y = DequantizeLinear(q, s, z) }"""
    model = graph(text, constants=constants)
    assert "CAST" not in emit(model).operators
    assert_exact(model, {"x": X})
