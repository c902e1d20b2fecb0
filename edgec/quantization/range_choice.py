"""Choose a tensor's range from its statistics, and say how much of it the choice leaves out."""

from __future__ import annotations

from typing import Literal

import numpy as np

from edgec.quantization.types import TensorStats

RangeMethod = Literal["minmax", "percentile"]

#: Share of the values, in percent, that lie below the upper end; as much again lies above the lower end.
DEFAULT_PERCENTILE = 99.99


def range_of(
    stats: TensorStats, method: RangeMethod = "minmax", *, percentile: float = DEFAULT_PERCENTILE
) -> tuple[float, float]:
    """(low, high) that holds 0. A tensor that is always zero gives (0, 0).

    `percentile` cuts off (100 − percentile) % of the sampled values at each end, never more than min-max has.
    """
    low, high = stats.minimum, stats.maximum
    if method == "percentile" and stats.counts.sum() > 0:
        share = 1.0 - percentile / 100.0
        low = max(low, quantile(stats, share))
        high = min(high, quantile(stats, 1.0 - share))
    return min(low, 0.0), max(high, 0.0)


def quantile(stats: TensorStats, share: float) -> float:
    """The value below which `share` of the sampled values lie; linear inside a bin."""
    cumulative = np.concatenate([[0], np.cumsum(stats.counts)])
    edges = (np.arange(len(stats.counts) + 1) + stats.first_bin) * stats.bin_width
    value = float(np.interp(share * cumulative[-1], cumulative, edges))
    return min(max(value, stats.minimum), stats.maximum)


def outside(stats: TensorStats, low: float, high: float) -> float:
    """Share of the sampled values outside [low, high], 0..1; linear inside a bin."""
    total = int(stats.counts.sum())
    if total == 0:
        return 0.0
    cumulative = np.concatenate([[0], np.cumsum(stats.counts)])
    edges = (np.arange(len(stats.counts) + 1) + stats.first_bin) * stats.bin_width
    below = np.interp(low, edges, cumulative) if low > stats.minimum else 0.0
    above = total - np.interp(high, edges, cumulative) if high < stats.maximum else 0.0
    return float((below + above) / total)
