"""A Raspberry Pi over SSH: a real sshd whose sessions live in an arm64 root, run by QEMU core for core.

The server itself is this machine's; whatever it starts, from the shell on, is aarch64.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from tools.devlab import container, sshd, vpi


@contextlib.contextmanager
def running(folder: Path, *, core: str = "cortex-a72", runtime: bool = True) -> Iterator[sshd.Server]:
    """A server for the length of a `with`; without `runtime` the device has Python but no LiteRT."""
    lab = vpi.existing_vpi()
    container.register(lab / "qemu-aarch64")
    extra = (f"ChrootDirectory {container.MOUNTED}",)
    wrapper = container.wrapper(lab / "root", site=lab / "site" if runtime else None)
    server, process = sshd.start(folder, extra=extra, wrapper=wrapper, env={"QEMU_CPU": core})
    try:
        yield server
    finally:
        container.end(process)
