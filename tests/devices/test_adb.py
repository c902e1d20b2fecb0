"""What goes wrong over adb: with a real adbd, and with stand-ins for phones that no lab has."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from edgec.devices.base import Transport
from edgec.errors import EdgecError
from tests.support.devlab import connected
from tools.devlab.common import free_port
from tools.devlab.phone import Phone

rng = np.random.default_rng(6)
SIZE = 3_000_000


@pytest.fixture
def device(phone: Phone) -> Iterator[Transport]:
    phone.proxy.disarm()
    with connected("phone", phone.address, **phone.options, keepalive_s=2.0) as transport:
        yield transport
    phone.proxy.disarm()


def stand_in(folder: Path, script: str) -> str:
    """A program in adb's place."""
    program = folder / "adb"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    return str(program)


def failure(transport: Transport) -> EdgecError:
    with pytest.raises(EdgecError) as caught:
        transport.exec(["true"], timeout_s=60)
    return caught.value


@pytest.mark.parametrize("fault", ["cut_after", "stall_after"])
def test_a_broken_upload_is_continued(device: Transport, phone: Phone, tmp_path: Path, fault: str) -> None:
    """adb itself calls a cut upload a success; the device's own exit code is missing, so it is none."""
    local = tmp_path / "local"
    local.write_bytes(rng.bytes(SIZE))
    with device.scratch() as scratch:
        getattr(phone.proxy, fault)(SIZE // 3)
        with pytest.raises(EdgecError) as caught:
            device.push(local, f"{scratch}/part")
        assert caught.value.code == "device/lost"
        assert phone.proxy.disarm()
        device.push(local, f"{scratch}/part", resume=True)
        assert device.sha256(f"{scratch}/part") == hashlib.sha256(local.read_bytes()).hexdigest()


def test_a_command_that_is_cut_has_not_succeeded(device: Transport, phone: Phone) -> None:
    device.exec(["true"], timeout_s=60)
    phone.proxy.cut_after(1000)
    with pytest.raises(EdgecError) as caught:
        device.exec(["cat"], timeout_s=60, stdin=bytes(100_000))
    assert caught.value.code == "device/lost"
    assert device.exec(["echo", "back"], timeout_s=60).stdout == b"back\n"


def test_a_full_disk_is_named(phone: Phone, tmp_path: Path) -> None:
    local = tmp_path / "local"
    local.write_bytes(bytes(40_000_000))
    with connected("phone", phone.address, **phone.options) as transport:
        with pytest.raises(EdgecError) as caught:
            transport.push(local, "/small/file")
        assert caught.value.code == "device/disk-full"
        transport.remove("/small/file")
        transport.write_bytes("/small/other", bytes(1_000_000))
        transport.remove("/small/other")


def test_nobody_there(phone: Phone) -> None:
    error = failure(connected("phone", f"adb:127.0.0.1:{free_port()}", **phone.options))
    assert error.code == "device/unreachable"


def test_no_adb(tmp_path: Path) -> None:
    with pytest.raises(EdgecError) as caught:
        connected("phone", "adb:0123456789", adb=str(tmp_path / "none"))
    assert caught.value.code == "device/unavailable"
    assert "apt-get install adb" in caught.value.render()


def test_a_phone_that_has_not_allowed_this_computer(tmp_path: Path) -> None:
    adb = stand_in(tmp_path, 'echo "error: device unauthorized." >&2; exit 1')
    error = failure(connected("phone", "adb:0123456789", adb=adb))
    assert error.code == "device/auth"
    assert "screen" in error.finding.hint


def test_a_phone_that_is_too_old(tmp_path: Path) -> None:
    adb = stand_in(tmp_path, 'case "$3" in get-state) echo device;; features) echo cmd;; esac; exit 0')
    error = failure(connected("phone", "adb:0123456789", adb=adb))
    assert error.code == "device/unavailable"
    assert "Android 7" in error.finding.message


@pytest.mark.parametrize("address", ["", "two words", "-s", "a;b"])
def test_addresses_that_cannot_be_read(address: str) -> None:
    with pytest.raises(EdgecError) as caught:
        connected("phone", f"adb:{address}")
    assert caught.value.code == "device/bad-address"
