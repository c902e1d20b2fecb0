"""Rollouts over fifty local devices: canaries, failures that are allowed, kills and resumes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from edgec.devices.kinds.local import LocalDevice
from edgec.errors import EdgecError, Finding
from edgec.flash.fleet import Outcome, Policy, Rollout, roll_out
from edgec.flash.journal import Journal, read_journal
from edgec.flash.run import run_flash, run_rollback, run_status
from edgec.flash.session import Flashed, Options
from tests.support import flashing

FLEET = 50


@pytest.fixture
def lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An inventory of fifty devices, each a folder, in the group `lab`."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    names = [f"unit-{number:02d}" for number in range(FLEET)]
    entries = [f'[devices.{n}]\naddress = "local:{tmp_path}/{n}"\ngroups = ["lab"]\n' for n in names]
    path = tmp_path / "devices.toml"
    path.write_text("\n".join(entries))
    return path


def fleet(path: Path, lab: Path, **changes: Any) -> dict[str, Any]:
    options = {"group": "lab", "inventory": lab, "policy": Policy(parallel=4), "options": Options(runtime="never")}
    return run_flash(path, **{**options, **changes})


def running(lab: Path) -> list[str]:
    """What every device runs, every byte of it looked at."""
    return [flashing.running(LocalDevice(home=place)) for place in sorted(lab.parent.glob("unit-*"))]


def results(answer: dict[str, Any]) -> list[str]:
    return [outcome["result"] for outcome in answer["outcomes"]]


def test_a_good_release_reaches_all_and_a_bad_one_stops_after_the_canary(tmp_path: Path, lab: Path) -> None:
    good = fleet(flashing.pack(tmp_path / "good.edgec", version="good"), lab)
    assert good["counts"] == {"installed": FLEET}
    assert good["findings"] == []
    assert running(lab) == [good["digest"]] * FLEET
    before = {place: place.stat().st_mtime_ns for place in sorted(tmp_path.glob("unit-*/*"))}
    bad = fleet(flashing.pack(tmp_path / "bad.edgec", version="bad", agent=flashing.BAD_AGENT), lab)
    assert results(bad) == ["rejected"] + ["untouched"] * (FLEET - 1)
    assert bad["stopped"] == "a canary failed"
    assert [f["code"] for f in bad["findings"]] == ["flash/rollout-stopped", "validate/run-failed"]
    assert running(lab) == [good["digest"]] * FLEET
    touched = {p.parent.name for p, at in before.items() if p.stat().st_mtime_ns != at}
    assert touched == {"unit-00"}
    json.dumps(bad, allow_nan=False)


def test_a_killed_rollout_is_resumed_and_completed(tmp_path: Path, lab: Path) -> None:
    path = flashing.pack(tmp_path / "good.edgec")
    command = [sys.executable, "-m", "edgec.cli.app", "flash", str(path), "--group", "lab", "--inventory", str(lab)]
    command += ["--with-runtime", "never", "--parallel", "2", "--journal", str(tmp_path / "journal"), "--quiet"]
    process = subprocess.Popen(command, start_new_session=True)
    end = time.monotonic() + 300
    while time.monotonic() < end and process.poll() is None:
        if (tmp_path / "journal").exists() and (tmp_path / "journal").read_text().count('"event": "end"') >= 5:
            break
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    history = read_journal(tmp_path / "journal")
    assert history is not None
    done = set(history.ended)
    assert 5 <= len(done) < FLEET, "the kill came too late to mean anything"
    assert not history.finished
    answer = fleet(path, lab, journal=tmp_path / "journal", resume=True)
    assert {o["device"] for o in answer["outcomes"] if o["earlier"]} == done
    assert set(results(answer)) <= {"installed", "unchanged"}
    assert running(lab) == [answer["digest"]] * FLEET
    finished = read_journal(tmp_path / "journal")
    assert finished is not None
    assert finished.finished
    assert len(finished.ended) == FLEET


def test_status_and_rollback_of_a_group(tmp_path: Path, lab: Path) -> None:
    devices = ["unit-03", "unit-07"]
    a = fleet(flashing.pack(tmp_path / "a.edgec", version="a"), lab, group=None, devices=devices)
    b = fleet(flashing.pack(tmp_path / "b.edgec", version="b"), lab, group=None, devices=devices)
    assert results(b) == ["installed"] * 2
    back = run_rollback(devices=[*devices, "unit-09"], inventory=lab)
    assert [entry.get("running", entry.get("error")) for entry in back["devices"]] == [
        *([a["digest"]] * 2),
        "flash/no-previous",
    ]
    assert [(f["code"], f["where"]) for f in back["findings"]] == [("flash/no-previous", "unit-09")]
    status = run_status(devices=devices, inventory=lab, verify=True)
    assert [entry["running"] for entry in status["devices"]] == [a["digest"]] * 2
    assert [r["state"] for r in status["devices"][0]["releases"]] == ["running", "taken-back"]


def test_a_dry_run_of_many_touches_none(tmp_path: Path, lab: Path) -> None:
    wishes = Options(dry_run=True, runtime="never")
    devices = ["unit-01", "unit-02", "unit-03"]
    answer = fleet(flashing.pack(tmp_path / "a.edgec"), lab, group=None, devices=devices, options=wishes)
    assert [entry["result"] for entry in answer["devices"]] == ["planned"] * 3
    assert list(tmp_path.glob("unit-*/*")) == []


def test_resume_needs_a_journal_and_a_device_is_needed(tmp_path: Path, lab: Path) -> None:
    path = flashing.pack(tmp_path / "a.edgec")
    with pytest.raises(EdgecError) as none:
        fleet(path, lab, resume=True)
    assert none.value.code == "flash/no-journal"
    with pytest.raises(EdgecError) as nobody:
        fleet(path, lab, group=None)
    assert nobody.value.code == "cli/no-device"


# -------------------------------------------------------------------------------------- the policy alone


def flashed(name: str, result: str = "installed") -> Flashed:
    findings = () if result == "installed" else (Finding(code="flash/unhealthy", message="ill"),)
    return Flashed(
        device=name,
        root="/r",
        bundle="b",
        digest="d",
        result=result,
        running="",
        previous="",
        steps=(),
        health=None,
        findings=findings,
        seconds=0.0,
    )


def rolled(tmp_path: Path, bad: set[int], *, count: int = 20, seconds: float = 0.0, **policy: int) -> Rollout:
    """A rollout in which the devices behind the last bad one take some seconds."""

    def flash(name: str) -> Flashed:
        if int(name) > max(bad):
            time.sleep(seconds)
        return flashed(name, "rejected" if int(name) in bad else "installed")

    with Journal(tmp_path / "journal", resume=False) as journal:
        names = [str(number) for number in range(count)]
        return roll_out(names, flash, Policy(**policy), journal, bundle="b", digest="d")


def outcomes(rollout: Rollout, result: str) -> set[int]:
    return {int(outcome.device) for outcome in rollout.outcomes if outcome.result == result}


def test_failures_that_are_allowed_do_not_stop_it(tmp_path: Path) -> None:
    rollout = rolled(tmp_path, {5, 9}, canary=2, max_failures=2, parallel=4)
    assert not rollout.stopped
    assert outcomes(rollout, "rejected") == {5, 9}
    assert len(outcomes(rollout, "installed")) == 18
    assert [(f.code, f.severity, f.where) for f in rollout.findings] == [
        ("flash/unhealthy", "warning", "5"),
        ("flash/unhealthy", "warning", "9"),
    ]


def test_one_more_stops_it_and_what_runs_is_let_finish(tmp_path: Path) -> None:
    # the seconds are for a busy machine: a failure is counted when its thread gets its turn
    rollout = rolled(tmp_path, {3, 4, 5}, canary=1, max_failures=2, parallel=3, seconds=2.0)
    assert "3 devices" in rollout.stopped
    touched = outcomes(rollout, "installed") | outcomes(rollout, "rejected")
    assert {0, 1, 2, 3, 4, 5} <= touched
    assert len(touched) <= 9  # three at a time: at most two more were running
    assert all(finding.severity == "error" for finding in rollout.findings)


def test_without_canaries_all_are_alike(tmp_path: Path) -> None:
    assert not rolled(tmp_path, {0}, canary=0, max_failures=1).stopped
    assert rolled(tmp_path, {0}, canary=1, max_failures=1).stopped == "a canary failed"


def test_no_more_than_parallel_at_a_time(tmp_path: Path) -> None:
    busy, most, lock = 0, 0, threading.Lock()

    def flash(name: str) -> Flashed:
        nonlocal busy, most
        with lock:
            busy += 1
            most = max(most, busy)
        time.sleep(0.005)
        with lock:
            busy -= 1
        return flashed(name)

    with Journal(tmp_path / "journal", resume=False) as journal:
        names = [str(number) for number in range(30)]
        roll_out(names, flash, Policy(canary=0, parallel=3), journal, bundle="b", digest="d")
    assert most <= 3


def test_an_error_of_one_device_is_its_outcome_alone(tmp_path: Path) -> None:
    def flash(name: str) -> Flashed:
        if name == "1":
            raise EdgecError("device/lost", "the connection broke")
        if name == "2":
            raise RuntimeError("a bug")
        return flashed(name)

    with Journal(tmp_path / "journal", resume=False) as journal:
        rollout = roll_out(list("0123"), flash, Policy(canary=1, max_failures=2), journal, bundle="b", digest="d")
    codes = {outcome.device: outcome.code for outcome in rollout.outcomes}
    assert codes == {"0": "", "1": "device/lost", "2": "internal/unexpected", "3": ""}
    history = read_journal(tmp_path / "journal")
    assert history is not None
    assert history.ended["1"]["result"] == "failed"


def test_a_journal_cut_in_a_line_is_read_up_to_there(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    with Journal(path, resume=False) as journal:
        for device in ("a", "b"):
            journal.write("start", device=device)
            journal.write("end", device=device, result="installed")
    data = path.read_bytes()
    for cut in range(len(data) + 1):
        path.write_bytes(data[:cut])
        history = read_journal(path)
        assert history is not None
        assert set(history.ended) <= {"a", "b"}
    path.write_bytes(data[:-5])
    with Journal(path, resume=True) as journal:
        journal.write("end", device="c", result="installed")
    resumed = read_journal(path)
    assert resumed is not None
    assert set(resumed.ended) == {"a", "c"}


def test_a_file_that_is_no_journal_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    path.write_bytes(b"{}\n")
    with pytest.raises(EdgecError) as caught:
        read_journal(path)
    assert caught.value.code == "flash/bad-journal"
    assert read_journal(tmp_path / "none") is None


def test_outcomes_are_json(tmp_path: Path) -> None:
    answer = rolled(tmp_path, {7}, max_failures=1).as_dict()
    assert json.loads(json.dumps(answer))["counts"] == {"installed": 19, "rejected": 1}
    assert Outcome(**answer["outcomes"][7]).code == "flash/unhealthy"
