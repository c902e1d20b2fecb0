"""Private environments: made whole or not at all, found again, outdated when their list changes."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest

from edgec.errors import EdgecError
from edgec.frontends import _environments as environments
from edgec.report import doctor

NAME = "tensorflow"


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty home, a list of its own, and a pip that only makes the interpreter's place."""
    lists = tmp_path / "lists"
    lists.mkdir()
    for source in environments._LISTS.glob("*.txt"):
        shutil.copy(source, lists)

    def run(argv: list[str], name: str) -> None:
        if "venv" in argv:
            python = Path(argv[-1]) / "bin" / "python"
            python.parent.mkdir(parents=True)
            python.write_text("")

    monkeypatch.setattr(environments, "_LISTS", lists)
    monkeypatch.setattr(environments, "_run", run)
    monkeypatch.setattr(environments, "_fits", lambda names, lowest: False)
    monkeypatch.setenv("EDGEC_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def test_from_missing_to_installed_to_outdated(home: Path) -> None:
    assert environments.state_of(NAME) == "missing"
    assert environments.install(NAME) == home / "envs" / NAME
    assert environments.state_of(NAME) == "installed"
    assert environments.python_of(NAME, where="m") == (str(home / "envs" / NAME / "bin" / "python"),)
    with (environments._LISTS / f"{NAME}.txt").open("a") as file:
        file.write("another==1\n")
    assert environments.state_of(NAME) == "outdated"
    with pytest.raises(EdgecError) as caught:
        environments.python_of(NAME, where="m")
    assert "another version of edgec" in str(caught.value)
    environments.install(NAME)
    assert environments.state_of(NAME) == "installed"
    assert [p.name for p in (home / "envs").iterdir()] == [NAME]


def test_a_failure_leaves_what_was(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    environments.install(NAME)
    (home / "envs" / NAME / "kept").write_text("")
    with (environments._LISTS / f"{NAME}.txt").open("a") as file:
        file.write("another==1\n")

    def fail(argv: list[str], name: str) -> None:
        raise EdgecError("env/install-failed", "no network")

    monkeypatch.setattr(environments, "_run", fail)
    with pytest.raises(EdgecError):
        environments.install(NAME)
    assert (home / "envs" / NAME / "kept").exists()
    assert [p.name for p in (home / "envs").iterdir()] == [NAME]


def test_pips_last_words_are_told() -> None:
    with pytest.raises(EdgecError) as caught:
        environments._run([sys.executable, "-c", "print('no such wheel'); raise SystemExit(3)"], NAME)
    assert caught.value.code == "env/install-failed"
    assert "no such wheel" in caught.value.finding.hint


def test_unknown_names_get_a_suggestion() -> None:
    with pytest.raises(EdgecError) as caught:
        doctor.set_up("tensorflo")
    assert caught.value.code == "cli/unknown-environment"
    assert "tensorflow" in caught.value.finding.hint


def test_doctor_lists_them(home: Path) -> None:
    rows = {row["environment"]: row for row in environments.describe()}
    assert set(rows) == set(environments.ENVIRONMENTS)
    assert "edgec doctor --install tensorflow" in rows[NAME]["place"]
    assert doctor.set_up(NAME)["folder"] == str(home / "envs" / NAME)
    assert {row["environment"]: row["state"] for row in environments.describe()}[NAME] == "installed"


def test_what_fits_beside_edgec_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(environments, "_fits", lambda names, lowest: True)
    assert environments.python_of(NAME, where="m") == (sys.executable,)


@pytest.mark.parametrize(("lowest", "fits"), [("1.0", True), ("999", False)])
def test_versions_are_compared_as_numbers(lowest: str, fits: bool) -> None:
    assert environments._fits("no-such-package|numpy", lowest) is fits
    assert not environments._fits("no-such-package", "0")


def test_every_environment_has_its_list() -> None:
    for name in environments.ENVIRONMENTS:
        lines = (environments._LISTS / f"{name}.txt").read_text().splitlines()
        assert all("==" in line for line in lines if line and not line.startswith("#"))
