"""Keras models in every format that Keras has: the same net answers as the framework itself does."""

from __future__ import annotations

import io
import json
import shutil
import subprocess
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgec.errors import EdgecError
from edgec.frontends import _child, _tensorflow, keras, saved_model
from edgec.frontends.base import Request, SourceOptions, load_source
from edgec.graph.model import ORIGIN_KEY
from edgec.pipeline import run_build
from tests.support.models import zoo
from tests.support.tensorflow import keras_nets, use_tensorflow

#: Float32 arithmetic in another order: outputs here are of order 1.
TOLERANCE = 1e-5
FORMATS = (".keras", ".h5", ".saved")


#: What TensorFlow exported: the answer and the file, by request.
_DONE: dict[str, tuple[dict[str, Any], bytes]] = {}


@pytest.fixture
def python(monkeypatch: pytest.MonkeyPatch) -> str:
    """TensorFlow's Python; the same model is exported once, whatever number of targets it is built for."""
    export = _child.run_exporter

    def once(script: Path, request: dict[str, Any], **options: Any) -> dict[str, Any]:
        output = Path(request["output"])
        key = json.dumps({**request, "output": ""}, sort_keys=True)
        if key not in _DONE:
            answer = export(script, request, **options)
            _DONE[key] = answer, output.read_bytes()
        output.write_bytes(_DONE[key][1])
        return _DONE[key][0]

    monkeypatch.setattr(_tensorflow, "run_exporter", once)
    return use_tensorflow(monkeypatch)


def asked(path: Path) -> Request:
    return Request(spec=str(path), path=path if path.exists() else None, inputs={}, options=SourceOptions())


@pytest.mark.slow
@pytest.mark.parametrize(
    ("version", "net", "suffix"),
    [
        *(("3", net, suffix) for net in ("cnn", "several") for suffix in FORMATS),
        ("3", "plain", ".keras"),
        ("2", "cnn", ".h5"),
        ("2", "cnn", ".saved"),
    ],
)
def test_the_same_net_from_every_format(python: str, version: str, net: str, suffix: str, tmp_path: Path) -> None:
    folder = keras_nets(python, version)
    answers = np.load(folder / f"{net}.npz")
    feeds = {k.removeprefix("in_"): answers[k] for k in answers if k.startswith("in_")}
    expected = {k.removeprefix("out_"): answers[k] for k in answers if k.startswith("out_")}
    for target in ("raspberrypi", "intel-cpu"):
        built = run_build(folder / f"{net}{suffix}", target=target, precision="float32", output=tmp_path)
        assert built.bundle is not None
        with built.bundle as bundle:
            assert built.summary["validation"]["passed"]
            if len(feeds) > 1 or net == "cnn":
                assert {b.source.name for b in bundle.inputs} == set(feeds)
                outputs = bundle.run(feeds)
            else:
                outputs = bundle.run({bundle.inputs[0].source.name: next(iter(feeds.values()))})
            if set(outputs) != set(expected):  # a SavedModel says output_0
                outputs = dict(zip(expected, outputs.values(), strict=True))
            for name, value in expected.items():
                np.testing.assert_allclose(outputs[name], value, rtol=0, atol=TOLERANCE)
        if net == "cnn":  # NHWC from end to end
            assert all(b.perm is None and b.source.shape == (1, 16, 16, 3) for b in bundle.inputs)
            if target == "raspberrypi":
                assert built.summary["transposes"] == 0


def test_operations_between_layers_of_keras_2(python: str) -> None:
    folder = keras_nets(python, "2")
    loaded = load_source(folder / "branching.h5")
    assert loaded.model.inputs()[0].shape == (1, 4, 4, 2)
    assert [f.code for f in loaded.findings] == ["source/default-shape"]


def test_nodes_name_their_layer(python: str) -> None:
    model = load_source(keras_nets(python, "3") / "cnn.keras").model
    origins = {node.metadata_props.get(ORIGIN_KEY, "") for node in model.nodes() if node.op_type == "Conv"}
    assert any("conv2d" in origin for origin in origins)
    assert not any("PartitionedCall" in origin for origin in origins)


def test_a_batch_can_be_given(python: str) -> None:
    model = load_source(keras_nets(python, "3") / "cnn.keras", inputs={"image": (2, 16, 16, 3)}).model
    assert model.inputs()[0].shape == (2, 16, 16, 3)
    assert model.outputs()[0].shape == (2, 5)


@pytest.mark.parametrize(
    ("inputs", "code"),
    [({"picture": (1, 16, 16, 3)}, "source/unknown-input"), ({"image": (1, 3, 16, 16)}, "source/input-shape")],
)
def test_wrong_inputs_are_refused(python: str, inputs: dict[str, tuple[int, ...]], code: str) -> None:
    with pytest.raises(EdgecError) as caught:
        load_source(keras_nets(python, "3") / "cnn.keras", inputs=inputs)
    assert caught.value.code == code


@pytest.mark.parametrize("suffix", [".keras", ".h5"])
def test_lambda_layers_need_trust(python: str, suffix: str) -> None:
    path = keras_nets(python, "3") / f"scripted{suffix}"
    with pytest.raises(EdgecError) as caught:
        load_source(path)
    assert caught.value.code == "source/untrusted"
    assert "double" in str(caught.value)
    assert "--trust" in caught.value.finding.hint
    trusted = load_source(path, options=SourceOptions(trust=True)).model
    assert [node.op_type for node in trusted.nodes()] == ["Mul"]


def test_a_file_of_weights_says_what_is_missing(python: str, tmp_path: Path) -> None:
    whole = keras_nets(python, "3") / "cnn.h5"
    path = tmp_path / "cnn.weights.h5"
    shutil.copy(whole, path)
    code = "import h5py, sys; del h5py.File(sys.argv[1], 'a').attrs['model_config']"
    subprocess.run([python, "-c", code, str(path)], check=True, capture_output=True)
    with pytest.raises(EdgecError) as caught:
        load_source(path)
    assert caught.value.code == "source/needs-factory"
    assert "--factory" in caught.value.finding.hint


def test_unknown_layers_are_named(python: str, tmp_path: Path) -> None:
    source, path = keras_nets(python, "3") / "plain.keras", tmp_path / "own.keras"
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(path, "w") as new:
        for name in old.namelist():
            data = old.read(name)
            if name == "config.json":
                config = json.loads(data)
                layer = next(v for v in config["config"]["layers"] if v["class_name"] == "PReLU")
                layer |= {"class_name": "MyActivation", "module": None, "registered_name": "MyActivation"}
                data = json.dumps(config).encode()
            new.writestr(name, data)
    with pytest.raises(EdgecError) as caught:
        load_source(path)
    assert caught.value.code == "source/malformed"
    assert "MyActivation" in caught.value.finding.hint
    assert "--custom" in caught.value.finding.hint


def test_custom_layers_are_imported(python: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    path = shutil.copy(keras_nets(python, "3") / "plain.keras", tmp_path / "plain.keras")
    with pytest.raises(EdgecError) as caught:
        load_source(path, options=SourceOptions(custom=("mine:Layer",)))
    assert caught.value.code == "source/custom"
    (tmp_path / "mine.py").write_text("import keras\n\nclass Layer(keras.layers.Layer):\n    pass\n")
    assert load_source(path, options=SourceOptions(custom=("mine:Layer",))).model.inputs()


def test_a_damaged_file_is_no_crash(python: str, tmp_path: Path) -> None:
    path = tmp_path / "half.h5"
    data = (keras_nets(python, "3") / "cnn.h5").read_bytes()
    path.write_bytes(data[: len(data) // 2])
    with pytest.raises(EdgecError) as caught:
        load_source(path)
    assert caught.value.code == "source/truncated"


def test_signatures_are_chosen_by_name(python: str) -> None:
    path = keras_nets(python, "3") / "cnn.saved"
    assert load_source(path, options=SourceOptions(signature="serve")).model.inputs()
    with pytest.raises(EdgecError) as caught:
        load_source(path, options=SourceOptions(signature="train"))
    assert caught.value.code == "source/unknown-signature"
    assert "serving_default" in caught.value.finding.hint


def test_looks_decide(tmp_path: Path) -> None:
    h5, zipped, other, folder = (tmp_path / name for name in ("a.bin", "b.bin", "c.zip", "saved"))
    h5.write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(64))
    for path, names in ((zipped, ("config.json", "metadata.json")), (other, ("data.pkl",))):
        stream = io.BytesIO()
        with zipfile.ZipFile(stream, "w") as archive:
            for name in names:
                archive.writestr(name, "{}")
        path.write_bytes(stream.getvalue())
    folder.mkdir()
    assert not saved_model.accepts(asked(folder))
    (folder / "saved_model.pb").write_bytes(b"")
    assert saved_model.accepts(asked(folder))
    assert [keras.accepts(asked(p)) for p in (h5, zipped, other, folder, tmp_path / "none.h5")] == [
        True, True, False, False, False,
    ]  # fmt: skip
    (tmp_path / "cut.keras").write_bytes(zipped.read_bytes()[:40])
    assert not keras.accepts(asked(tmp_path / "cut.keras"))


def test_without_tensorflow_both_ways_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from edgec.frontends import _environments

    monkeypatch.setenv("EDGEC_HOME", str(tmp_path))
    if _environments.state_of("tensorflow") == "here":
        pytest.skip("TensorFlow is installed beside edgec")
    path = tmp_path / "m.h5"
    path.write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(64))
    with pytest.raises(EdgecError) as caught:
        load_source(path)
    assert caught.value.code == "env/missing-environment"
    assert "pip install 'edgec[tensorflow]'" in caught.value.finding.hint
    assert "edgec doctor --install tensorflow" in caught.value.finding.hint


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "shape", "outputs"),
    [("ic_resnet8.h5", (1, 32, 32, 3), 10), ("vww_96.h5", (1, 96, 96, 3), 2), ("sww.h5", (1, 30, 1, 40), 3)],
)
def test_old_files_of_others(python: str, name: str, shape: tuple[int, ...], outputs: int, tmp_path: Path) -> None:
    path = zoo("mlperf_tiny/" + name)
    for target in ("raspberrypi", "intel-cpu"):
        built = run_build(path, target=target, precision="float32", output=tmp_path)
        assert built.summary["validation"]["passed"]
        assert built.bundle is not None
        with built.bundle as bundle:
            assert bundle.inputs[0].source.shape == shape
            assert bundle.outputs[0].source.shape == (1, outputs)
            if target == "raspberrypi":
                assert built.summary["transposes"] == 0


@pytest.mark.slow
@pytest.mark.parametrize(("precision", "least"), [("float32", 0.900), ("int8", 0.890)])
def test_keywords_are_heard(python: str, precision: str, least: float, tmp_path: Path) -> None:
    data = np.load(zoo("kws_data/kws01_mfcc_int8.npz"))
    x = (data["x"].astype(np.float32) - data["zero_point"]) * data["scale"]
    np.save(tmp_path / "clips.npy", x[::10])
    built = run_build(
        zoo("mlperf_tiny/kws_saved_model"),
        target="raspberrypi",
        precision=precision,
        calibration=None if precision == "float32" else tmp_path / "clips.npy",
        output=tmp_path,
    )
    assert built.bundle is not None
    with built.bundle as bundle:
        found = [int(np.argmax(bundle.run({"input_1": clip[None]})["dense"])) for clip in x]
    assert np.mean(np.asarray(found) == data["y"]) >= least
