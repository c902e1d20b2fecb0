"""Models that come quantized: compiled as they are, on both backends, without calibration data."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest

from edgec.bundle.open import open_bundle
from edgec.graph.model import Model
from edgec.metrics import sqnr_db, step_differences
from edgec.pipeline import run_build
from edgec.pipeline.compare import run_compare
from edgec.tensors import Array
from tests.support.graphs import run_ort
from tests.support.plans import kernel, typed
from tests.support.small_net import samples, small_net

TARGETS = ("raspberrypi4", "intel-cpu")

#: What ONNX Runtime's quantizer is asked for.
STATIC: dict[str, dict[str, Any]] = {
    "u8 activations, s8 weights a channel": {"per_channel": True, "activation_type": "QUInt8"},
    "s8 activations, s8 weights a tensor": {"activation_type": "QInt8"},
    "u8 weights with zero points": {"activation_type": "QUInt8", "weight_type": "QUInt8"},
    "u8 weights a channel": {"per_channel": True, "activation_type": "QUInt8", "weight_type": "QUInt8"},
    "float biases": {"per_channel": True, "extra_options": {"QuantizeBias": False}},
    "symmetric activations": {"activation_type": "QInt8", "extra_options": {"ActivationSymmetric": True}},
    "a pair of its own for each reader": {"per_channel": True, "extra_options": {"DedicatedQDQPair": True}},
    "pairs on float weights": {"per_channel": True, "extra_options": {"AddQDQPairToWeight": True}},
}


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGEC_CACHE", str(tmp_path / "cache"))


def _quantized_by_onnxruntime(folder: Path, **asked: Any) -> bytes:
    quantization = pytest.importorskip("onnxruntime.quantization")

    class Reader(quantization.CalibrationDataReader):  # type: ignore[misc, name-defined]  # a class found at run time
        def __init__(self) -> None:
            self._left: Iterator[dict[str, Array]] = iter([{"image": row[None]} for row in samples(12)])

        def get_next(self) -> dict[str, Array] | None:
            return next(self._left, None)

    (folder / "float.onnx").write_bytes(small_net().to_bytes())
    kinds = {k: quantization.QuantType[asked.pop(k, "QInt8")] for k in ("activation_type", "weight_type")}
    form = quantization.QuantFormat.QDQ
    source, result = str(folder / "float.onnx"), folder / "quantized.onnx"
    quantization.quantize_static(source, str(result), Reader(), quant_format=form, **kinds, **asked)
    return result.read_bytes()


def _runs(
    folder: Path, model: bytes, target: str, feeds: list[dict[str, Array]]
) -> tuple[Array, Array, dict[str, Any]]:
    """What ONNX Runtime and the bundle make of the feeds, stacked, and the build's summary."""
    (folder / "model.onnx").write_bytes(model)
    built = run_build(folder / "model.onnx", target=target, output=folder / "dist", stop_after="bundle")
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    with open_bundle(built.path) as bundle:
        got = np.stack([next(iter(bundle.run(feed).values())) for feed in feeds])
    return np.stack([session.run(None, feed)[0] for feed in feeds]), got, built.summary


_BOTH = ("u8 activations, s8 weights a channel", "u8 weights with zero points", "pairs on float weights")


@pytest.mark.parametrize(
    ("name", "target"), [*((name, "raspberrypi4") for name in STATIC), *((name, "intel-cpu") for name in _BOTH)]
)
def test_onnxruntimes_quantizer(tmp_path: Path, name: str, target: str) -> None:
    model = _quantized_by_onnxruntime(tmp_path, **STATIC[name])
    feeds = [{"image": row[None]} for row in samples(20, seed=3)]
    wanted, got, summary = _runs(tmp_path, model, target, feeds)
    assert summary["precision"] == "int8" and "comes quantized" in summary["why"]
    # An output that is left in float has no steps: a 255th of its range is taken for one.
    step = summary_step(wanted)
    assert step_differences(wanted, got, step=step).within_2 >= 0.99
    if target == "raspberrypi4":  # the products run on integers
        assert {"CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED"} <= summary["operators"].keys()
        assert summary["operators"].get("CAST", 0) == 0


def summary_step(values: Array) -> float:
    return float(values.max() - values.min()) / 255


@pytest.mark.parametrize(("target", "db"), [("raspberrypi4", 35.0), ("intel-cpu", 60.0), ("cortex-m7", 60.0)])
def test_sixteen_bits_with_zero_points(tmp_path: Path, target: str, db: float) -> None:
    """TFLite's are symmetric and OpenVINO's kernels have 8: they are computed, not approximated by 8."""
    model = _quantized_by_onnxruntime(tmp_path, activation_type="QInt16")
    wanted, got, _ = _runs(tmp_path, model, target, [{"image": row[None]} for row in samples(6, seed=3)])
    assert sqnr_db(wanted, got) >= db


@pytest.mark.parametrize("target", ["raspberrypi4", "cortex-m7"])
def test_weights_of_sixteen_bits_are_computed_in_float(tmp_path: Path, target: str) -> None:
    """No integer kernel of TFLite takes them: LiteRT and TFLM refused a file that had them."""
    constants = {
        "w": np.linspace(-32000, 32000, 8 * 4 * 2 * 2).reshape(8, 4, 2, 2).astype(np.int16),
        "v": np.linspace(-30000, 30000, 16).reshape(4, 4, 1, 1)[:, ::-1].astype(np.int16),
        "zero": np.asarray(0, np.int16), **_steps(x=2e-4, c=2e-3, y=4e-3, w=1e-5, v=2e-5),
    }  # fmt: skip
    text = """(float[1,8,4,4] x) => (float[1,4,8,8] y_d)
    { [x] w_d = DequantizeLinear(w, w_s) c = ConvTranspose<strides=[2,2]>(x_d, w_d) [c]
      v_d = DequantizeLinear(v, v_s) y = Conv(c_d, v_d) [y] }"""
    model = typed(_pairs(text, constants, ("x", "c", "y")), constants)
    feeds = [{"x": row} for row in np.random.default_rng(7).standard_normal((6, 1, 8, 4, 4)).astype(np.float32)]
    wanted, got, _ = _runs(tmp_path, model.to_bytes(), target, feeds)
    assert sqnr_db(wanted, got) >= 50


def test_weights_of_four_bits_take_all_of_int8(tmp_path: Path) -> None:
    """TFLM rounds a sum of products twice: of so few bits it landed on the next step once in thirty, layer by layer."""
    rng = np.random.default_rng(11)
    values = [f"v{i}" for i in range(7)]
    constants: dict[str, Array] = {"zero": np.asarray(0, np.int8), **_steps(**dict.fromkeys(values, 0.05), w=0.035)}
    constants |= {f"w{i}": rng.integers(-7, 8, (8, 8, 3, 3)).astype(np.int8) for i in range(6)}
    chain = " ".join(
        f"d{i} = DequantizeLinear(w{i}, w_s) v{i + 1} = Conv<pads=[1,1,1,1]>(v{i}_d, d{i}) [v{i + 1}]" for i in range(6)
    )
    text = f"(float[1,8,6,6] v0) => (float[1,8,6,6] v6_d) {{ [v0] {chain} }}"
    model = typed(_pairs(text, constants, tuple(values)), constants)
    feeds = [{"v0": row} for row in (0.2 * rng.standard_normal((4, 1, 8, 6, 6))).astype(np.float32)]
    wanted, got, _ = _runs(tmp_path, model.to_bytes(), "cortex-m7", feeds)
    assert step_differences(wanted, got, step=0.05).within_2 >= 0.99


def test_a_microcontroller_runs_weights_alone_in_float(tmp_path: Path) -> None:
    """It has no kernels for int8 weights beside float data: the weights are what they stand for."""
    constants = {"w": np.arange(-60, 60, dtype=np.int8).reshape(8, 15)[:, ::-1].copy(), **_steps(w=0.01)}
    model = typed("(float[1,8] x) => (float[1,15] y) { d = DequantizeLinear(w, w_s) y = MatMul(x, d) }", constants)
    feeds = [{"x": row} for row in np.random.default_rng(4).standard_normal((4, 1, 8)).astype(np.float32)]
    wanted, got, _ = _runs(tmp_path, model.to_bytes(), "cortex-m7", feeds)
    assert sqnr_db(wanted, got) >= 100


def test_integers_that_fit_around_zero_stay_as_they_are(tmp_path: Path) -> None:
    """A zero point alone is no reason to round a weight again: int8 holds what is left after it is taken away."""
    weight = np.random.default_rng(8).integers(40, 200, (6, 3, 3, 3)).astype(np.uint8)
    constants = {"w": weight, "w_z": np.asarray(110, np.uint8), "zero": np.asarray(0, np.int8)}
    constants |= _steps(x=0.03, y=0.15, w=0.004)
    text = """(float[1,3,8,8] x) => (float[1,6,6,6] y_d)
    { [x] w_d = DequantizeLinear(w, w_s, w_z) y = Conv(x_d, w_d) [y] }"""
    model = typed(_pairs(text, constants, ("x", "y")), constants)
    feeds = [{"x": row} for row in np.random.default_rng(9).standard_normal((8, 1, 3, 8, 8)).astype(np.float32)]
    wanted, got, _ = _runs(tmp_path, model.to_bytes(), "raspberrypi4", feeds)
    assert np.mean(np.abs(wanted - got) < 0.01) >= 0.999  # less than a tenth of a step


def _pairs(text: str, constants: Mapping[str, Array], values: tuple[str, ...]) -> str:
    """`{name}` in the text becomes name, quantized and dequantized."""
    for name in values:
        zero = f"{name}_z" if f"{name}_z" in constants else "zero"
        first = f"{name}_q = QuantizeLinear({name}, {name}_s, {zero})"
        text = text.replace(f"[{name}]", f"{first} {name}_d = DequantizeLinear({name}_q, {name}_s, {zero})")
    return text


def _steps(**scales: float) -> dict[str, Array]:
    return {f"{name}_s": np.asarray(scale, np.float32) for name, scale in scales.items()}


def _torch_export() -> Model:
    """As torch.ao's pt2e leaves it: pairs on float weights a channel, a transpose before the product, float biases."""
    constants = {
        "w": kernel(8, 3, 3, 3, scale=0.2), "b": kernel(8), "v": kernel(5, 8, seed=1), "c": kernel(5, seed=2),
        "zero": np.asarray(0, np.int8), **_steps(x=0.03, r=0.05, f=0.04, y=0.1),
        "r_z": np.asarray(-128, np.int8), "f_z": np.asarray(-128, np.int8),
    }  # fmt: skip
    for name, outputs in (("w", 8), ("v", 5)):
        peak = np.abs(constants[name]).reshape(outputs, -1).max(axis=1)
        constants |= {f"{name}_s": (peak / 127).astype(np.float32), f"{name}_z": np.zeros(outputs, np.int8)}
    text = """(float[1,3,12,12] x) => (float[1,5] y_d)
    { [x] w_q = QuantizeLinear<axis=0>(w, w_s, w_z) w_d = DequantizeLinear<axis=0>(w_q, w_s, w_z)
      a = Conv<kernel_shape=[3,3]>(x_d, w_d, b) r = Relu(a) [r] p = GlobalAveragePool(r_d) f = Flatten(p) [f]
      v_q = QuantizeLinear<axis=0>(v, v_s, v_z) v_d = DequantizeLinear<axis=0>(v_q, v_s, v_z)
      t = Transpose<perm=[1,0]>(v_d) m = MatMul(f_d, t) y = Add(m, c) [y] }"""
    return typed(_pairs(text, constants, ("x", "r", "f", "y")), constants)


def _brevitas_export() -> Model:
    """QCDQ: a Clip between the halves, narrow weights, an int32 bias behind a DequantizeLinear."""
    constants = {
        "w": kernel(4, 3, 3, 3, scale=0.2), "b_q": np.asarray([40, -30, 20, 10], np.int32),
        "low": np.asarray(-127, np.int8), "high": np.asarray(127, np.int8), "zero": np.asarray(0, np.int8),
        "few_low": np.asarray(-8, np.int8), "few_high": np.asarray(7, np.int8),
        **_steps(w=0.01, x=0.03, a=0.05, y=0.2), "b_s": np.asarray(0.0003, np.float32),
    }  # fmt: skip
    text = """(float[1,3,12,12] x) => (float[1,4,10,10] y)
    { x_q = QuantizeLinear(x, x_s, zero) x_c = Clip(x_q, low, high) x_d = DequantizeLinear(x_c, x_s, zero)
      w_q = QuantizeLinear(w, w_s, zero) w_c = Clip(w_q, low, high) w_d = DequantizeLinear(w_c, w_s, zero)
      b = DequantizeLinear(b_q, b_s) a = Conv<kernel_shape=[3,3]>(x_d, w_d, b)
      a_q = QuantizeLinear(a, y_s, zero) a_c = Clip(a_q, few_low, few_high) y = DequantizeLinear(a_c, y_s, zero) }"""
    return typed(text, constants)


def _nncf_export() -> Model:
    """Pairs around everything, unsigned behind a Relu, one scale for the inputs of a residual sum."""
    constants = {
        "w": kernel(4, 3, 1, 1), "u": kernel(4, 4, 1, 1, seed=1), "zero": np.asarray(0, np.int8),
        "none": np.asarray(0, np.uint8), **_steps(x=0.03, y=0.05),
    }  # fmt: skip
    for name in ("w", "u"):
        peak = np.abs(constants[name]).reshape(4, -1).max(axis=1)
        constants |= {f"{name}_s": (peak / 127).astype(np.float32), f"{name}_z": np.zeros(4, np.int8)}
    constants |= {"r_s": np.asarray(0.02, np.float32)}
    text = """(float[1,3,6,6] x) => (float[1,4,6,6] y_d)
    { [x] w_q = QuantizeLinear<axis=0>(w, w_s, w_z) w_d = DequantizeLinear<axis=0>(w_q, w_s, w_z)
      a = Conv(x_d, w_d) r = Relu(a) r_q = QuantizeLinear(r, r_s, none) r_d = DequantizeLinear(r_q, r_s, none)
      u_q = QuantizeLinear<axis=0>(u, u_s, u_z) u_d = DequantizeLinear<axis=0>(u_q, u_s, u_z)
      e = Conv(r_d, u_d) e_q = QuantizeLinear(e, y_s, zero) e_d = DequantizeLinear(e_q, y_s, zero)
      y = Add(e_d, r_d) [y] }"""
    return typed(_pairs(text, constants, ("x", "y")), constants)


def test_openvino_rounds_no_float_data_of_a_given_model(tmp_path: Path) -> None:
    """Its CPU plugin rounds what FullyConnected multiplies by int8 weights to 8 bits, if it may."""
    rng = np.random.default_rng(0)
    constants: dict[str, Array] = {
        "w": rng.integers(-127, 127, (64, 32)).astype(np.int8),
        "s": np.asarray(0.01, np.float32),
    }
    model = typed("(float[1,64] x) => (float[1,32] y) { w_d = DequantizeLinear(w, s) y = MatMul(x, w_d) }", constants)
    feeds = [{"x": rng.normal(size=(1, 64)).astype(np.float32)} for _ in range(8)]
    wanted, got, _ = _runs(tmp_path, model.to_bytes(), "intel-cpu", feeds)
    assert sqnr_db(wanted, got) > 100
    with open_bundle(next(tmp_path.glob("dist/*.edgec"))) as bundle:
        assert b"DYNAMIC_QUANTIZATION_GROUP_SIZE" in bundle.read("model.xml")


@pytest.mark.parametrize("target", ["coral-edgetpu", "raspberrypi4"])
def test_no_calibration_data_is_asked_for(tmp_path: Path, target: str) -> None:
    model = _quantized_by_onnxruntime(tmp_path, **STATIC["s8 activations, s8 weights a tensor"])
    (tmp_path / "model.onnx").write_bytes(model)
    options: dict[str, Any] = {"target": target, "output": tmp_path / "dist", "stop_after": "compile"}
    for precision in ("auto", "int8"):
        built = run_build(tmp_path / "model.onnx", precision=precision, **options)
        assert built.summary["precision"] == "int8"
        assert "calibration/none" not in {f["code"] for f in built.summary["findings"]}


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("make", [_torch_export, _brevitas_export, _nncf_export])
def test_exports_of_training(tmp_path: Path, make: Any, target: str) -> None:
    model = make()
    rng = np.random.default_rng(5)
    feeds = [{"x": rng.standard_normal(model.inputs()[0].shape).astype(np.float32)} for _ in range(8)]
    wanted, got, summary = _runs(tmp_path, model.to_bytes(), target, feeds)
    assert run_ort(model, feeds[0])  # the text is a model
    assert step_differences(wanted, got, step=float(_output_step(model))).within_2 >= 0.99
    assert summary["precision"] == "int8"
    if target == "raspberrypi4":
        operators = summary["operators"]
        assert operators.get("CAST", 0) == 0 and operators.get("TRANSPOSE", 0) == 0
        assert "BATCH_MATMUL" not in operators


def _output_step(model: Model) -> float:
    value = model.graph.initializers["y_s"].const_value
    assert value is not None
    return float(value.numpy())


@pytest.mark.parametrize(("asked", "told"), [("float16", True), ("int16x8", True), ("int8", False), ("auto", False)])
def test_another_precision_than_it_has_is_not_ignored_silently(tmp_path: Path, asked: str, told: bool) -> None:
    (tmp_path / "model.onnx").write_bytes(_quantized_by_onnxruntime(tmp_path, **STATIC[_BOTH[0]]))
    built = run_build(
        tmp_path / "model.onnx", target="raspberrypi4", precision=asked, output=tmp_path / "dist", stop_after="bundle"
    )
    assert built.summary["precision"] == "int8"
    assert any(f.code == "source/quantized-already" and asked in f.message for f in built.findings) == told


def test_compare_says_which_of_its_layers_run_in_integers(tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(_quantized_by_onnxruntime(tmp_path, **STATIC[_BOTH[0]]))
    np.save(tmp_path / "data.npy", np.concatenate([row[None] for row in samples(4)]))
    answer = run_compare(tmp_path / "model.onnx", data=tmp_path / "data.npy", target="raspberrypi4")
    schemes = {layer["op"]: layer["scheme"] for layer in answer["layers"]}
    assert schemes["Conv"] == "int8" and "DequantizeLinear" not in schemes
