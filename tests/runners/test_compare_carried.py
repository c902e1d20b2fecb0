"""Outputs of types that wider ones carry are compared before they are narrowed."""

from __future__ import annotations

import numpy as np

from edgec.artifact import IoBinding
from edgec.runners.compare import OutputValues, check_output
from edgec.tensors import DType, TensorSpec


def test_a_step_of_bfloat16_is_no_error_of_float32() -> None:
    binding = IoBinding(
        source=TensorSpec(name="y", shape=(3,), dtype=DType.BFLOAT16),
        artifact=TensorSpec(name="y", shape=(3,), dtype=DType.FLOAT32),
    )
    values = np.asarray([1.001, 2.003, 3.007], np.float32)
    assert binding.to_source(values).astype(np.float32).tolist() != values.tolist()
    check, findings = check_output(
        OutputValues(binding=binding, raw=[values], reference=[values], exact=[values]), "float32"
    )
    assert check.passed and check.relative_error == 0 and findings == []


def test_an_error_of_the_carrier_is_one() -> None:
    binding = IoBinding(
        source=TensorSpec(name="y", shape=(3,), dtype=DType.BFLOAT16),
        artifact=TensorSpec(name="y", shape=(3,), dtype=DType.FLOAT32),
    )
    values = np.asarray([1.0, 2.0, 3.0], np.float32)
    check, findings = check_output(
        OutputValues(binding=binding, raw=[values * 1.01], reference=[values], exact=[values]), "float32"
    )
    assert not check.passed and findings
