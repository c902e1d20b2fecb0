"""Which precision is faster: ties, rivals, and what a build makes of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from edgec.artifact import Artifact
from edgec.passes.pipelines import canonicalize
from edgec.pipeline import BuildResult, forms, run_build, speed
from edgec.pipeline.speed import Speeds, estimated
from edgec.targets.load import load_target
from edgec.tensors import Array
from tests.support.small_net import small_net, write_small_net


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGEC_CACHE", str(tmp_path / "cache"))


def speeds(**ms: float) -> Speeds:
    return Speeds(kind="measured", ms=ms)


@pytest.mark.parametrize(
    ("ms", "rival"),
    [
        ({"int8": 3.0, "float32": 7.0}, ""),
        ({"int8": 7.0, "float32": 3.0}, "float32"),
        ({"int8": 3.1, "float32": 3.0}, ""),  # a tie
        ({"int8": 0.03, "float32": 0.02}, ""),  # nobody notices
        ({"int8": 3.0, "dynamic": 2.0, "float32": 7.0}, "dynamic"),
        ({"int8": 3.0}, ""),
        ({"float32": 1.0}, ""),
    ],
)
def test_a_rival_is_clearly_faster(ms: dict[str, float], rival: str) -> None:
    assert speeds(**ms).rival("int8") == rival


def built(folder: Path, monkeypatch: pytest.MonkeyPatch, precision: str, ms: Mapping[str, float]) -> BuildResult:
    """A build of the small net in which each precision takes the given time."""

    def raced(artifacts: Mapping[str, Artifact], feed: Mapping[str, Array]) -> Speeds:
        assert feed
        return speeds(**{name: ms[name] for name in artifacts})

    monkeypatch.setattr(forms, "measured", raced)
    model, data = write_small_net(folder)
    return run_build(
        model, target="raspberrypi4", precision=precision, calibration=data, effort="fast", min_sqnr=5, output=folder
    )


def codes(summary: Mapping[str, Any]) -> set[str]:
    return {finding["code"] for finding in summary["findings"]}


def test_auto_takes_int8_where_it_is_faster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    summary = built(tmp_path, monkeypatch, "auto", {"int8": 1.0, "dynamic": 1.5, "float32": 2.0}).summary
    assert summary["precision"] == "int8" and "quant/fell-back" not in codes(summary)
    assert summary["race"]["kind"] == "measured" and summary["race"]["ms"].keys() >= {"int8", "float32"}


def test_auto_never_ships_what_is_slower_than_float(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    summary = built(tmp_path, monkeypatch, "auto", {"int8": 3.0, "dynamic": 2.5, "float32": 2.0}).summary
    assert summary["precision"] == "float32" and "quant/fell-back" in codes(summary)
    assert "int8 keeps" in summary["why"] and "slower than float32 (measured)" in summary["why"]


def test_int8_that_was_asked_for_is_said_to_be_slow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    summary = built(tmp_path, monkeypatch, "int8", {"int8": 3.0, "float32": 2.0}).summary
    assert summary["precision"] == "int8" and "quant/slower-than-float" in codes(summary)
    assert summary["race"]["ms"] == {"int8": 3.0, "float32": 2.0}


def test_a_model_is_not_slower_than_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Noise would say so where nothing is quantized, as both artifacts have the same bytes then."""
    one, other = (
        Artifact(backend="tflite", precision="int8", files={"a.tflite": data}, main="a.tflite", inputs=(), outputs=())
        for data in (b"one", b"other")
    )
    monkeypatch.setattr(speed, "race", lambda racers, feed: {name: float(i) for i, name in enumerate(racers)})
    found = speed.measured({"int8": one, "float32": replace(one, precision="float32"), "dynamic": other}, {})
    assert found.ms == {"int8": 0.0, "float32": 0.0, "dynamic": 1.0}


def test_where_this_machine_cannot_tell_the_profile_does() -> None:
    found = estimated(canonicalize(small_net()), load_target("cortex-m7"), "tflite")
    assert found.kind == "estimate" and 0 < found.ms["int8"] < found.ms["float32"]
