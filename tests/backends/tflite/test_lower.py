"""Lowering as a whole: every refusal at once and at its place, Q/DQ as storage, outputs under their names."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from edgec.backends.base import CompileOptions, load_backend
from edgec.backends.tflite.lower import lower
from edgec.errors import EdgecError, Severity
from edgec.graph.model import ORIGIN_KEY
from edgec.targets.load import load_target
from edgec.tensors import Array, DType
from tests.support.graphs import graph
from tests.support.plans import kernel, typed
from tests.support.tflite import assert_equal_to_ort, emit, emit_qdq


def test_all_that_is_unsupported_is_found_at_once_with_its_origin() -> None:
    model = typed(
        "(float[2,4] x) => (float[2,4] y, float[2,4] z) "
        "{ a = Relu(x) b = Relu(a) c = Relu(b) y = Relu(c) z = Sigmoid(a) }"
    )
    first, second = (n for n in model.nodes() if n.outputs[0].name in ("b", "y"))
    first.op_type, first.name = "Strange", "one"
    second.op_type, second.domain, second.name = "Odd", "com.other", "two"
    first.metadata_props[ORIGIN_KEY] = "net.py:12"
    _, findings = lower(model)
    assert [f.code for f in findings] == ["backend/unsupported-op"] * 2
    assert "Strange" in findings[0].message and "com.other.Odd" in findings[1].message
    assert "one" in findings[0].where and "two" in findings[1].where
    assert findings[0].source == "net.py:12"
    assert all(f.hint and f.severity == Severity.ERROR for f in findings)
    with pytest.raises(EdgecError) as error:
        load_backend("tflite").compile(model, load_target("linux-x86_64"), CompileOptions())
    assert error.value.code == "backend/unsupported" and len(error.value.findings) == 2


def test_a_free_dimension_is_a_finding() -> None:
    model = graph("(float[n,4] x) => (float[n,4] y) { y = Relu(x) }")
    model.graph.outputs[0].shape = ir.Shape(["n", 4])
    _, findings = lower(model)
    assert "backend/dynamic-shape" in {f.code for f in findings}


def test_what_check_says_is_what_compile_refuses() -> None:
    model = typed("(float[2,4] x) => (string[2,4] y) { y = Cast<to=8>(x) }")
    backend, target = load_backend("tflite"), load_target("linux-x86_64")
    errors = [f for f in backend.check(model, target) if f.severity == Severity.ERROR]
    assert errors
    with pytest.raises(EdgecError) as error:
        backend.compile(model, target, CompileOptions())
    assert {f.message for f in errors} == {f.message for f in error.value.findings}


def test_check_names_the_transposes() -> None:
    model = typed(
        "(float[1,3,8,8] x) => (float[1,64] y) { a = Conv<kernel_shape=[3,3], pads=[1,1,1,1]>(x, w) "
        "b = ReduceMax<keepdims=0>(a, axes) y = Reshape(b, s) }",
        {"w": kernel(4, 3, 3, 3), "axes": np.asarray([1]), "s": np.asarray([1, 64])},
    )
    notes = load_backend("tflite").check(model, load_target("linux-x86_64"))
    assert [f for f in notes if f.severity == Severity.ERROR] == []
    # the output of Conv as it stands must be N, C, H, W for this one
    model = typed(
        "(float[1,3,8,8] x) => (float[1,256] y) "
        "{ a = Conv<kernel_shape=[3,3], pads=[1,1,1,1]>(x, w) y = Reshape(a, s) }",
        {"w": kernel(4, 3, 3, 3), "s": np.asarray([1, 256])},
    )
    (note,) = load_backend("tflite").check(model, load_target("linux-x86_64"))
    assert note.code == "backend/transpose" and note.severity == Severity.INFO and "Conv" in note.message


# --- Q/DQ becomes storage -----------------------------------------------------------------------------

QDQ: dict[str, Array] = {"s": np.asarray(0.05, np.float32), "z": np.asarray(3, np.int8)}


def test_a_pair_annotates_the_value_between() -> None:
    model = typed(
        "(float[4] x) => (float[4] y) { a = Relu(x) q = QuantizeLinear(a, s, z) d = DequantizeLinear(q, s, z) "
        "y = Abs(d) }",
        QDQ,
    )
    tir, findings = lower(model)
    assert not findings and [op.kind for op in tir.ops] == ["RELU", "ABS"]
    storage = tir.ops[0].outputs[0].storage
    assert storage is not None and storage.dtype == DType.INT8 and storage.qparams.zero_point == (3,)


def test_a_pair_on_a_value_that_is_read_in_float_too_is_a_quantize() -> None:
    model = typed(
        "(float[4] x) => (float[4] y, float[4] z2) { a = Relu(x) q = QuantizeLinear(a, s, z) "
        "d = DequantizeLinear(q, s, z) y = Abs(d) z2 = Exp(a) }",
        QDQ,
    )
    tir, _ = lower(model)
    assert [op.kind for op in tir.ops] == ["RELU", "QUANTIZE", "ABS", "EXP"]
    assert tir.ops[0].outputs[0].storage is None


def test_uint8_becomes_int8_of_the_same_values() -> None:
    model = typed(
        "(float[4] x) => (float[4] y) { q = QuantizeLinear(x, s, z) d = DequantizeLinear(q, s, z) y = Relu(d) }",
        {"s": np.asarray(0.05, np.float32), "z": np.asarray(100, np.uint8)},
    )
    artifact = emit_qdq(model)
    assert_equal_to_ort(model, artifact, relative=1e-6)
    assert artifact.operators["QUANTIZE"] == 1


@pytest.mark.parametrize(
    ("scale", "zero", "rule"),
    [(0.0, 0, "tflite/scale"), (-1.0, 0, "tflite/scale"), (np.inf, 0, "tflite/scale")],
)
def test_impossible_scales_are_refused(scale: float, zero: int, rule: str) -> None:
    model = typed(
        "(float[4] x) => (float[4] y) { q = QuantizeLinear(x, s, z) y = DequantizeLinear(q, s, z) }",
        {"s": np.asarray(scale, np.float32), "z": np.asarray(zero, np.int8)},
    )
    _, findings = lower(model)
    assert findings[0].rule == rule


def test_an_asymmetric_scale_a_channel_is_computed() -> None:
    # no tensor of TFLite is kept so: the weight becomes a plain float
    model = typed(
        "(float[1,2] x) => (float[1,2] y) { w = DequantizeLinear<axis=0>(k, s, z) y = MatMul(x, w) }",
        {"k": np.ones((2, 2), np.int8), "s": np.asarray([0.1, 0.2], np.float32), "z": np.asarray([0, 3], np.int8)},
    )
    assert_equal_to_ort(model, emit(model), relative=1e-6)


# --- outputs ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        "(float[2,3] x) => (float[2,3] y) { y = Identity(x) }",
        "(float[2,3] x) => (float[2,3] y, float[2,3] z) { y = Relu(x) z = Identity(y) }",
        "(float[2,3] x) => (float[3,2] y, float[2,3] z) { y = Transpose<perm=[1,0]>(x) z = Transpose<perm=[1,0]>(y) }",
        "(float[2,3] x) => (float[6] y, float[2,3] z) { y = Reshape(x, s) z = Relu(x) }",
    ],
)
def test_outputs_have_the_source_names(text: str) -> None:
    model = typed(text, {"s": np.asarray([6])} if "s)" in text else {})
    artifact = emit(model)
    assert [b.source.name for b in artifact.outputs] == [spec.name for spec in model.outputs()]
    assert [b.artifact.name for b in artifact.outputs] == [spec.name for spec in model.outputs()]
    assert_equal_to_ort(model, artifact, relative=1e-6)


def test_an_output_that_does_not_depend_on_the_input() -> None:
    model = typed("(float[2] x) => (float[2] y, float[3] z) { y = Relu(x) z = Exp(c) }", {"c": kernel(3)})
    assert_equal_to_ort(model, emit(model), relative=1e-6)
