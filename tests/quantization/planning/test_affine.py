"""From ranges to scales: what pictures of 8 bits lose, and that ranges stay covered."""

from __future__ import annotations

import numpy as np
import pytest

from edgec.quantization.planning.affine import activation_params
from edgec.tensors import DType


@pytest.mark.parametrize("dtype", [DType.INT8, DType.UINT8])
@pytest.mark.parametrize(
    ("offset", "divisor", "steps"),
    [(127.5, 127.5, 0.3), (0.0, 255.0, 1e-3), (127.0, 128.0, 1e-3), (0.0, 1.0, 1e-3), (128.0, 1.0, 1e-3)],
)
def test_a_picture_of_8_bits_is_nowhere_half_way_between_steps(
    dtype: DType, offset: float, divisor: float, steps: float
) -> None:
    """Root of the mean squared error in steps: 0.29 is that of any data, 0.5 that of values half way between."""
    values = ((np.arange(256) - offset) / divisor).astype(np.float32)
    params = activation_params((float(values.min()), float(values.max())), dtype)
    found = params.dequantize(params.quantize(values, dtype))
    assert np.sqrt(np.mean((found - values) ** 2)) / params.scale[0] <= steps
    assert np.abs(found - values).max() <= 0.51 * params.scale[0]


def test_powers_of_two_stay_the_smallest_that_cover() -> None:
    assert activation_params((-1.0, 1.0), DType.INT8, powers=True).scale == (2.0**-6,)
    assert activation_params((-127.4 / 128, 127.4 / 128), DType.INT8, powers=True).scale == (2.0**-7,)
