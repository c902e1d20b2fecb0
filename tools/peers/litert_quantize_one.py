"""Quantize one float .tflite with LiteRT's own quantizer, in its environment: MODEL CALIBRATION.npz OUTPUT.

The npz holds the inputs by name, stacked; they go to the model's inputs by shape, in either layout.
"""

# It runs in another environment, whose packages are not here.
# mypy: ignore-errors

from __future__ import annotations

import itertools
import sys

import numpy as np
from ai_edge_litert.interpreter import Interpreter
from ai_edge_quantizer import quantizer, recipe


def fitted(value, shape):
    """The value in the order of axes that has the shape, or None."""
    for perm in itertools.permutations(range(value.ndim)):
        if tuple(value.shape[p] for p in perm) == tuple(shape):
            return np.ascontiguousarray(value.transpose(perm))
    return None


def main(model, calibration, output):
    """Static int8 of weights and activations, by the quantizer's own recipe."""
    interpreter = Interpreter(model)
    key = next(iter(interpreter.get_signature_list()))
    runner = interpreter.get_signature_runner(key)
    with np.load(calibration) as data:
        stacked = dict(data)
    samples = []
    for row in range(len(next(iter(stacked.values())))):
        left, sample = {k: v[row] for k, v in stacked.items()}, {}
        for name, detail in runner.get_input_details().items():
            chosen = next(k for k, v in left.items() if fitted(v, detail["shape"]) is not None)
            sample[name] = fitted(left.pop(chosen), detail["shape"]).astype(detail["dtype"])
        samples.append(sample)
    work = quantizer.Quantizer(model)
    work.load_quantization_recipe(recipe.static_wi8_ai8())
    work.quantize(work.calibrate({key: samples})).export_model(output, overwrite=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
