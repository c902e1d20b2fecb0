"""What every kind of device promises, tried on each: this machine, a real sshd, a Pi behind one, real adbds, QEMU."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from edgec.devices.base import EntryKind, Transport
from edgec.errors import EdgecError
from tests.support.devlab import connected

#: Kind → the fixture it needs. The first five run programs of this machine's own or emulated shells.
KINDS = ("local", "local-root", "qemu", "sshd", "pi4", "phone", "phone_arm64")
#: Devices whose commands have a shell and its tools.
SHELLS = tuple(kind for kind in KINDS if kind != "qemu")
#: A name that a shell would take apart.
AWKWARD = "sp ace 'quote' \"double\" $HOME `id` *;&|\\ ümläut"
#: For emulated shells on a busy machine.
PATIENCE_S = 120.0
rng = np.random.default_rng(11)


def opened(kind: str, request: pytest.FixtureRequest, folder: Path) -> Transport:
    if kind == "local":
        return connected("here", "local")
    if kind == "local-root":
        return connected("rooted", f"local:{folder / 'root'}")
    if kind == "qemu":
        request.getfixturevalue("vpi")
        return connected("core", "qemu:cortex-a72")
    lab = request.getfixturevalue(kind)
    return connected(kind, lab.address, **lab.options)


@pytest.fixture(params=KINDS)
def device(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Transport]:
    with opened(request.param, request, tmp_path) as transport:
        yield transport


@pytest.fixture(params=SHELLS)
def shell(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Transport]:
    with opened(request.param, request, tmp_path) as transport:
        yield transport


def failing(code: str, action: object, *, where: str = "") -> None:
    with pytest.raises(EdgecError) as caught:
        action()  # type: ignore[operator]
    assert caught.value.code == code, caught.value.render()
    assert where in caught.value.render()


def test_files_go_and_come_back_whole(device: Transport, tmp_path: Path) -> None:
    data = rng.bytes(300_001)
    local = tmp_path / "local"
    local.write_bytes(data)
    with device.scratch() as scratch:
        remote = f"{scratch}/{AWKWARD}/file"
        device.push(local, remote)
        entry = device.entry(remote)
        assert entry is not None
        assert (entry.kind, entry.size_bytes) == (EntryKind.file, len(data))
        assert device.sha256(remote) == hashlib.sha256(data).hexdigest()
        device.pull(remote, tmp_path / "new" / "back")
    assert (tmp_path / "new" / "back").read_bytes() == data
    assert device.entry(scratch) is None


def test_folders_go_and_come_back(device: Transport, tmp_path: Path) -> None:
    source = tmp_path / "source"
    (source / "deep" / AWKWARD).mkdir(parents=True)
    (source / "deep" / AWKWARD / "file").write_bytes(b"\0\xff\n")
    (source / "run").write_text("#!/bin/sh\n")
    (source / "run").chmod(0o755)
    (source / "link").symlink_to("deep")
    with device.scratch() as scratch:
        device.push(source, f"{scratch}/a b")
        device.pull(f"{scratch}/a b", tmp_path / "back")
        device.pull(f"{scratch}/a b/link", tmp_path / "followed")
    back = tmp_path / "back"
    assert (back / "deep" / AWKWARD / "file").read_bytes() == b"\0\xff\n"
    assert (tmp_path / "followed" / AWKWARD / "file").read_bytes() == b"\0\xff\n"
    assert os.access(back / "run", os.X_OK)
    assert (back / "link").readlink() == Path("deep")


@pytest.mark.parametrize("kept", [1, 200_000, 300_000])
def test_a_push_is_continued(device: Transport, tmp_path: Path, kept: int) -> None:
    data = rng.bytes(300_000)
    local = tmp_path / "local"
    local.write_bytes(data)
    with device.scratch() as scratch:
        device.write_bytes(f"{scratch}/part", data[:kept])
        device.push(local, f"{scratch}/part", resume=True)
        assert device.sha256(f"{scratch}/part") == hashlib.sha256(data).hexdigest()


@pytest.mark.parametrize("other", [b"something else", b"\0" * 400_000], ids=["shorter", "longer"])
def test_what_is_not_the_beginning_is_not_continued(device: Transport, tmp_path: Path, other: bytes) -> None:
    local = tmp_path / "local"
    local.write_bytes(rng.bytes(100_000))
    with device.scratch() as scratch:
        device.write_bytes(f"{scratch}/part", other)
        device.push(local, f"{scratch}/part", resume=True)
        assert device.sha256(f"{scratch}/part") == hashlib.sha256(local.read_bytes()).hexdigest()


def test_rename_replaces_files_and_links(device: Transport) -> None:
    """The switch of a release: a link that reads a folder is replaced, never followed."""
    with device.scratch() as scratch:
        for release in ("one", "two"):
            device.write_bytes(f"{scratch}/{release}/name", release.encode())
        device.make_link("one", f"{scratch}/current")
        device.make_link("two", f"{scratch}/next")
        device.rename(f"{scratch}/next", f"{scratch}/current")
        assert device.read_link(f"{scratch}/current") == "two"
        assert device.read_bytes(f"{scratch}/current/name") == b"two"
        device.write_bytes(f"{scratch}/new", b"new")
        device.rename(f"{scratch}/new", f"{scratch}/one/name")
        assert device.read_bytes(f"{scratch}/one/name") == b"new"
        assert device.entry(f"{scratch}/new") is None
        device.sync(scratch)
        device.sync(f"{scratch}/one/name")


def test_names_are_listed_as_they_are(device: Transport) -> None:
    with device.scratch() as scratch:
        assert device.list_folder(scratch) == ()
        device.write_bytes(f"{scratch}/.hidden", b"1234")
        device.write_bytes(f"{scratch}/{AWKWARD}", b"")
        device.make_folder(f"{scratch}/folder")
        device.make_link("nowhere", f"{scratch}/link")
        found = {entry.name: (entry.kind, entry.size_bytes) for entry in device.list_folder(scratch)}
        assert found == {
            ".hidden": (EntryKind.file, 4),
            AWKWARD: (EntryKind.file, 0),
            "folder": (EntryKind.folder, 0),
            "link": (EntryKind.link, 0),
        }
        device.remove(f"{scratch}/link")
        device.remove(f"{scratch}/folder")
        device.remove(f"{scratch}/{AWKWARD}")
        device.remove(f"{scratch}/never")
        assert [entry.name for entry in device.list_folder(scratch)] == [".hidden"]


def test_removing_a_link_leaves_what_it_reads(device: Transport) -> None:
    with device.scratch() as scratch:
        device.write_bytes(f"{scratch}/kept/file", b"x")
        device.make_link("kept", f"{scratch}/link")
        device.remove(f"{scratch}/link")
        assert device.read_bytes(f"{scratch}/kept/file") == b"x"


def test_a_folder_is_a_lock(device: Transport) -> None:
    with device.scratch() as scratch:
        lock = f"{scratch}/a/lock"
        device.make_folder(lock, exist_ok=False)
        failing("device/exists", lambda: device.make_folder(lock, exist_ok=False), where=lock)
        device.make_folder(lock)
        failing("device/exists", lambda: device.make_link("x", lock), where=device.name)


def test_what_is_not_there_is_said(device: Transport, tmp_path: Path) -> None:
    with device.scratch() as scratch:
        none = f"{scratch}/none"
        assert device.entry(none) is None
        assert device.entry(f"{none}/below") is None
        failing("device/missing", lambda: device.pull(none, tmp_path / "x"), where=none)
        failing("device/missing", lambda: device.read_bytes(none), where=none)
        failing("device/missing", lambda: device.sha256(none), where=device.name)
        failing("device/missing", lambda: device.rename(none, f"{scratch}/x"), where=none)
        failing("device/missing", lambda: device.list_folder(none), where=none)
        failing("device/missing", lambda: device.read_link(none), where=none)
        failing("device/missing", lambda: device.sync(none), where=none)
        failing("device/missing", lambda: device.push(tmp_path / "never", f"{scratch}/x"), where="never")
        failing(
            "device/missing", lambda: device.exec(["no-such-command"], timeout_s=PATIENCE_S), where="no-such-command"
        )
        assert not (tmp_path / "x").exists()
        assert device.entry(f"{scratch}/x") is None


def test_free_space_is_asked_where_the_name_would_be(device: Transport) -> None:
    with device.scratch() as scratch:
        free = device.free_bytes(f"{scratch}/not/yet/there")
    assert 1 << 20 < free < 1 << 50
    assert device.home.startswith("/")


def test_python_runs_with_its_environment(device: Transport) -> None:
    if not _has_python(device):
        pytest.skip("this device has no Python")
    code = "import os, sys; sys.stdout.write(os.environ['EDGEC_TEST'] + sys.argv[1]); sys.exit(7)"
    with device.scratch():
        result = device.exec(
            [*device.python, "-c", code, AWKWARD], timeout_s=PATIENCE_S, env={"EDGEC_TEST": "it's $HOME;"}
        )
    assert (result.returncode, result.stdout.decode(), result.stderr) == (7, "it's $HOME;" + AWKWARD, "")
    result = device.exec([*device.python, "-c", "import os; os.abort()"], timeout_s=PATIENCE_S)
    assert result.returncode == -6


def test_output_is_bytes_and_errors_are_apart(shell: Transport) -> None:
    data = bytes(range(256)) * 300
    result = shell.exec(["sh", "-c", "cat; echo wrong >&2; exit 3"], timeout_s=PATIENCE_S, stdin=data)
    assert (result.returncode, result.stdout == data, result.stderr, result.timed_out) == (3, True, "wrong\n", False)


def test_arguments_arrive_as_they_are(shell: Transport) -> None:
    words = ["", AWKWARD, "-n", "a\nb", "--", "~", "%s"]
    result = shell.exec(["sh", "-c", 'printf "%s\\0" "$@"', "sh", *words], timeout_s=PATIENCE_S)
    assert result.stdout.decode().split("\0")[:-1] == words
    assert result.returncode == 0


def test_time_up_ends_a_command_with_its_children(shell: Transport) -> None:
    """The child would make its file three seconds later, were it still alive."""
    with shell.scratch() as scratch:
        script = '(sleep 3; echo late > "$1") & sleep 60'
        start = time.monotonic()
        result = shell.exec(["sh", "-c", script, "sh", f"{scratch}/late"], timeout_s=1.0)
        assert result.timed_out
        assert result.returncode == -9
        assert time.monotonic() - start < 60
        time.sleep(4)
        assert shell.entry(f"{scratch}/late") is None


def test_a_device_goes_on_after_it_was_closed(shell: Transport) -> None:
    shell.close()
    assert shell.exec(["sh", "-c", "echo again"], timeout_s=PATIENCE_S).stdout == b"again\n"


def _has_python(device: Transport) -> bool:
    try:
        return device.exec([*device.python, "-c", "pass"], timeout_s=PATIENCE_S).returncode == 0
    except EdgecError as error:
        assert error.code == "device/missing", error.render()
        return False
