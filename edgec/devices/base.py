"""What every device offers: run a command, hold files, rename one atomically.

A kind of device is a module in `edgec.devices.kinds`; `edgec.devices.open.open_device` opens `kind`, `kind:address`, or
a name of the inventory. What a device *is* comes from `edgec.devices.probe.probe`, for any of them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self

#: The signal of a command that was ended by one that the connection does not name.
UNKNOWN_SIGNAL = 127


@dataclass(frozen=True, kw_only=True, slots=True)
class ExecResult:
    """How a command ended. `returncode` is negative for a signal, on every kind of device."""

    returncode: int
    stdout: bytes
    stderr: str
    timed_out: bool = False


class EntryKind(StrEnum):
    """What a name on a device stands for."""

    file = "file"
    folder = "folder"
    link = "link"
    other = "other"


@dataclass(frozen=True, kw_only=True, slots=True)
class Entry:
    """A name on a device, links not followed. `size_bytes` is a file's, 0 for the others."""

    name: str
    kind: EntryKind
    size_bytes: int = 0


class Transport(Protocol):
    """A device. Remote paths are absolute POSIX paths without line breaks.

    Failures of the device itself raise `EdgecError`: device/unreachable, device/host-key, device/auth before a
    connection stands, device/lost and device/timeout when it breaks, device/disk-full, device/missing, device/exists
    and device/io for a file. After device/lost the next call connects again.
    """

    @property
    def name(self) -> str:
        """How the user names it."""

    @property
    def python(self) -> Sequence[str]:
        """The command that starts the device's Python."""

    @property
    def home(self) -> str:
        """The folder that edgec may fill there; it need not exist yet. May connect to ask."""

    def scratch(self) -> AbstractContextManager[str]:
        """A fresh folder on the device, removed in the end."""

    def exec(
        self, argv: Sequence[str], *, timeout_s: float, env: Mapping[str, str] | None = None, stdin: bytes = b""
    ) -> ExecResult:
        """Run a command without a shell; when the time is up it is ended with all its children.

        `env` is added to the device's environment. A command that is not there raises device/missing.
        """

    def push(self, local: Path, remote: str, *, resume: bool = False) -> None:
        """Copy a file or a folder to the device; folders above it are made.

        A file is written in place: push to a temporary name, compare `sha256`, `sync`, `rename`. With `resume` a file
        that is there already is continued, if its bytes are the first ones of `local`, and started anew if not.
        """

    def pull(self, remote: str, local: Path) -> None:
        """Copy a file or a folder from the device; a file appears whole or not at all."""

    def read_bytes(self, remote: str) -> bytes:
        """A small file's content."""

    def write_bytes(self, remote: str, data: bytes) -> None:
        """Write a small file in place; folders above it are made."""

    def rename(self, source: str, destination: str) -> None:
        """rename(2): atomic, replaces a file, a link, or an empty folder; a link is not followed."""

    def sync(self, remote: str) -> None:
        """Make a file, or a folder with all it holds, and its name survive a power cut."""

    def make_folder(self, remote: str, *, exist_ok: bool = True) -> None:
        """Make a folder and those above it; with `exist_ok` false device/exists if it is there: an atomic lock."""

    def remove(self, remote: str) -> None:
        """Remove a file, a link, or a folder with all it holds; nothing there is fine."""

    def entry(self, remote: str) -> Entry | None:
        """What the name stands for; None when there is nothing. A link is not followed."""

    def list_folder(self, remote: str) -> tuple[Entry, ...]:
        """What a folder holds, by name."""

    def make_link(self, target: str, remote: str) -> None:
        """Make the symbolic link `remote` that reads `target`; device/exists when the name is taken."""

    def read_link(self, remote: str) -> str:
        """What a symbolic link reads."""

    def sha256(self, remote: str) -> str:
        """Checksum of a file's content, computed on the device, in hexadecimal."""

    def free_bytes(self, remote: str) -> int:
        """Free space where the name is, or would be, for the user edgec is there."""

    def close(self) -> None:
        """Let go of connections. The device can still be used: the next call connects again."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


@dataclass(frozen=True, kw_only=True, slots=True)
class Facts:
    """What a device is. Empty, None and 0 mean not known.

    `libc` reads `glibc 2.36`, `musl`, `bionic`; `features` are CPU flags as Linux spells them; `packages` the Python
    distributions that matter, by name; `emulated` the emulator (`qemu-user`, `qemu-system`), empty on hardware;
    `sys_visible` whether /sys is mounted: without it LiteRT silently drops its fast kernels.
    """

    system: str
    kernel: str
    arch: str
    libc: str
    board: str
    cpu: str
    cpus: int
    features: tuple[str, ...]
    memory_bytes: int
    memory_free_bytes: int
    disk_free_bytes: int
    python: str
    packages: Mapping[str, str]
    sys_visible: bool
    celsius: Mapping[str, float]
    cpu_mhz: float | None
    governor: str
    emulated: str
