"""One event loop in a thread of its own, for libraries that only speak asyncio."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")

_THREAD = "edgec-devices"


def _silence(record: logging.LogRecord) -> bool:
    """False for asyncio's own words about a broken connection of this thread: the typed error says it, once."""
    return record.threadName != _THREAD or record.levelno > logging.WARNING


_lock = threading.Lock()
_loop: asyncio.AbstractEventLoop | None = None


def await_here(coroutine: Coroutine[Any, Any, T]) -> T:
    """The coroutine's result, from ordinary code of any thread; an interrupt here cancels it there."""
    future = asyncio.run_coroutine_threadsafe(coroutine, _running())
    try:
        return future.result()
    except BaseException:
        future.cancel()
        raise


def _running() -> asyncio.AbstractEventLoop:
    """The one loop: what is bound to it (connections) outlives a call."""
    global _loop
    with _lock:
        if _loop is None:
            _loop = asyncio.new_event_loop()
            logging.getLogger("asyncio").addFilter(_silence)
            threading.Thread(target=_loop.run_forever, name=_THREAD, daemon=True).start()
        return _loop
