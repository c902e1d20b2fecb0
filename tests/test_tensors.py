"""Quantization parameters: rounding and saturation as ONNX has them."""

from __future__ import annotations

import numpy as np

from edgec.tensors import DType, QParams


def test_what_lies_beyond_float32_in_steps_saturates_in_silence() -> None:
    """The padding of a maximum is the lowest float there is."""
    lowest = np.asarray([np.finfo(np.float32).min, 0.0, np.finfo(np.float32).max], np.float32)
    assert QParams.per_tensor(0.01, 3).quantize(lowest, DType.INT8).tolist() == [-128, 3, 127]


def test_halves_round_to_even() -> None:
    assert QParams.per_tensor(1.0, 0).quantize(np.asarray([0.5, 1.5, -2.5]), DType.INT8).tolist() == [0, 2, -2]
