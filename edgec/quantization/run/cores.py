"""Work on all cores: calls in threads, a few at a time, with their results in order.

Linear algebra has one thread a call meanwhile. Its own threads gain little on matrices of a layer's size, wait for each
other by spinning, and on a machine that is busy with something else take many times as long as one thread alone.
"""

from __future__ import annotations

import gc
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from threadpoolctl import threadpool_limits

T = TypeVar("T")
R = TypeVar("R")


def physical_cores() -> int:
    """Cores that this process may use, hyperthreads not counted."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        hyperthreads = Path("/sys/devices/system/cpu/smt/active").read_text().strip() == "1"
    except OSError:
        hyperthreads = False
    return max(1, allowed // 2 if hyperthreads else allowed)


def in_order(call: Callable[[T], R], items: Iterable[T], at_once: int) -> Iterator[R]:
    """`call` of each item, in their order; `at_once` calls are under way at a time.

    Items are taken in the caller's thread, no further ahead than the cores need. Raises what a call raises.
    """
    if at_once <= 1:
        yield from map(call, items)
        return
    coming: deque[Future[R]] = deque()
    pool = ThreadPoolExecutor(at_once)
    try:
        for item in items:
            coming.append(pool.submit(call, item))
            if len(coming) > at_once:
                yield coming.popleft().result()
        while coming:
            yield coming.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)


@contextmanager
def one_thread_a_call() -> Iterator[None]:
    """While this context is open (or the function it decorates runs), linear algebra uses the caller's thread alone."""
    with threadpool_limits(limits=1, user_api="blas"):
        yield


@contextmanager
def few_collections() -> Iterator[None]:
    """While this context is open (or the function it decorates runs), garbage is looked for in what is new alone.

    Modules and models loaded before are hundreds of thousands of objects, and going through them again and again takes
    a tenth of the time of work that makes as many new ones.
    """
    if gc.get_freeze_count():  # a caller has done the same, and would not want it undone
        yield
        return
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()
