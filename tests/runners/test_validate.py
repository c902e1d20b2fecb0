"""Validation end to end on this machine, and everything that can go wrong on the way."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgec.bundle.open import open_bundle
from edgec.devices.kinds.local import LocalDevice
from edgec.errors import EdgecError
from edgec.runners import validate as validate_module
from edgec.runners.base import run_artifact
from edgec.runners.validate import Validation, validate_bundle
from tests.support import tiny_bundles as tiny


def validated(path: Path, **options: Any) -> Validation:
    with open_bundle(path) as bundle:
        return validate_bundle(bundle, **{"runs": 0, **options})


def codes(validation: Validation) -> list[str]:
    return [finding.code for finding in validation.findings]


def test_int8_bundle_passes_and_is_measured(tmp_path: Path) -> None:
    path = tiny.pack(tmp_path / "x.edgec", tiny.tflite_artifact(int8=True))
    result = validated(path, threads=(1, 2), runs=20)
    assert result.passed, result.findings
    assert result.device == "local"
    assert result.runtime.startswith("ai-edge-litert ")
    assert result.goldens == 2
    (output,) = result.outputs
    assert output.name == "y"
    assert output.steps is not None
    assert output.steps.values == 48
    assert output.steps.within_1 == 1.0
    # Half a step of 0.05·3 in, half a step of 0.1 out, on values of up to 12.
    assert 30 < output.sqnr_db < 60
    assert [entry.threads for entry in result.latency] == [1, 2]
    for entry in result.latency:
        assert entry.runs == 20
        assert 0 < entry.min_ms <= entry.median_ms <= entry.p90_ms <= entry.p95_ms <= entry.p99_ms
        assert entry.load_ms > 0
        assert entry.peak_rss_bytes > 1 << 20
    assert result.peak_rss_bytes >= max(entry.peak_rss_bytes for entry in result.latency)
    text = json.dumps(result.as_dict(), allow_nan=False)
    assert json.loads(text)["outputs"][0]["steps"]["largest"] <= 1


def test_default_delegates_run_and_are_reported(tmp_path: Path) -> None:
    result = validated(tiny.pack(tmp_path / "x.edgec", tiny.tflite_artifact()))
    assert result.passed
    assert result.kernels == {
        "delegate": "XNNPACK",
        "partitions": 1,
        "delegated": 2,
        "outside": {},
        "first_outside": [],
    }


def test_openvino_bundle_passes_in_float32(tmp_path: Path) -> None:
    result = validated(tiny.pack(tmp_path / "x.edgec", tiny.openvino_artifact()), runs=5)
    assert result.passed, result.findings
    assert result.runtime.startswith("openvino ")
    # Not bf16, which OpenVINO takes by itself on CPUs that have it.
    assert set(result.kernels["layers"]) == {"f32"}
    assert result.outputs[0].relative_error <= 1e-6


def test_disagreement_fails(tmp_path: Path) -> None:
    artifact = tiny.tflite_artifact()
    goldens = [
        replace(golden, reference_outputs={"y": golden.reference_outputs["y"] + np.float32(0.1)})
        for golden in tiny.goldens(artifact)
    ]
    result = validated(tiny.pack(tmp_path / "x.edgec", artifact, goldens=goldens))
    assert not result.passed
    assert codes(result) == ["validate/disagreement"]
    assert not result.outputs[0].passed
    assert result.outputs[0].relative_error > 1e-4


def test_wrong_shape_of_the_reference_fails_cleanly(tmp_path: Path) -> None:
    artifact = tiny.tflite_artifact()
    goldens = [
        replace(golden, reference_outputs={"y": golden.reference_outputs["y"].reshape(1, 3, 4, 2)})
        for golden in tiny.goldens(artifact)
    ]
    result = validated(tiny.pack(tmp_path / "x.edgec", artifact, goldens=goldens))
    assert codes(result) == ["validate/disagreement"]
    assert "shape" in result.findings[0].message


def test_model_the_runtime_refuses_is_a_finding(tmp_path: Path) -> None:
    artifact = tiny.tflite_artifact()
    goldens = tiny.goldens(artifact)
    broken = replace(artifact, files={"model.tflite": b"\x10\0\0\0TFL3" + bytes(100)})
    result = validated(tiny.pack(tmp_path / "x.edgec", broken, goldens=goldens))
    assert not result.passed
    assert len(codes(result)) == 1
    # The runtime may refuse these bytes or die of them; neither may take this process along.
    assert codes(result)[0] in ("validate/model-refused", "validate/runtime-crashed")


def test_bundle_without_goldens_does_not_pass(tmp_path: Path) -> None:
    result = validated(tiny.pack(tmp_path / "x.edgec", tiny.tflite_artifact(), goldens=[]))
    assert not result.passed
    assert codes(result) == ["validate/no-goldens"]


def test_another_agent_is_mentioned_and_not_run(tmp_path: Path) -> None:
    path = tiny.pack(tmp_path / "x.edgec", tiny.tflite_artifact(), agent=b"raise SystemExit('hostile')\n")
    result = validated(path)
    assert result.passed
    assert codes(result) == ["validate/other-agent"]


def test_runtime_that_is_too_old_fails(tmp_path: Path) -> None:
    artifact = replace(tiny.tflite_artifact(), requirements={"ai-edge-litert": "999.1"})
    result = validated(tiny.pack(tmp_path / "x.edgec", artifact))
    assert codes(result) == ["validate/runtime-too-old"]
    assert "pip install 'ai-edge-litert>=999.1'" in result.findings[0].hint


@pytest.mark.parametrize(
    ("one", "other", "older"),
    [("2.1", "2.1.0", False), ("2.1", "2.10", True), ("2026.4.1", "2026.4", False), ("2.0.0+cpu", "2.0.1", True)],
)
def test_versions_compare_by_number(one: str, other: str, older: bool) -> None:
    assert (validate_module._numbers(one) < validate_module._numbers(other)) is older


@pytest.fixture
def agent(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Path]:
    """A stand-in for the agent that validation pushes."""
    path = tmp_path / "stand_in.py"
    monkeypatch.setattr(validate_module, "AGENT", path)
    yield path


def misbehaving(command: str) -> str:
    return (
        "import json, os, sys, time\n"
        "if sys.argv[1] == 'info': print(json.dumps({'packages': {}})); sys.exit()\n"
        f"print('about to', file=sys.stderr, flush=True); {command}\n"
    )


def test_crash_is_a_finding_that_names_the_signal(tmp_path: Path, agent: Path) -> None:
    path = tiny.pack(tmp_path / "x.edgec", tiny.tflite_artifact())
    agent.write_text(misbehaving("os.abort()"))
    result = validated(path)
    assert not result.passed
    assert codes(result) == ["validate/other-agent", "validate/runtime-crashed"]
    assert "SIGABRT" in result.findings[-1].message
    assert "about to" in result.findings[-1].message


def test_hang_is_a_finding(tmp_path: Path, agent: Path) -> None:
    path = tiny.pack(tmp_path / "x.edgec", tiny.tflite_artifact())
    agent.write_text(misbehaving("time.sleep(60)"))
    result = validated(path, timeout_s=2.0)
    assert codes(result)[-1] == "validate/timeout"


@pytest.mark.parametrize("answer", ["not json", "[]", "", '{"goldens": 1}'])
def test_nonsense_from_the_agent_is_a_finding(tmp_path: Path, agent: Path, answer: str) -> None:
    path = tiny.pack(tmp_path / "x.edgec", tiny.tflite_artifact())
    agent.write_text(misbehaving(f"print({answer!r})"))
    try:
        result = validated(path)
    except EdgecError as error:  # what never came cannot be pulled
        assert error.code == "device/missing"
    else:
        assert not result.passed
        assert codes(result)[-1].startswith("validate/")


def test_missing_runtime_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tiny.pack(tmp_path / "x.edgec", tiny.tflite_artifact())
    blocked = tmp_path / "blocked"
    for name in ("ai_edge_litert", "tflite_runtime"):
        (blocked / name).mkdir(parents=True)
        (blocked / name / "__init__.py").write_text("raise ImportError('not here')\n")
    monkeypatch.setenv("PYTHONPATH", str(blocked))
    result = validated(path)
    assert codes(result) == ["validate/runtime-missing"]
    assert "pip install ai-edge-litert" in result.findings[0].hint


def test_unknown_device_is_an_error_of_the_caller(tmp_path: Path) -> None:
    with pytest.raises(EdgecError) as caught:
        validated(tiny.pack(tmp_path / "x.edgec", tiny.tflite_artifact(), goldens=[]), device="toaster")
    assert caught.value.code == "cli/unknown-device"


def test_nothing_is_left_on_the_device(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    used: list[str] = []
    real = LocalDevice.push

    def push(self: LocalDevice, local: Path, remote: str) -> None:
        used.append(remote)
        real(self, local, remote)

    monkeypatch.setattr(LocalDevice, "push", push)
    assert validated(tiny.pack(tmp_path / "x.edgec", tiny.tflite_artifact())).passed
    assert used
    assert not any(Path(remote).exists() for remote in used)


def test_run_artifact_before_it_is_packed() -> None:
    artifact = tiny.tflite_artifact()
    x = tiny.sample(1)
    (result,) = run_artifact(artifact, [{"x_in": artifact.inputs[0].to_artifact(x)}])
    np.testing.assert_array_equal(artifact.outputs[0].to_source(result["y_out"]), tiny.expected(x))


def test_run_artifact_of_an_output_that_is_not_there() -> None:
    artifact = tiny.tflite_artifact()
    binding = replace(artifact.outputs[0], artifact=replace(artifact.outputs[0].artifact, name="other"))
    with pytest.raises(EdgecError) as caught:
        run_artifact(replace(artifact, outputs=(binding,)), [{"x_in": np.zeros((1, 3, 4, 2), np.float32)}])
    assert caught.value.code == "validate/io-mismatch"
