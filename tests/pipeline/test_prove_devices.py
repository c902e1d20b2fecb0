"""The same on devices that are not this machine: a Pi over SSH, a phone over adb, all emulated core for core."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from edgec.bundle.open import open_bundle
from edgec.bundle.proofs import read_proofs
from edgec.devices.base import Transport
from edgec.pipeline.prove import Wishes, prove
from tests.support import applications
from tests.support.devlab import connected, pi_server

#: For emulated devices on a busy machine.
PATIENCE_S = 600.0


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return applications.build_application(tmp_path_factory.mktemp("application"))


def proven(bundle: Path, device: Transport, wishes: Wishes) -> dict[str, Any]:
    with open_bundle(bundle) as opened:
        return prove(opened, device, replace(wishes, timeout_s=PATIENCE_S))


@pytest.mark.parametrize("fixture", ["pi4", "phone_arm64"])
def test_an_application_on_a_device(fixture: str, bundle: Path, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    """Preprocessing that is wrong there, an answer that is off by one: both named; the model innocent to the bit."""
    lab = request.getfixturevalue(fixture)
    wishes = Wishes(
        app=applications.write_app(tmp_path, "bgr off-by-one"),
        data=str(bundle.parent / "pictures"),
        samples=4,
        runs=5,
        record=True,
    )
    with connected(fixture, lab.address, **lab.options) as device:
        answer = proven(bundle, device, wishes)
    assert (answer["kernel_set"], answer["bit_exact"]) == ("XNNPACK", True)
    assert answer["guilty"] == ["preprocessing", "postprocessing"]
    assert answer["stages"][1]["facts"] == {"equal_share": 1.0}
    assert answer["emulated"]
    with open_bundle(bundle) as opened:
        (proof,) = [p for p in read_proofs(opened)[0] if p.record["device"] == fixture]
    # An emulator's times are recorded under its name, and count for nothing.
    assert proof.record["verdict"] == "failed"
    assert proof.line()["median_ms"] is None


@pytest.fixture
def pi_without_sys(tmp_path: Path) -> Iterator[Transport]:
    """A Pi 4 of its own on which /sys is taken away, as in a chroot or a container that was not given it."""
    for lab in pi_server(tmp_path):
        with connected("cellar", lab.address, **lab.options) as device:
            source = "import ctypes; raise SystemExit(ctypes.CDLL(None, use_errno=True).umount2(b'/sys', 2))"
            hidden = device.exec([*device.python, "-c", source], timeout_s=PATIENCE_S)
            assert hidden.returncode == 0, hidden.stderr
            yield device


def test_a_device_without_sys_runs_without_xnnpack_and_is_told_why(pi_without_sys: Transport, bundle: Path) -> None:
    answer = proven(bundle, pi_without_sys, Wishes(runs=0))
    assert answer["kernel_set"] in ("builtin", "reference")
    assert not answer["bit_exact"]
    (finding,) = [f for f in answer["findings"] if f["code"] == "validate/other-kernels"]
    assert "without XNNPACK" in finding["message"]
    assert "/sys is not mounted" in finding["hint"]
    assert answer["hardware"].get("sys_visible") is False
    assert answer["passed"]


def test_a_data_set_on_an_emulated_core(vpi: Path, bundle: Path) -> None:
    answer = proven(bundle, connected("core", "qemu:cortex-a72"), Wishes(data=str(bundle.parent / "pictures"), runs=0))
    assert answer["task"]["samples"] == 8
    assert answer["task"]["equal_share"] == 1.0
    assert answer["emulated"] == "qemu-user"
