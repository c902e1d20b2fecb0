"""Time OpenVINO models against each other in one process: NNCF quantizes MODEL.onnx; ours come as IR files.

`python openvino_race.py MODEL.onnx CALIBRATION.npz EVALUATION.npz NNCF.xml NAME=MODEL.xml…` in the environment that has
nncf and openvino; NNCF.xml is written when it is not there. With no NAME nothing is timed.
Prints {name: {"ms": …, "sqnr_db": …}}; the reference is MODEL.onnx in float32. Self-contained.
"""

# It runs in another environment, whose packages are not here.
# mypy: ignore-errors

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import numpy as np

ROUNDS, SECONDS = 12, 0.15


def feeds_of(path):
    """The samples of an npz file, inputs in the order of the file."""
    with np.load(path) as data:
        stacked = dict(data)
    return [{k: v[i] for k, v in stacked.items()} for i in range(len(next(iter(stacked.values()))))]


def main(model, calibration, evaluation, kept, *named):
    """Quantize, compute, race."""
    import nncf
    import openvino as ov

    core = ov.Core()
    float_model = core.read_model(model)
    data = feeds_of(calibration)
    models = {"float32": float_model}
    try:
        if not Path(kept).exists():
            ov.save_model(nncf.quantize(float_model, nncf.Dataset(data), subset_size=len(data)), kept, False)
        models["nncf"] = core.read_model(kept)
    except Exception as error:  # noqa: BLE001  a peer that fails is a row that says so
        print(f"nncf: {error}", file=sys.stderr)
    models |= {name: core.read_model(path) for name, _, path in (entry.partition("=") for entry in named)}
    if not named:
        print(json.dumps({}))
        return
    options = {"INFERENCE_NUM_THREADS": 1, "NUM_STREAMS": 1, "INFERENCE_PRECISION_HINT": "f32"}
    compiled = {name: core.compile_model(m, "CPU", options) for name, m in models.items()}
    outputs = {}
    for name, net in compiled.items():
        rows = [[np.asarray(v).ravel() for v in net(ordered(net, f)).values()] for f in feeds_of(evaluation)]
        outputs[name] = np.stack([np.concatenate(row) for row in rows]).astype(np.float64)
    times = {name: [] for name in compiled}
    feed = feeds_of(evaluation)[0]
    requests = {name: (net.create_infer_request(), ordered(net, feed)) for name, net in compiled.items()}
    for _ in range(ROUNDS):
        for name, (request, values) in requests.items():
            request.infer(values)
            end, best = time.perf_counter() + SECONDS, float("inf")
            while time.perf_counter() < end or best == float("inf"):
                start = time.process_time()  # with one thread: other work on the machine does not stretch it
                request.infer(values)
                best = min(best, time.process_time() - start)
            times[name].append(1e3 * best)
    reference = outputs["float32"]
    found = {}
    for name in compiled:
        noise = float(((outputs[name] - reference) ** 2).sum())
        db = 10 * np.log10(float((reference**2).sum()) / noise) if noise else None
        found[name] = {"ms": round(min(times[name]), 4), "sqnr_db": None if db is None else round(float(db), 1)}
    print(json.dumps(found))


def ordered(net, feed):
    """The feed by the position of the net's inputs, each of which is called like one of the feed's or fits it."""
    left, values = dict(feed), []
    for port in net.inputs:
        shape = tuple(port.shape)
        name = next((n for n in port.get_names() if n in left), None) or next(
            n for n, v in left.items() if v.size == int(np.prod(shape))
        )
        value = left.pop(name)
        if value.shape != shape:
            value = value.transpose(0, 2, 3, 1) if value.transpose(0, 2, 3, 1).shape == shape else value.reshape(shape)
        values.append(np.ascontiguousarray(value))
    return values


if __name__ == "__main__":
    main(*sys.argv[1:])
