"""The service as a process of its own, started from a bundle's serve.pyz, and a client for it."""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from edgec.bundle.open import open_bundle
from edgec.devices.kinds.local import LocalDevice
from edgec.flash.install import flash_bundle
from edgec.flash.session import Flashed, Options
from edgec.runners.base import agent_source
from edgec.service.pack import service_files, service_pyz
from tests.support import flashing
from tests.support import tiny_bundles as tiny

#: A machine under load may take this long for anything; nothing is judged by it.
PATIENCE_S = 120.0
JSON = "application/json"
SAMPLE = [[[[1.0, 2.0, 3.0, 4.0]] * 3, [[-1.0, -2.0, -3.0, -4.0]] * 3]]

_RUN = b"            outputs = model.run(feeds)\n            seconds"
_TRAP = b"""
            import signal
            if abs(float(next(iter(feeds.values())).reshape(-1)[0]) - 66) < 0.01:
                sys.stderr.write("Check failed: the kernel gives up\\n")
                sys.stderr.flush()
                os.kill(os.getpid(), signal.SIGABRT)
            if abs(float(next(iter(feeds.values())).reshape(-1)[0]) - 77) < 0.01:
                time.sleep(600)
"""


def trapped_agent() -> bytes:
    """The real agent, whose runtime aborts on an input that begins with 66 and hangs on one that begins with 77."""
    source = agent_source()
    assert source.count(_RUN) == 1
    return source.replace(_RUN, _TRAP.lstrip(b"\n") + _RUN)


def pack(path: Path, *, version: str = "1", int8: bool = False, **changes: Any) -> Path:
    """A bundle with the service in it; another `version` is another release."""
    packaged = {**service_files("tflite"), **changes.pop("packaged", {})}
    return tiny.pack(path, tiny.tflite_artifact(int8=int8), labels=(version,), packaged=packaged, **changes)


def unpack(path: Path, folder: Path) -> Path:
    """The bundle's files in a folder."""
    with open_bundle(path) as bundle:
        bundle.extract(folder)
    return folder


def flash(root: Path, path: Path, **options: Any) -> Flashed:
    """Install a bundle under a root of this machine, without the health check: that is tested elsewhere."""
    device = LocalDevice(name="bench", home=root, temporary=root / "tmp")
    with open_bundle(path) as bundle:
        return flash_bundle(bundle, device, Options(**options), facts=flashing.FACTS)


class Service:
    """A running service."""

    def __init__(self, process: subprocess.Popen[bytes], place: dict[str, Any], log: Path) -> None:
        self.process, self.place, self._log = process, place, log

    @property
    def log(self) -> str:
        """What it wrote to stderr."""
        return self._log.read_text(encoding="utf-8", errors="replace")

    def connect(self) -> http.client.HTTPConnection:
        """A connection of its own."""
        if "unix" not in self.place:
            return http.client.HTTPConnection(self.place["host"], self.place["port"], timeout=PATIENCE_S)
        connection = http.client.HTTPConnection("localhost", timeout=PATIENCE_S)
        connection.sock = socket.socket(socket.AF_UNIX)
        connection.sock.connect(self.place["unix"])
        return connection

    def ask(
        self, method: str, path: str, body: bytes | None = None, headers: dict[str, str] | None = None
    ) -> tuple[int, Any, dict[str, str]]:
        """Status, body (parsed when it is JSON), headers."""
        with contextlib.closing(self.connect()) as connection:
            connection.request(method, path, body, headers or {})
            answer = connection.getresponse()
            data, kind = answer.read(), answer.getheader("Content-Type", "")
            parsed = json.loads(data) if kind == JSON else data
            return answer.status, parsed, dict(answer.getheaders())

    def infer(self, inputs: Any = None, *, query: str = "", **headers: str) -> tuple[int, Any]:
        """An inference in JSON."""
        given = {"x": SAMPLE} if inputs is None else inputs
        body = json.dumps({"inputs": given}).encode()
        status, answer, _ = self.ask("POST", f"/v1/infer{query}", body, {"Content-Type": JSON, **headers})
        return status, answer

    def infer_until_ok(self) -> bool:
        """Ask until it answers: on a slow machine a new process may need longer than a request may take."""
        end = time.monotonic() + PATIENCE_S
        while self.infer()[0] != 200:
            assert time.monotonic() < end
        return True

    def metrics(self) -> dict[str, float]:
        """Series and values of the page."""
        status, page, _ = self.ask("GET", "/metrics")
        assert status == 200
        lines = [line for line in page.decode().splitlines() if not line.startswith("#")]
        return {name: float(value) for name, _, value in (line.rpartition(" ") for line in lines)}

    def ready(self) -> dict[str, Any]:
        """What /readyz says."""
        answer = self.ask("GET", "/readyz")[1]
        assert isinstance(answer, dict)
        return answer

    def wait_for(self, holds: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        """Until /readyz says so."""
        end = time.monotonic() + PATIENCE_S
        while not holds(said := self.ready()):
            assert time.monotonic() < end, said
            time.sleep(0.05)
        return said


@contextlib.contextmanager
def serving(root: Path, *arguments: str, tmp_path: Path, wait: bool = True) -> Iterator[Service]:
    """The service of a root folder, until the block ends."""
    pyz = tmp_path / "serve.pyz"
    pyz.write_bytes(service_pyz())
    log = tmp_path / "service.log"
    where = () if "--unix" in arguments else ("--port", "0")
    command = [sys.executable, "-P", str(pyz), "serve", "--root", str(root), "--poll", "0.1", *where, *arguments]
    with log.open("wb") as stream, subprocess.Popen(command, stdout=subprocess.PIPE, stderr=stream) as process:
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            assert line, log.read_text()
            service = Service(process, json.loads(line)["listening"], log)
            if wait:
                service.wait_for(lambda said: bool(said["ready"]))
            yield service
        finally:
            process.kill()
