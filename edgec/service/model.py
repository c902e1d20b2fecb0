"""A release that is loaded: its child process, its health, and who is using it.

1. A crash costs the request that met it; the next one gets a new process. After `MAX_CRASHES` in a minute the model
   counts as unstable and is refused for `REST_S`, so that a client that retries does not load it for ever.
2. A model that was replaced is closed by the last request that uses it.
"""

from __future__ import annotations

import collections
import contextlib
import threading
import time
from typing import Any

import numpy as np

from edgec.service.child import Child, harmless
from edgec.service.problems import ServiceError
from edgec.service.release import Release

MAX_CRASHES, REST_S = 5, 30.0


class Model:
    """Loaded and healthy when the constructor returns. Raises ServiceError."""

    def __init__(self, release: Release, *, threads: int, load_timeout_s: float) -> None:
        self.release = release
        self._threads, self._load_timeout_s = threads, load_timeout_s
        self._lock = threading.Lock()
        self._users_lock = threading.Lock()
        self._users, self._retired = 0, False
        self._crashes: collections.deque[float] = collections.deque(maxlen=MAX_CRASHES)
        began = time.monotonic()
        child = self._start()
        self._child: Child | None = child
        self.load_seconds = time.monotonic() - began
        self.runtime = child.runtime
        try:
            self._check_health()
        except ServiceError:
            self.close()
            raise

    def _start(self) -> Child:
        release = self.release
        return Child(
            release.agent,
            release.model,
            release.engine,
            runtime=release.runtime,
            threads=self._threads,
            timeout_s=self._load_timeout_s,
        )

    def _check_health(self) -> None:
        """Every golden runs, and gives numbers of the right shapes; how close they are, `edgec flash` has judged."""
        for golden in range(self.release.goldens):
            feeds = {p.artifact.name: self._golden(golden, "input", i) for i, p in enumerate(self.release.inputs)}
            outputs, _ = self.run(feeds, self._load_timeout_s)
            for i, (port, value) in enumerate(zip(self.release.outputs, outputs)):
                wanted = self._golden(golden, "raw", i)
                broken = wanted.dtype.kind == "f" and (np.isfinite(wanted) & ~np.isfinite(value)).any()
                if value.shape != wanted.shape or value.dtype != wanted.dtype or broken:
                    message = f"golden {golden}: output {port.artifact.name!r} is not what the model gives elsewhere"
                    raise ServiceError(503, "unhealthy", message)

    def _golden(self, golden: int, kind: str, index: int) -> Any:
        path = self.release.folder / "golden" / f"{golden:03d}" / f"{kind}.{index}.npy"
        try:
            return np.load(path, allow_pickle=False)
        except (OSError, ValueError) as error:
            raise ServiceError(503, "bad-release", f"{path.name} of golden {golden} cannot be read: {error}") from error

    @property
    def stable(self) -> bool:
        """False while it rests after too many crashes (rule 1)."""
        crashes = list(self._crashes)
        many = len(crashes) == MAX_CRASHES and crashes[-1] - crashes[0] < 60.0
        return not (many and time.monotonic() - crashes[-1] < REST_S)

    @property
    def pid(self) -> int:
        """Of the child; 0 when there is none at the moment."""
        child = self._child
        return child.pid if child is not None and child.alive else 0

    def run(self, feeds: dict[str, Any], timeout_s: float) -> tuple[list[Any], float]:
        """Outputs in the manifest's order for the artifact's own inputs, and the seconds inside the runtime."""
        deadline = time.monotonic() + timeout_s
        if not self._lock.acquire(timeout=timeout_s):
            raise ServiceError(503, "busy", f"other requests kept the model busy for {timeout_s:g} s", "try again")
        try:
            outputs, seconds = self._run_alone(feeds, deadline)
        finally:
            self._lock.release()
        names = [port.artifact.name for port in self.release.outputs]
        missing = [name for name in names if name not in outputs]
        if missing:
            raise ServiceError(503, "bad-release", f"the model has no output {missing[0]!r}")
        return [outputs[name] for name in names], seconds

    def _run_alone(self, feeds: dict[str, Any], deadline: float) -> tuple[dict[str, Any], float]:
        if not self.stable:
            hint = f"it is tried again {REST_S:g} s after the last crash"
            raise ServiceError(503, "unstable", f"the model crashed {MAX_CRASHES} times within a minute", hint)
        if self._child is None or not self._child.alive:
            self._drop()
            self._child = self._start()
            deadline = max(deadline, time.monotonic() + 1.0)  # what loading took is not this request's fault
        try:
            return self._child.run(feeds, max(0.001, deadline - time.monotonic()))
        except ServiceError as error:
            if not harmless(error):
                self._drop()
                if error.code == "runtime-crashed":
                    self._crashes.append(time.monotonic())
            raise

    def _drop(self) -> None:
        child, self._child = self._child, None
        if child is not None:
            child.close()

    def close(self) -> None:
        """End the process."""
        with self._lock:
            self._drop()

    # ------------------------------------------------------------------------------------------ users

    def enter(self) -> None:
        """One more request uses it."""
        with self._users_lock:
            self._users += 1

    def leave(self) -> None:
        """One less; the last one closes what was replaced (rule 2)."""
        with self._users_lock:
            self._users -= 1
            last = self._retired and self._users == 0
        if last:
            self.close()

    def retire(self) -> None:
        """No new requests will come."""
        with self._users_lock:
            self._retired = True
            idle = self._users == 0
        if idle:
            self.close()

    @contextlib.contextmanager
    def used(self) -> Any:
        """While a request is answered; `enter` was called under the keeper's lock."""
        try:
            yield self
        finally:
            self.leave()
