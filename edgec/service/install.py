"""Install the service on this device: write its unit, start it, and wait until it answers with the release.

What `edgec flash --service` runs after the switch: when this fails, the device goes back to the release before.
A service that runs already is told to look (SIGHUP), not restarted: no request is dropped.
"""

from __future__ import annotations

import http.client
import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from edgec.service.problems import ServiceError
from edgec.service.release import Release, find
from edgec.service.unit import NAME, unit_text

UNITS = Path("/etc/systemd/system")
RUNNING = Path("/run/systemd/system")
PORT = 8093
_WAIT_S = 100.0
_PLAIN = re.compile(r"/[A-Za-z0-9._+/-]*\Z")


def install(root: str, *, units: Path = UNITS, running: Path = RUNNING, port: int = PORT) -> int:
    """0 when the service answers with the release of `root`. Raises ServiceError."""
    if not running.is_dir():
        hint = "start `serve.pyz serve --root ROOT` by what this system uses instead"
        raise ServiceError(503, "no-systemd", "systemd does not run on this device", hint)
    if not _PLAIN.match(root):
        raise ServiceError(503, "bad-root", f"{root!r} cannot stand in a unit: letters, digits and ._+-/ only")
    release = Release(find(Path(root)))
    if os.geteuid() != 0 and units == UNITS:
        return _as_root(root)
    changed = write_unit(units / NAME, unit_text(root, python=sys.executable, port=port, engine=release.engine))
    if changed:
        _systemctl("daemon-reload")
    _systemctl("enable", NAME)
    _systemctl("restart" if changed else "reload-or-restart", NAME)
    wait_until_answering(release.digest, port, _WAIT_S)
    return 0


def write_unit(path: Path, text: str) -> bool:
    """True when that changed the file, which is the old one or the new one at any time."""
    try:
        if path.is_file() and path.read_text(encoding="utf-8") == text:
            return False
        new = path.with_name(f".{path.name}.new")
        with new.open("w", encoding="utf-8") as stream:
            stream.write(text)
            stream.flush()
            os.fsync(stream.fileno())
        new.chmod(0o644)
        new.replace(path)
    except OSError as error:
        raise ServiceError(503, "not-writable", f"{path} cannot be written: {error}") from error
    return True


def wait_until_answering(digest: str, port: int, timeout_s: float) -> None:
    """Until /readyz names the release. Raises ServiceError (not-ready) with what the service says otherwise."""
    end = time.monotonic() + timeout_s
    said: Any = "no answer"
    while time.monotonic() < end:
        try:
            status, said = _ask(port)
        except (OSError, ValueError, http.client.HTTPException) as error:
            said = str(error)
        else:
            problem = said.get("problem") if isinstance(said, dict) else None
            if status == 200 and said.get("release") == digest and not problem:
                return
            if problem and str(problem.get("release", "")).startswith(digest):
                break  # it has tried this very release
        time.sleep(0.2)
    hint = f"journalctl -u {NAME} on the device says more"
    raise ServiceError(503, "not-ready", f"the service does not answer with this release: {said}", hint)


def _ask(port: int) -> tuple[int, Any]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.request("GET", "/readyz")
        answer = connection.getresponse()
        return answer.status, json.loads(answer.read())
    finally:
        connection.close()


def _as_root(root: str) -> int:
    command = ["sudo", "-n", sys.executable, str(Path(sys.argv[0]).resolve()), "install", "--root", root]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError as error:
        raise ServiceError(503, "no-rights", f"installing a unit needs root, and sudo fails: {error}") from error
    if done.returncode:
        said = (done.stderr.strip().splitlines() or ["sudo said nothing"])[-1]
        hint = "connect as root, or let this user run sudo without a password"
        raise ServiceError(503, "no-rights", f"the unit could not be installed as root: {said}", hint)
    return 0


def _systemctl(*arguments: str) -> None:
    try:
        done = subprocess.run(["systemctl", *arguments], capture_output=True, text=True, timeout=120, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ServiceError(503, "systemctl", f"systemctl {' '.join(arguments)}: {error}") from error
    if done.returncode:
        said = (done.stderr.strip().splitlines() or [""])[-1]
        raise ServiceError(503, "systemctl", f"systemctl {' '.join(arguments)} ended with {done.returncode}: {said}")
