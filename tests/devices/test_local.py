"""This machine as a device."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import pytest

from edgec.devices.open import device_kinds, open_device
from edgec.errors import EdgecError


def test_devices_are_listed_without_importing_and_opened_by_name() -> None:
    assert "local" in device_kinds()
    assert open_device("local").name == "local"


@pytest.mark.parametrize(("spec", "code"), [("locl", "cli/unknown-device"), ("locl:there", "cli/unknown-device")])
def test_unknown_devices_are_clean_errors(spec: str, code: str) -> None:
    with pytest.raises(EdgecError) as caught:
        open_device(spec)
    assert caught.value.code == code


def test_exec_returns_output_and_exit_code() -> None:
    device = open_device("local")
    script = "import sys; print('out'); print('err', file=sys.stderr); sys.exit(4)"
    result = device.exec([*device.python, "-c", script], timeout_s=60)
    assert (result.returncode, result.stdout, result.stderr, result.timed_out) == (4, b"out\n", "err\n", False)


def test_exec_reports_signals_as_negative_codes() -> None:
    result = open_device("local").exec([sys.executable, "-c", "import os; os.abort()"], timeout_s=60)
    assert result.returncode == -6


def test_timeout_ends_the_command_and_its_children(tmp_path: Path) -> None:
    """The child would write its file after the time is up, were it still alive."""
    mark = tmp_path / "alive"
    child = f"import time, pathlib; time.sleep(3); pathlib.Path({str(mark)!r}).touch()"
    script = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {child!r}])"
    start = time.perf_counter()
    result = open_device("local").exec([sys.executable, "-c", script], timeout_s=1.0)
    assert result.timed_out
    assert result.returncode == -9
    assert time.perf_counter() - start < 3
    time.sleep(max(0.0, 4.0 - (time.perf_counter() - start)))
    assert not mark.exists()


def test_missing_command_is_a_clean_error() -> None:
    with pytest.raises(EdgecError) as caught:
        open_device("local").exec(["/does/not/exist"], timeout_s=5)
    assert caught.value.code == "device/missing"


def test_push_pull_rename_sync(tmp_path: Path) -> None:
    device = open_device("local")
    source = tmp_path / "source"
    (source / "deep").mkdir(parents=True)
    (source / "deep" / "file").write_bytes(b"content")
    with device.scratch() as scratch:
        device.push(source, f"{scratch}/copy")
        device.push(source / "deep" / "file", f"{scratch}/new/place/file")
        (Path(scratch) / "old").write_bytes(b"old")
        device.rename(f"{scratch}/new/place/file", f"{scratch}/old")
        device.sync(f"{scratch}/old")
        device.pull(f"{scratch}/old", tmp_path / "back")
        device.pull(f"{scratch}/copy", tmp_path / "folder")
        assert not Path(scratch, "new/place/file").exists()
    assert (tmp_path / "back").read_bytes() == b"content"
    assert (tmp_path / "folder" / "deep" / "file").read_bytes() == b"content"
    assert not Path(scratch).exists()


def test_file_operations_fail_cleanly(tmp_path: Path) -> None:
    device = open_device("local")
    none = tmp_path / "none"
    for action in (
        lambda: device.push(none, str(tmp_path / "x")),
        lambda: device.pull(str(none), tmp_path / "x"),
        lambda: device.rename(str(none), str(tmp_path / "x")),
        lambda: device.sync(str(none)),
    ):
        with pytest.raises(EdgecError) as caught:
            action()
        assert caught.value.code == "device/missing"
        assert str(none) in caught.value.finding.where
