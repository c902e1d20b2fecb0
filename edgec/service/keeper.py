"""Which model answers: the one that `current` leads to, loaded beside the old one and swapped when it is healthy.

1. The link is looked at once a second, and at SIGHUP; there is nothing that a device would have to support.
2. A release that cannot be loaded changes nothing: the old one goes on, the failure is told, and the same release is
   tried again after `RETRY_S` or at SIGHUP.
3. Requests take the model under the lock that the swap holds: none meets a model that is closed.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from edgec.service.model import Model
from edgec.service.problems import ServiceError
from edgec.service.release import Release, find

RETRY_S = 60.0
Swapped = Callable[[Model], None]
Failed = Callable[[ServiceError], None]


class Keeper:
    """Use `look` once, then `watch` in a thread; `stop` ends it."""

    def __init__(
        self, root: Path, *, threads: int, load_timeout_s: float, poll_s: float, swapped: Swapped, failed: Failed
    ) -> None:
        self._root, self._threads = root, threads
        self._load_timeout_s, self._poll_s = load_timeout_s, poll_s
        self._swapped, self._failed = swapped, failed
        self._lock = threading.Lock()
        self._model: Model | None = None
        self._folder: Path | None = None
        self._failure: tuple[Path | None, ServiceError, float] | None = None
        self._wake, self._end, self._forced = threading.Event(), threading.Event(), False

    # ------------------------------------------------------------------------------------------ for requests

    def take(self) -> Model:
        """The model, in use from now on: call `leave` on it. Raises ServiceError while there is none."""
        with self._lock:
            if self._model is not None:
                self._model.enter()
                return self._model
        if self._failure is not None:
            raise self._failure[1]
        raise ServiceError(503, "loading", "the model is being loaded", "try again in a moment")

    @property
    def model(self) -> Model | None:
        """The one that answers now."""
        return self._model

    def problem(self) -> dict[str, Any] | None:
        """What is wrong with the release that `current` leads to, when that is not the one that answers."""
        failure = self._failure
        return None if failure is None else {"release": failure[0].name if failure[0] else "", **failure[1].record()}

    # ------------------------------------------------------------------------------------------ for the watcher

    def look(self, *, force: bool = False) -> None:
        """Load what `current` leads to, if that is news. Never raises: the failure is kept."""
        folder: Path | None = None
        try:
            folder = find(self._root)
            if folder == self._folder:
                self._failure = None
                return
            known = self._failure
            if known is not None and known[0] == folder and not force and time.monotonic() < known[2]:
                return
            model = Model(Release(folder), threads=self._threads, load_timeout_s=self._load_timeout_s)
        except ServiceError as error:
            self._fail(folder, error)
            return
        except OSError as error:  # no memory, no processes: as much a reason to stay with the old one
            self._fail(folder, ServiceError(503, "not-loaded", f"the release cannot be loaded: {error}"))
            return
        self._swapped(model)
        with self._lock:
            old, self._model = self._model, model
            self._folder, self._failure = folder, None
        if old is not None:
            old.retire()

    def _fail(self, folder: Path | None, error: ServiceError) -> None:
        known = self._failure
        news = known is None or known[0] != folder or str(known[1]) != str(error)
        self._failure = (folder, error, time.monotonic() + RETRY_S)
        if news:
            sys.stderr.write(f"edgec-agent: {error.code}: {error}\n")
            sys.stderr.flush()
            self._failed(error)

    def watch(self) -> None:
        """Look again and again until `stop`."""
        while not self._end.is_set():
            self._wake.wait(self._poll_s)
            self._wake.clear()
            if not self._end.is_set():
                forced, self._forced = self._forced, False
                self.look(force=forced)

    def hurry(self) -> None:
        """Look now, even at what failed before (SIGHUP)."""
        self._forced = True
        self._wake.set()

    def stop(self) -> None:
        """End the watcher and the model."""
        self._end.set()
        self._wake.set()
        with self._lock:
            model, self._model = self._model, None
        if model is not None:
            model.retire()
