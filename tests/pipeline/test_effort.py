"""How far the ladder is climbed, and budgets: what a build says it did is what it did."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgec.errors import EdgecError
from edgec.pipeline import BuildResult, run_build
from edgec.pipeline.precision import keeps_accuracy
from edgec.tensors import Array
from tests.support.plans import typed
from tests.support.small_net import write_small_net


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGEC_CACHE", str(tmp_path / "cache"))


def built(folder: Path, **options: Any) -> BuildResult:
    model, data = write_small_net(folder)
    options = {"precision": "int8", "stop_after": "compile", **options}
    return run_build(model, target="raspberrypi4", calibration=data, output=folder / "dist", **options)


def test_fast_repairs_nothing_and_balanced_says_what_it_did(tmp_path: Path) -> None:
    fast = built(tmp_path, effort="fast", stop_after="bundle").summary
    assert "repair" not in fast["stages"] and "ladder" not in fast
    balanced = built(tmp_path, effort="balanced", stop_after="bundle").summary
    assert "repair" in balanced["stages"] and balanced["effort"] == "balanced"
    names = [rung["rung"] for rung in balanced["ladder"]]
    assert names[0] == "ranges: auto" and {"rounding", "following"} & set(names)
    assert all({"rung", "before_db", "after_db", "kept"} == rung.keys() for rung in balanced["ladder"])
    # 1 dB: all samples judge the build, half of them taught it.
    assert balanced["fidelity"]["sqnr_db"] >= fast["fidelity"]["sqnr_db"] - 1


@pytest.mark.parametrize("method", ["minmax", "percentile", "mse", "entropy", "auto"])
def test_ranges_that_were_asked_for_are_the_only_ones(method: str, tmp_path: Path) -> None:
    summary = built(tmp_path, ranges=method, stop_after="bundle").summary
    tried = [rung["rung"] for rung in summary["ladder"] if rung["rung"].startswith("ranges")]
    assert tried == [f"ranges: {method}"] and summary["ranges"] == method


def test_ranges_that_differ_say_nothing_where_only_weights_are_int8(tmp_path: Path) -> None:
    """Products beside normalisations keep float data on this target; `fast` quantizes it, and needs its ranges."""
    rng = np.random.default_rng(0)

    def draw(*shape: int) -> Array:
        return np.asarray(rng.standard_normal(shape), np.float32)

    constants: dict[str, Array] = {"w1": draw(64, 256) / 8, "w2": draw(256, 64) / 16, "g": np.ones(64, np.float32)}
    model = typed(
        """(float[1,32,64] x) => (float[1,32,64] y)
        { n = LayerNormalization<axis=-1>(x, g) a = MatMul(n, w1) b = Gelu(a) c = MatMul(b, w2) y = Add(c, x) }""",
        constants,
    )
    (tmp_path / "net.onnx").write_bytes(model.to_bytes())
    np.save(tmp_path / "uneven.npy", draw(16, 32, 64) * np.asarray([1, 9], np.float32)[np.arange(16) % 2, None, None])
    found = {}
    for effort in ("fast", "balanced"):
        done = run_build(
            tmp_path / "net.onnx",
            target="raspberrypi4",
            calibration=tmp_path / "uneven.npy",
            output=tmp_path / "dist",
            precision="int8",
            effort=effort,
            stop_after="quantize",
        )
        found[effort] = {finding.code for finding in done.findings}
    assert "calibration/few-samples" in found["fast"]
    assert "quant/weights-alone" in found["balanced"] and "calibration/few-samples" not in found["balanced"]


def test_an_unknown_effort_is_refused(tmp_path: Path) -> None:
    with pytest.raises(EdgecError) as error:
        built(tmp_path, effort="balancd")
    assert error.value.code == "cli/unknown-effort" and "balanced" in error.value.finding.hint


def test_a_budget_out_of_reach_ships_nothing(tmp_path: Path) -> None:
    with pytest.raises(EdgecError) as error:
        built(tmp_path, effort="fast", min_sqnr=200.0)
    assert error.value.code == "quant/budget-missed"
    assert not list((tmp_path / "dist").glob("*.edgec"))


def test_a_budget_within_reach_is_met(tmp_path: Path) -> None:
    plain = built(tmp_path, effort="fast").summary["fidelity"]["sqnr_db"]
    met = built(tmp_path, effort="fast", min_sqnr=plain + 1).summary
    assert met["fidelity"]["sqnr_db"] >= plain + 1
    assert "reverted for accuracy" in met["why"]


def test_a_broken_sample_does_not_judge(tmp_path: Path) -> None:
    """One NaN among the samples is no collapse of int8, and is said; where there is nothing else, that is said too."""
    model, data = write_small_net(tmp_path)
    samples = np.load(data)
    samples[1].flat[0] = np.nan
    for broken, words in ((samples, "for 1 of "), (np.full_like(samples, np.nan), "for every one of ")):
        np.save(data, broken)
        done = run_build(
            model,
            target="raspberrypi4",
            calibration=data,
            output=tmp_path / "dist",
            precision="int8",
            effort="fast",
            stop_after="bundle",
        )
        (finding,) = [f for f in done.findings if f.code == "calibration/no-numbers"]
        assert words in finding.message
        if broken is samples:
            assert done.summary["fidelity"]["sqnr_db"] > 20 and done.summary["fidelity"]["samples"] == len(samples) - 1


def test_the_budget_replaces_the_default_one() -> None:
    fidelity = {"sqnr_db": 15.0, "top1_agreement": 0.9}
    assert not keeps_accuracy(fidelity)[0]
    assert keeps_accuracy(fidelity, min_sqnr=14.0)[0]
    assert not keeps_accuracy(fidelity, min_sqnr=16.0)[0]
    assert keeps_accuracy({"sqnr_db": None, "top1_agreement": None}, min_sqnr=90.0)[0]
