"""Comparison of two models: sums over samples equal the metric over all of them."""

from __future__ import annotations

import numpy as np
import pytest

from edgec.metrics import MAX_DB, cosine, sqnr_db
from edgec.quantization.measures.fidelity import Comparison, features
from tests.support.plans import kernel, typed


def test_sums_over_samples_are_the_metric_over_all() -> None:
    rng = np.random.default_rng(0)
    reference = rng.standard_normal((5, 1, 7)).astype(np.float32)
    value = (reference + rng.standard_normal(reference.shape) * 0.1).astype(np.float32)
    comparison = Comparison("y")
    for a, b in zip(reference, value, strict=True):
        comparison.add(a, b)
    found = comparison.result()
    assert found.sqnr_db == pytest.approx(sqnr_db(reference, value), abs=1e-9)
    assert found.cosine == pytest.approx(cosine(reference, value), abs=1e-12)
    assert found.max_abs == pytest.approx(float(np.abs(reference - value).max()), rel=1e-6)
    assert found.top1 is not None and 0 <= found.top1 <= 1 and found.samples == 5


@pytest.mark.parametrize(
    ("value", "db"), [(np.ones((1, 3)), MAX_DB), (np.full((1, 3), np.nan), -MAX_DB), (np.full((1, 3), np.inf), -MAX_DB)]
)
def test_equal_and_not_finite(value: np.ndarray, db: float) -> None:
    comparison = Comparison("y")
    comparison.add(np.ones((1, 3), np.float32), value.astype(np.float32))
    assert comparison.result().sqnr_db == db


def test_no_signal_and_maps_without_scores() -> None:
    comparison = Comparison("y")
    comparison.add(np.zeros((2, 2, 2), np.float32), np.ones((2, 2, 2), np.float32))
    found = comparison.result()
    assert (found.sqnr_db, found.cosine, found.top1) == (-MAX_DB, 0.0, None)


def test_what_a_tanh_gives_has_no_first_class() -> None:
    text = "(float[1,8] x) => (float[1,4] scores, float[1,4] feature) { scores = MatMul(x, w) feature = Tanh(scores) }"
    model = typed(text, {"w": kernel(8, 4)})
    assert features(model) == {"feature"}
