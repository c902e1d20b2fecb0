"""The walk: going on from kept values gives what running the whole model gives."""

from __future__ import annotations

import numpy as np
import pytest

from edgec.quantization.repair import walk as walking
from edgec.quantization.repair.follow import follow
from edgec.quantization.run.apply import apply_plan
from edgec.quantization.run.executor import Executor
from edgec.quantization.run.segment import bytes_of, living, segment
from tests.quantization.repair.test_follow import setting


def test_from_kept_values_as_from_the_inputs(monkeypatch: pytest.MonkeyPatch) -> None:
    model, plan, feeds = setting()
    kept = follow(model, plan, feeds, positions=64)
    monkeypatch.setattr(walking, "MOST_BYTES", -1)
    from_the_start = follow(model, plan, feeds, positions=64)
    for key, weight in kept.weights.items():
        np.testing.assert_array_equal(weight.data, from_the_start.weights[key].data)
    for key, bias in kept.biases.items():
        np.testing.assert_array_equal(bias.data, from_the_start.biases[key].data)


def test_a_part_computes_what_the_whole_does() -> None:
    model, plan, feeds = setting()
    places = [node.name or "" for node in model.nodes()]
    for whole in (model, apply_plan(model, plan)):
        everything = Executor(whole, fetch=[v.name or "" for n in whole.nodes() for v in n.outputs]).run(feeds[0])
        for place in places[1:]:
            given = living(model, place)
            known = {name: everything[name] for name in given}
            part = segment(whole, given, ["y"])
            assert sum(1 for _ in part.nodes()) < sum(1 for _ in whole.nodes())
            found = Executor(part).run({**feeds[0], **known})
            np.testing.assert_array_equal(found["y"], everything["y"])


def test_what_lives_at_a_node() -> None:
    model, _, _ = setting()
    third = next(n for n in model.nodes() if n.op_type == "GlobalAveragePool")
    assert third.inputs[0] is not None
    assert living(model, third.name or "") == (third.inputs[0].name,)
    assert bytes_of(model, living(model, third.name or "")) == 12 * 12 * 12 * 4
