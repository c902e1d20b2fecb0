"""What every device offers: run a command, hold files, rename one atomically, say what it is.

A device is a module in this package with `open_device(address) -> Transport`; it is asked for as `kind` or
`kind:address` (`local`, later `ssh:pi@kitchen`).
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from edgec import devices
from edgec.registry import load_plugin, plugin_names


@dataclass(frozen=True, kw_only=True, slots=True)
class Caps:
    """What a device is. `features` are CPU flags as Linux spells them; 0 and empty mean not known."""

    system: str
    arch: str
    cpus: int
    memory_bytes: int
    disk_free_bytes: int
    features: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class ExecResult:
    """How a command ended. `returncode` is negative for a signal, on every kind of device."""

    returncode: int
    stdout: bytes
    stderr: str
    timed_out: bool = False


class Transport(Protocol):
    """A device. Remote paths are absolute POSIX paths. Failures of the device itself raise `EdgecError` (device/…)."""

    @property
    def name(self) -> str:
        """How the user names it."""

    @property
    def python(self) -> Sequence[str]:
        """The command that starts the device's Python."""

    def caps(self) -> Caps:
        """What it is."""

    def scratch(self) -> AbstractContextManager[str]:
        """A fresh folder on the device, removed in the end."""

    def exec(self, argv: Sequence[str], *, timeout_s: float) -> ExecResult:
        """Run a command without a shell; when the time is up it is ended with all its children."""

    def push(self, local: Path, remote: str) -> None:
        """Copy a file or a folder to the device."""

    def pull(self, remote: str, local: Path) -> None:
        """Copy a file or a folder from the device."""

    def rename(self, source: str, destination: str) -> None:
        """Rename atomically, replacing what is there."""

    def sync(self, remote: str) -> None:
        """Make a file or folder, and its name, survive a power cut."""


def device_kinds() -> tuple[str, ...]:
    """Kinds of devices, without importing them."""
    return plugin_names(devices)


def open_device(spec: str) -> Transport:
    """The device named `kind` or `kind:address`. Raises `EdgecError` for an unknown kind."""
    kind, _, address = spec.partition(":")
    device: Transport = load_plugin(devices, kind, kind="device").open_device(address)
    return device
