"""The stages of a build in their order, their times, and the memory they take."""

from __future__ import annotations

import resource
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from edgec.errors import EdgecError
from edgec.registry import did_you_mean

Progress = Callable[[str, int, int], None]

#: In order. `--stop-after` takes any of them but the last two, whose product is the bundle itself.
STAGES = ("load", "passes", "legalize", "calibrate", "quantize", "compile", "goldens", "bundle", "validate")


def check_stage(name: str | None) -> None:
    """Raise `EdgecError` (cli/unknown-stage) for a stage that does not exist."""
    if name is not None and name not in STAGES:
        raise EdgecError("cli/unknown-stage", f"there is no stage named {name!r}", hint=did_you_mean(name, STAGES))


def peak_memory_bytes() -> int:
    """The most memory this process has held so far (Linux counts in KiB)."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


@dataclass(slots=True)
class Clock:
    """Seconds and peak memory by stage, and progress to whoever listens."""

    progress: Progress | None = None
    seconds: dict[str, float] = field(default_factory=dict)
    peak_bytes: dict[str, int] = field(default_factory=dict)

    @contextmanager
    def stage(self, name: str) -> Iterator[Callable[[int, int], None]]:
        """Time a stage; yields a function that reports (done, total) within it."""

        def report(done: int, total: int) -> None:
            if self.progress is not None:
                self.progress(name, done, total)

        start = time.perf_counter()
        report(0, 1)
        yield report
        report(1, 1)
        self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - start
        self.peak_bytes[name] = peak_memory_bytes()
