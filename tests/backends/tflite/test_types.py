"""Integers and floats: what runs on which, where QUANTIZE and DEQUANTIZE stand, and LiteRT against ONNX Runtime."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as fb

from edgec.artifact import Artifact
from edgec.backends.base import CompileOptions, Precision, load_backend
from edgec.backends.tflite.tir import Graph, Op, Storage, Tensor, constant
from edgec.backends.tflite.types import assign_types
from edgec.graph.model import Model
from edgec.passes.pipelines import canonicalize
from edgec.quantization.planning.plan import make_plan
from edgec.quantization.run.apply import apply_plan
from edgec.targets.load import load_target
from edgec.tensors import Array, DType, QParams
from tests.support.graphs import random_feeds, run_ort
from tests.support.plans import kernel, measured, typed
from tests.support.random_graphs import random_model
from tests.support.tflite import emit, emit_qdq, run, unpacked

A = Storage(DType.INT8, QParams.per_tensor(0.1, 3))
B = Storage(DType.INT8, QParams.per_tensor(0.2, -5))


def value(name: str, *shape: int, storage: Storage | None = None) -> Tensor:
    return Tensor(name=name, shape=shape, dtype=DType.FLOAT32, storage=storage)


def typed_ops(inputs: list[Tensor], outputs: list[Tensor], *ops: Op) -> Graph:
    graph = Graph(name="main", inputs=inputs, outputs=outputs, ops=list(ops))
    assign_types(graph)
    return graph


def kinds(graph: Graph) -> list[str]:
    return [op.kind for op in graph.ops]


def quantized(model: Model, precision: Precision) -> tuple[Model, list[dict[str, Array]]]:
    """A model in one precision, with the inputs that its ranges come from."""
    target = load_target("linux-x86_64")
    legal = load_backend("tflite").legalize(canonicalize(model), target, precision)
    feeds = [random_feeds(model, seed) for seed in range(4)]
    stats = measured(legal, feeds) if precision in ("int8", "int16x8") else None
    return apply_plan(legal, make_plan(legal, stats, target, "tflite", precision, range_method="minmax")), feeds


def steps_apart(model: Model, artifact: Artifact, feeds: Mapping[str, Array], step: float) -> float:
    """The largest difference between LiteRT and ONNX Runtime, in steps."""
    wanted, got = run_ort(model, feeds), run(artifact, feeds)
    return max(float(np.max(np.abs(wanted[n].astype(np.float64) - got[n]), initial=0)) for n in wanted) / step


# --- where conversions stand --------------------------------------------------------------------------


def test_storage_passes_through_movers_forward() -> None:
    x, y = value("x", 2, 3, storage=A), value("y", 6)
    z = value("z", 6, storage=B)
    shape = constant("s", [6], DType.INT32)
    graph = typed_ops([x], [z], Op("RESHAPE", [x, shape], [y]), Op("LOGISTIC", [y], [z]))
    assert y.storage == A
    # the kernel's own fixed range, then what the plan wanted, then the float output
    assert kinds(graph) == ["RESHAPE", "LOGISTIC", "QUANTIZE", "DEQUANTIZE"]


def test_an_operator_that_is_faster_in_float_stands_between_conversions() -> None:
    x, y = value("x", 2, 3, storage=A), value("y", 2, 3, storage=B)
    graph = Graph(name="main", inputs=[x], outputs=[y], ops=[Op("GELU", [x], [y])])
    assign_types(graph, integer_io=True, in_float=("GELU",))
    assert kinds(graph) == ["DEQUANTIZE", "GELU", "QUANTIZE"]
    kept = Graph(name="main", inputs=[x], outputs=[y], ops=[Op("GELU", [x], [y])])
    assign_types(kept, integer_io=True, in_float=("ABS",))
    assert kinds(kept) == ["GELU"]


def test_storage_passes_through_movers_backward() -> None:
    w, bias = constant("w", np.ones((4, 3), np.int8)), constant("b", np.zeros(4, np.float32))
    w.dtype, w.storage = DType.FLOAT32, Storage(DType.INT8, QParams.per_tensor(0.01, 0))
    x, y = value("x", 1, 3, storage=A), value("y", 1, 4)
    z = value("z", 2, 2, storage=B)
    shape = constant("s", [2, 2], DType.INT32)
    graph = typed_ops([x], [z], Op("FULLY_CONNECTED", [x, w, bias], [y]), Op("RESHAPE", [y, shape], [z]))
    assert y.storage == B
    assert kinds(graph) == ["FULLY_CONNECTED", "RESHAPE", "DEQUANTIZE"]


def test_storage_does_not_pass_backward_where_a_float_reader_is_left() -> None:
    x, y, z = value("x", 2, 3), value("y", 2, 3), value("z", 6, storage=B)
    u = value("u", 2, 3)
    shape = constant("s", [6], DType.INT32)
    graph = typed_ops([x], [z, u], Op("EXP", [x], [y]), Op("RESHAPE", [y, shape], [z]), Op("SIN", [y], [u]))
    assert y.storage is None
    assert kinds(graph) == ["EXP", "RESHAPE", "QUANTIZE", "SIN", "DEQUANTIZE"]


def test_concat_requantizes_what_has_other_parameters() -> None:
    x, y, z = value("x", 2, storage=A), value("y", 2, storage=B), value("z", 4, storage=A)
    graph = typed_ops([x, y], [z], Op("CONCATENATION", [x, y], [z], {"axis": 0}))
    assert kinds(graph) == ["QUANTIZE", "CONCATENATION", "DEQUANTIZE"]
    requantize, concat, _ = graph.ops
    assert requantize.inputs == [y] and requantize.outputs[0].storage == A
    assert concat.inputs == [x, requantize.outputs[0]]


def test_a_value_is_requantized_once_for_all_readers() -> None:
    x, y = value("x", 2, storage=A), value("y", 2, storage=B)
    z, u = value("z", 4, storage=A), value("u", 4, storage=A)
    graph = typed_ops(
        [x, y], [z, u], Op("CONCATENATION", [x, y], [z], {"axis": 0}), Op("CONCATENATION", [y, x], [u], {"axis": 0})
    )
    assert kinds(graph).count("QUANTIZE") == 1


def test_a_float_operator_among_integers_is_an_island() -> None:
    x, y, z = value("x", 4, storage=A), value("y", 4, storage=B), value("z", 4, storage=B)
    graph = typed_ops([x], [z], Op("SIN", [x], [y]), Op("RELU", [y], [z]))
    assert kinds(graph) == ["DEQUANTIZE", "SIN", "QUANTIZE", "RELU", "DEQUANTIZE"]


def test_constants_of_elementwise_operators_get_parameters_of_their_own() -> None:
    x, y = value("x", 4, storage=A), value("y", 4, storage=B)
    c = constant("c", np.asarray([-1.0, 0.0, 1.0, 3.0], np.float32))
    graph = typed_ops([x], [y], Op("ADD", [x, c], [y]))
    stored = graph.ops[0].inputs[1]
    assert stored is not None and stored.storage is not None and stored.data is not None
    assert stored.data.dtype == np.int8
    np.testing.assert_allclose(stored.real(), [-1, 0, 1, 3], atol=stored.storage.qparams.scale[0] / 2)


def test_bias_takes_the_product_of_the_scales() -> None:
    w = constant("w", np.full((2, 3), 100, np.int8))
    bias = constant("b", np.asarray([1.0, -2.0], np.float32))
    w.dtype = DType.FLOAT32
    w.storage = Storage(DType.INT8, QParams(scale=(0.5, 0.25), zero_point=(0, 0), axis=0))
    x, y = value("x", 1, 3, storage=A), value("y", 1, 2, storage=B)
    graph = typed_ops([x], [y], Op("FULLY_CONNECTED", [x, w, bias], [y]))
    stored = graph.ops[0].inputs[2]
    assert stored is not None and stored.data is not None and stored.data.dtype == np.int32
    np.testing.assert_array_equal(stored.data, [20, -80])


def test_a_shared_weight_leaves_each_reader_s_bias_its_room() -> None:
    """A weight of few bits takes finer steps, and a large bias beside a second reader still fits 32 bits."""
    w = constant("w", np.ones((1, 3), np.int8))
    w.dtype, w.storage = DType.FLOAT32, Storage(DType.INT8, QParams.per_tensor(0.5, 0))
    x = value("x", 1, 3, storage=A)
    step = 0.5 * A.qparams.scale[0]
    biases = [
        constant(f"b{i}", np.asarray([size], np.float32)) for i, size in enumerate((step, step * 2.0**29.5, step))
    ]
    results = [value(f"y{i}", 1, 1, storage=B) for i in range(3)]
    ops = [Op("FULLY_CONNECTED", [x, w, b], [y]) for b, y in zip(biases, results, strict=True)]
    typed_ops([x], results, *ops)
    for op, bias in zip(ops, biases, strict=True):
        stored = op.inputs[2]
        assert stored is not None and stored.storage is not None and bias.data is not None
        np.testing.assert_allclose(stored.real(), bias.data, rtol=1e-6)
    first, large, last = (op.inputs[1] for op in ops)
    assert first is last and first is not large


def test_hybrid_weights_stay_where_the_runtime_has_a_kernel() -> None:
    w, bias = constant("w", np.ones((2, 3), np.int8)), constant("b", np.zeros(2, np.float32))
    w.dtype, w.storage = DType.FLOAT32, Storage(DType.INT8, QParams.per_tensor(0.5, 0))
    x, y = value("x", 1, 3), value("y", 1, 2)
    graph = typed_ops([x], [y], Op("FULLY_CONNECTED", [x, w, bias], [y]))
    assert graph.ops[0].inputs[1] is w and graph.ops[0].options["asymmetricQuantizeInputs"] is True


@pytest.mark.parametrize("kind", ["MUL", "ADD", "PRELU"])
def test_int8_constants_of_other_float_operators_become_float(kind: str) -> None:
    w = constant("w", np.ones(3, np.int8))
    w.dtype, w.storage = DType.FLOAT32, Storage(DType.INT8, QParams.per_tensor(0.5, 0))
    x, y = value("x", 1, 3), value("y", 1, 3)
    graph = typed_ops([x], [y], Op(kind, [x, w], [y]))
    stored = graph.ops[0].inputs[1]
    assert stored is not None and stored.storage is None and stored.data is not None
    np.testing.assert_array_equal(stored.data, np.full(3, 0.5, np.float32))


# --- against ONNX Runtime -----------------------------------------------------------------------------

NET = """(float[1,3,8,8] x) => (float[1,10] y)
{ c1 = Conv<kernel_shape=[3,3], pads=[1,1,1,1]>(x, w1, b1) r1 = Relu(c1)
  c2 = Conv<kernel_shape=[3,3], pads=[1,1,1,1], group=8>(r1, w2) r2 = Clip(c2, lo, hi)
  s = Add(r1, r2) p = MaxPool<kernel_shape=[2,2], strides=[2,2]>(s) a = Conv(p, w3) g = Sigmoid(a) m = Mul(a, g)
  j = Concat<axis=1>(m, p) v = GlobalAveragePool(j) f = Flatten(v) y = Gemm<transB=1>(f, w4, b4) }"""
CONSTANTS = {
    "w1": kernel(8, 3, 3, 3), "b1": kernel(8, seed=1), "w2": kernel(8, 1, 3, 3, seed=2),
    "w3": kernel(8, 8, 1, 1, seed=3), "w4": kernel(10, 16, seed=4), "b4": kernel(10, seed=5),
    "lo": np.asarray(0, np.float32), "hi": np.asarray(6, np.float32),
}  # fmt: skip
#: Large enough for weights to be worth storing in less.
WIDE = "(float[1,64,4,4] x) => (float[1,64,4,4] y) { y = Conv<kernel_shape=[3,3], pads=[1,1,1,1]>(x, w) }"
WIDE_CONSTANTS = {"w": kernel(64, 64, 3, 3)}


def test_int8_agrees_within_one_step_and_has_no_float_island() -> None:
    model, feeds = quantized(typed(NET, CONSTANTS), "int8")
    artifact = emit_qdq(model)
    step = float(np.ptp(run_ort(model, feeds[0])["y"])) / 255
    assert max(steps_apart(model, artifact, feed, step) for feed in feeds) <= 2.01
    assert artifact.operators["DEQUANTIZE"] == 1
    assert artifact.op_versions["CONV_2D"] == 3


LINEAR = """(float[1,5,8] x) => (float[1,5,6] y)
{ p = MatMul(x, w) q = Add(p, b) r = Relu(q) s = MatMul(r, v) y = Add(c, s) }"""


@pytest.mark.parametrize(("precision", "allowed"), [("int8", 2.01), ("int16x8", 16.0)])
def test_a_bias_that_is_added_to_a_product_stays_in_its_integer_kernel(precision: Precision, allowed: float) -> None:
    constants = {"w": kernel(8, 6), "b": kernel(6, seed=1), "v": kernel(6, 6, seed=2), "c": kernel(6, seed=3)}
    model, feeds = quantized(typed(LINEAR, constants), precision)
    artifact = emit_qdq(model, precision=precision)
    assert artifact.operators == {"QUANTIZE": 1, "FULLY_CONNECTED": 2, "DEQUANTIZE": 1}
    step = float(np.abs(run_ort(model, feeds[0])["y"]).max()) / (127 if precision == "int8" else 32767)
    assert max(steps_apart(model, artifact, feed, step) for feed in feeds) <= allowed


@pytest.mark.parametrize("io_layout", ["auto", "source"])
def test_integer_inputs_and_outputs(io_layout: Literal["auto", "source"]) -> None:
    model, feeds = quantized(typed(NET, CONSTANTS), "int8")
    target = load_target("linux-x86_64").model_copy(update={"io_dtype": "int8"})
    artifact = load_backend("tflite").compile(model, target, CompileOptions(precision="int8", io_layout=io_layout))
    assert not {"QUANTIZE", "DEQUANTIZE"} & set(artifact.operators)
    assert artifact.inputs[0].artifact.dtype == artifact.outputs[0].artifact.dtype == DType.INT8
    step = artifact.outputs[0].artifact.qparams
    assert step is not None
    assert max(steps_apart(model, artifact, feed, step.scale[0]) for feed in feeds) <= 2.01


def test_an_input_that_is_read_in_float_stays_float() -> None:
    x, q, y, z = value("x", 4), value("q", 4, storage=A), value("y", 4, storage=A), value("z", 4)
    graph = Graph("main", [x], [y, z], [Op("QUANTIZE", [x], [q]), Op("RELU", [q], [y]), Op("SIN", [x], [z])])
    assign_types(graph, integer_io=True)
    assert x.storage is None and kinds(graph) == ["QUANTIZE", "RELU", "SIN"]


def test_int16_activations() -> None:
    model, feeds = quantized(typed(NET, CONSTANTS), "int16x8")
    artifact = emit_qdq(model)
    magnitude = float(np.abs(run_ort(model, feeds[0])["y"]).max())
    assert steps_apart(model, artifact, feeds[0], magnitude / 32767) <= 16
    assert artifact.op_versions["CONV_2D"] == 4


def test_dynamic_range_keeps_int8_weights_and_float_data() -> None:
    model, feeds = quantized(typed(WIDE, WIDE_CONSTANTS), "dynamic")
    artifact = emit_qdq(model)
    assert artifact.operators == {"CONV_2D": 1}
    magnitude = float(np.abs(run_ort(model, feeds[0])["y"]).max())
    # the runtime rounds activations to 8 bits as it goes
    assert steps_apart(model, artifact, feeds[0], magnitude) <= 0.03
    weights = unpacked(artifact).subgraphs[0].tensors[1]
    assert weights.type == fb.TensorType.INT8 and len(weights.quantization.scale) == 64


def test_float16_weights_take_half_the_bytes() -> None:
    model, feeds = quantized(typed(WIDE, WIDE_CONSTANTS), "float16")
    artifact = emit_qdq(model, precision="float16")
    assert artifact.operators == {"CONV_2D": 1, "DEQUANTIZE": 1}
    assert artifact.size_bytes < 64 * 64 * 9 * 2 + 4000
    magnitude = float(np.abs(run_ort(model, feeds[0])["y"]).max())
    assert steps_apart(model, artifact, feeds[0], magnitude) <= 1e-5


def test_weights_that_16_bits_do_not_hold_stay_float() -> None:
    artifact = emit(typed(WIDE, WIDE_CONSTANTS), precision="float16")
    assert artifact.operators == {"CONV_2D": 1}


@pytest.mark.parametrize("seed", range(20))
def test_random_graphs_in_int8_agree(seed: int) -> None:
    model, feeds = quantized(random_model(seed + 1000, steps=10), "int8")
    artifact = emit_qdq(model)
    wanted, got = run_ort(model, feeds[0]), run(artifact, feeds[0])
    for name, reference in wanted.items():
        step = max(float(np.abs(reference).max()) / 127, 1e-6)
        assert float(np.abs(reference - got[name]).max()) <= 3 * step, name
