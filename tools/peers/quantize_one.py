"""Quantize one ONNX model with a peer, in the peer's own environment, and compute the evaluation outputs with it.

`python quantize_one.py PEER MODEL CALIBRATION.npz EVALUATION.npz OUTPUTS.npz`: the npz files hold the inputs by name,
stacked along a new first axis; the outputs are written alike, and the seconds that quantization took are printed as
JSON. With - for the evaluation it quantizes and that is all. Self-contained: it imports nothing of this project.
"""

# It runs in another environment, whose packages are not here.
# mypy: ignore-errors

from __future__ import annotations

import json
import sys
import tempfile
import time
from pathlib import Path

import numpy as np


def feeds_of(path):
    """The samples of an npz file as dictionaries."""
    with np.load(path) as data:
        stacked = dict(data)
    count = len(next(iter(stacked.values())))
    # An array without axes, not a number: ONNX Runtime refuses those.
    return [{name: np.asarray(array[i]) for name, array in stacked.items()} for i in range(count)]


def said(start):
    """Print how long it took."""
    print(json.dumps({"seconds": round(time.perf_counter() - start, 2)}), flush=True)


def onnxruntime_static(model, calibration, evaluation):
    """ONNX Runtime's static quantizer: QDQ, int8 weights a channel, uint8 activations, min-max."""
    import onnxruntime as ort
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

    class Reader(CalibrationDataReader):
        def __init__(self):
            self.left = iter(calibration)

        def get_next(self):
            return next(self.left, None)

    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "quantized.onnx"
        quantize_static(
            model,
            str(path),
            Reader(),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
        )
        said(start)
        options = ort.SessionOptions()
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
        session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        names = [output.name for output in session.get_outputs()]
        return names, [session.run(names, feed) for feed in evaluation]


def nncf_default(model, calibration, evaluation, **options):
    """NNCF's default post-training quantization, run in OpenVINO with float32 as the other precision."""
    import nncf
    import openvino as ov

    core = ov.Core()
    source = core.read_model(model)
    start = time.perf_counter()
    quantized = nncf.quantize(source, nncf.Dataset(calibration), subset_size=len(calibration), **options)
    said(start)
    compiled = core.compile_model(quantized, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    names = [output.get_any_name() for output in source.outputs]
    return names, [[np.array(value) for value in compiled(feed).values()] for feed in evaluation]


def nncf_transformer(model, calibration, evaluation):
    """The same with the flag for transformers, which its user must know."""
    import nncf

    return nncf_default(model, calibration, evaluation, model_type=nncf.ModelType.TRANSFORMER)


PEERS = {"onnxruntime": onnxruntime_static, "nncf": nncf_default, "nncf-transformer": nncf_transformer}


def main(peer, model, calibration, evaluation, outputs):
    """Write the outputs of the quantized model."""
    names, rows = PEERS[peer](model, feeds_of(calibration), [] if evaluation == "-" else feeds_of(evaluation))
    if not rows:
        return
    np.savez(outputs, **{name: np.stack([row[i] for row in rows]) for i, name in enumerate(names)})


if __name__ == "__main__":
    main(*sys.argv[1:])
