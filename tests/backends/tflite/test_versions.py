"""Operator versions: the lowest that covers each use, and one that the runtime accepts."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from edgec.backends.tflite.schema import op_code
from edgec.backends.tflite.tir import Op, Storage, Tensor, constant
from edgec.backends.tflite.versions import RULES, op_version, stored
from edgec.tensors import DType, QParams

INT8 = Storage(DType.INT8, QParams.per_tensor(0.5, 0))
INT16 = Storage(DType.INT16, QParams.per_tensor(0.5, 0))
CHANNELS = Storage(DType.INT8, QParams(scale=(0.5, 0.25), zero_point=(0, 0), axis=0))


def value(*shape: int, storage: Storage | None = None, dtype: DType = DType.FLOAT32) -> Tensor:
    return Tensor(name="t", shape=shape, dtype=dtype, storage=storage)


def weights(storage: Storage | None, *shape: int) -> Tensor:
    t = constant("w", np.ones(shape, np.float32 if storage is None else np.int8))
    t.dtype, t.storage = DType.FLOAT32, storage
    return t


def op(kind: str, *inputs: Tensor, **options: Any) -> Op:
    out = value(*inputs[0].shape, storage=inputs[0].storage, dtype=inputs[0].dtype)
    return Op(kind, list(inputs), [out], options)


CONV = {"fusedActivationFunction": "NONE"}


@pytest.mark.parametrize(
    ("version", "operator"),
    [
        (1, op("CONV_2D", value(1, 4, 4, 2), weights(None, 2, 3, 3, 2))),
        (2, op("CONV_2D", value(1, 4, 4, 2), weights(INT8, 2, 3, 3, 2))),
        (3, op("CONV_2D", value(1, 4, 4, 2, storage=INT8), weights(CHANNELS, 2, 3, 3, 2))),
        (4, op("CONV_2D", value(1, 4, 4, 2, storage=INT16), weights(CHANNELS, 2, 3, 3, 2))),
        (5, op("CONV_2D", value(1, 4, 4, 2), weights(CHANNELS, 2, 3, 3, 2))),
        (6, op("CONV_2D", value(1, 4, 4, 4), weights(None, 4, 3, 3, 2))),
        (1, op("DEPTHWISE_CONV_2D", value(1, 4, 4, 2), weights(None, 1, 3, 3, 2))),
        (2, op("DEPTHWISE_CONV_2D", value(1, 4, 4, 2), weights(None, 1, 3, 3, 2), dilationWFactor=2)),
        (3, op("DEPTHWISE_CONV_2D", value(1, 4, 4, 2, storage=INT8), weights(INT8, 1, 3, 3, 2))),
        (1, op("FULLY_CONNECTED", value(1, 4), weights(None, 2, 4), value(2))),
        (4, op("FULLY_CONNECTED", value(1, 4, storage=INT8), weights(INT8, 2, 4), value(2))),
        (5, op("FULLY_CONNECTED", value(1, 4), weights(None, 2, 4), value(2), keepNumDims=True)),
        (1, op("ADD", value(4), value(4))),
        (2, op("ADD", value(4, storage=INT8), value(4, storage=INT8))),
        (1, op("RESHAPE", value(4), constant("s", [2, 2], DType.INT32))),
        (2, op("TRANSPOSE", value(2, 2, storage=INT8), constant("p", [1, 0], DType.INT32))),
        (4, op("TRANSPOSE", value(1, 1, 1, 2, 2), constant("p", [0, 1, 2, 4, 3], DType.INT32))),
        (3, op("DEQUANTIZE", value(4, dtype=DType.FLOAT16))),
        (2, op("DEQUANTIZE", value(4, storage=INT8))),
        (2, op("SOFTMAX", value(4, storage=INT8))),
        (1, op("SOFTMAX", value(4))),
        (1, op("RESIZE_BILINEAR", value(1, 2, 2, 1), constant("s", [4, 4], DType.INT32))),
        (3, op("RESIZE_BILINEAR", value(1, 2, 2, 1), constant("s", [4, 4], DType.INT32), halfPixelCenters=True)),
        (2, op("DIV", value(1, 1, 1, 2, 2), value(2))),
        (1, op("DIV", value(2, 2), value(2))),
    ],
)  # fmt: skip
def test_the_lowest_version_that_covers_the_use(version: int, operator: Op) -> None:
    assert op_version(operator) == version


def test_what_no_rule_names_is_version_1() -> None:
    assert op_version(op("TANH", value(4))) == 1
    assert op_version(op("GELU", value(4))) == 1


def test_every_rule_is_about_an_operator_of_the_schema() -> None:
    for kind, rules in RULES.items():
        assert op_code(kind) >= 0
        assert rules and all(1 <= version <= 14 for version, _ in rules), kind


def test_the_stored_type_counts() -> None:
    assert stored(value(1, storage=INT16)) == DType.INT16
    assert stored(value(1)) == DType.FLOAT32
    assert stored(None) is None
