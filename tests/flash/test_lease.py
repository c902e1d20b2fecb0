"""The lock of a device: one at a time, and never longer than its owner can be alive."""

from __future__ import annotations

import os
import subprocess
import time
from dataclasses import replace

import pytest

from edgec.errors import EdgecError
from edgec.flash import lease as lease_module
from edgec.flash.lease import LOCK, Claim, Lease, device_clock, this_machine
from tests.support.memory_device import MemoryDevice

ROOT = "/data/edgec"
PATH = f"{ROOT}/{LOCK}"


def claim(device: MemoryDevice, **changes: object) -> Claim:
    """A claim of another machine, for a minute from now."""
    boot, now = device_clock(device)
    known = Claim(machine="other", pid=1, name="bench", nonce="n", boot=boot, until_s=int(now) + 60)
    return replace(known, **changes)  # type: ignore[arg-type]


def locked(**changes: object) -> MemoryDevice:
    device = MemoryDevice()
    device.make_folder(ROOT)
    device.make_link(claim(device, **changes).text(), PATH)
    return device


def dead_pid() -> int:
    process = subprocess.Popen(["true"])
    process.wait()
    return process.pid


def test_it_is_held_and_let_go() -> None:
    device = MemoryDevice()
    with Lease(device, ROOT) as lease:
        held = Claim.parse(device.read_link(PATH))
        assert held is not None
        assert (held.machine, held.pid) == (this_machine(), os.getpid())
        lease.renew(1e6)
        renewed = Claim.parse(device.read_link(PATH))
        assert renewed is not None
        assert renewed.until_s >= held.until_s + 900_000
        assert renewed.nonce == held.nonce
    assert device.entry(PATH) is None
    assert [entry.name for entry in device.list_folder(ROOT)] == []


@pytest.mark.parametrize(
    "changes",
    [
        {},  # another machine's, for a minute yet
        {"machine": this_machine(), "pid": os.getppid()},  # a living process of this machine
    ],
)
def test_who_is_at_work_is_not_disturbed(changes: dict[str, object]) -> None:
    device = locked(**changes)
    before = device.read_link(PATH)
    with pytest.raises(EdgecError) as caught, Lease(device, ROOT):
        pass
    assert caught.value.code == "flash/busy"
    assert "claim ends in" in str(caught.value)
    assert device.read_link(PATH) == before


def test_a_second_session_of_this_process_is_refused_while_the_first_lasts() -> None:
    device = MemoryDevice()
    with Lease(device, ROOT):
        with pytest.raises(EdgecError) as caught, Lease(device, ROOT):
            pass
        assert caught.value.code == "flash/busy"
    with Lease(device, ROOT):
        pass


@pytest.mark.parametrize(
    "changes",
    [
        {"until_s": 0},  # its time is over
        {"boot": "boot-before"},  # the device has started since
        {"machine": this_machine(), "pid": dead_pid(), "until_s": 10**9},  # killed on this machine
        {"machine": this_machine(), "pid": os.getpid(), "until_s": 10**9},  # a session of ours that lost the device
    ],
    ids=["expired", "rebooted", "killed", "ours"],
)
def test_a_void_lock_is_broken(changes: dict[str, object]) -> None:
    device = locked(**changes)
    with Lease(device, ROOT) as lease:
        lease.renew()
    assert device.entry(PATH) is None


def test_a_lock_that_says_nothing_is_broken() -> None:
    device = MemoryDevice()
    device.make_folder(ROOT)
    device.make_link("what?", PATH)
    with Lease(device, ROOT):
        pass


def test_an_owner_that_lost_it_stops() -> None:
    device = MemoryDevice()
    with pytest.raises(EdgecError) as caught, Lease(device, ROOT) as lease:
        device.remove(PATH)
        theirs = claim(device).text()
        device.make_link(theirs, PATH)
        lease.renew()
    assert caught.value.code == "flash/lock-lost"
    assert device.read_link(PATH) == theirs


def test_a_lost_device_is_the_news_not_the_lock() -> None:
    device = MemoryDevice()
    with pytest.raises(EdgecError) as caught, Lease(device, ROOT):
        device.cut_at(0, power=False)
        device.write_bytes(f"{ROOT}/x", b"x")
    assert caught.value.code == "device/lost"
    device.revive()
    with Lease(device, ROOT):
        pass


def test_a_device_without_proc_has_the_time_of_day(monkeypatch: pytest.MonkeyPatch) -> None:
    from edgec.devices.kinds.local import LocalDevice

    device = LocalDevice()

    def missing(_self: LocalDevice, remote: str) -> bytes:
        raise EdgecError("device/missing", remote)

    monkeypatch.setattr(LocalDevice, "read_bytes", missing)
    boot, now = device_clock(device)
    assert boot == "date"
    assert now > 1.5e9


def test_a_zombie_is_not_alive() -> None:
    process = subprocess.Popen(["true"], stdout=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.read()  # it has ended; nobody has asked how
    try:
        end = time.monotonic() + 60
        while lease_module._is_alive(process.pid) and time.monotonic() < end:
            time.sleep(0.01)
        assert not lease_module._is_alive(process.pid)
    finally:
        process.wait()
        process.stdout.close()
