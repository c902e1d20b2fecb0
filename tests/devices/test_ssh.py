"""What goes wrong over SSH, with a real server: each failure has its own code and says what to do."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from edgec.devices.base import Transport
from edgec.errors import EdgecError
from tests.support.devlab import connected
from tools.devlab.chaos import ChaosProxy, chaos
from tools.devlab.common import free_port, program, run
from tools.devlab.sshd import Server

rng = np.random.default_rng(5)
#: Bytes of the file whose upload is broken.
SIZE = 3_000_000


@pytest.fixture
def proxy(sshd: Server) -> Iterator[ChaosProxy]:
    with chaos(sshd.port) as running:
        yield running


@pytest.fixture
def device(sshd: Server, proxy: ChaosProxy, tmp_path: Path) -> Iterator[Transport]:
    known = tmp_path / "known_hosts"
    known.write_text(sshd.known_at(proxy.port))
    address = f"ssh://{sshd.user}@127.0.0.1:{proxy.port}"
    options = {"identity": str(sshd.identity), "known_hosts": str(known), "keepalive_s": 1.0}
    with connected("far", address, **options) as transport:
        yield transport


def refused(transport: Transport) -> EdgecError:
    with transport, pytest.raises(EdgecError) as caught:
        transport.exec(["true"], timeout_s=60)
    return caught.value


def test_an_unknown_host_key_is_refused_and_shown(sshd: Server, tmp_path: Path) -> None:
    """Nothing is asked and nothing learnt: the file stays empty."""
    known = tmp_path / "known_hosts"
    known.touch()
    error = refused(connected("far", sshd.address, identity=str(sshd.identity), known_hosts=str(known)))
    assert error.code == "device/host-key"
    fingerprint = run([program("ssh-keygen"), "-lf", sshd.folder / "host_ed25519.pub"]).split()[1]
    assert fingerprint in error.render()
    assert str(known) in error.render()
    assert known.read_text() == ""


def test_another_host_key_is_refused(sshd: Server, tmp_path: Path) -> None:
    run([program("ssh-keygen"), "-q", "-t", "ed25519", "-N", "", "-f", tmp_path / "other"])
    known = tmp_path / "known_hosts"
    public = " ".join((tmp_path / "other.pub").read_text().split()[:2])
    known.write_text(f"[127.0.0.1]:{sshd.port} {public}\n")
    error = refused(connected("far", sshd.address, identity=str(sshd.identity), known_hosts=str(known)))
    assert error.code == "device/host-key"


def test_another_user_key_is_refused(sshd: Server, tmp_path: Path) -> None:
    run([program("ssh-keygen"), "-q", "-t", "ed25519", "-N", "", "-f", tmp_path / "other"])
    error = refused(connected("far", sshd.address, **{**sshd.options, "identity": str(tmp_path / "other")}))
    assert error.code == "device/auth"
    assert str(tmp_path / "other") in error.render()


@pytest.mark.parametrize(
    ("option", "code"),
    [("identity", "device/auth"), ("known_hosts", "device/host-key")],
    ids=["identity", "known_hosts"],
)
def test_a_file_that_is_not_there_is_named(sshd: Server, tmp_path: Path, option: str, code: str) -> None:
    error = refused(connected("far", sshd.address, **{**sshd.options, option: str(tmp_path / "none")}))
    assert (error.code, error.finding.where) == (code, str(tmp_path / "none"))


@pytest.mark.parametrize("host", ["127.0.0.1", "no-such-host.invalid"])
def test_nobody_there(host: str, sshd: Server) -> None:
    error = refused(connected("far", f"ssh:{host}:{free_port()}", **sshd.options))
    assert error.code == "device/unreachable"
    assert host in error.render()


@pytest.mark.parametrize("address", ["", "a b", "user@", "host:0", "host:99999", "host:port", "a:b:c"])
def test_addresses_that_cannot_be_read(address: str) -> None:
    with pytest.raises(EdgecError) as caught:
        connected("far", f"ssh:{address}")
    assert caught.value.code == "device/bad-address"


@pytest.mark.parametrize("address", ["kitchen", "pi@kitchen", "//pi@kitchen:2222", "pi@[::1]:22", "pi@10.0.0.7:22"])
def test_addresses_that_can(address: str) -> None:
    assert connected("far", f"ssh:{address}").name == "far"


@pytest.mark.parametrize("fault", ["cut_after", "stall_after"])
@pytest.mark.parametrize("share", [0.0, 0.4, 0.95])
def test_a_broken_upload_is_continued(
    device: Transport, proxy: ChaosProxy, tmp_path: Path, fault: str, share: float
) -> None:
    """Cut (reset) or silent: the same code, soon; the next push goes on and the bytes are right."""
    local = tmp_path / "local"
    local.write_bytes(rng.bytes(SIZE))
    with device.scratch() as scratch:
        getattr(proxy, fault)(int(share * SIZE))
        with pytest.raises(EdgecError) as caught:
            device.push(local, f"{scratch}/part")
        assert caught.value.code == "device/lost"
        assert proxy.disarm()
        kept = device.entry(f"{scratch}/part")
        assert kept is None or kept.size_bytes < SIZE
        device.push(local, f"{scratch}/part", resume=True)
        assert device.sha256(f"{scratch}/part") == hashlib.sha256(local.read_bytes()).hexdigest()


def test_a_broken_download_leaves_nothing(device: Transport, proxy: ChaosProxy, tmp_path: Path) -> None:
    with device.scratch() as scratch:
        device.write_bytes(f"{scratch}/file", rng.bytes(SIZE))
        proxy.cut_after(200)
        with pytest.raises(EdgecError) as caught:
            device.pull(f"{scratch}/file", tmp_path / "file")
        assert caught.value.code == "device/lost"
        assert list(tmp_path.glob("*file*")) == []
        assert list(tmp_path.glob(".*")) == []


def test_a_full_disk_is_named(pi4: Server, tmp_path: Path) -> None:
    """On a device with a small file system of its own; what fits later goes through."""
    local = tmp_path / "local"
    local.write_bytes(bytes(40_000_000))
    with connected("far", pi4.address, **pi4.options) as transport:
        with pytest.raises(EdgecError) as caught:
            transport.push(local, "/small/file")
        assert caught.value.code == "device/disk-full"
        with pytest.raises(EdgecError) as caught:
            transport.write_bytes("/small/other", bytes(1_000_000))
        assert caught.value.code == "device/disk-full"
        transport.remove("/small/file")
        transport.write_bytes("/small/other", bytes(1_000_000))
        transport.remove("/small/other")


def test_the_user_s_configuration_is_left_alone(sshd: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """~/.ssh/config and the agent count only when they are asked for."""
    home = tmp_path / "home"
    (home / ".ssh").mkdir(parents=True)
    (home / ".ssh" / "config").write_text(f"Host *\n  Port {free_port()}\n  IdentityFile /nowhere\n")
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("SSH_AUTH_SOCK", str(tmp_path / "no-agent"))
    with connected("far", sshd.address, **sshd.options) as transport:
        assert transport.exec(["echo", "in"], timeout_s=60).stdout == b"in\n"


def test_a_configuration_that_is_asked_for_counts(sshd: Server, tmp_path: Path) -> None:
    config = tmp_path / "config"
    config.write_text(f"Host kitchen\n  HostName 127.0.0.1\n  User {sshd.user}\n")
    known = tmp_path / "known_hosts"
    key = sshd.known_hosts.read_text().split(" ", 1)[1]
    known.write_text(f"[kitchen]:{sshd.port},[127.0.0.1]:{sshd.port} {key}")
    options = {**sshd.options, "config": str(config), "known_hosts": str(known)}
    with connected("far", f"ssh:kitchen:{sshd.port}", **options) as transport:
        assert transport.exec(["echo", "in"], timeout_s=60).stdout == b"in\n"


def test_without_asyncssh_it_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "asyncssh", None)
    with pytest.raises(EdgecError) as caught:
        connected("far", "ssh:pi@kitchen")
    assert caught.value.code == "device/unavailable"
    assert "edgec[ssh]" in caught.value.finding.hint


def test_many_devices_at_once(sshd: Server) -> None:
    """A rollout opens them from many threads; each has its own connection."""

    def ask(number: int) -> bytes:
        with connected(f"far{number}", sshd.address, **sshd.options) as transport:
            return transport.exec(["echo", str(number)], timeout_s=120).stdout

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(ask, range(12))) == [f"{number}\n".encode() for number in range(12)]
