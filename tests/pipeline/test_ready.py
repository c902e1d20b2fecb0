"""Ready models: bundled byte for byte as they are, checked like our own, with outputs as their runtime gives them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import openvino as ov
import pytest
from ai_edge_litert.interpreter import Interpreter

from edgec.backends.base import load_backend
from edgec.backends.tflite.read_graph import read_graph
from edgec.errors import EdgecError
from edgec.pipeline import run_build, run_check
from edgec.pipeline.ready import ready_kind, ready_model
from edgec.targets.load import load_target
from edgec.tensors import Array, DType
from tests.support.models import zoo
from tests.support.small_net import write_small_net
from tests.support.tensorflow import use_tensorflow

#: Zoo files with precision, input and output on the source's side.
FILES = {
    "mlperf_tiny/kws_dscnn_float.tflite": ("dynamic", (1, 49, 10, 1), (1, 12)),
    "mlperf_tiny/kws_dscnn_int8.tflite": ("int8", (1, 49, 10, 1), (1, 12)),
    "mlperf_tiny/ic_resnet8_float.tflite": ("float32", (1, 32, 32, 3), (1, 10)),
    "mlperf_tiny/ic_resnet8_int8.tflite": ("int8", (1, 32, 32, 3), (1, 10)),
    "mlperf_tiny/vww_96_float.tflite": ("float32", (1, 96, 96, 3), (1, 2)),
    "mlperf_tiny/vww_96_int8.tflite": ("int8", (1, 96, 96, 3), (1, 2)),
    "mlperf_tiny/sww_int8.tflite": ("int8", (1, 30, 1, 40), (1, 3)),
    "tflite/movenet_single_pose_lightning_ptq.tflite": ("int8", (1, 192, 192, 3), (1, 1, 17, 3)),
    "tflite/mobilenet_v1_0.25_128_quant.tflite": ("int8", (1, 128, 128, 3), (1, 1001)),
    "tflite_micro/micro_speech_int8.tflite": ("int8", (1, 1960), (1, 4)),
    "tflite_micro/mnist_lstm_float.tflite": ("float32", (1, 28, 28), (1, 10)),
    "tflite_micro/mnist_lstm_int8.tflite": ("int8", (1, 28, 28), (1, 10)),
    "ulfg_face/version-slim-320_without_postprocessing.tflite": ("float32", (1, 240, 320, 3), (1, 4420, 4)),
}


def litert(path: Path, value: Array) -> Array:
    runtime = Interpreter(str(path))
    (given, *_), made = runtime.get_input_details(), runtime.get_output_details()
    runtime.resize_tensor_input(given["index"], value.shape)
    runtime.allocate_tensors()
    runtime.set_tensor(given["index"], value)
    runtime.invoke()
    return np.asarray(runtime.get_tensor(made[0]["index"]))


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A small net of ours as ready files of both kinds."""
    folder = tmp_path_factory.mktemp("ready")
    source, _ = write_small_net(folder)
    paths = {}
    for target, suffix in (("raspberrypi", "tflite"), ("intel-cpu", "xml")):
        built = run_build(source, target=target, precision="float32", output=folder, stop_after="compile")
        paths[suffix] = built.path
        assert built.path.suffix == f".{suffix}"
    return paths


@pytest.mark.slow
@pytest.mark.parametrize("name", FILES)
def test_files_of_others_pass_as_they_are(name: str, tmp_path: Path) -> None:
    path, (precision, given, made) = zoo(name), FILES[name]
    built = run_build(path, target="raspberrypi", output=tmp_path)
    assert built.summary["validation"]["passed"]
    assert built.bundle is not None
    with built.bundle as bundle:
        assert bundle.read(bundle.manifest.model) == path.read_bytes()
        assert bundle.manifest.precision == precision
        (binding, *_), outputs = bundle.inputs, bundle.outputs
        assert (binding.source.shape, outputs[0].source.shape) == (given, made)
        golden = bundle.goldens()[0]
        value = golden.raw_inputs[binding.artifact.name]
        np.testing.assert_array_equal(golden.raw_outputs[outputs[0].artifact.name], litert(path, value))
        if binding.artifact.qparams is not None:
            assert binding.source.dtype == DType.FLOAT32
            np.testing.assert_array_equal(binding.to_artifact(golden.inputs[binding.source.name]), value)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "least"), [("kws_dscnn_float", 0.900), ("kws_dscnn_int8", 0.902)])
def test_ready_files_keep_their_accuracy(name: str, least: float, tmp_path: Path) -> None:
    data = np.load(zoo("kws_data/kws01_mfcc_int8.npz"))
    x = (data["x"].astype(np.float32) - data["zero_point"]) * data["scale"]
    built = run_build(zoo(f"mlperf_tiny/{name}.tflite"), target="raspberrypi", output=tmp_path)
    assert built.bundle is not None
    with built.bundle as bundle:
        (given,), (made,) = bundle.inputs, bundle.outputs
        found = [int(np.argmax(bundle.run({given.source.name: clip[None]})[made.source.name])) for clip in x]
    assert np.mean(np.asarray(found) == data["y"]) >= least


def test_the_same_net_ready_made_in_both_runtimes(own: dict[str, Path], tmp_path: Path) -> None:
    outputs = {}
    for kind, target in (("tflite", "raspberrypi"), ("xml", "intel-cpu")):
        built = run_build(own[kind], target=target, output=tmp_path)
        assert built.summary["validation"]["passed"]
        assert built.summary["why"] == "a ready model is taken as it is"
        assert built.bundle is not None
        with built.bundle as bundle:
            assert bundle.read(bundle.manifest.model) == own[kind].read_bytes()
            (given,) = bundle.inputs
            x = np.random.default_rng(0).standard_normal((1, 3, 16, 16), np.float32)
            fed = x if given.source.shape == x.shape else x.transpose(0, 2, 3, 1)
            outputs[kind] = bundle.run({given.source.name: fed})[bundle.outputs[0].source.name]
    np.testing.assert_allclose(outputs["xml"].ravel(), outputs["tflite"].ravel(), rtol=0, atol=1e-5)


def test_openvino_reads_tflite_and_litert_is_the_reference(own: dict[str, Path], tmp_path: Path) -> None:
    built = run_build(own["tflite"], target="intel-cpu", backend="openvino", output=tmp_path)
    assert built.summary["validation"]["passed"]
    assert built.summary["fidelity"]["sqnr_db"] > 90
    assert "source/converted" in [f.code for f in built.findings]
    plain = run_build(own["tflite"], target="intel-cpu", output=tmp_path)
    assert plain.summary["backend"] == "tflite"


def test_real_inputs_say_what_drift_is_held_against(own: dict[str, Path], tmp_path: Path) -> None:
    shape = tuple(Interpreter(str(own["tflite"])).get_input_details()[0]["shape"])
    np.save(tmp_path / "data.npy", np.random.default_rng(0).standard_normal((4, *shape[1:]), np.float32))
    built = run_build(own["tflite"], target="raspberrypi", calibration=tmp_path / "data.npy", output=tmp_path)
    assert built.bundle is not None
    with built.bundle as bundle:
        table = json.loads(bundle.read("calibration.json"))["inputs"]
        (facts,) = table.values()
        assert list(table) == [bundle.inputs[0].source.name]
        assert sum(facts["shares"]) == pytest.approx(1, abs=1e-4)


def test_two_builds_are_the_same_bytes(own: dict[str, Path], tmp_path: Path) -> None:
    for kind, target in (("tflite", "raspberrypi"), ("xml", "intel-cpu")):
        paths = [run_build(own[kind], target=target, output=tmp_path / side).path for side in ("a", "b")]
        assert paths[0].read_bytes() == paths[1].read_bytes()


def test_what_a_target_refuses_is_said_at_once(tmp_path: Path) -> None:
    path = zoo("tflite_micro/person_detect_int8.tflite")
    with pytest.raises(EdgecError) as caught:
        run_build(path, target="raspberrypi", output=tmp_path)
    assert [f.code for f in caught.value.findings] == ["backend/refused-tensor"]
    assert "axis 3" in caught.value.finding.message or "axis 3" in caught.value.findings[0].message
    assert "TensorFlow Lite Micro" in caught.value.findings[0].hint
    assert list(tmp_path.iterdir()) == []
    answer = run_check(path, target="raspberrypi")
    assert [f["code"] for f in answer["findings"]] == ["backend/refused-tensor"]


def custom(data: bytes, name: bytes) -> bytes:
    """The file with its operators' code turned into a custom one of that name."""
    import flatbuffers

    from edgec.backends.tflite.schema import fb

    model = fb.ModelT.InitFromObj(fb.Model.GetRootAsModel(data, 0))
    for code in model.operatorCodes[:2]:
        code.builtinCode = code.deprecatedBuiltinCode = fb.BuiltinOperator.CUSTOM
        code.customCode = name
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), file_identifier=b"TFL3")
    return bytes(builder.Output())


def test_custom_operators_are_named(own: dict[str, Path], tmp_path: Path) -> None:
    path = tmp_path / "flex.tflite"
    path.write_bytes(custom(own["tflite"].read_bytes(), b"FlexErf"))
    with pytest.raises(EdgecError) as caught:
        run_build(path, target="raspberrypi", output=tmp_path)
    assert {f.code for f in caught.value.findings} == {"backend/custom-op"}
    assert len(caught.value.findings) >= 2
    assert "FlexErf" in caught.value.findings[0].message


@pytest.mark.parametrize("cut", [9, 200, 0.5, 0.9])
def test_damaged_files_are_refused(own: dict[str, Path], cut: float, tmp_path: Path) -> None:
    data = own["tflite"].read_bytes()
    path = tmp_path / "cut.tflite"
    path.write_bytes(data[: int(cut if cut > 1 else cut * len(data))])
    with pytest.raises(EdgecError) as caught:
        run_build(path, target="raspberrypi", output=tmp_path)
    assert caught.value.code.partition("/")[0] in ("source", "validate")
    assert list(tmp_path.iterdir()) == [path]


def test_an_ir_without_weights_is_refused(own: dict[str, Path], tmp_path: Path) -> None:
    path = tmp_path / "lone.xml"
    path.write_bytes(own["xml"].read_bytes())
    with pytest.raises(EdgecError) as caught:
        run_build(path, target="intel-cpu", output=tmp_path)
    assert caught.value.code == "source/external-data"


def test_an_ir_does_not_run_in_litert(own: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(EdgecError) as caught:
        run_build(own["xml"], target="raspberrypi", backend="tflite", output=tmp_path)
    assert caught.value.code == "target/no-backend"


def nameless(folder: Path) -> Path:
    """An IR of which nothing has a name, with a free batch and a free width."""
    x = ov.opset13.parameter([-1, 4, -1], np.float32)
    model = ov.Model([ov.opset13.relu(x)], [x], "nameless")
    path = folder / "nameless.xml"
    ov.save_model(model, str(path), compress_to_fp16=False)
    return path


def test_free_axes_and_no_names(tmp_path: Path) -> None:
    path = nameless(tmp_path)
    name = ov.Core().read_model(str(path)).inputs[0].get_any_name()
    with pytest.raises(EdgecError) as caught:
        run_build(path, target="intel-cpu", output=tmp_path)
    assert caught.value.code == "source/free-dimension"
    assert f"--input {name}:?x4x?" in caught.value.finding.hint
    built = run_build(path, target="intel-cpu", inputs={name: (2, 4, 5)}, output=tmp_path)
    assert built.summary["validation"]["passed"]
    assert built.bundle is not None
    with built.bundle as bundle:
        x = np.random.default_rng(0).standard_normal((2, 4, 5), np.float32)
        np.testing.assert_array_equal(bundle.run({name: x})[bundle.outputs[0].source.name], np.maximum(x, 0))
    with pytest.raises(EdgecError) as caught:
        run_build(path, target="intel-cpu", inputs={name: (2, 5, 5)}, output=tmp_path)
    assert caught.value.code == "source/input-shape"


def test_free_axes_of_a_tflite_file(tmp_path: Path) -> None:
    path = zoo("mlperf_tiny/kws_dscnn_float.tflite")
    built = run_build(path, target="raspberrypi", inputs={"input_1": (4, 49, 10, 1)}, output=tmp_path)
    assert built.bundle is not None
    with built.bundle as bundle:
        assert bundle.outputs[0].source.shape == (4, 12)
    for shape in ((1, 48, 10, 1), (0, 49, 10, 1)):
        with pytest.raises(EdgecError) as caught:
            run_build(path, target="raspberrypi", inputs={"input_1": shape}, output=tmp_path)
        assert caught.value.code == "source/input-shape"
    with pytest.raises(EdgecError) as caught:
        run_build(path, target="raspberrypi", inputs={"input": (1, 49, 10, 1)}, output=tmp_path)
    assert caught.value.code == "source/unknown-input"
    assert "input_1" in caught.value.finding.hint


def test_signatures_give_the_names() -> None:
    target = load_target("raspberrypi")
    backend = load_backend("tflite")
    path = zoo("mlperf_tiny/sww_int8.tflite")
    adopted = backend.adopt(path, target, inputs={}, signature="serving_default").artifact
    assert (adopted.inputs[0].source.name, adopted.inputs[0].artifact.name) == ("input_1", "serving_default_input_1:0")
    with pytest.raises(EdgecError) as caught:
        backend.adopt(path, target, inputs={}, signature="train")
    assert caught.value.code == "source/unknown-signature"


def test_what_is_quantized_stays_so(tmp_path: Path) -> None:
    with pytest.raises(EdgecError) as caught:
        run_build(zoo("mlperf_tiny/kws_dscnn_int8.tflite"), target="raspberrypi", precision="float32", output=tmp_path)
    assert caught.value.code == "source/already-quantized"


def test_stages_that_a_ready_model_has_not(own: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(EdgecError) as caught:
        run_build(own["tflite"], target="raspberrypi", stop_after="quantize", output=tmp_path)
    assert caught.value.code == "cli/no-product"
    assert run_build(own["tflite"], target="raspberrypi", stop_after="bundle", output=tmp_path).path.exists()


@pytest.mark.parametrize(
    ("option", "value", "named"),
    [
        ("max_drop", "1%", "--max-drop"),
        ("min_sqnr", 20.0, "--min-sqnr"),
        ("metric", "top1", "--metric"),
        ("evaluation", "labelled", "--evaluation"),
        ("effort", "max", "--effort"),
        ("ship_anyway", True, "--ship-anyway"),
        ("io_layout", "source", "--io-layout"),
        ("keep_graphs", True, "--keep-graphs"),
        ("labels", "labels.txt", "--labels"),
    ],
)
def test_options_of_a_compiler_are_not_ignored(
    option: str, value: Any, named: str, own: dict[str, Path], tmp_path: Path
) -> None:
    with pytest.raises(EdgecError, match=named) as caught:
        run_build(own["tflite"], target="raspberrypi", output=tmp_path / "out", **{option: value})
    assert caught.value.code == "cli/no-effect"
    assert not (tmp_path / "out").exists()


def test_a_float_file_is_lifted_to_be_quantized(
    own: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_tensorflow(monkeypatch)
    data = np.random.default_rng(0).standard_normal((16, 16, 16, 3), np.float32)
    shape = read_graph(own["tflite"].read_bytes(), "").graph.inputs[0].shape
    np.save(tmp_path / "data.npy", data if shape[-1] == 3 else data.transpose(0, 3, 1, 2))
    built = run_build(
        own["tflite"], target="raspberrypi", precision="int8", calibration=tmp_path / "data.npy", output=tmp_path
    )
    assert built.summary["precision"] == "int8"
    assert built.summary["validation"]["passed"]
    assert built.summary["transposes"] == 0


def test_what_cannot_be_lifted_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    use_tensorflow(monkeypatch)
    path = zoo("tflite_micro/mnist_lstm_float.tflite")
    with pytest.raises(EdgecError) as caught:
        run_build(path, target="raspberrypi", precision="dynamic", output=tmp_path)
    assert caught.value.code == "source/unsupported-operator"
    assert "UNIDIRECTIONAL_SEQUENCE_LSTM" in str(caught.value)


def test_looks_decide(own: dict[str, Path], tmp_path: Path) -> None:
    assert ready_kind(own["tflite"]) == "tflite"
    assert ready_kind(own["xml"]) == "openvino"
    (tmp_path / "a.tflite").write_bytes(b"nothing of the kind")
    assert ready_kind(tmp_path / "a.tflite") is None
    assert ready_kind(tmp_path) is None
    assert ready_kind("package.module:factory") is None
    assert ready_model(tmp_path / "a.tflite", load_target("raspberrypi"), backend=None) is None
