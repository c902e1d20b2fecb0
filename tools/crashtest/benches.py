"""The devices under test: a real sshd and a real adbd, each behind a proxy that acts at a given byte."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from edgec.devices.base import Transport
from edgec.devices.inventory import Device
from edgec.devices.kinds.local import LocalDevice
from edgec.devices.open import open_device
from tools.devlab import phone, sshd
from tools.devlab.chaos import ChaosProxy
from tools.devlab.common import UnavailableError
from tools.devlab.container import MOUNTED, SMALL

#: Keepalives of the connections that are going to break: a stall is noticed in seconds.
_IMPATIENT_S = 0.7
_SMALL_BYTES = 24 << 20


class TriggerProxy(ChaosProxy):
    """Calls back once, before it passes byte number N from the client to the device; and counts."""

    def __init__(self, to: tuple[str, int]) -> None:
        self.passed = 0
        self._at: int | None = None
        self._action: Callable[[], None] = lambda: None
        self.acted = False
        super().__init__(to)

    def act_at(self, count: int, action: Callable[[], None]) -> None:
        """Arm: the bytes are counted from now."""
        with self._lock:
            self.passed, self._at, self._action, self.acted = 0, count, action, False

    def rest(self) -> None:
        """Disarm."""
        with self._lock:
            self._at = None
        self.disarm()

    def _spend(self, count: int) -> tuple[int, str]:
        with self._lock:
            self.passed += count
            due = self._at is not None and self.passed > self._at
            if due:
                self._at, self.acted = None, True
        if due:
            self._action()
        return super()._spend(count)


@dataclass(frozen=True, kw_only=True, slots=True)
class Bench:
    """A device: how to open it through the proxy, and its files as this machine sees them."""

    name: str
    proxy: TriggerProxy
    device: Device
    root: str
    files: Path

    def open(self, *, impatient: bool) -> Transport:
        """The device through the proxy."""
        options = dict(self.device.options)
        if impatient:
            options["keepalive_s"] = _IMPATIENT_S
        return open_device(Device(name=self.name, address=self.device.address, options=options))

    def look(self) -> LocalDevice:
        """The same files without any connection."""
        return LocalDevice(name=self.name, home=self.files)

    def arguments(self) -> str:
        """For a client in a process of its own."""
        options = {key: str(value) for key, value in self.device.options.items()}
        return json.dumps({"address": self.device.address, "options": options, "root": self.root})

    def fill(self) -> Path:
        """Fill the file system of the root; returns the file to remove."""
        ballast = self.files.parent / "ballast"
        with ballast.open("wb", buffering=0) as stream, contextlib.suppress(OSError):
            while True:
                stream.write(bytes(1 << 16))
        return ballast


@contextlib.contextmanager
def ssh_bench(folder: Path) -> Iterator[Bench]:
    """A real sshd on this machine; the root is on a small file system of its own."""
    small = folder / "small"
    small.mkdir()
    if os.geteuid() != 0:
        raise UnavailableError("a small file system to fill can only be mounted by root")
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={_SMALL_BYTES}", "crashtest", str(small)], check=True)
    try:
        with sshd.running(folder / "sshd") as server:
            proxy = TriggerProxy(("127.0.0.1", server.port))
            known = folder / "known_hosts"
            known.write_text(server.known_at(proxy.port))
            options = {"identity": str(server.identity), "known_hosts": str(known)}
            device = Device(name="ssh", address=f"ssh:{server.user}@127.0.0.1:{proxy.port}", options=options)
            try:
                yield Bench(name="ssh", proxy=proxy, device=device, root=str(small / "edgec"), files=small / "edgec")
            finally:
                proxy.close()
    finally:
        subprocess.run(["umount", "-l", str(small)], check=True)


@contextlib.contextmanager
def adb_bench(folder: Path) -> Iterator[Bench]:
    """A real adbd, without Python; the root is on its small file system."""
    with phone.running(folder / "phone") as here:
        proxy = TriggerProxy(("127.0.0.1", here.proxy.port))
        seen = Path(f"/proc/{here.process.pid}/root{MOUNTED}")
        device = Device(name="adb", address=f"adb:127.0.0.1:{proxy.port}", options=here.options)
        try:
            yield Bench(
                name="adb", proxy=proxy, device=device, root=f"{SMALL}/edgec", files=Path(f"{seen}{SMALL}/edgec")
            )
        finally:
            proxy.close()


BENCHES: dict[str, Callable[[Path], contextlib.AbstractContextManager[Bench]]] = {"ssh": ssh_bench, "adb": adb_bench}
