"""Whether inputs still look like those the model was calibrated with.

The reference is a histogram of each input's values over the calibration samples (`calibration.json` in the release):
edges e₀ < … < eₙ and the shares p₀ … pₙ₊₁ of values below e₀, between the edges, and from eₙ on. Of the last
`WINDOW` requests the shares q are kept, and

    PSI = Σ (qᵢ − pᵢ) · ln(qᵢ / pᵢ),   shares below FLOOR taken as FLOOR

As usual with this index: under 0.1 nothing happened, over 0.25 the inputs are others. Under `ENOUGH` requests it is
not told: the values of one image belong together, so it takes many requests, not many values.
"""

from __future__ import annotations

import collections
import json
import threading
from pathlib import Path
from typing import Any

import numpy as np

CALIBRATION = "calibration.json"
WINDOW, ENOUGH = 500, 50
FLOOR = 1e-4
#: Values of one request that are looked at, evenly spread: a camera's image has millions.
MAX_VALUES = 4096


class Drift:
    """Shares of the last requests against the reference."""

    def __init__(self, table: dict[str, Any]) -> None:
        self._edges = {name: np.asarray(facts["edges"], np.float64) for name, facts in table.items()}
        self._shares = {name: np.asarray(facts["shares"], np.float64) for name, facts in table.items()}
        for name, edges in self._edges.items():
            if edges.ndim != 1 or len(self._shares[name]) != len(edges) + 1 or not (np.diff(edges) > 0).all():
                raise ValueError(f"the histogram of {name!r} makes no sense")
        self._lock = threading.Lock()
        self._sums = {name: np.zeros(len(edges) + 1) for name, edges in self._edges.items()}
        self._window: dict[str, collections.deque[Any]] = {name: collections.deque() for name in self._edges}

    @property
    def inputs(self) -> list[str]:
        """The inputs that are watched."""
        return sorted(self._edges)

    def saw(self, inputs: dict[str, Any]) -> None:
        """One request's inputs, in the source model's terms."""
        for name, value in inputs.items():
            edges = self._edges.get(name)
            flat = value.reshape(-1)
            if edges is None or not flat.size:
                continue
            flat = flat[:: -(-flat.size // MAX_VALUES)].astype(np.float64)
            shares = np.bincount(np.searchsorted(edges, flat, side="right"), minlength=len(edges) + 1) / flat.size
            with self._lock:
                window, sums = self._window[name], self._sums[name]
                window.append(shares)
                sums += shares
                if len(window) > WINDOW:
                    sums -= window.popleft()

    def report(self) -> dict[str, tuple[float | None, int]]:
        """PSI of each input (None while there are too few) and the requests behind it."""
        found: dict[str, tuple[float | None, int]] = {}
        with self._lock:
            for name, window in self._window.items():
                count = len(window)
                found[name] = (psi(self._shares[name], self._sums[name] / count) if count >= ENOUGH else None, count)
        return found


def psi(expected: Any, actual: Any) -> float:
    """The index of two vectors of shares."""
    p, q = np.maximum(expected, FLOOR), np.maximum(actual, FLOOR)
    return float(np.sum((q - p) * np.log(q / p)))


def facts(folder: Path, drift: Drift | None) -> dict[str, Any]:
    """Which inputs are watched, or why none is: a metric that is missing must not be taken for a calm one."""
    if drift is not None:
        return {"inputs": drift.inputs}
    if (folder / CALIBRATION).exists():
        return {"inputs": [], "why_not": f"the release's {CALIBRATION} cannot be read: build it again"}
    return {
        "inputs": [],
        "why_not": f"the release brings no {CALIBRATION}: build it with --calibration, which a ready model takes too",
    }


def load_reference(folder: Path) -> Drift | None:
    """The release's reference; None when it was built without calibration, or by an older edgec."""
    try:
        return Drift(json.loads((folder / CALIBRATION).read_bytes())["inputs"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
