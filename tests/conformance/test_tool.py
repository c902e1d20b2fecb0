"""The conformance tool itself: how it compares, and that a case that dies or hangs costs only itself."""

from __future__ import annotations

import os
import pickle
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tools.conformance.cases import CaseRef
from tools.conformance.compare import difference
from tools.conformance.pool import run_all
from tools.conformance.report import markdown, summary
from tools.conformance.run_case import Result

X = np.asarray([1.0, 2.0, np.nan], np.float32)


@pytest.mark.parametrize(
    ("expected", "actual", "text"),
    [
        ([X], [X.copy()], ""),
        ([X], [X * np.float32(1.0005)], ""),
        ([X], [X * np.float32(1.01)], "differ"),
        ([X], [X.astype(np.float64)], "type float64"),
        ([X], [X[:2]], "shape (2,)"),
        ([X], [X, X], "2 outputs"),
        ([[X, X]], [[X, X]], ""),
        ([[X, X]], [[X]], "1 outputs"),
        ([[X]], [X], "no sequence"),
        ([np.asarray(["a"])], [np.asarray(["b"])], "strings"),
        ([X], [np.asarray([1, 2, 3], np.float32)], "1 of 3"),
        ([np.asarray([np.inf], np.float32)], [np.asarray([1.0], np.float32)], "differ"),
    ],
)
def test_difference(expected: list[Any], actual: list[Any], text: str) -> None:
    found = difference("test_x", expected, actual, 1e-3, 1e-7)
    assert (text in found) if text else not found


def test_random_outputs_are_compared_by_type_and_shape() -> None:
    assert not difference("test_bernoulli", [X], [X + 5], 1e-3, 1e-7)
    assert difference("test_bernoulli", [X], [X[:1]], 1e-3, 1e-7)


class _Trap:
    """Calls a function when it is unpickled."""

    def __init__(self, function: Callable[..., object], argument: int) -> None:
        self.call = function, (argument,)

    def __reduce__(self) -> Any:
        return self.call


@pytest.mark.slow
def test_crashes_and_hangs_end_their_case_only(tmp_path: Path) -> None:
    refs = []
    for name, trap in (("dies", _Trap(os._exit, 3)), ("hangs", _Trap(time.sleep, 60)), ("is-no-case", 5)):
        path = tmp_path / f"{name}.pickle"
        path.write_bytes(pickle.dumps(trap))
        refs.append(CaseRef(name=name, suite="node", op_type="Relu", path=path))
    start = time.monotonic()
    results = run_all([(ref, "tflite") for ref in refs], workers=2, limit_s=5)
    assert time.monotonic() - start < 50
    assert [r.verdict for r in results] == ["crash", "timeout", "error"]
    assert "ended with 3" in results[0].reason


def test_report_lists_what_does_not_pass() -> None:
    results = [
        Result(name=name, suite="node", op_type="Relu", backend=backend, verdict=verdict, reason="why")
        for name, backend, verdict in (
            ("test_a", "tflite", "pass"),
            ("test_b", "tflite", "refused"),
            ("test_a", "onnxruntime", "refused"),
            ("test_b", "onnxruntime", "pass"),
        )
    ]
    assert "| tflite | node | 2 | 1 | 1 | 0 | 0 | 0 | 0 |" in summary(results)
    page = markdown(results)
    assert "- **refused** why (1): b†" in page
    assert "onnxruntime passes 1 of them (marked †), and fails 1 that tflite passes" in page
