"""A progress bar a stage, on stderr."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

#: Steps of a search take long and unlike times: what is left is estimated from as far back as this.
_PERIOD_S = 600.0

Report = Callable[[str, int, int], None]


@contextlib.contextmanager
def terminal_progress() -> Iterator[Report]:
    """Yields `report(stage, done, total)`: the bar of a stage appears with its first report. `total` 0 is unknown."""
    bars = Progress(
        TextColumn("{task.description:<12}"),
        BarColumn(bar_width=30),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        transient=True,
        speed_estimate_period=_PERIOD_S,
    )
    stages: dict[str, TaskID] = {}

    def report(stage: str, done: int, total: int) -> None:
        if stage not in stages:
            stages[stage] = bars.add_task(stage, total=total or None)
        bars.update(stages[stage], completed=done, total=total or None)

    with bars:
        yield report
