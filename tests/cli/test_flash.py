"""`edgec flash`, `rollback` and `status` as a user runs them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from edgec.cli.app import main
from edgec.devices.kinds.local import LocalDevice
from tests.support import flashing

Text = pytest.CaptureFixture[str]


@pytest.fixture
def device(tmp_path: Path) -> str:
    return f"local:{tmp_path}/unit"


def asked(capfd: Text, *arguments: str) -> tuple[int, dict[str, Any]]:
    code = main([*arguments, "--json"])
    answer: dict[str, Any] = json.loads(capfd.readouterr().out)
    return code, answer


def test_flash_status_rollback(tmp_path: Path, device: str, capfd: Text) -> None:
    a, b = (str(flashing.pack(tmp_path / f"{v}.edgec", version=v)) for v in "ab")
    assert main(["flash", a, "--device", device]) == 0
    said = capfd.readouterr().err
    assert "installed" in said
    assert "announce the switch" in said
    code, flashed = asked(capfd, "flash", b, "--device", device)
    assert (code, flashed["result"]) == (0, "installed")
    assert flashed["health"]["goldens"] == 1
    code, status = asked(capfd, "status", "--device", device, "--verify")
    assert code == 0
    assert [(r["state"], r["whole"]) for r in status["releases"]] == [("running", True), ("good", None)]
    assert main(["status", "--device", device]) == 0
    assert status["running"][:12] in capfd.readouterr().out
    code, back = asked(capfd, "rollback", "--device", device)
    assert (code, back["result"], back["running"]) == (0, "rolled-back", status["previous"])
    assert main(["rollback", "--device", device]) == 13
    assert "flash/no-previous" in capfd.readouterr().err


def test_a_bad_release_exits_with_its_family(tmp_path: Path, device: str, capfd: Text) -> None:
    bad = str(flashing.pack(tmp_path / "bad.edgec", agent=flashing.BAD_AGENT))
    code, answer = asked(capfd, "flash", bad, "--device", device)
    assert (code, answer["result"], answer["running"]) == (13, "rejected", "")
    assert [f["code"] for f in answer["findings"]] == ["flash/unhealthy", "validate/run-failed"]


def test_dry_run_shows_each_step_and_why(tmp_path: Path, device: str, capfd: Text) -> None:
    path = str(flashing.pack(tmp_path / "a.edgec"))
    assert main(["flash", path, "--device", device, "--dry-run"]) == 0
    said = capfd.readouterr().err
    for word in ("planned", "upload", "settle", "goldens, latency and memory", "one rename", "confirm"):
        assert word in said
    assert not (tmp_path / "unit").exists()


def test_a_trust_key_refuses_what_it_has_not_signed(
    tmp_path: Path, device: str, capfd: Text, monkeypatch: pytest.MonkeyPatch
) -> None:
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    key = Ed25519PrivateKey.from_private_bytes(b"k" * 32)
    private, public = tmp_path / "private.pem", tmp_path / "public.pem"
    private.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    public.write_bytes(
        key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    )
    plain = str(flashing.pack(tmp_path / "plain.edgec"))
    signed = str(flashing.pack(tmp_path / "signed.edgec", sign_key=private))
    monkeypatch.setenv("EDGEC_TRUST_KEY", str(public))
    code, refused = asked(capfd, "flash", plain, "--device", device)
    assert (code, refused["error"]["code"]) == (11, "bundle/unsigned")
    assert not (tmp_path / "unit").exists()
    code, taken = asked(capfd, "flash", signed, "--device", device)
    assert (code, taken["result"]) == (0, "installed")


def test_a_rollout_is_a_row_each(tmp_path: Path, capfd: Text, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    path = str(flashing.pack(tmp_path / "a.edgec"))
    devices = [option for n in range(3) for option in ("--device", f"local:{tmp_path}/unit-{n}")]
    assert main(["flash", path, *devices]) == 0
    said = capfd.readouterr().err
    assert "3 installed" in said
    assert said.count(f"local:{tmp_path}/unit-") == 3
    assert {flashing.running(LocalDevice(home=tmp_path / f"unit-{n}")) for n in range(3)} != {""}
    assert main(["status", *devices]) == 0
    assert capfd.readouterr().out.count("tiny") == 3


def test_no_device_is_a_usage_error(tmp_path: Path, capfd: Text) -> None:
    code, answer = asked(capfd, "flash", str(flashing.pack(tmp_path / "a.edgec")))
    assert (code, answer["error"]["code"]) == (2, "cli/no-device")
