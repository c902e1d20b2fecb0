"""Loops whose condition counts get their number of rounds; those that data decide stay as they are."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from edgec.graph.model import Model, SourceInfo, const_of
from edgec.graph.names import name_everything
from edgec.passes.count_rounds import CountRounds, rounds_of
from edgec.passes.pipelines import canonicalize
from edgec.quantization.run.executor import Executor

TEXT = """
<ir_version: 10, opset_import: ["": 21]>
counted (float[1, 4] x) => (float[1, 4] y, float[N, 1, 4] steps)
  <int64 limit = {LIMIT}, bool start = {START}, int32 zero = {0}>
{
  y, last, steps = Loop (limit, start, x, zero) <body = one (int64 round, bool go, float[1, 4] state, int32 i)
    => (bool next, float[1, 4] state_out, int32 i_out, float[1, 4] step)
    <int32 by = {STEP}, int32 bound = {BOUND}, float half = {0.5}> {
      i_out = Add (i, by)
      CONDITION
      state_out = Mul (state, half)
      step = Identity (state_out)
    }>
}
"""
COUNTING = "below = Less (i_out, bound) \n next = And (below, go)"


def loop(
    *, limit: int = 100, start: int = 1, step: int = 1, bound: int = 7, condition: str = COUNTING
) -> tuple[Model, ir.Node]:
    text = TEXT.replace("LIMIT", str(limit)).replace("START", str(start)).replace("STEP", str(step))
    text = text.replace("BOUND", str(bound)).replace("CONDITION", condition)
    made = ir.serde.deserialize_model(onnx.parser.parse_model(text))
    name_everything(made)
    model = Model(ir=made, source=SourceInfo(kind="onnx", name="t", digest=""), name="t")
    return model, next(n for n in model.nodes() if n.op_type == "Loop")


@pytest.mark.parametrize(
    ("options", "rounds"),
    [
        ({}, 7),
        ({"limit": 3}, 3),
        ({"step": 3}, 3),
        ({"start": 0}, 0),
        ({"bound": -5}, 1),
        ({"condition": "r = Cast <to = 6> (round) \n next = Less (r, bound)"}, 8),
        ({"condition": "big = Sub (bound, by) \n most = Min (big, bound) \n next = LessOrEqual (i_out, most)"}, 7),
    ],
)
def test_rounds_are_those_of_the_runtime(options: dict[str, int], rounds: int) -> None:
    model, node = loop(**options)  # type: ignore[arg-type]
    assert rounds_of(node) == rounds
    x = np.arange(4, dtype=np.float32).reshape(1, 4)
    before = Executor(model).run({"x": x})
    assert len(before["steps"]) == rounds
    assert CountRounds().run(model)
    counted = const_of(next(n for n in model.nodes() if n.op_type == "Loop").inputs[0])
    assert counted is not None
    assert int(counted) == rounds
    after = Executor(model).run({"x": x})
    for name, value in before.items():
        np.testing.assert_array_equal(after[name], value)
    assert not CountRounds().run(model)


def test_a_counted_loop_is_written_out() -> None:
    model, _ = loop()
    canonical = canonicalize(model)
    assert all(n.op_type != "Loop" for n in canonical.nodes())
    assert canonical.outputs()[1].shape == (7, 1, 4)


@pytest.mark.parametrize(
    "condition",
    [
        "total = ReduceSum <keepdims = 0> (state) \n next = Less (half, total)",  # data decide
        "next = Identity (go)",  # nothing to count: the limit already says it
    ],
)
def test_other_conditions_are_left_alone(condition: str) -> None:
    model, node = loop(condition=condition)
    assert rounds_of(node) is None
    assert not CountRounds().run(model)


def test_a_loop_that_never_ends_is_left_alone() -> None:
    _, node = loop(limit=10**9, step=0)
    assert rounds_of(node) is None
