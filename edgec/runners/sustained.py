"""A long run on a device: does it get hot, does it slow down, and what would MLPerf's single stream say?"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from edgec.errors import Finding, Severity

#: MLPerf Inference (edge, single stream): the 90th percentile counts, of so many queries at least, in this time.
MLPERF_QUERIES, MLPERF_SECONDS = 1024, 60.0
#: Less than this share of the first quarter's throughput in the last one is throttling, where the clock fell as well.
THROTTLED = 0.9


@dataclass(frozen=True, kw_only=True, slots=True)
class Sustained:
    """`begin_per_s` and `end_per_s` are runs a second in the first and last quarter.

    `celsius` is the hottest zone at begin, at its hottest, and at the end; `mhz` the mean clock of the cores at begin,
    at its lowest, and at the end; empty where the device shows none. `single_stream` tells whether the run is long
    enough for MLPerf's scenario, whose figure is `p90_ms`.
    """

    threads: int
    runs: int
    duration_s: float
    median_ms: float
    p90_ms: float
    p99_ms: float
    begin_per_s: float
    end_per_s: float
    celsius: tuple[float, ...]
    mhz: tuple[float, ...]
    single_stream: bool


def read_sustained(answer: Mapping[str, Any]) -> Sustained:
    """The agent's answer."""
    samples = [*answer["samples"], answer["last"]]
    hottest = [max(s["celsius"].values()) for s in samples if s["celsius"]]
    clocks = [sum(s["mhz"].values()) / len(s["mhz"]) for s in samples if s["mhz"]]
    numbers = ("duration_s", "median_ms", "p90_ms", "p99_ms", "begin_per_s", "end_per_s")
    return Sustained(
        threads=int(answer["threads"]),
        runs=int(answer["runs"]),
        **{name: float(answer[name]) for name in numbers},
        celsius=(hottest[0], max(hottest), hottest[-1]) if hottest else (),
        mhz=(clocks[0], min(clocks), clocks[-1]) if clocks else (),
        single_stream=answer["runs"] >= MLPERF_QUERIES and answer["duration_s"] >= MLPERF_SECONDS,
    )


def sustained_findings(run: Sustained, *, emulated: bool) -> list[Finding]:
    """A device that slows down, by its clock too, as other load slows it as well; an emulator is not judged."""
    if emulated or not run.mhz or run.end_per_s >= THROTTLED * run.begin_per_s or run.mhz[2] >= THROTTLED * run.mhz[0]:
        return []
    heat = f", from {run.celsius[0]:.0f} to {run.celsius[2]:.0f} °C" if run.celsius else ""
    return [
        Finding(
            code="validate/throttled",
            message=f"after {run.duration_s:.0f} s the device makes {run.end_per_s:.1f} runs a second, "
            f"{run.begin_per_s:.1f} at first; its clock fell from {run.mhz[0]:.0f} to {run.mhz[2]:.0f} MHz{heat}",
            severity=Severity.WARNING,
            hint="cool it, use fewer threads, or plan with the lower figure",
        )
    ]
