"""Lists of free length: none of them may be empty by mistake, all may be empty on purpose."""

from __future__ import annotations

import numpy as np
import pytest

from edgec.errors import EdgecError
from edgec.passes.fix_inputs import fix_inputs
from edgec.passes.pipelines import canonicalize
from edgec.tensors import Array
from tests.support.graphs import graph, run_ort


def test_a_list_of_no_elements_when_asked_for() -> None:
    model = graph("(float[n] x) => (float[n] y) { y = Relu(x) }")
    fix_inputs(model, {"x": (0,)})
    assert run_ort(canonicalize(model), {"x": np.zeros(0, np.float32)})["y"].shape == (0,)


@pytest.mark.parametrize(("declared", "given"), [("n,3", (0, 3)), ("3", (0,)), ("n", (-1,))])
def test_no_other_zero(declared: str, given: tuple[int, ...]) -> None:
    model = graph(f"(float[{declared}] x) => (float[{declared}] y) {{ y = Relu(x) }}")
    with pytest.raises(EdgecError) as caught:
        fix_inputs(model, {"x": given})
    assert caught.value.code == "source/input-shape"


def test_sizes_at_run_time_tell_how_many_parts() -> None:
    model = graph("(float[6] x, int64[3] k) => (int64 n) { s = SplitToSequence(x, k) n = SequenceLength(s) }")
    feeds: dict[str, Array] = {"x": np.zeros(6, np.float32), "k": np.array([1, 2, 3], np.int64)}
    result = canonicalize(model)
    assert not [n for n in result.nodes() if "Sequence" in n.op_type]
    assert run_ort(result, feeds)["n"] == 3
