"""Fidelity of outputs: what a largest value means, and where it means nothing."""

from __future__ import annotations

import numpy as np

from edgec.pipeline.measure import fidelity
from edgec.pipeline.precision import keeps_accuracy
from edgec.tensors import Array

RNG = np.random.default_rng(0)


def judged(reference: Array) -> dict[str, float | None]:
    """The fidelity of rows [samples, values] to which noise of 50 dB was added."""
    noise = RNG.standard_normal(reference.shape) * np.sqrt(np.mean(reference**2)) * 10 ** (-50 / 20)
    value = (reference + noise).astype(np.float32)
    return fidelity([{"y": row[None]} for row in reference], [{"y": row[None]} for row in value])


def test_boxes_have_no_first_class() -> None:
    """Squares as they lie in pictures: which of their sides is the farther one turns on noise that harms nobody."""
    centres = RNG.uniform(20, 60, (100, 1))
    boxes = np.concatenate([centres - 10, centres - 10, centres + 10, centres + 10.1], axis=1).astype(np.float32)
    found = judged(boxes)
    assert found["top1_agreement"] is None and keeps_accuracy(found)[0]


def test_logits_and_probabilities_have_one() -> None:
    logits = RNG.standard_normal((100, 8)).astype(np.float32)
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    for scores in (logits, probabilities):
        top1 = judged(scores)["top1_agreement"]
        assert top1 is not None and top1 >= 0.95


def test_features_have_none_whatever_they_look_like() -> None:
    logits = RNG.standard_normal((10, 8)).astype(np.float32)
    rows = [{"y": row[None]} for row in logits]
    assert fidelity(rows, rows)["top1_agreement"] == 1.0
    assert fidelity(rows, rows, features={"y"})["top1_agreement"] is None
