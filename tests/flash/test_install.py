"""Flash a real folder of this machine with a real Python: installed, checked, refused, rolled back."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from edgec.bundle.open import open_bundle
from edgec.devices.base import Facts
from edgec.devices.kinds.local import LocalDevice
from edgec.errors import EdgecError
from edgec.flash.install import flash_bundle
from edgec.flash.rollback import roll_back
from edgec.flash.session import Flashed, Options
from edgec.flash.status import read_status
from tests.support import flashing
from tests.support import tiny_bundles as tiny

FACTS = replace(
    flashing.FACTS,
    python=".".join(map(str, sys.version_info[:3])),
    packages={"ai-edge-litert": "2.3.0", "numpy": "2.0"},
)


@pytest.fixture
def device(tmp_path: Path) -> LocalDevice:
    return LocalDevice(name="bench", home=tmp_path / "root", temporary=tmp_path / "root" / "tmp")


def flash(device: LocalDevice, path: Path, facts: Facts = FACTS, **options: Any) -> Flashed:
    with open_bundle(path) as bundle:
        return flash_bundle(bundle, device, Options(**options), facts=facts)


def codes(result: Flashed) -> list[str]:
    return [finding.code for finding in result.findings]


def test_the_real_runtime_runs_the_goldens_there(tmp_path: Path, device: LocalDevice) -> None:
    path = tiny.pack(tmp_path / "x.edgec", tiny.tflite_artifact(int8=True))
    result = flash(device, path)
    assert result.result == "installed"
    assert result.passed
    assert codes(result) == []
    assert result.health is not None
    assert result.health.runtime.startswith("ai-edge-litert ")
    assert result.health.goldens == 2
    assert result.health.median_ms is not None
    assert result.health.median_ms > 0
    assert flashing.running(device) == result.digest == result.running
    status = read_status(device, verify=True)
    (release,) = status["releases"]
    assert (release["state"], release["whole"], release["name"]) == ("running", True, "tiny")
    assert release["runtime"].startswith("ai-edge-litert ")
    json.dumps(result.as_dict(), allow_nan=False)


def test_flash_again_changes_nothing(tmp_path: Path, device: LocalDevice) -> None:
    path = flashing.pack(tmp_path / "a.edgec")
    flash(device, path)
    again = flash(device, path)
    assert again.result == "unchanged"
    assert [step.act for step in again.steps] == ["verify", "check"]


def test_dry_run_touches_nothing_and_says_every_step(tmp_path: Path, device: LocalDevice) -> None:
    result = flash(device, flashing.pack(tmp_path / "a.edgec"), dry_run=True)
    assert result.result == "planned"
    assert [step.act for step in result.steps] == ["upload", "settle", "check", "record", "switch", "confirm", "record"]
    assert all(step.why for step in result.steps)
    assert not Path(device.home).exists()


def test_wrong_numbers_on_the_device_are_not_switched_to(tmp_path: Path, device: LocalDevice) -> None:
    good = flash(device, flashing.pack(tmp_path / "a.edgec"))
    artifact = tiny.tflite_artifact()
    wrong = [replace(g, reference_outputs={"y": g.reference_outputs["y"] * 2}) for g in tiny.goldens(artifact)]
    result = flash(device, tiny.pack(tmp_path / "b.edgec", artifact, goldens=wrong))
    assert result.result == "rejected"
    assert not result.passed
    assert codes(result)[:2] == ["flash/unhealthy", "validate/disagreement"]
    assert flashing.running(device) == good.digest
    assert len(read_status(device)["releases"]) == 1


def test_an_agent_that_crashes_is_unhealthy(tmp_path: Path, device: LocalDevice) -> None:
    result = flash(device, flashing.pack(tmp_path / "a.edgec", agent=b"import os; os.abort()"))
    assert codes(result) == ["flash/unhealthy", "validate/runtime-crashed"]
    assert flashing.running(device) == ""


def test_limits_of_user_and_emulator(tmp_path: Path, device: LocalDevice) -> None:
    path = flashing.pack(tmp_path / "a.edgec")  # its agent says 2 ms and 1 MiB
    slow = flash(device, path, latency_ms=1.0)
    assert codes(slow) == ["flash/unhealthy", "flash/too-slow"]
    large = flash(device, path, memory_bytes=1 << 19)
    assert codes(large) == ["flash/unhealthy", "flash/too-much-memory"]
    emulated = flash(device, path, replace(FACTS, emulated="qemu-user"), latency_ms=1.0)
    assert emulated.result == "installed"
    assert [(f.code, f.severity) for f in emulated.findings] == [("flash/too-slow", "info")]


def test_a_device_without_python_gets_files_and_a_warning(tmp_path: Path, device: LocalDevice) -> None:
    result = flash(device, flashing.pack(tmp_path / "a.edgec"), replace(FACTS, python="", packages={}))
    assert result.result == "installed"
    assert result.health is not None
    assert not result.health.checked
    assert codes(result) == ["flash/no-python", "flash/unchecked"]


def test_a_command_that_fails_after_the_switch_takes_it_back(tmp_path: Path, device: LocalDevice) -> None:
    log = tmp_path / "log"
    script = f'readlink "$EDGEC_ROOT/current" >> {log}; [ "$EDGEC_DIGEST" = "$GOOD" ]'
    first = flash(device, flashing.pack(tmp_path / "a.edgec", version="a"))
    hook = ("env", f"GOOD={first.digest}", "sh", "-c", script)
    result = flash(device, flashing.pack(tmp_path / "b.edgec", version="b"), hook=hook)
    assert result.result == "rejected"
    assert codes(result) == ["flash/unconfirmed", "flash/hook-failed"]
    assert flashing.running(device) == first.digest == result.running
    # It saw the new release, and then the one that is back.
    assert log.read_text().split() == [f"releases/{result.digest}", f"releases/{first.digest}"]
    missing = flash(device, flashing.pack(tmp_path / "b.edgec", version="b"), hook=("no-such-command",))
    assert codes(missing) == ["flash/unconfirmed", "flash/hook-failed", "flash/hook-failed"]
    assert flashing.running(device) == first.digest


def test_rollback_and_its_refusals(tmp_path: Path, device: LocalDevice) -> None:
    with pytest.raises(EdgecError) as none:
        roll_back(device, Options())
    assert none.value.code == "flash/no-previous"
    a, b, c = (flash(device, flashing.pack(tmp_path / f"{v}.edgec", version=v), keep=3).digest for v in "abc")
    planned = roll_back(device, Options(dry_run=True))
    assert planned.result == "planned"
    assert flashing.running(device) == c
    back = roll_back(device, Options())
    assert (back.result, back.running, back.previous, back.bundle) == ("rolled-back", b, a, "tiny")
    told = roll_back(device, Options(hook=("sh", "-c", 'test "$EDGEC_DIGEST" = other')), to=c[:6])
    assert (told.running, told.passed, codes(told)) == (c, False, ["flash/hook-failed"])
    with pytest.raises(EdgecError) as unknown:
        roll_back(device, Options(), to="zz")
    assert unknown.value.code == "flash/no-previous"
    model = Path(device.home, "releases", a, "model.tflite")
    model.write_bytes(model.read_bytes()[:-1] + b"!")
    with pytest.raises(EdgecError) as damaged:
        roll_back(device, Options(), to=a)
    assert damaged.value.code == "flash/damaged-release"
    assert flashing.running(device) == c


def test_a_damaged_running_release_is_replaced(tmp_path: Path, device: LocalDevice) -> None:
    path = flashing.pack(tmp_path / "a.edgec")
    digest = flash(device, path).digest
    Path(device.home, "releases", digest, "run.sh").write_bytes(b"rot")
    status = read_status(device, verify=True)
    assert [f["code"] for f in status["findings"]] == ["flash/damaged-release"]
    assert flash(device, path).running == f"{digest}.2"
    assert flashing.running(device) == digest
    assert read_status(device, verify=True)["findings"] == []


def test_a_cut_upload_is_continued(tmp_path: Path, device: LocalDevice, monkeypatch: pytest.MonkeyPatch) -> None:
    model = bytes(range(256)) * 4096
    path = flashing.pack(tmp_path / "a.edgec", artifact=replace(flashing.artifact(), files={"model.tflite": model}))
    push = LocalDevice.push

    def half(self: LocalDevice, local: Path, remote: str, *, resume: bool = False) -> None:
        if local.name == "model.tflite":
            Path(remote).write_bytes(local.read_bytes()[: 1 << 19])
            raise EdgecError("device/lost", "cut")
        push(self, local, remote, resume=resume)

    monkeypatch.setattr(LocalDevice, "push", half)
    with pytest.raises(EdgecError):
        flash(device, path)
    monkeypatch.setattr(LocalDevice, "push", push)
    (part,) = Path(device.home, "incoming", "releases").glob("*/model.tflite")
    node = part.stat().st_ino
    result = flash(device, path)
    whole = Path(device.home, "releases", result.digest, "model.tflite")
    assert whole.read_bytes() == model
    assert whole.stat().st_ino == node  # the half that was there was kept


def test_bytes_of_another_attempt_are_replaced(tmp_path: Path, device: LocalDevice) -> None:
    path = flashing.pack(tmp_path / "a.edgec")
    with open_bundle(path) as bundle:
        part = Path(device.home, "incoming", "releases", bundle.digest, "model.tflite")
    part.parent.mkdir(parents=True)
    part.write_bytes(b"something else")
    assert flash(device, path).result == "installed"
    flashing.running(device)


def test_bytes_that_arrive_wrong_twice_are_refused(
    tmp_path: Path, device: LocalDevice, monkeypatch: pytest.MonkeyPatch
) -> None:
    good = flash(device, flashing.pack(tmp_path / "a.edgec", version="a")).digest
    push = LocalDevice.push

    def rots(self: LocalDevice, local: Path, remote: str, *, resume: bool = False) -> None:
        push(self, local, remote, resume=resume)
        model = Path(remote, "model.tflite") if local.is_dir() else Path(remote)
        model.write_bytes(model.read_bytes()[:-1] + b"!")

    monkeypatch.setattr(LocalDevice, "push", rots)
    with pytest.raises(EdgecError) as caught:
        flash(device, flashing.pack(tmp_path / "b.edgec", version="b"))
    assert caught.value.code == "flash/damaged-upload"
    assert "model.tflite" in str(caught.value)
    monkeypatch.undo()
    assert flashing.running(device) == good


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"arch": "aarch64"}, "flash/wrong-architecture"),
        ({"system": "Darwin"}, "flash/wrong-system"),
        ({"memory_free_bytes": 1 << 20}, "flash/no-memory"),
        ({"packages": {"ai-edge-litert": "0.9.1", "numpy": "2.0"}}, "flash/runtime-too-old"),
        ({"packages": {}}, "flash/runtime-missing"),
    ],
)
def test_refused_before_anything_is_touched(
    tmp_path: Path, device: LocalDevice, changes: dict[str, Any], code: str
) -> None:
    path = flashing.pack(tmp_path / "a.edgec", artifact=tiny.tflite_artifact())
    with pytest.raises(EdgecError) as caught:
        flash(device, path, replace(FACTS, **changes), runtime="never")
    assert caught.value.code == code
    assert caught.value.finding.hint
    assert not Path(device.home).exists()


def test_no_space_is_refused_before_anything_is_touched(
    tmp_path: Path, device: LocalDevice, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(LocalDevice, "free_bytes", lambda _self, _remote: 1 << 20)
    with pytest.raises(EdgecError) as caught:
        flash(device, flashing.pack(tmp_path / "a.edgec"))
    assert caught.value.code == "flash/no-space"
    assert not Path(device.home).exists()


def test_a_current_that_edgec_did_not_make_is_left_alone(tmp_path: Path, device: LocalDevice) -> None:
    mine = Path(device.home, "current")
    mine.mkdir(parents=True)
    with pytest.raises(EdgecError) as caught:
        flash(device, flashing.pack(tmp_path / "a.edgec"))
    assert caught.value.code == "flash/foreign-root"
    assert list(Path(device.home).iterdir()) == [mine]


def test_a_relative_root_and_a_newer_record_are_refused(tmp_path: Path, device: LocalDevice) -> None:
    path = flashing.pack(tmp_path / "a.edgec")
    with pytest.raises(EdgecError) as relative:
        flash(device, path, root="opt")
    assert relative.value.code == "flash/bad-root"
    flash(device, path)
    record = Path(device.home, "state.json")
    record.write_text(json.dumps({**json.loads(record.read_text()), "schema_version": 2}))
    with pytest.raises(EdgecError) as newer:
        flash(device, path)
    assert newer.value.code == "flash/unknown-version"
    record.write_text("{ not json")
    assert flash(device, path).result == "unchanged"  # a lost record is made anew from what is there
    assert read_status(device)["findings"] == []


def test_another_root_on_the_same_device(tmp_path: Path, device: LocalDevice) -> None:
    path = flashing.pack(tmp_path / "a.edgec")
    result = flash(device, path, root=str(tmp_path / "elsewhere"))
    assert flashing.running(device, str(tmp_path / "elsewhere")) == result.digest
    assert not Path(device.home, "current").exists()
