"""`edgec devices` from the command line."""

from __future__ import annotations

import json
import platform
from pathlib import Path

import pytest

from edgec.cli.app import main
from edgec.errors import EXIT_CODES
from tools.devlab.sshd import Server

INVENTORY = """
[devices.here]
address = "local"
groups = ["lab"]

[devices.far]
address = "ssh:pi@127.0.0.1:{port}"
identity = "{identity}"
"""


def written(folder: Path, port: int = 9, identity: str = "") -> str:
    path = folder / "devices.toml"
    path.write_text(INVENTORY.format(port=port, identity=identity or folder))
    return str(path)


def test_list(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path = written(tmp_path)
    assert main(["devices", "list", "--inventory", path, "--json"]) == 0
    answer = json.loads(capfd.readouterr().out)
    assert [row["name"] for row in answer["devices"]] == ["here", "far"]
    assert answer["inventory"] == path
    assert set(answer["kinds"]) >= {"local", "ssh", "adb", "qemu"}
    assert main(["devices", "list", "--inventory", path, "--group", "lab"]) == 0
    shown = capfd.readouterr().out
    assert "here" in shown
    assert "far" not in shown


def test_without_an_inventory_it_says_where_one_would_be(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    assert main(["devices"]) == 0
    assert "devices.toml" in capfd.readouterr().out


def test_show(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["devices", "show", "far", "--inventory", written(tmp_path), "--json"]) == 0
    answer = json.loads(capfd.readouterr().out)
    assert answer["address"] == "ssh:pi@127.0.0.1:9"
    assert answer["options"] == {"identity": str(tmp_path)}


def test_probe_picks_a_profile(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["devices", "probe", "here", "--inventory", written(tmp_path), "--json"]) == 0
    (row,) = json.loads(capfd.readouterr().out)["devices"]
    assert row["facts"]["cpus"] >= 1
    assert row["target"]["name"] == row["target"]["fits"]


def test_probe_checks_a_profile(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    other = "raspberrypi4" if "x86" in platform.machine() else "linux-x86_64"
    arguments = ["devices", "probe", "here", "--target", other, "--inventory", written(tmp_path)]
    assert main(arguments) == EXIT_CODES["device"]
    assert "device/wrong-target" in capfd.readouterr().err


def test_one_device_that_fails_does_not_hide_the_others(
    sshd: Server, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path = written(tmp_path, sshd.port, str(sshd.identity))  # its host key is in no file
    assert main(["devices", "probe", "--inventory", path, "--json"]) == EXIT_CODES["device"]
    answer = json.loads(capfd.readouterr().out)
    assert [("facts" in row) for row in answer["devices"]] == [True, False]
    assert [f["code"] for f in answer["findings"] if f["severity"] == "error"] == ["device/host-key"]


def test_an_unknown_name_has_a_neighbour(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["devices", "probe", "hree", "--inventory", written(tmp_path)]) == EXIT_CODES["cli"]
    assert "did you mean 'here'" in capfd.readouterr().err


def test_validate_takes_a_name_of_the_inventory(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["validate", "none.edgec", "--device", "her", "--inventory", written(tmp_path)]) != 0
    assert "error[" in capfd.readouterr().err
