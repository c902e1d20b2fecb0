"""Weights of few bits in the whole range of int8 are the same numbers."""

from __future__ import annotations

import numpy as np
import pytest

from edgec.backends.tflite.tir import Storage, Tensor
from edgec.backends.tflite.whole_range import in_whole_range
from edgec.tensors import Array, DType, QParams


def weight(data: Array, scale: float = 0.3, zero: int = 0) -> Tensor:
    storage = Storage(DType.INT8, QParams.per_tensor(scale, zero))
    return Tensor("w", data.shape, DType.FLOAT32, data.astype(np.int8), storage)


def bias(value: float) -> Tensor:
    return Tensor("b", (1,), DType.FLOAT32, np.asarray([value], np.float32))


@pytest.mark.parametrize(("peak", "factor"), [(7, 16), (8, 8), (63, 2), (64, 1), (127, 1), (0, 64)])
def test_as_large_as_int8_takes(peak: int, factor: int) -> None:
    before = weight(np.asarray([[peak, -peak, peak // 2]]))
    after = in_whole_range(before, bias(1.0), 0.02)
    assert after.data is not None and before.data is not None
    np.testing.assert_array_equal(after.data, before.data * factor)
    np.testing.assert_allclose(after.real(), before.real(), rtol=1e-7)
    assert (after is before) == (factor == 1)


def test_a_bias_keeps_its_32_bits() -> None:
    step = 0.3 * 0.02
    after = in_whole_range(weight(np.asarray([[1, 2]])), bias(step * 2.0**27.5), 0.02)
    assert after.data is not None and after.data.max() == 2 * 4


def test_a_zero_point_is_left_alone() -> None:
    before = weight(np.asarray([[1, 2]]), zero=3)
    assert in_whole_range(before, None, 0.02) is before
