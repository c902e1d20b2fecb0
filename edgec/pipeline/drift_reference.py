"""What inputs looked like in calibration, small enough for every bundle: the service holds its inputs against it.

Of each input: edges e₀ < … < eₙ at about every tenth of the values, e₀ and eₙ around all of them, and the shares of
values below e₀, between the edges, and from eₙ on (`edgec/service/drift.py` says what becomes of them).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np

from edgec.bundle.manifest import to_json
from edgec.quantization.types import Statistics, TensorStats
from edgec.service.drift import CALIBRATION, MAX_VALUES
from edgec.tensors import Array, TensorSpec

_PARTS = 10
#: Bins of a histogram that is made here, from samples that no statistics were taken of.
_BINS = 2048


def reference_files(
    inputs: Iterable[TensorSpec], statistics: Statistics | None, samples: Iterable[Mapping[str, Array]] | None
) -> dict[str, bytes]:
    """The file for the bundle, empty when there was no calibration. `statistics` spare reading the samples again."""
    wanted = [spec for spec in inputs if np.dtype(spec.dtype.numpy).kind in "iuf"]
    if samples is None or not wanted:
        return {}
    known = {} if statistics is None else statistics.tensors
    table = {spec.name: from_stats(known[spec.name]) for spec in wanted if spec.name in known}
    missing = [spec.name for spec in wanted if spec.name not in table]
    if missing:
        values: dict[str, list[Array]] = {name: [] for name in missing}
        for feed in samples:
            for name in missing:
                flat = feed[name].reshape(-1)
                values[name].append(flat[:: max(1, -(-flat.size // MAX_VALUES))].astype(np.float64))
        table.update({name: from_values(np.concatenate(parts)) for name, parts in values.items() if parts})
    found = {name: {"edges": edges, "shares": shares} for name, (edges, shares) in table.items() if edges}
    return {CALIBRATION: to_json({"inputs": found})} if found else {}


def from_stats(stats: TensorStats) -> tuple[list[float], list[float]]:
    """Edges and shares from the statistics' own bins, exactly."""
    counts = np.asarray(stats.counts, np.float64)
    edges = (np.arange(len(counts) + 1) + stats.first_bin) * stats.bin_width
    return _tenths(edges, counts)


def from_values(values: Array) -> tuple[list[float], list[float]]:
    """Edges and shares of plain values; bins are half open, so the last one reaches beyond the largest."""
    values = values[np.isfinite(values)]
    if not values.size:
        return [], []
    low, high = float(values.min()), float(values.max())
    above = max(high + (high - low) / _BINS, float(np.nextafter(high, np.inf)))
    edges = np.unique(np.linspace(low, above, _BINS + 1))  # of close neighbours, fewer
    places = np.searchsorted(edges, values, side="right") - 1
    return _tenths(edges, np.bincount(places, minlength=len(edges) - 1).astype(np.float64))


def _tenths(edges: Array, counts: Array) -> tuple[list[float], list[float]]:
    """Few edges out of many, each part with about as many values."""
    filled = np.flatnonzero(counts)
    if not filled.size:
        return [], []
    first, last = int(filled[0]), int(filled[-1]) + 1
    below = np.concatenate([[0.0], np.cumsum(counts)])
    targets = below[-1] * np.arange(1, _PARTS) / _PARTS
    inner = np.clip(np.searchsorted(below, targets), first, last)
    chosen = np.unique(np.concatenate([[first], inner, [last]]))
    shares = np.diff(below[chosen]) / below[-1]
    return [float(e) for e in edges[chosen]], [0.0, *(round(float(s), 6) for s in shares), 0.0]
