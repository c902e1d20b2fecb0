"""Quantize one float .tflite with LiteRT's own quantizer, in its environment: MODEL CALIBRATION.npz OUTPUT.

The npz holds the inputs by name, stacked; they go to the model's inputs by name, else by shape, in either layout.
With EVALUATION.npz REFERENCE.npz OUTPUTS.npz behind, the quantized file is run on the evaluation's inputs by LiteRT
with XNNPACK, and its outputs are written under the reference's names: each to the one it fits best, in whatever order
of axes. The seconds that quantization took are printed as JSON.
"""

# It runs in another environment, whose packages are not here.
# mypy: ignore-errors

from __future__ import annotations

import itertools
import json
import sys
import time

import numpy as np
from ai_edge_litert.interpreter import Interpreter
from ai_edge_quantizer import quantizer, recipe


def fitted(value, shape):
    """The value in the order of axes that has the shape, or None."""
    for perm in itertools.permutations(range(value.ndim)):
        if tuple(value.shape[p] for p in perm) == tuple(shape):
            return np.ascontiguousarray(value.transpose(perm))
    return None


def stored(value, detail):
    """A value as the file's input takes it: in its integers where it has a scale."""
    known = detail["quantization_parameters"]
    if not known["scales"].size:
        return value.astype(detail["dtype"])
    limits = np.iinfo(detail["dtype"])
    steps = np.rint(value / known["scales"][0]) + known["zero_points"][0]
    return np.clip(steps, limits.min, limits.max).astype(detail["dtype"])


def plain(value, detail):
    """An output of the file in numbers."""
    known = detail["quantization_parameters"]
    if not known["scales"].size:
        return value
    return (value.astype(np.float32) - np.float32(known["zero_points"][0])) * np.float32(known["scales"][0])


def fed(stacked, row, details):
    """One sample as the model's inputs."""
    left, sample = {k: v[row] for k, v in stacked.items()}, {}
    for name, detail in sorted(details.items(), key=lambda entry: entry[0] not in left):
        bare = detail["name"].removeprefix("serving_default_").split(":")[0]
        named = [k for k in (name, bare) if k in left and fitted(left[k], detail["shape"]) is not None]
        chosen = (named or [k for k, v in left.items() if fitted(v, detail["shape"]) is not None])[0]
        sample[name] = stored(fitted(left.pop(chosen), detail["shape"]), detail)
    return sample


def evaluate(path, evaluation, reference, outputs):
    """Run the file; each output goes to the name, and the order of axes, that it is nearest to."""
    interpreter = Interpreter(path)
    key = next(iter(interpreter.get_signature_list()))
    runner = interpreter.get_signature_runner(key)
    with np.load(evaluation) as data:
        stacked = dict(data)
    with np.load(reference) as data:
        wanted = {k: v for k, v in data.items() if v.dtype.kind == "f"}
    count = len(next(iter(stacked.values())))
    details = runner.get_output_details()
    rows = []
    for row in range(count):
        # a new one each time: an LSTM's state would go from a sample to the next
        answer = Interpreter(path).get_signature_runner(key)(**fed(stacked, row, runner.get_input_details()))
        rows.append({other: plain(value, details[other]) for other, value in answer.items()})
    found = {}
    for name, expected in wanted.items():
        nearest = np.inf
        for got in (np.stack([row[other] for row in rows]) for other in rows[0]):
            for order in itertools.permutations(range(1, got.ndim)):
                if tuple(got.shape[i] for i in (0, *order)) != expected.shape:
                    continue
                value = got.transpose(0, *order)
                distance = float(((expected.astype(np.float64) - value) ** 2).sum())
                if distance < nearest or name not in found:
                    found[name], nearest = value, distance
        if name not in found:
            raise SystemExit(f"it has no output of the shape of {name}")
    np.savez(outputs, **found)


def main(model, calibration, output, *evaluated):
    """Static int8 of weights and activations, by the quantizer's own recipe."""
    interpreter = Interpreter(model)
    key = next(iter(interpreter.get_signature_list()))
    runner = interpreter.get_signature_runner(key)
    with np.load(calibration) as data:
        stacked = dict(data)
    count = len(next(iter(stacked.values())))
    samples = [fed(stacked, row, runner.get_input_details()) for row in range(count)]
    start = time.perf_counter()
    work = quantizer.Quantizer(model)
    work.load_quantization_recipe(recipe.static_wi8_ai8())
    work.quantize(work.calibrate({key: samples})).export_model(output, overwrite=True)
    print(json.dumps({"seconds": round(time.perf_counter() - start, 2)}), flush=True)
    if evaluated:
        evaluate(output, *evaluated)


if __name__ == "__main__":
    main(*sys.argv[1:])
