"""The runtime that travels: fetched for the device, sent once, shared by releases, verified, and collected."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from edgec.bundle.open import open_bundle
from edgec.devices.kinds.local import LocalDevice
from edgec.errors import EdgecError
from edgec.flash import install, wheels
from edgec.flash.install import flash_bundle
from edgec.flash.session import ON_DEVICE, Flashed, Options
from edgec.flash.wheels import RuntimeArchive, fetch_runtime
from tests.support import flashing
from tests.support import tiny_bundles as tiny

FACTS = replace(flashing.FACTS, python=".".join(map(str, sys.version_info[:3])), packages={})
#: Runs only where the package that travels can be imported.
AGENT = flashing.QUICK_AGENT.replace(b"import json,", b"import edgec_travelling, json,")


def site(folder: Path, version: str = "1") -> Path:
    """A folder of packages, as pip leaves it."""
    for name, text in {
        "edgec_travelling/__init__.py": f"VERSION = {version!r}\n",
        "edgec_travelling/deep/er.py": "",
        "edgec_travelling-1.0.dist-info/METADATA": "Name: edgec-travelling\n",
        "edgec_travelling/__pycache__/x.pyc": "stale",
        "bin/tool": "#!/bin/sh\n",
    }.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder


@pytest.fixture
def device(tmp_path: Path) -> LocalDevice:
    return LocalDevice(name="bench", home=tmp_path / "root")


@pytest.fixture
def archive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RuntimeArchive:
    """What would have been fetched."""
    made = wheels._archive(site(tmp_path / "site"), tmp_path / "cache")
    monkeypatch.setattr(install, "fetch_runtime", lambda *_args, **_options: made)
    return made


def flash(device: LocalDevice, tmp_path: Path, version: str, **options: Any) -> Flashed:
    path = flashing.pack(tmp_path / f"{version}.edgec", version=version, artifact=tiny.tflite_artifact(), agent=AGENT)
    with open_bundle(path) as bundle:
        return flash_bundle(bundle, device, Options(**options), facts=FACTS)


def runtimes(device: LocalDevice) -> set[str]:
    return {path.name for path in Path(device.home, "runtimes").iterdir()}


def test_it_is_sent_once_and_the_agent_finds_it(tmp_path: Path, device: LocalDevice, archive: RuntimeArchive) -> None:
    first = flash(device, tmp_path, "a")
    assert first.result == "installed", first.findings
    assert first.running == f"{first.digest}-{archive.digest}"
    second = flash(device, tmp_path, "b")
    assert second.result == "installed", second.findings
    assert [s.path.partition("/")[0] for s in second.steps if s.act in ("upload", "verify")] == ["runtimes", "releases"]
    assert runtimes(device) == {archive.digest}
    assert flashing.running(device) == second.digest
    # The bundle's own script uses it too, from wherever it is called.
    script = f"{device.home}/current/run.sh"
    done = subprocess.run(["sh", script, "check"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_a_damaged_runtime_is_sent_again_beside_itself(
    tmp_path: Path, device: LocalDevice, archive: RuntimeArchive
) -> None:
    flash(device, tmp_path, "a")
    Path(device.home, "runtimes", archive.digest, "edgec_travelling", "__init__.py").write_text("VERSION = '1' \n")
    result = flash(device, tmp_path, "b")
    assert result.running == f"{result.digest}-{archive.digest}.2"
    assert f"{archive.digest}.2" in runtimes(device)
    assert flashing.running(device) == result.digest


def test_a_runtime_that_no_release_needs_is_removed(
    tmp_path: Path, device: LocalDevice, archive: RuntimeArchive, monkeypatch: pytest.MonkeyPatch
) -> None:
    flash(device, tmp_path, "a")
    newer = wheels._archive(site(tmp_path / "site2", version="2"), tmp_path / "cache2")
    monkeypatch.setattr(install, "fetch_runtime", lambda *_args, **_options: newer)
    flash(device, tmp_path, "b")
    assert runtimes(device) == {archive.digest, newer.digest}
    flash(device, tmp_path, "c")
    flash(device, tmp_path, "d")
    assert runtimes(device) == {newer.digest}


def test_never_refuses_where_it_is_missing(tmp_path: Path, device: LocalDevice, archive: RuntimeArchive) -> None:
    with pytest.raises(EdgecError) as caught:
        flash(device, tmp_path, "a", runtime="never")
    assert caught.value.code == "flash/runtime-missing"
    assert not Path(device.home).exists()


def test_what_cannot_be_unpacked_changes_nothing(
    tmp_path: Path, device: LocalDevice, archive: RuntimeArchive, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = replace(archive, digest="0" * 16)
    monkeypatch.setattr(install, "fetch_runtime", lambda *_args, **_options: broken)
    with pytest.raises(EdgecError) as caught:
        flash(device, tmp_path, "a")
    assert caught.value.code == "flash/runtime-unpack"
    assert not Path(device.home, "current").exists()


def test_the_archive_depends_on_what_is_in_it_alone(tmp_path: Path) -> None:
    one = wheels._archive(site(tmp_path / "a"), tmp_path / "1")
    other = wheels._archive(site(tmp_path / "b"), tmp_path / "2")
    assert one.path.read_bytes() == other.path.read_bytes()
    assert one.digest == other.digest
    assert one.packages == {"edgec-travelling": "1.0"}
    assert wheels._archive(site(tmp_path / "c", version="2"), tmp_path / "3").digest != one.digest


def test_the_device_computes_the_same_digest(tmp_path: Path, device: LocalDevice) -> None:
    made = wheels._archive(site(tmp_path / "a"), tmp_path / "1")
    command = [*device.python, "-", "unpack", str(made.path), str(tmp_path / "there")]
    assert device.exec(command, timeout_s=60, stdin=ON_DEVICE).stdout.decode().strip() == made.digest
    (tmp_path / "there" / "extra").write_text("")
    digest = device.exec([*device.python, "-", "digest", str(tmp_path / "there")], timeout_s=60, stdin=ON_DEVICE)
    assert digest.stdout.decode().strip() != made.digest


class Pip:
    """Stands for pip: installs the package for versions that it knows."""

    def __init__(self, *known: str) -> None:
        self.known = known
        self.commands: list[list[str]] = []

    def __call__(self, command: list[str], **_options: Any) -> subprocess.CompletedProcess[str]:
        self.commands.append(command)
        if self.known and not any(wanted in command for wanted in self.known):
            return subprocess.CompletedProcess(command, 1, "", "noise\nERROR: No matching distribution found\n")
        site(Path(command[command.index("--target") + 1]))
        return subprocess.CompletedProcess(command, 0, "", "")


def fetched(tmp_path: Path, facts: Any = FACTS) -> RuntimeArchive:
    return fetch_runtime({"no-such-runtime": "1.0"}, facts, preferred={"no-such-runtime": "1.5"}, cache=tmp_path / "c")


def test_the_preferred_version_then_any_and_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pip = Pip("no-such-runtime>=1.0")
    monkeypatch.setattr(subprocess, "run", pip)
    facts = replace(FACTS, python="3.9.2", arch="aarch64", libc="glibc 2.31")
    made = fetched(tmp_path, facts)
    assert [next(w for w in c if w.startswith("no-such")) for c in pip.commands] == [
        "no-such-runtime==1.5",
        "no-such-runtime>=1.0",
    ]
    command = pip.commands[-1]
    assert command[command.index("--python-version") + 1] == "3.9"
    assert "cp39" in command
    assert "manylinux_2_31_aarch64" in command
    assert "manylinux_2_34_aarch64" not in command
    again = Pip()
    monkeypatch.setattr(subprocess, "run", again)
    made.path.write_bytes(b"damaged in the cache")
    assert fetched(tmp_path, facts).digest == made.digest
    assert len(again.commands) == 1  # it was not taken for good
    assert fetched(tmp_path, facts).digest == made.digest
    assert len(again.commands) == 1


def test_no_wheel_says_what_pip_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subprocess, "run", Pip("nothing"))
    with pytest.raises(EdgecError) as caught:
        fetched(tmp_path)
    assert caught.value.code == "flash/no-wheel"
    assert "No matching distribution found" in str(caught.value)
    assert "glibc 2.36" in str(caught.value)


def test_no_pip_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _name: None)
    with pytest.raises(EdgecError) as caught:
        fetched(tmp_path)
    assert caught.value.code == "flash/no-pip"
