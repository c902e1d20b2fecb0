"""Flash real devices: a Pi over SSH with a runtime and without, a phone over adb, and both while they break."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from edgec.bundle.open import open_bundle
from edgec.devices.base import Transport
from edgec.flash.install import flash_bundle
from edgec.flash.rollback import roll_back
from edgec.flash.session import Flashed, Options
from edgec.flash.wheels import cache_folder
from tests.support import flashing
from tests.support import tiny_bundles as tiny
from tests.support.devlab import connected
from tools.crashtest.lanes import crash
from tools.devlab.common import UnavailableError


def bundle_for(arch: str, path: Path, **changes: Any) -> Path:
    """The tiny int8 model for another architecture."""
    target = tiny.target()
    hardware = target.hardware.model_copy(update={"arch": arch})
    changes = {"target": target.model_copy(update={"hardware": hardware}), **changes}
    return tiny.pack(path, tiny.tflite_artifact(int8=True), **changes)


def flash(device: Transport, path: Path, **options: Any) -> Flashed:
    with open_bundle(path) as bundle:
        return flash_bundle(bundle, device, Options(**options))


@pytest.mark.slow
def test_an_emulated_pi_over_ssh(pi4: Any, tmp_path: Path) -> None:
    with connected("pi4", pi4.address, **pi4.options) as device:
        root = "/root/test-flash"
        first = flash(device, bundle_for("aarch64", tmp_path / "a.edgec"), root=root)
        assert first.result == "installed", first.findings
        assert first.health is not None
        assert first.health.runtime.startswith("ai-edge-litert ")
        assert first.health.kernels["delegate"] == "XNNPACK"
        assert first.health.emulated
        quick = bundle_for("aarch64", tmp_path / "b.edgec", agent=flashing.QUICK_AGENT)
        second = flash(device, quick, root=root, latency_ms=1e-6)
        # Emulated: its latency is told and not judged.
        assert second.result == "installed", second.findings
        assert "flash/too-slow" in {finding.code for finding in second.findings}
        assert roll_back(device, Options(root=root)).running == first.digest
        assert flashing.running(device, root) == first.digest


@pytest.mark.slow
@pytest.mark.network
def test_the_runtime_travels_to_a_pi_that_has_none(
    bare_pi: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(Path(".cache").absolute()))
    with connected("bare", bare_pi.address, **bare_pi.options) as device:
        first = flash(device, bundle_for("aarch64", tmp_path / "a.edgec"))
        assert first.result == "installed", first.findings
        assert [s.path.partition("/")[0] for s in first.steps if s.act == "upload"] == ["runtimes", "releases"]
        assert first.health is not None
        assert first.health.kernels["delegate"] == "XNNPACK"
        assert flashing.running(device) == first.digest
        second = flash(device, bundle_for("aarch64", tmp_path / "b.edgec", labels=("b",)), dry_run=True)
        # The same runtime would be verified there, not sent again.
        assert [s.path.partition("/")[0] for s in second.steps if s.act == "upload"] == ["releases"]
        assert [s.path.partition("/")[0] for s in second.steps if s.act == "verify"] == ["runtimes"]
    assert list(cache_folder().glob("*/runtime.zip"))


@pytest.mark.slow
def test_an_arm64_phone_with_python(phone_arm64: Any, tmp_path: Path) -> None:
    with connected("phone", phone_arm64.address, **phone_arm64.options) as device:
        result = flash(device, bundle_for("aarch64", tmp_path / "a.edgec"))
        assert result.result == "installed", result.findings
        assert result.health is not None
        assert result.health.checked
        assert flashing.running(device) == result.digest


def test_a_phone_without_python_gets_the_files(phone: Any, tmp_path: Path) -> None:
    with connected("phone", phone.address, **phone.options) as device:
        result = flash(device, flashing.pack(tmp_path / "a.edgec"))
        assert result.result == "installed", result.findings
        assert result.health is not None
        assert not result.health.checked
        assert "flash/unchecked" in {finding.code for finding in result.findings}
        assert flashing.running(device) == result.digest


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["ssh", "adb"])
def test_broken_at_random_bytes(kind: str, tmp_path: Path) -> None:
    """A few of the trials that `python -m tools.crashtest --count 500` runs."""
    try:
        outcomes = crash(tmp_path, count=4, devices=[kind], faults=["reset", "stall", "disk-full", "kill"], seed=7)
    except UnavailableError as error:
        pytest.skip(str(error))
    assert [outcome.why for outcome in outcomes] == [""] * 4
    assert {outcome.left for outcome in outcomes} <= {"old", "new"}
