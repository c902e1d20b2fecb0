"""The calibration loop: several samples run at a time, and even and odd runs are kept apart.

While they run, those behind them are read and those before them counted. Two halves let the doctor compare them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from edgec.errors import EdgecError, Finding, Severity
from edgec.graph.model import Model
from edgec.quantization.calibration.observers import Observers, merge, observe
from edgec.quantization.calibration.probes import MAXIMUM, MINIMUM, VALUES, Probed, insert_probes, sample_array
from edgec.quantization.run.executor import Executor
from edgec.quantization.types import TensorStats
from edgec.tensors import Array

#: Runs that are counted together: fewer, larger numpy calls.
_BLOCK = 4


class Samples(Protocol):
    """What calibration needs of its data; `SampleSource` is one."""

    @property
    def digest(self) -> str:
        """Changes whenever the data does."""
        ...

    @property
    def count(self) -> int:
        """Number of samples."""
        ...

    @property
    def findings(self) -> tuple[Finding, ...]:
        """What was noticed while reading."""
        ...

    def __len__(self) -> int:
        """Number of feeds."""
        ...

    def __iter__(self) -> Iterator[dict[str, Array]]:
        """Feeds, the same each time."""
        ...


@dataclass(frozen=True, kw_only=True, slots=True)
class Halves:
    """Statistics of each tensor over the even and over the odd runs; None where such a run never was."""

    tensors: Mapping[str, tuple[TensorStats | None, TensorStats | None]]
    runs: int
    findings: tuple[Finding, ...]

    def merged(self) -> dict[str, TensorStats]:
        """Statistics over all runs. A tensor that never had a value is left out."""
        both = {name: [half for half in halves if half is not None] for name, halves in self.tensors.items()}
        return {name: merge(*found) if len(found) == 2 else found[0] for name, found in both.items() if found}


@dataclass(slots=True)
class _Half:
    """Everything seen in every other run."""

    probed: Probed
    observers: Observers | None = None
    whole: dict[str, TensorStats] = field(default_factory=dict)
    not_finite: dict[str, tuple[int, int]] = field(default_factory=dict)
    waiting: list[Mapping[str, Array]] = field(default_factory=list)

    def add(self, run: Mapping[str, Array]) -> None:
        """Take in one run. Whole tensors are counted and let go at once, what is small in blocks."""
        for name in self.probed.whole:
            self._add_whole(name, run[name])
        if self.probed.names:
            self.waiting.append({name: run[name] for name in (MINIMUM, MAXIMUM, VALUES)})
        if len(self.waiting) == _BLOCK:
            self._count()

    def _count(self) -> None:
        """The histograms of the runs that wait."""
        runs, self.waiting = self.waiting, []
        minimum, maximum = (np.stack([run[name] for run in runs]) for name in (MINIMUM, MAXIMUM))
        values = [run[VALUES] for run in runs]
        if not np.isfinite([part.sum() for part in (minimum, maximum, *values)]).all():
            values = [row.copy() for row in values]
            self._repair(minimum, maximum, values)
        self.observers = self.observers or Observers(self.probed.segments)
        self.observers.add(minimum, maximum, values)

    def stats(self) -> dict[str, TensorStats]:
        """Statistics of each tensor that had a value."""
        if self.waiting:
            self._count()
        found = zip(self.probed.names, self.observers.stats(), strict=True) if self.observers else ()
        return {**dict(found), **self.whole}

    def _add_whole(self, name: str, value: Array) -> None:
        """A tensor whose shape changes from run to run."""
        finite = value[np.isfinite(value)]
        if finite.size < value.size:
            self._note(name, value)
        if finite.size == 0:
            return
        low, high, sampled = finite.min(), finite.max(), sample_array(value)
        stats = observe(np.array([low, high]), sampled=sampled[np.isfinite(sampled)])
        self.whole[name] = merge(self.whole[name], stats) if name in self.whole else stats

    def _repair(self, minimum: Array, maximum: Array, values: Sequence[Array]) -> None:
        """Let the finite samples of a tensor stand for those that are not, in the very arrays."""
        segments = self.probed.segments
        for i, name in enumerate(self.probed.names):
            channels = slice(int(segments.channels[i]), int(segments.channels[i + 1]))
            sampled = slice(int(segments.values[i]), int(segments.values[i + 1]))
            for row in range(len(values)):
                parts = (minimum[row, channels], maximum[row, channels], values[row][sampled])
                if all(np.isfinite(part).all() for part in parts):
                    continue
                self._note(name, np.concatenate(parts))
                finite = parts[2][np.isfinite(parts[2])]
                finite = finite if finite.size else np.zeros(1, np.float32)
                parts[2][...] = np.resize(finite, parts[2].shape)
                parts[0][~np.isfinite(parts[0])] = finite.min()
                parts[1][~np.isfinite(parts[1])] = finite.max()
                # A reduction that meets NaN may have forgotten what came before it.
                parts[0][parts[0].argmin()] = min(parts[0].min(), finite.min())
                parts[1][parts[1].argmax()] = max(parts[1].max(), finite.max())

    def _note(self, name: str, values: Array) -> None:
        nan, inf = self.not_finite.get(name, (0, 0))
        has_nan = bool(np.isnan(values).any())
        self.not_finite[name] = (nan + has_nan, inf + (not has_nan))


def collect(
    model: Model,
    samples: Samples,
    names: Sequence[str],
    *,
    progress: Callable[[int, int], None] | None = None,
    threads: int | None = None,
) -> Halves:
    """Run all samples and count. Raises `EdgecError` when none can be read, or one does not fit the model."""
    probed = insert_probes(model, names)
    halves = (_Half(probed), _Half(probed))
    executor = Executor(probed.model, fetch=probed.fetch, threads=threads, consume=True, any_layout=True)
    runs = 0
    for found in executor.run_all(samples):
        halves[runs % 2].add(found)
        runs += 1
        if progress is not None:
            progress(runs, len(samples))
    if runs == 0:
        raise EdgecError("calibration/empty", "there are no samples", hint="give at least one, better a hundred")
    even, odd = (half.stats() for half in halves)
    return Halves(
        tensors={name: (even.get(name), odd.get(name)) for name in names},
        runs=runs,
        findings=_not_finite_findings(halves, runs),
    )


def _not_finite_findings(halves: tuple[_Half, _Half], runs: int) -> tuple[Finding, ...]:
    """One finding for NaN and one for infinities, each naming the first tensor that has them."""
    found: list[Finding] = []
    for which, what, severity in ((0, "NaN", Severity.WARNING), (1, "infinities", Severity.INFO)):
        counts = {
            name: count
            for name in halves[0].probed.names + halves[0].probed.whole
            if (count := sum(half.not_finite.get(name, (0, 0))[which] for half in halves))
        }
        if not counts:
            continue
        first, count = next(iter(counts.items()))
        found.append(
            Finding(
                code="calibration/not-finite",
                message=f"{what} in {len(counts)} tensors, first in {first!r} ({count} of {runs} runs); "
                "ranges are taken from the finite values",
                severity=severity,
                where=first,
                hint="look for broken samples, a division by zero or a logarithm of zero before this tensor"
                if which == 0
                else "a mask of -inf is expected here; keep the node float if it is not",
            )
        )
    return tuple(found)
