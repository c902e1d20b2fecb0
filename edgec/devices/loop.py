"""One event loop in a thread of its own, for libraries that only speak asyncio."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine
from functools import lru_cache
from typing import Any, TypeVar

T = TypeVar("T")


@lru_cache(maxsize=1)
def _loop() -> asyncio.AbstractEventLoop:
    loop = asyncio.new_event_loop()
    threading.Thread(target=loop.run_forever, name="edgec-devices", daemon=True).start()
    return loop


def await_here(coroutine: Coroutine[Any, Any, T]) -> T:
    """The coroutine's result, from ordinary code of any thread; an interrupt here cancels it there."""
    future = asyncio.run_coroutine_threadsafe(coroutine, _loop())
    try:
        return future.result()
    except BaseException:
        future.cancel()
        raise
