"""The systemd unit: what systemd itself says of it, what it takes away, and how it is installed."""

from __future__ import annotations

import configparser
import contextlib
import http.server
import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from edgec.service.install import install, write_unit
from edgec.service.problems import ServiceError
from edgec.service.unit import NAME, unit_text
from tests.support import serving
from tests.support.serving import PATIENCE_S


class _Unit(configparser.RawConfigParser):
    def optionxform(self, optionstr: str) -> str:
        return optionstr


def parsed(text: str) -> _Unit:
    unit = _Unit(strict=False, delimiters=("=",), comment_prefixes=("#",))
    unit.read_string(text)
    return unit


@pytest.mark.parametrize("engine", ["tflite", "openvino", "openvino:GPU"])
def test_it_takes_away_what_serving_does_not_need(engine: str) -> None:
    unit = parsed(unit_text("/opt/edgec", engine=engine))
    service = unit["Service"]
    assert service["Type"] == "notify"
    assert service["ExecStart"].startswith("/usr/bin/python3 /opt/edgec/current/serve.pyz serve --root /opt/edgec ")
    assert service["BindReadOnlyPaths"] == "/opt/edgec"
    assert service["CapabilityBoundingSet"] == ""
    hardened = ("DynamicUser", "NoNewPrivileges", "PrivateTmp", "LockPersonality", "RestrictNamespaces")
    assert {service[key] for key in hardened} == {"yes"}
    assert (service["ProtectSystem"], service["ProtectHome"]) == ("strict", "tmpfs")
    assert (service["IPAddressDeny"], service["IPAddressAllow"]) == ("any", "localhost")
    assert ("DeviceAllow=char-accel rw" in unit_text("/opt/edgec", engine=engine)) == engine.startswith("openvino:")
    assert ("PrivateDevices" in service) != engine.startswith("openvino:")
    assert unit["Install"]["WantedBy"] == "multi-user.target"


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed")
def test_systemd_knows_every_directive(tmp_path: Path) -> None:
    def complaints(text: str) -> list[str]:
        path = tmp_path / NAME
        path.write_text(text)
        done = subprocess.run(
            ["systemd-analyze", "verify", "--man=no", str(path)],
            capture_output=True,
            text=True,
            timeout=PATIENCE_S,
            check=False,
        )
        lines = (done.stdout + done.stderr).splitlines()
        return [line for line in lines if f"{NAME}:" in line and ("Unknown" in line or "Failed to parse" in line)]

    # The accelerator's form has the same lines and two more.
    text = unit_text("/opt/edgec", python=sys.executable, engine="openvino:GPU")
    assert complaints(text) == []
    assert complaints(unit_text("/opt/edgec").replace("PrivateTmp", "PrivateTemp")) != []


def test_a_written_unit_is_whole_and_written_once(tmp_path: Path) -> None:
    path = tmp_path / NAME
    assert write_unit(path, "a") is True
    assert write_unit(path, "a") is False
    assert write_unit(path, "b") is True
    assert [(p.name, p.read_text()) for p in tmp_path.iterdir()] == [(NAME, "b")]
    with pytest.raises(ServiceError, match="cannot be written"):
        write_unit(tmp_path / "none" / NAME, "a")


class _Answers:
    """Stands for the service that systemd would start: /readyz says what the test wants."""

    def __init__(self) -> None:
        self.said: dict[str, Any] = {}
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                body = json.dumps(outer.said).encode()
                self.send_response(200 if outer.said.get("ready") else 503)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: Any) -> None:
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.port = self.server.server_address[1]
        threading.Thread(target=self.server.serve_forever, daemon=True).start()


@pytest.fixture
def answers() -> Iterator[_Answers]:
    made = _Answers()
    with contextlib.closing(made.server.socket):
        yield made
        made.server.shutdown()


@pytest.fixture
def systemctl(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A systemctl that writes down what it was asked; `fails` beside it makes it fail."""
    tools = tmp_path / "tools"
    tools.mkdir()
    script = tools / "systemctl"
    script.write_text(
        f'#!/bin/sh\necho "$@" >> {tools}/asked\n'
        f'if [ -e {tools}/fails ] && [ "$1" = restart ]; then echo "Job failed." >&2; exit 1; fi\n'
    )
    script.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tools}{os.pathsep}{os.environ['PATH']}")
    return tools


def test_installed_once_and_only_told_afterwards(tmp_path: Path, systemctl: Path, answers: _Answers) -> None:
    root, units = tmp_path / "root", tmp_path / "units"
    units.mkdir()
    answers.said = {"ready": True, "release": serving.flash(root, serving.pack(tmp_path / "a.edgec")).digest}
    arguments: dict[str, Any] = {"units": units, "running": tmp_path, "port": answers.port}
    assert install(str(root), **arguments) == 0
    assert parsed((units / NAME).read_text())["Service"]["BindReadOnlyPaths"] == str(root)
    assert install(str(root), **arguments) == 0
    asked = (systemctl / "asked").read_text().splitlines()
    # A running service is told to look; a restart would drop requests.
    assert asked == [
        "daemon-reload", f"enable {NAME}", f"restart {NAME}", f"enable {NAME}", f"reload-or-restart {NAME}",
    ]  # fmt: skip


def test_what_stands_in_the_way_is_said(tmp_path: Path, systemctl: Path, answers: _Answers) -> None:
    root, units = tmp_path / "root", tmp_path / "units"
    units.mkdir()
    arguments: dict[str, Any] = {"units": units, "running": tmp_path, "port": answers.port}

    def code(where: str, **changes: Any) -> str:
        with pytest.raises(ServiceError) as caught:
            install(where, **{**arguments, **changes})
        return caught.value.code

    assert code(str(root), running=tmp_path / "none") == "no-systemd"
    assert code("/opt/a b") == "bad-root"
    assert code(str(tmp_path)) == "no-release"
    digest = serving.flash(root, serving.pack(tmp_path / "a.edgec")).digest
    (systemctl / "fails").touch()
    assert code(str(root)) == "systemctl"
    (systemctl / "fails").unlink()
    answers.said = {"ready": True, "release": "old", "problem": {"release": digest, "message": "the runtime died"}}
    with pytest.raises(ServiceError, match="the runtime died") as caught:
        install(str(root), **arguments)
    assert caught.value.code == "not-ready"


def test_flash_runs_the_releases_own_installer_and_goes_back_when_it_fails(tmp_path: Path) -> None:
    root = tmp_path / "root"
    script = b"import sys, os\nopen(os.environ['EDGEC_ROOT'] + '/asked', 'a').write(' '.join(sys.argv) + '\\n')\n"
    failing = script + b"sys.stderr.write('error[service/no-systemd]: systemd does not run here\\n')\nsys.exit(3)\n"
    first = serving.flash(root, serving.pack(tmp_path / "a.edgec", packaged={"serve.pyz": script}), service=True)
    assert first.result == "installed"
    installer = f"{root}/current/serve.pyz install --root {root}"
    assert (root / "asked").read_text().splitlines() == [installer]
    bad = serving.pack(tmp_path / "b.edgec", version="2", packaged={"serve.pyz": failing})
    second = serving.flash(root, bad, service=True)
    assert (second.result, second.running) == ("rejected", first.digest)
    assert "systemd does not run here" in " ".join(finding.message for finding in second.findings)
    # The old release's installer ran again, so that its service is the one that is told.
    assert (root / "asked").read_text().splitlines() == [installer] * 3


def test_the_bundle_brings_its_unit(tmp_path: Path) -> None:
    folder = serving.unpack(serving.pack(tmp_path / "a.edgec"), tmp_path / "a")
    assert (folder / NAME).read_text() == unit_text("/opt/edgec", engine="tflite")
    done = subprocess.run(
        [sys.executable, "-P", str(folder / "serve.pyz"), "unit", "--root", "/srv/x"],
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=True,
    )
    assert parsed(done.stdout)["Service"]["BindReadOnlyPaths"] == "/srv/x"
