"""Runtimes that join few tensors at once: more are joined in steps, and ready models that do not are refused."""

from __future__ import annotations

import numpy as np
import pytest

from edgec.backends.tflite.limits import check_limits
from edgec.backends.tflite.tir import Graph, Op, Tensor
from edgec.backends.tflite.wide import join_in_steps
from edgec.targets.load import load_target
from edgec.tensors import DType


def _graph(count: int, axis: int) -> Graph:
    parts = [Tensor(f"x{i}", (2, i + 1) if axis % 2 else (i + 1, 2), DType.FLOAT32) for i in range(count)]
    total = sum(range(1, count + 1))
    whole = Tensor("y", (2, total) if axis % 2 else (total, 2), DType.FLOAT32)
    joined = Op("CONCATENATION", list(parts), [whole], {"axis": axis, "fusedActivationFunction": "NONE"}, "join")
    return Graph("g", parts, [whole], [joined])


def _computed(graph: Graph) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    rng = np.random.default_rng(0)
    values = {t: rng.standard_normal(t.shape) for t in graph.inputs}
    for op in graph.ops:
        values[op.outputs[0]] = np.concatenate([values[t] for t in op.inputs if t], axis=op.options["axis"])
        assert values[op.outputs[0]].shape == op.outputs[0].shape
    return values[graph.outputs[0]]


@pytest.mark.parametrize("axis", [0, 1, -1])
@pytest.mark.parametrize("count", [9, 10, 11, 28, 101])
def test_joined_in_steps_it_is_the_same(count: int, axis: int) -> None:
    plain, stepped = _graph(count, axis), _graph(count, axis)
    join_in_steps(stepped, {"CONCATENATION": 10})
    assert all(len(op.inputs) <= 10 for op in stepped.ops)
    assert (len(stepped.ops) == 1) == (count <= 10)
    assert (_computed(plain) == _computed(stepped)).all()


def test_without_a_limit_nothing_changes() -> None:
    graph = _graph(28, 0)
    join_in_steps(graph, {})
    assert len(graph.ops) == 1


def test_a_ready_model_that_joins_too_many_is_refused() -> None:
    (finding,) = check_limits(_graph(11, 1), load_target("cortex-m4"))
    assert (finding.code, finding.rule) == ("backend/inputs", "limits.max_inputs")
    assert "11 tensors" in finding.message
    assert not check_limits(_graph(11, 1), load_target("raspberrypi"))
