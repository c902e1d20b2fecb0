"""The table of TFLM's kernels in the profile is what TFLM does: a few rows asked again, every row well-formed."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgec.backends.tflite.schema import fb
from edgec.targets.load import load_target
from edgec.tensors import DType
from tools.tflm_kernels import CASES, runs

#: What calls subgraphs or holds values: it runs on any type, and no case of one operator can ask for it.
CONTROL = {"ASSIGN_VARIABLE", "CALL_ONCE", "IF", "READ_VARIABLE", "VAR_HANDLE", "WHILE"}
KERNELS = load_target("cortex-m4").backends["tflite"].kernels


@pytest.mark.parametrize("kind", ["CONV_2D", "EXP", "PADV2", "SELECT_V2", "GELU"])
def test_a_row_is_what_the_interpreter_does(kind: str, tmp_path: Path) -> None:
    pytest.importorskip("tflite_micro", reason="TensorFlow Lite Micro's wheel is for Linux on x86-64 only")
    case = next(case for case in CASES if case.kind == kind)
    good = [str(dtype) for dtype in case.dtypes if not runs(case, dtype, tmp_path)]
    assert good == list(KERNELS.get(kind, ()))


def test_every_row_is_an_operator_and_its_types() -> None:
    operators = vars(fb.BuiltinOperator)
    assert all(kind in operators for kind in KERNELS)
    assert {name for row in KERNELS.values() for name in row} <= {str(dtype) for dtype in DType}
    assert {case.kind for case in CASES} >= KERNELS.keys() - CONTROL
