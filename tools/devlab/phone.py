"""A phone: a real adbd in a root of its own, x86-64 or genuine arm64, reached by the real adb over the network.

1. adbd asks for no key and listens on every address, so it gets a network namespace; a proxy on loopback leads there.
2. adb's emulator scan takes ports 5555 to 5585; other ports are used.
3. adb's server is one of our own, so that the user's is left alone.
"""

from __future__ import annotations

import contextlib
import os
import platform
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tools.devlab import chaos, container, debs, vpi
from tools.devlab.common import UnavailableError, existing, free_port, prepared, run

#: Change it with whatever is made here.
RECIPE = "1"
_ADBD_PORT = 15555
#: The C library, and what has to fit it, are this machine's own.
_SYSTEM = ("libc6", "gcc-12-base", "libgcc-s1", "libstdc++6")


@dataclass(frozen=True, kw_only=True, slots=True)
class Phone:
    """A running phone: its serial number for `adb`, the proxy on the way to it, the process that is its power."""

    adb: Path
    serial: str
    proxy: chaos.ChaosProxy
    process: subprocess.Popen[bytes]

    @property
    def address(self) -> str:
        """As a device."""
        return f"adb:{self.serial}"

    @property
    def options(self) -> dict[str, str]:
        """What the inventory must say beside the address."""
        return {"adb": str(self.adb)}


def prepare() -> Path:
    """The folder `phone`: the adb program, and the root of an x86-64 phone."""
    return prepared("phone", RECIPE, _make)


def _make(folder: Path) -> None:
    native = "arm64" if platform.machine() == "aarch64" else "amd64"
    debs.unpack(["adb"], folder / "adb", arch=native, without=_SYSTEM)
    root = folder / "root"
    debs.unpack(["adbd", "busybox-static", "libstdc++6"], root, arch=native)
    for applet in run([root / "bin" / "busybox", "--list"]).split():
        place = root / "usr" / "bin" / applet
        if not place.exists() and not place.is_symlink():
            place.symlink_to("busybox")
    for name in ("proc", "sys", "dev", "tmp", "root", "run", "small", "data/local/tmp", "etc"):
        (root / name).mkdir(parents=True, exist_ok=True)


@contextlib.contextmanager
def running(folder: Path, *, core: str = "", runtime: bool = True) -> Iterator[Phone]:
    """A phone for the length of a `with`; with `core` (cortex-a72) an arm64 one, which has Python."""
    kept = existing("phone", RECIPE)
    root, site = kept / "root", None
    if core:
        lab = vpi.existing_vpi()
        container.register(lab / "qemu-aarch64")
        root, site = lab / "root", lab / "site" if runtime else None
    with adb_server(kept, folder) as adb:
        env = {"ADBD_PORT": str(_ADBD_PORT), "PATH": "/usr/bin:/usr/sbin:/bin:/sbin", "HOME": "/root", "QEMU_CPU": core}
        if not core:
            del env["QEMU_CPU"]
        process = container.start(["/usr/sbin/adbd"], root=root, site=site, network=True, env={**os.environ, **env})
        try:
            _wait_for_network(process)
            chaos.loopback_up(process.pid)
            with chaos.chaos(_ADBD_PORT, netns=process.pid) as proxy:
                serial = f"127.0.0.1:{proxy.port}"
                _wait_for_adbd(adb, serial, process)
                yield Phone(adb=adb, serial=serial, proxy=proxy, process=process)
                with contextlib.suppress(UnavailableError):
                    run([adb, "disconnect", serial], timeout_s=20)
        finally:
            container.end(process)


@contextlib.contextmanager
def adb_server(kept: Path, folder: Path) -> Iterator[Path]:
    """adb with a server of its own: the program that talks to it (rule 3)."""
    folder.mkdir(parents=True, exist_ok=True)
    program = folder / "adb"
    libraries = next((kept / "adb" / "usr" / "lib").glob("*-linux-gnu"))
    program.write_text(
        "#!/bin/sh\n"
        f"export LD_LIBRARY_PATH='{libraries}/android:{libraries}' HOME='{folder}' ADB_MDNS=0\n"
        f"exec '{kept}/adb/usr/lib/android-sdk/platform-tools/adb' -P {free_port()} \"$@\"\n"
    )
    program.chmod(0o755)
    run([program, "start-server"], timeout_s=60)
    try:
        yield program
    finally:
        with contextlib.suppress(UnavailableError):
            run([program, "kill-server"], timeout_s=30)


def _wait_for_network(process: subprocess.Popen[bytes]) -> None:
    """Until `unshare` has made the namespace."""
    own = Path("/proc/self/ns/net").readlink()
    for _ in range(600):
        if process.poll() is not None:
            break
        if Path(f"/proc/{process.pid}/ns/net").readlink() != own:
            return
        time.sleep(0.05)
    said = process.stderr.read().decode("utf-8", "replace") if process.stderr and process.poll() is not None else ""
    raise UnavailableError(f"namespaces cannot be made here: {said.strip()[-300:]}")


def _wait_for_adbd(adb: Path, serial: str, process: subprocess.Popen[bytes]) -> None:
    for _ in range(120):
        if process.poll() is not None:
            said = process.stderr.read().decode("utf-8", "replace") if process.stderr else ""
            raise UnavailableError(f"adbd does not start: {said.strip()[-300:]}")
        run([adb, "disconnect"], timeout_s=30)
        run([adb, "connect", serial], timeout_s=30)
        with contextlib.suppress(UnavailableError):
            if run([adb, "-s", serial, "shell", "-n", "echo here"], timeout_s=30).strip() == "here":
                return
        time.sleep(0.5)
    raise UnavailableError("adbd does not answer")
