"""The doctor tries what is installed, says what is missing, and survives a runtime that dies."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest

from edgec.report import doctor, selftest


def answered(code: str) -> Any:
    """A stand-in for the self test: run this Python code in its place."""

    def run(_command: list[str], **options: Any) -> subprocess.CompletedProcess[bytes]:
        return real([sys.executable, "-c", code], **options)

    real = subprocess.run
    return run


@pytest.mark.parametrize(
    ("name", "package"), [("onnxruntime", "onnxruntime"), ("tflite", "ai-edge-litert"), ("openvino", "openvino")]
)
def test_a_healthy_runtime_works(name: str, package: str) -> None:
    assert doctor.try_runtime(name) == {
        "runtime": name,
        "package": package,
        "version": doctor.version(package),
        "ok": True,
    }


@pytest.mark.parametrize(
    ("code", "why"),
    [
        ("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", "the process ended with -11"),
        ("import sys; sys.exit('no such library')", "the process ended with 1: no such library"),
        ("import time; time.sleep(9)", "no answer within 1 s"),
    ],
)
def test_a_runtime_that_dies_is_reported(monkeypatch: pytest.MonkeyPatch, code: str, why: str) -> None:
    monkeypatch.setattr(doctor, "TIMEOUT_S", 1)
    monkeypatch.setattr(subprocess, "run", answered(code))
    answer = doctor.try_runtime("onnxruntime")
    assert (answer["ok"], answer["why"]) == (False, why)


def test_wrong_results_are_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(selftest, "run_onnxruntime", lambda x: x)
    assert selftest.probe("onnxruntime")["ok"] is False
    assert "computes" in selftest.probe("onnxruntime")["why"]


def test_broken_runtime_becomes_a_finding(monkeypatch: pytest.MonkeyPatch) -> None:
    broken = {"runtime": "tflite", "package": "ai-edge-litert", "version": "9", "ok": False, "why": "it dies"}
    monkeypatch.setattr(doctor, "try_runtime", lambda name: broken if name == "tflite" else broken | {"ok": True})
    findings = doctor.examine()["findings"]
    assert [finding["code"] for finding in findings if finding["severity"] == "error"] == ["env/runtime-broken"]
    assert "it dies" in findings[0]["message"]


def test_missing_package_becomes_a_finding_and_explains_the_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "CORE", ("numpy", "edgec-no-such-package"))
    monkeypatch.setattr(doctor, "try_runtime", lambda name: {"runtime": name, "package": name, "ok": False, "why": "x"})
    findings = [finding for finding in doctor.examine()["findings"] if finding["severity"] == "error"]
    assert [(finding["code"], finding["where"]) for finding in findings] == [
        ("env/missing-package", "edgec-no-such-package")
    ]


def test_missing_extra_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(doctor.EXTRAS, "edgec-no-such-package", ("image", "pictures"))
    assert doctor.extra("edgec-no-such-package")["version"] == "missing: pip install 'edgec[image]'"


def test_low_disk_is_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "LOW_DISK_BYTES", 1 << 62)
    monkeypatch.setattr(doctor, "try_runtime", lambda name: {"runtime": name, "package": name, "ok": True})
    findings = doctor.examine()["findings"]
    assert [(finding["code"], finding["severity"]) for finding in findings] == [("env/disk-low", "warning")]
