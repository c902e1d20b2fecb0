"""Text crosses the borders: random words for a golden, a golden on disk, and outputs that are text compared."""

from __future__ import annotations

import numpy as np
import pytest

from edgec.artifact import IoBinding
from edgec.bundle.golden import Golden, golden_files, read_golden
from edgec.pipeline.measure import random_feeds
from edgec.runners.agent import _compare
from edgec.runners.compare import OutputValues, check_output
from edgec.tensors import DType, TensorSpec

SPEC = TensorSpec(name="y", shape=(2,), dtype=DType.STRING)
BINDING = IoBinding(source=SPEC, artifact=SPEC)
WORDS = np.asarray(["straße", ""])


@pytest.mark.parametrize(("second", "passed"), [("", True), ("x", False)])
def test_strings_are_equal_or_wrong(second: str, passed: bool) -> None:
    actual = np.asarray(["straße", second], object)
    check, findings = check_output(
        OutputValues(binding=BINDING, raw=[actual], reference=[WORDS], exact=[WORDS]), "float32"
    )
    assert (check.passed, not findings) == (passed, passed)
    assert _compare(WORDS, actual.astype(str), 0, 0.0) == (("", 0.0) if passed else ("1 strings differ", 1.0))


def test_a_golden_keeps_text() -> None:
    given = {"y": random_feeds([SPEC], 1)[0]["y"]}
    assert given["y"].dtype.kind == "U" and given["y"].shape == (2,)
    made = {"y": WORDS.astype(object)}
    golden = Golden(inputs=given, raw_inputs=given, raw_outputs=made, reference_outputs=made, float_outputs=made)
    files = golden_files([golden], [BINDING], [BINDING])
    read = read_golden(files.get, 0, [BINDING], [BINDING])
    assert read.inputs["y"].tolist() == given["y"].tolist()
    assert read.raw_outputs["y"].tolist() == read.float_outputs["y"].tolist() == WORDS.tolist()
