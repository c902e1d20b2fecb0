"""Counters, gauges and histograms, written as Prometheus reads them (text format 0.0.4).

A device has Python and numpy, and need not have a client library for that.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
#: 0.5 ms to 10 s, about three to a decade: a keyword spotter and a detector both fall in the middle.
LATENCY_BUCKETS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)

Labels = tuple[tuple[str, str], ...]


class Family:
    """A metric by one name, with a value for each set of labels."""

    def __init__(self, name: str, kind: str, help_text: str) -> None:
        self.name, self.kind, self._help = name, kind, help_text
        self._lock = threading.Lock()
        self._values: dict[Labels, float] = {}

    def add(self, amount: float = 1.0, **labels: str) -> None:
        """Count up."""
        key = tuple(sorted(labels.items()))
        with self._lock:
            self._values[key] = self._values.get(key, 0.0) + amount

    def set(self, value: float, **labels: str) -> None:
        """Set a gauge."""
        with self._lock:
            self._values[tuple(sorted(labels.items()))] = float(value)

    def replace(self, values: dict[Labels, float]) -> None:
        """All values at once: what is not given is gone."""
        with self._lock:
            self._values = dict(values)

    def get(self, **labels: str) -> float:
        """The value; 0 when there is none."""
        with self._lock:
            return self._values.get(tuple(sorted(labels.items())), 0.0)

    def labels(self) -> list[dict[str, str]]:
        """The sets of labels that there are values for."""
        with self._lock:
            return [dict(key) for key in self._values]

    def lines(self) -> Iterable[str]:
        """Its part of the exposition."""
        yield f"# HELP {self.name} {self._help}"
        yield f"# TYPE {self.name} {self.kind}"
        with self._lock:
            values = sorted(self._values.items())
        for labels, value in values:
            yield f"{self.name}{_braces(labels)} {_number(value)}"


class Histogram(Family):
    """How many observations were at most as large as each bound."""

    def __init__(self, name: str, help_text: str, bounds: tuple[float, ...] = LATENCY_BUCKETS) -> None:
        super().__init__(name, "histogram", help_text)
        self._bounds = bounds
        self._counts = [0] * (len(bounds) + 1)
        self._sum = 0.0

    def observe(self, value: float) -> None:
        """One more."""
        place = sum(value > bound for bound in self._bounds)
        with self._lock:
            self._counts[place] += 1
            self._sum += value

    def lines(self) -> Iterable[str]:
        """Its part of the exposition."""
        with self._lock:
            counts, total = list(self._counts), self._sum
        yield f"# HELP {self.name} {self._help}"
        yield f"# TYPE {self.name} histogram"
        seen = 0
        for bound, count in zip((*map(_number, self._bounds), "+Inf"), counts):
            seen += count
            yield f'{self.name}_bucket{{le="{bound}"}} {seen}'
        yield f"{self.name}_sum {_number(total)}"
        yield f"{self.name}_count {seen}"


def exposition(families: Iterable[Family]) -> bytes:
    """The whole page."""
    return "".join(line + "\n" for family in families for line in family.lines()).encode()


def _braces(labels: Labels) -> str:
    return "{" + ",".join(f'{name}="{_escaped(value)}"' for name, value in labels) + "}" if labels else ""


def _escaped(value: str) -> str:
    return value.replace("\\", r"\\").replace("\n", r"\n").replace('"', r"\"")


def _number(value: float) -> str:
    return str(int(value)) if float(value).is_integer() and abs(value) < 1e15 else repr(float(value))
