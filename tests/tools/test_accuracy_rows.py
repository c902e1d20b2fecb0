"""Samples of the accuracy table: what calibrates does not evaluate, and timing has no sample twice."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from edgec.tensors import DType, TensorSpec
from tools.accuracy_more import more
from tools.accuracy_rows import Feeds, parted
from tools.accuracy_unseen import captchas, pages


@pytest.mark.parametrize(("count", "calibrate", "step"), [(10_000, 100, 100), (1000, 100, 10), (200, 100, 2)])
def test_what_calibrates_is_spread_and_does_not_evaluate(count: int, calibrate: int, step: int) -> None:
    learn, judge = parted(count, calibrate)
    assert learn == list(range(0, step * calibrate, step))
    assert sorted(learn + judge) == list(range(count))


def test_few_samples_calibrate_by_half() -> None:
    assert parted(5, 100) == ([0, 2, 4], [1, 3])


def test_timing_has_as_many_samples_as_asked_for_and_none_twice() -> None:
    spec = TensorSpec(name="pixels", dtype=DType.FLOAT32, shape=(1, 3, 48, 320))
    found = more("ocr_rec", 40, [spec])
    assert {feed["pixels"].shape for feed in found} == {spec.shape}
    assert len({feed["pixels"].tobytes() for feed in found}) == 40


@pytest.mark.parametrize(("make", "shape"), [(pages, (1, 3, 800, 608)), (captchas, (1, 1, 64, 160))])
def test_drawn_samples_differ_and_come_again(make: Callable[[int], Feeds], shape: tuple[int, ...]) -> None:
    first, again = make(3), make(3)
    (name,) = first[0]
    assert {feed[name].shape for feed in first} == {shape}
    assert len({feed[name].tobytes() for feed in first}) == 3
    assert [feed[name].tobytes() for feed in first] == [feed[name].tobytes() for feed in again]
