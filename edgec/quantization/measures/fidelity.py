"""How far a tensor of a quantized model is from the float model's over many samples, of which only sums are kept."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from edgec.graph.model import Model
from edgec.metrics import MAX_DB, looks_like_scores, top1_agreement, without_agreed
from edgec.tensors import Array


@dataclass(frozen=True, kw_only=True, slots=True)
class Fidelity:
    """One tensor over all samples. `top1` is None where a largest value means nothing."""

    name: str
    sqnr_db: float
    cosine: float
    max_abs: float
    top1: float | None
    samples: int


class Comparison:
    """Sums over pairs of arrays: reference and value."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._signal = self._noise = self._dot = self._power = self._peak = 0.0
        self._finite = True
        self._agree: list[float] = []
        self._scores = True
        self._samples = 0

    def add(self, reference: Array, value: Array) -> None:
        """Take in one sample."""
        expected, actual = without_agreed(reference.astype(np.float64).ravel(), value.astype(np.float64).ravel())
        self._samples += 1
        self._finite &= bool(np.isfinite(actual).all() and np.isfinite(expected).all())
        if self._finite:
            difference = expected - actual
            self._signal += float(expected @ expected)
            self._noise += float(difference @ difference)
            self._dot += float(expected @ actual)
            self._power += float(actual @ actual)
            self._peak = max(self._peak, float(np.abs(difference).max(initial=0.0)))
        self._scores = self._scores and looks_like_scores(reference)
        agreement = top1_agreement(reference, value) if self._scores else None
        if agreement is not None:
            self._agree.append(agreement)

    def result(self) -> Fidelity:
        """The metrics; `-MAX_DB` for values that are not finite, `MAX_DB` where nothing differs."""
        return Fidelity(
            name=self.name,
            sqnr_db=self._sqnr_db(),
            cosine=self._cosine(),
            max_abs=self._peak if self._finite else float(np.finfo(np.float32).max),
            top1=float(np.mean(self._agree)) if self._scores and self._agree else None,
            samples=self._samples,
        )

    def _sqnr_db(self) -> float:
        if not self._finite:
            return -MAX_DB
        if self._noise == 0:
            return MAX_DB
        if self._signal == 0:
            return -MAX_DB
        return float(np.clip(10 * np.log10(self._signal / self._noise), -MAX_DB, MAX_DB))

    def _cosine(self) -> float:
        norms = float(np.sqrt(self._signal * self._power))
        if not self._finite or norms == 0:
            return 1.0 if self._finite and self._signal == self._power else 0.0
        return self._dot / norms


def features(model: Model) -> frozenset[str]:
    """Values that a Tanh gives, as a BERT's pooled token: of many that are near 1 the largest says nothing."""
    return frozenset(v.name or "" for n in model.nodes() if n.op_type == "Tanh" for v in n.outputs)


def stand_ins(model: Model, quantized: Model) -> dict[str, str]:
    """For each value of the float model that is quantized, the DequantizeLinear output that replaces it."""
    own = {v.name for n in model.nodes() for v in n.outputs} | {v.name for v in model.graph.inputs}
    found: dict[str, str] = {}
    for node in quantized.nodes():
        source = node.inputs[0].producer() if node.op_type == "DequantizeLinear" and node.inputs[0] else None
        if source is None or source.op_type != "QuantizeLinear" or source.inputs[0] is None:
            continue
        name = (source.inputs[0].name or "").removesuffix("/float")
        if name in own:
            found[name] = node.outputs[0].name or ""
    return found
