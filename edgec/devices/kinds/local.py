"""This machine as a device: `local`, or `local:/some/root` with a home of its own, as one of many."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from edgec.devices.base import ExecResult, Transport
from edgec.devices.files import LocalFiles
from edgec.devices.options import KindOptions
from edgec.devices.process import run_process


class Options(KindOptions):
    """A local device has no options."""


def open_device(address: str, _options: Options, name: str) -> Transport:
    """The local device. `address` is the folder that holds everything it is given; empty for the user's own."""
    if not address:
        return LocalDevice(name=name)
    root = Path(address).expanduser().absolute()
    return LocalDevice(name=name, home=root, temporary=root / "tmp")


class LocalDevice(LocalFiles):
    """Runs commands as subprocesses and copies files."""

    # -P: the folder of the script must not shadow the modules it imports.
    python: Sequence[str] = (sys.executable, "-P")

    def __init__(self, *, name: str = "local", home: Path | None = None, temporary: Path | None = None) -> None:
        data = Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share")
        super().__init__(name=name, home=home or data / "edgec", temporary=temporary)

    def exec(
        self, argv: Sequence[str], *, timeout_s: float, env: Mapping[str, str] | None = None, stdin: bytes = b""
    ) -> ExecResult:
        """Run a command in a process group of its own."""
        return run_process(argv, timeout_s=timeout_s, device=self.name, env=env, stdin=stdin)
