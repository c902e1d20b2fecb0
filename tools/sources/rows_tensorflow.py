"""TensorFlow: SavedModel, .h5 of old Keras, and ready .tflite files, which keep the precision that they have."""

from __future__ import annotations

import os
from collections.abc import Mapping
from functools import partial
from pathlib import Path

import numpy as np

from edgec.bundle.bundle import Bundle
from edgec.tensors import Array
from tools.sources.files import ROOT, in_wheel, wheel, zoo
from tools.sources.row import Accuracy, Row

_BASIC_PITCH, _NMP = "basic-pitch==0.4.0", "basic_pitch/saved_models/icassp_2022/nmp"
_READY = (
    "mlperf_tiny/ic_resnet8_float.tflite",
    "mlperf_tiny/ic_resnet8_int8.tflite",
    "mlperf_tiny/vww_96_float.tflite",
    "mlperf_tiny/vww_96_int8.tflite",
    "mlperf_tiny/sww_int8.tflite",
    "tflite/movenet_single_pose_lightning_ptq.tflite",
    "tflite/mobilenet_v1_0.25_128_quant.tflite",
    "tflite_micro/hello_world_float.tflite",
    "tflite_micro/hello_world_int8.tflite",
    "tflite_micro/micro_speech_int8.tflite",
    "tflite_micro/person_detect_int8.tflite",
    "ulfg_face/version-slim-320_without_postprocessing.tflite",
)


def _tensorflow() -> Mapping[str, str]:
    """Where `make tensorflow` puts it."""
    return {"EDGEC_HOME": os.environ.get("EDGEC_HOME") or str(ROOT / ".cache" / "edgec")}


def _clips() -> tuple[Array, Array]:
    """1000 labelled clips as the keyword nets take them."""
    data = np.load(zoo("kws_data/kws01_mfcc_int8.npz"))
    return (data["x"].astype(np.float32) - data["zero_point"]) * data["scale"], data["y"]


def _some_clips(folder: Path) -> str:
    """Every tenth, without its label."""
    np.save(folder / "clips.npy", _clips()[0][::10])
    return str(folder / "clips.npy")


def _heard(bundle: Bundle) -> float:
    (given,), (made,) = bundle.inputs, bundle.outputs
    clips, labels = _clips()
    found = [int(np.argmax(bundle.run({given.source.name: clip[None]})[made.source.name])) for clip in clips]
    return float(np.mean(np.asarray(found) == labels))


def _digits() -> tuple[Array, Array]:
    """MNIST's test set."""
    import gzip

    with gzip.open(zoo("mnist/t10k-images-idx3-ubyte.gz")) as file:
        pictures = np.frombuffer(file.read(), np.uint8, offset=16).reshape(-1, 28, 28)
    with gzip.open(zoo("mnist/t10k-labels-idx1-ubyte.gz")) as file:
        labels = np.frombuffer(file.read(), np.uint8, offset=8)
    return pictures.astype(np.float32) / 255, labels


def _some_digits(folder: Path) -> str:
    np.save(folder / "digits.npy", _digits()[0][:100])
    return str(folder / "digits.npy")


def _read(bundle: Bundle) -> float:
    (given,), (made,) = bundle.inputs, bundle.outputs
    pictures, labels = _digits()
    found = [int(np.argmax(bundle.run({given.source.name: one[None]})[made.source.name])) for one in pictures]
    return float(np.mean(np.asarray(found) == labels))


def _source(name: str) -> str:
    return str(zoo(name))


def _ready(name: str, accuracy: Accuracy | None = None) -> Row:
    return Row(
        name=Path(name).stem,
        kind="ready tflite",
        source=partial(_source, name),
        precisions=("auto",),
        accuracy=accuracy,
    )


ROWS = (
    Row(
        name="kws_saved_model",
        kind="SavedModel",
        source=partial(_source, "mlperf_tiny/kws_saved_model"),
        environment=_tensorflow,
        accuracy=Accuracy(calibration=_some_clips, measure=_heard, documented="90.0 % float"),
    ),
    *(
        Row(name=name, kind="Keras .h5", source=partial(_source, f"mlperf_tiny/{name}.h5"), environment=_tensorflow)
        for name in ("ic_resnet8", "vww_96", "sww")
    ),
    Row(
        name="basic_pitch_saved",
        kind="SavedModel",
        source=lambda: str(wheel(_BASIC_PITCH) / _NMP),
        environment=_tensorflow,
    ),
    Row(name="basic_pitch_onnx", kind="ONNX", source=lambda: str(in_wheel(_BASIC_PITCH, f"{_NMP}.onnx"))),
    Row(
        name="basic_pitch_tflite",
        kind="ready tflite",
        source=lambda: str(in_wheel(_BASIC_PITCH, f"{_NMP}.tflite")),
        precisions=("auto",),
    ),
    _ready(
        "mlperf_tiny/kws_dscnn_float.tflite",
        Accuracy(calibration=_some_clips, measure=_heard, documented="90.0 %"),
    ),
    _ready("mlperf_tiny/kws_dscnn_int8.tflite", Accuracy(calibration=_some_clips, measure=_heard, documented="90.2 %")),
    _ready(
        "tflite_micro/mnist_lstm_float.tflite",
        Accuracy(calibration=_some_digits, measure=_read, documented="92.05 %"),
    ),
    _ready(
        "tflite_micro/mnist_lstm_int8.tflite",
        Accuracy(calibration=_some_digits, measure=_read, documented="91.90 %"),
    ),
    *map(_ready, _READY),
)
