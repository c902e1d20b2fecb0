"""Calls on all cores: in order, not far ahead, and without threads of linear algebra beside them."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator

import numpy as np
import pytest
from threadpoolctl import threadpool_info

from edgec.quantization.run.cores import few_collections, in_order, one_thread_a_call


@pytest.mark.parametrize("at_once", [1, 2, 5])
def test_results_come_in_the_order_of_the_items(at_once: int) -> None:
    assert list(in_order(lambda i: i * i, range(20), at_once)) == [i * i for i in range(20)]


@pytest.mark.parametrize(("at_once", "ahead"), [(1, 1), (2, 3)])
def test_items_are_taken_as_they_are_needed(at_once: int, ahead: int) -> None:
    taken = []

    def items() -> Iterator[int]:
        for i in range(100):
            taken.append(i)
            yield i

    results = in_order(lambda i: i, items(), at_once)
    assert next(results) == 0
    assert len(taken) == ahead


def test_what_a_call_raises_arrives() -> None:
    with pytest.raises(ZeroDivisionError):
        list(in_order(lambda i: 1 // i, [1, 0, 1, 1, 1], 2))


def test_linear_algebra_has_one_thread_inside_and_what_it_had_outside() -> None:
    def threads() -> set[int]:
        np.ones((2, 2)) @ np.ones((2, 2))
        return {pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"}

    before = threads()
    with one_thread_a_call():
        assert threads() <= {1}
    assert threads() == before


def test_what_was_there_before_is_no_garbage_inside_and_may_be_outside() -> None:
    assert gc.get_freeze_count() == 0
    with few_collections():
        assert gc.get_freeze_count() > 1000
        with few_collections():
            assert gc.get_freeze_count() > 1000
        assert gc.get_freeze_count() > 1000, "the outer one has not ended yet"
    assert gc.get_freeze_count() == 0


def test_new_garbage_is_found_all_the_same() -> None:
    class Ring:
        pass

    with few_collections():
        ring = Ring()
        gone = weakref.ref(ring)
        ring.__dict__["self"] = ring
        del ring
        gc.collect()
        assert gone() is None
