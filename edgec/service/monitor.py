"""The service's metrics: what is counted, under which name, and the page that Prometheus reads."""

from __future__ import annotations

import os
import time
from typing import Any

import numpy as np

from edgec.service.drift import Drift, facts, load_reference
from edgec.service.metrics import Family, Histogram, exposition
from edgec.service.model import Model
from edgec.service.vitals import resident_bytes, temperatures

#: Labels of one metric: a classifier of a thousand classes must not become a thousand time series.
MAX_CLASSES = 64


class Monitor:
    """Counts what happens; `page` reads the rest at the moment it is asked."""

    def __init__(self) -> None:
        def made(kind: str, name: str, text: str) -> Family:
            return Family(f"edgec_{name}", kind, text)

        self.requests = made("counter", "requests_total", "Requests for an inference, by HTTP status.")
        self.errors = made("counter", "errors_total", "Requests that failed, by kind of error.")
        self.in_flight = made("gauge", "in_flight_requests", "Requests for an inference that are being answered.")
        self.latency = Histogram("edgec_request_seconds", "From the request's head to its answer.")
        self.inference = Histogram("edgec_inference_seconds", "Inside the runtime.")
        self.ready = made("gauge", "ready", "1 when inferences are answered.")
        self.release = made("gauge", "release_info", "1; the labels say which release answers.")
        self.load = made("gauge", "model_load_seconds", "What loading the release took.")
        self.reloads = made("counter", "reloads_total", "Releases that were switched to, by result.")
        self.failing = made("gauge", "release_failing", "1 when `current` leads to a release that cannot be loaded.")
        self.crashes = made("counter", "runtime_crashes_total", "Times that the runtime's process died on a request.")
        self.memory = made("gauge", "resident_memory_bytes", "Resident memory, by process.")
        self.heat = made("gauge", "temperature_celsius", "By thermal zone, where the device shows it.")
        self.classes = made("counter", "output_class_total", "Answers by the class with the largest output.")
        self.drift = made("gauge", "input_drift_psi", "Population stability index of an input against calibration.")
        self.drift_samples = made("gauge", "input_drift_samples", "Requests in the window behind the index.")
        self.started = made("gauge", "start_time_seconds", "When the service started, Unix time.")
        self.started.set(round(time.time(), 3))
        for result in ("ok", "failed"):
            self.reloads.add(0.0, result=result)
        for family in (self.in_flight, self.crashes, self.failing, self.ready):
            family.add(0.0)
        self._drift: Drift | None = None

    def loaded(self, model: Model) -> None:
        """A release answers from now on."""
        manifest = model.release.manifest
        labels = {
            "digest": model.release.digest,
            "name": model.release.name,
            "precision": str(manifest["precision"]),
            "backend": str(manifest["backend"]),
            "target": str(manifest["target"]["id"]),
            "runtime": model.runtime,
        }
        self.release.replace({tuple(sorted(labels.items())): 1.0})
        self.load.set(model.load_seconds)
        self.reloads.add(result="ok")
        self.classes.replace({})  # another model's classes mean something else
        self._drift = load_reference(model.release.folder)

    def drift_facts(self, model: Model) -> dict[str, Any]:
        """What /v1/model says of input drift."""
        return facts(model.release.folder, self._drift)

    def saw(self, inputs: dict[str, Any], outputs: dict[str, Any]) -> None:
        """One inference, in the source model's terms."""
        drift = self._drift
        if drift is not None:
            drift.saw(inputs)
        for name, value in outputs.items():
            winner = _winner(value)
            if winner is None:
                continue
            known = {entry["class"] for entry in self.classes.labels() if entry["output"] == name}
            label = str(winner) if str(winner) in known or len(known) < MAX_CLASSES else "other"
            self.classes.add(1.0, **{"output": name, "class": label})

    def page(self, model: Model | None, *, ready: bool, failing: bool) -> bytes:
        """All of it."""
        self.ready.set(float(ready))
        self.failing.set(float(failing))
        memory = {"service": resident_bytes(os.getpid()), "runtime": resident_bytes(model.pid) if model else 0}
        self.memory.replace({(("process", name),): float(size) for name, size in memory.items() if size})
        self.heat.replace({(("zone", zone),): value for zone, value in temperatures().items()})
        drift = self._drift
        found = drift.report() if drift is not None else {}
        self.drift.replace({(("input", name),): psi for name, (psi, _) in found.items() if psi is not None})
        self.drift_samples.replace({(("input", name),): float(count) for name, (_, count) in found.items()})
        return exposition(family for family in vars(self).values() if isinstance(family, Family))


def _winner(value: Any) -> int | None:
    """The class of one answer; None for what is no vector of scores, or holds no numbers."""
    flat = value.reshape(-1)
    looks_like_scores = value.ndim in (1, 2) and flat.size == value.shape[-1] and flat.size >= 2
    if not looks_like_scores or value.dtype.kind not in "iuf" or np.isnan(flat.astype(np.float64)).any():
        return None
    return int(flat.argmax())
