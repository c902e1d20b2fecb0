"""Looking without building: check and calibrate."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from edgec.errors import EdgecError, Severity
from edgec.pipeline import calibrate, check, run_build, run_calibrate, run_check
from tests.support.plans import kernel, typed
from tests.support.small_net import write_small_net


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGEC_CACHE", str(tmp_path / "cache"))


def test_check_finds_nothing_against_a_plain_net(tmp_path: Path) -> None:
    model, _ = write_small_net(tmp_path)
    assert check(model, target="raspberrypi4") == []
    assert not (tmp_path / "net-raspberrypi4.edgec").exists()


def test_check_lists_all_that_stands_in_the_way(tmp_path: Path) -> None:
    model = typed("(float[2] x) => (string[2] y, string[2] z) { y = Cast<to=8>(x) a = Relu(x) z = Cast<to=8>(a) }")
    (tmp_path / "m.onnx").write_bytes(model.to_bytes())
    answer = run_check(tmp_path / "m.onnx", target="raspberrypi")
    json.dumps(answer)
    assert answer["target"] == "raspberrypi4" and answer["backend"] == "tflite" and answer["source"] == "m.onnx"
    errors = [f for f in answer["findings"] if f["severity"] == "error"]
    assert len(errors) == 2 and all(f["where"] and f["hint"] for f in errors)


def test_check_reports_transposes_as_information(tmp_path: Path) -> None:
    model = typed(
        "(float[1,3,8,8] x) => (float[1,256] y) "
        "{ a = Conv<kernel_shape=[3,3], pads=[1,1,1,1]>(x, w) y = Reshape(a, s) }",
        {"w": kernel(4, 3, 3, 3), "s": np.asarray([1, 256])},
    )
    (tmp_path / "m.onnx").write_bytes(model.to_bytes())
    (finding,) = check(tmp_path / "m.onnx", target="raspberrypi4")
    assert finding.code == "backend/transpose" and finding.severity == Severity.INFO


def test_check_with_another_backend(tmp_path: Path) -> None:
    model, _ = write_small_net(tmp_path)
    answer = run_check(model, target="raspberrypi4", backend="openvino")
    assert answer["backend"] == "openvino"
    with pytest.raises(EdgecError, match="no backend"):
        run_check(model, target="raspberrypi4", backend="tensorrt")


def test_calibrate_sums_up_every_tensor_worst_first(tmp_path: Path) -> None:
    model, data = write_small_net(tmp_path)
    answer = run_calibrate(model, calibration=data)
    json.dumps(answer)
    assert answer["source"] == "net.onnx" and answer["samples"] == 24 and answer["method"] == "percentile"
    assert answer["tensor_count"] == len(answer["tensors"]) > 5
    coverages = [row["coverage"] for row in answer["tensors"]]
    assert coverages == sorted(coverages) and all(0 < c <= 1 for c in coverages)
    for row in answer["tensors"]:
        assert row["minimum"] <= row["maximum"] and 0 <= row["saturation"] < 0.01


def test_calibrate_takes_as_many_samples_as_it_is_told(tmp_path: Path) -> None:
    model, data = write_small_net(tmp_path)
    assert calibrate(model, calibration=data, samples=5).samples == 5


def test_a_build_finds_what_calibrate_left_for_its_target(tmp_path: Path) -> None:
    model, data = write_small_net(tmp_path)
    seen: list[tuple[str, int, int]] = []
    calibrate(model, calibration=data, target="raspberrypi4")
    files = sorted((tmp_path / "cache").rglob("*"))
    run_build(
        model, target="raspberrypi4", calibration=data, precision="int8", output=tmp_path, stop_after="quantize",
        progress=lambda *step: seen.append(step),
    )  # fmt: skip
    assert sorted((tmp_path / "cache").rglob("*")) == files
    # no sample was run: the stage begins and ends
    assert {step for step in seen if step[0] == "calibrate"} <= {("calibrate", 0, 1), ("calibrate", 1, 1)}


def test_calibrate_tells_its_progress(tmp_path: Path) -> None:
    model, data = write_small_net(tmp_path)
    seen: list[tuple[str, int, int]] = []
    calibrate(model, calibration=data, progress=lambda *step: seen.append(step))
    assert seen[-1] == ("calibrate", 24, 24)


def test_calibrate_refuses_data_of_another_shape(tmp_path: Path) -> None:
    model, _ = write_small_net(tmp_path)
    np.save(tmp_path / "wrong.npy", np.zeros((4, 5, 6), np.float32))
    with pytest.raises(EdgecError) as error:
        calibrate(model, calibration=tmp_path / "wrong.npy")
    assert error.value.code.startswith("calibration/")
