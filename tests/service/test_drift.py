"""Input drift: the index itself, the reference that a build makes, and what the service tells of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgec.pipeline.drift_reference import from_stats, from_values, reference_files
from edgec.quantization.types import Statistics, TensorStats
from edgec.service.drift import CALIBRATION, ENOUGH, FLOOR, WINDOW, Drift, facts, load_reference, psi
from edgec.tensors import DType, TensorSpec
from tests.support import serving
from tests.support import tiny_bundles as tiny

X = TensorSpec(name="x", shape=(1, 2, 3, 4), dtype=DType.FLOAT32)


def reference(values: Any) -> dict[str, Any]:
    edges, shares = from_values(np.asarray(values, np.float64))
    return {"x": {"edges": edges, "shares": shares}}


def index(drift: Drift) -> float | None:
    return drift.report()["x"][0]


def test_same_inputs_do_not_drift_and_others_do() -> None:
    rng = np.random.default_rng(0)
    table = reference(rng.normal(size=20_000))
    calm, shifted, frozen = Drift(table), Drift(table), Drift(table)
    for _ in range(WINDOW):
        calm.saw({"x": rng.normal(size=(1, 64))})
        shifted.saw({"x": rng.normal(loc=1.0, size=(1, 64))})
        frozen.saw({"x": np.zeros((1, 64))})
    found = [index(drift) for drift in (calm, shifted, frozen)]
    assert found[0] is not None
    assert found[1] is not None
    assert found[2] is not None
    assert found[0] < 0.1 < 0.25 < found[1] < found[2]


def test_the_window_forgets() -> None:
    rng = np.random.default_rng(1)
    drift = Drift(reference(rng.normal(size=20_000)))
    for _ in range(WINDOW):
        drift.saw({"x": rng.normal(loc=9.0, size=64)})
    assert (index(drift) or 0) > 1
    for _ in range(WINDOW):
        drift.saw({"x": rng.normal(size=64)})
    value, count = drift.report()["x"]
    assert value is not None
    assert value < 0.1
    assert count == WINDOW


def test_too_few_requests_tell_nothing() -> None:
    drift = Drift(reference(np.arange(100.0)))
    for _ in range(ENOUGH - 1):
        drift.saw({"x": np.full(8, 1e6), "unknown": np.zeros(3)})
    assert drift.report()["x"] == (None, ENOUGH - 1)
    drift.saw({"x": np.full(8, 1e6)})
    assert (index(drift) or 0) > 1


@given(
    st.lists(st.floats(0.0, 1.0, allow_subnormal=False), min_size=3, max_size=12),
    st.lists(st.floats(0.0, 1.0, allow_subnormal=False), min_size=12, max_size=12),
)
def test_the_index_is_no_distance_below_zero(first: list[float], second: list[float]) -> None:
    p, q = np.asarray(first), np.asarray(second[: len(first)])
    assert psi(p, p) == 0.0
    assert psi(p, q) >= 0.0
    assert psi(p, q) == pytest.approx(psi(q, p), rel=1e-9, abs=1e-12)
    assert np.isfinite(psi(p, q))


@given(st.lists(st.integers(0, 50), min_size=1, max_size=300), st.integers(-100, 100))
def test_shares_are_those_of_the_bins(counts: list[int], first: int) -> None:
    stats = TensorStats(minimum=0, maximum=0, bin_width=0.25, first_bin=first, counts=np.asarray(counts))
    edges, shares = from_stats(stats)
    if not sum(counts):
        assert edges == []
        return
    middles = np.repeat((np.arange(len(counts)) + first + 0.5) * 0.25, counts)
    assert len(shares) == len(edges) + 1 <= 12
    assert (shares[0], shares[-1]) == (0.0, 0.0)
    counted, _ = np.histogram(middles, edges)
    np.testing.assert_allclose(shares[1:-1], counted / len(middles), atol=1e-6, rtol=0)
    # The reference against itself: the window holds the very values.
    drift = Drift({"x": {"edges": edges, "shares": shares}})
    for _ in range(ENOUGH):
        drift.saw({"x": middles[:4000]})
    if len(middles) <= 4000:
        assert index(drift) == pytest.approx(0.0, abs=1e-3)


@given(st.lists(st.floats(-1e30, 1e30, allow_subnormal=False), min_size=1, max_size=50))
def test_plain_values_are_all_within_the_edges(values: list[float]) -> None:
    edges, shares = from_values(np.asarray(values))
    assert sum(shares) == pytest.approx(1.0, abs=1e-4)
    assert edges[0] <= min(values)
    assert edges[-1] > max(values)
    Drift({"x": {"edges": edges, "shares": shares}})


def test_a_build_takes_the_statistics_or_the_samples() -> None:
    rng = np.random.default_rng(2)
    samples = [{"x": rng.normal(size=(1, 2, 3, 4)).astype(np.float32)} for _ in range(50)]
    (made,) = reference_files([X], None, samples).values()
    again = reference_files([X], None, samples)[CALIBRATION]
    assert made == again
    assert len(made) < 2000
    stats = TensorStats(minimum=0, maximum=1, bin_width=0.5, first_bin=0, counts=np.array([30, 10]))
    known = Statistics(tensors={"x": stats}, samples=1, digest="")
    table = json.loads(reference_files([X], known, [])[CALIBRATION])
    assert table == {"inputs": {"x": {"edges": [0.0, 0.5, 1.0], "shares": [0.0, 0.75, 0.25, 0.0]}}}
    assert reference_files([X], None, None) == {}
    assert reference_files([TensorSpec(name="x", shape=(1,), dtype=DType.BOOL)], None, samples) == {}


@pytest.mark.parametrize(
    "text",
    [b"", b"[]", b'{"inputs": 1}', b'{"inputs": {"x": {"edges": [1, 0], "shares": [0, 1, 0]}}}',
     b'{"inputs": {"x": {"edges": [0, 1], "shares": [1]}}}'],
)  # fmt: skip
def test_a_reference_that_makes_no_sense_is_none(tmp_path: Path, text: bytes) -> None:
    assert load_reference(tmp_path) is None
    (tmp_path / CALIBRATION).write_bytes(text)
    assert load_reference(tmp_path) is None


def test_the_service_tells_it(tmp_path: Path) -> None:
    table = json.dumps({"inputs": reference(tiny.sample(0).reshape(-1))}).encode()
    root = serving.unpack(serving.pack(tmp_path / "a.edgec", int8=True, packaged={CALIBRATION: table}), tmp_path / "r")
    with serving.serving(root, tmp_path=tmp_path) as service:
        for _ in range(ENOUGH):
            assert service.infer({"x": tiny.sample(0).tolist()})[0] == 200
        calm = service.metrics()
        assert calm['edgec_input_drift_samples{input="x"}'] == ENOUGH
        assert calm['edgec_input_drift_psi{input="x"}'] < 0.1
        for _ in range(ENOUGH):
            # The artifact's own numbers are told in the source's terms as well.
            raw = np.full((1, 3, 4, 2), 100, np.int8)
            assert service.infer({"x_in": raw.tolist()}, query="?io=raw")[0] == 200
        assert service.metrics()['edgec_input_drift_psi{input="x"}'] > 0.25
        assert service.ask("GET", "/v1/model")[1]["input_drift"] == {"inputs": ["x"]}


def test_why_nothing_is_told(tmp_path: Path) -> None:
    assert "--calibration" in facts(tmp_path, load_reference(tmp_path))["why_not"]
    (tmp_path / CALIBRATION).write_bytes(b"{")
    assert "cannot be read" in facts(tmp_path, load_reference(tmp_path))["why_not"]


def test_floor_keeps_the_index_finite() -> None:
    assert psi(np.array([1.0, 0.0]), np.array([0.0, 1.0])) == pytest.approx(2 * (1 - FLOOR) * np.log(1 / FLOOR))
