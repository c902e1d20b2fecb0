"""The parts of the lab: how each is prepared, and how it is run."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tools.devlab import board, booted, debs, phone, pi, prometheus, sshd, vpi
from tools.devlab.common import need_root

#: What the inventory says of a running device: address and options.
Entry = dict[str, Any]
Runner = Callable[[Path], AbstractContextManager[Entry]]


@dataclass(frozen=True, kw_only=True, slots=True)
class Part:
    """`prepare` makes its files, once; `run` starts it in a folder, for a `with`, where there is something to start."""

    what: str
    prepare: Callable[[], object]
    run: Runner | None = None
    #: Whether `make test` prepares it and `make devlab` starts it.
    usual: bool = True


def install_sshd() -> None:
    """The one part that is installed on this machine, because its users and folders must be."""
    path = "/usr/local/sbin:/usr/sbin:/sbin:/usr/local/bin:/usr/bin:/bin"
    if shutil.which("sshd", path=path) and shutil.which("ssh-keygen", path=path):
        return
    need_root("installing openssh-server")
    debs.install(["openssh-server"])


def _both_for_pi() -> None:
    install_sshd()
    vpi.prepare()


def _both_for_phone() -> None:
    phone.prepare()
    vpi.prepare()


@contextlib.contextmanager
def _vpi(_: Path) -> Iterator[Entry]:
    lab = vpi.existing_vpi()
    yield {"address": "qemu:cortex-a72", "qemu": str(lab / "qemu-aarch64"), "root": str(lab / "root")} | {
        "site": str(lab / "site")
    }


@contextlib.contextmanager
def _sshd(folder: Path) -> Iterator[Entry]:
    with sshd.running(folder) as server:
        yield {"address": server.address, **server.options}


def _pi(core: str) -> Runner:
    @contextlib.contextmanager
    def run(folder: Path) -> Iterator[Entry]:
        with pi.running(folder, core=core) as server:
            yield {"address": server.address, **server.options}

    return run


def _phone(core: str) -> Runner:
    @contextlib.contextmanager
    def run(folder: Path) -> Iterator[Entry]:
        with phone.running(folder, core=core) as device:
            yield {"address": device.address, **device.options}

    return run


@contextlib.contextmanager
def _board(folder: Path) -> Iterator[Entry]:
    with board.running(folder) as server:
        yield {"address": server.address, **server.options}


PARTS = {
    "vpi": Part(what="aarch64 user-land under QEMU", prepare=vpi.prepare, run=_vpi),
    "sshd": Part(what="a real sshd on this machine", prepare=install_sshd, run=_sshd),
    "pi4": Part(what="a Pi over SSH, cortex-a72", prepare=_both_for_pi, run=_pi("cortex-a72")),
    "pi5": Part(what="a Pi over SSH, cortex-a76", prepare=_both_for_pi, run=_pi("cortex-a76")),
    "phone": Part(what="a real adbd, x86-64", prepare=phone.prepare, run=_phone("")),
    "phone-arm64": Part(what="a real adbd, arm64", prepare=_both_for_phone, run=_phone("cortex-a76")),
    "prometheus": Part(what="Prometheus and promtool", prepare=prometheus.prepare),
    "board": Part(what="a whole board: kernel, memory, disk", prepare=board.prepare, run=_board, usual=False),
    "systemd": Part(what="a Debian that systemd boots", prepare=booted.prepare, usual=False),
}
