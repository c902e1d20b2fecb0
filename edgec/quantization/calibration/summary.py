"""Sum up a calibration run for people: each tensor's range, and how much of it the chosen range leaves out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from edgec.errors import Finding
from edgec.quantization.calibration.range_choice import DEFAULT_PERCENTILE, RangeMethod, outside, range_of
from edgec.quantization.types import Statistics, TensorStats


@dataclass(frozen=True, kw_only=True, slots=True)
class TensorSummary:
    """One tensor. `coverage` is the share of min..max that low..high keeps, `saturation` what lies outside."""

    name: str
    minimum: float
    maximum: float
    low: float
    high: float
    coverage: float
    saturation: float

    def as_dict(self) -> dict[str, Any]:
        """A JSON-ready dict."""
        return {field: getattr(self, field) for field in self.__slots__}


@dataclass(frozen=True, kw_only=True, slots=True)
class CalibrationSummary:
    """A whole run; `tensors` are in the order of the statistics."""

    samples: int
    method: RangeMethod
    tensors: tuple[TensorSummary, ...]
    findings: tuple[Finding, ...]

    def worst(self, count: int = 10) -> tuple[TensorSummary, ...]:
        """Tensors whose range is cut the most: lowest coverage first."""
        return tuple(sorted(self.tensors, key=lambda t: (t.coverage, -t.saturation, t.name))[:count])

    def as_dict(self) -> dict[str, Any]:
        """A JSON-ready dict."""
        return {
            "samples": self.samples,
            "method": self.method,
            "tensors": [tensor.as_dict() for tensor in self.tensors],
            "findings": [finding.as_dict() for finding in self.findings],
        }


def summarize(
    statistics: Statistics, *, method: RangeMethod = "percentile", percentile: float = DEFAULT_PERCENTILE
) -> CalibrationSummary:
    """Coverage and saturation of every tensor under one way to choose ranges."""
    return CalibrationSummary(
        samples=statistics.samples,
        method=method,
        tensors=tuple(_summary(name, stats, method, percentile) for name, stats in statistics.tensors.items()),
        findings=statistics.findings,
    )


def _summary(name: str, stats: TensorStats, method: RangeMethod, percentile: float) -> TensorSummary:
    low, high = range_of(stats, method, percentile=percentile)
    full = max(stats.maximum, 0.0) - min(stats.minimum, 0.0)
    return TensorSummary(
        name=name,
        minimum=stats.minimum,
        maximum=stats.maximum,
        low=low,
        high=high,
        coverage=(high - low) / full if full > 0 else 1.0,
        saturation=outside(stats, low, high),
    )
