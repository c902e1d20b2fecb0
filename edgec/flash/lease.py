"""One flash at a time: a lock on the device that its owner renews, and that cannot outlive it for ever.

The lock is the symbolic link `lock`, whose target is the claim: made and read atomically on any device.

1. A claim of a process of this machine that no longer runs, or of an ended session of this process, is void at once.
2. Any other claim holds until a time on the device's own clock since boot, which nobody sets: void afterwards, and
   after a reboot.
3. The owner looks before each step whether the lock is still its own, and stops when it is not.
"""

from __future__ import annotations

import hashlib
import os
import secrets
import socket
import time
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Self

from edgec.devices.base import Transport
from edgec.errors import EdgecError

LOCK = "lock"
#: How much longer a claim holds than its step is expected to take.
SLACK_S = 60.0
#: The first claim: short flashes need no other.
FIRST_S = 120.0

#: Nonces of the leases that this process holds.
_held: set[str] = set()


@dataclass(frozen=True, kw_only=True, slots=True)
class Claim:
    """Who is at work: machine, process, and until when on the clock of which boot of the device."""

    machine: str
    pid: int
    name: str
    nonce: str
    boot: str
    until_s: int

    def text(self) -> str:
        """As the link's target."""
        return ";".join(str(getattr(self, field)) for field in self.__dataclass_fields__)

    @classmethod
    def parse(cls, text: str) -> Claim | None:
        """The claim in a link's target; None when it is none."""
        parts = text.split(";")
        if len(parts) != len(cls.__dataclass_fields__) or not (parts[1].isdigit() and parts[5].isdigit()):
            return None
        machine, pid, name, nonce, boot, until = parts
        return cls(machine=machine, pid=int(pid), name=name, nonce=nonce, boot=boot, until_s=int(until))


class Lease:
    """Hold the lock of a root folder while the `with` statement lasts."""

    def __init__(self, device: Transport, root: str) -> None:
        self._device = device
        self._root = root
        self._path = f"{root}/{LOCK}"
        self._claim = Claim(
            machine=this_machine(),
            pid=os.getpid(),
            name="".join(c for c in socket.gethostname() if c.isalnum() or c in "-.")[:60],
            nonce=secrets.token_hex(8),
            boot="",
            until_s=0,
        )
        self._until = 0.0

    def __enter__(self) -> Self:
        self._device.make_folder(self._root)
        self._extend(FIRST_S)
        for _ in range(3):
            try:
                self._device.make_link(self._claim.text(), self._path)
            except EdgecError as error:
                if error.code != "device/exists":
                    raise
                self._break_void_lock()
            else:
                _held.add(self._claim.nonce)
                return self
        raise EdgecError("flash/busy", "others keep taking the lock of this device", where=self._where)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        _held.discard(self._claim.nonce)
        try:
            if self._is_ours():
                self._device.remove(self._path)
        except EdgecError:
            # The device is gone: what ended the session is the news. The claim ends by rule 1 or 2.
            if error is None:
                raise

    def renew(self, needs_s: float = 0.0) -> None:
        """Hold it for a step that may take `needs_s`. Raises `flash/lock-lost` when somebody else has taken it."""
        if not self._is_ours():
            raise EdgecError(
                "flash/lock-lost",
                "somebody else has taken this device over; this flash stops here",
                where=self._where,
                hint="the device runs a whole release: look at `edgec status` before you try again",
            )
        if time.monotonic() + needs_s <= self._until:
            return
        self._extend(needs_s + SLACK_S)
        part = f"{self._root}/.{LOCK}.{secrets.token_hex(8)}"
        self._device.make_link(self._claim.text(), part)
        self._device.rename(part, self._path)

    @property
    def _where(self) -> str:
        return f"{self._device.name}:{self._path}"

    def _extend(self, seconds: float) -> None:
        """The claim for so long from now, on the device's clock and on ours."""
        self._until = time.monotonic() + seconds
        boot, now = device_clock(self._device)
        self._claim = replace(self._claim, boot=boot, until_s=int(now + seconds))

    def _is_ours(self) -> bool:
        holder = self._holder()
        return holder is not None and holder.nonce == self._claim.nonce

    def _holder(self) -> Claim | None:
        try:
            return Claim.parse(self._device.read_link(self._path))
        except EdgecError as error:
            if error.code not in ("device/missing", "device/io"):
                raise
            return None

    def _break_void_lock(self) -> None:
        """Take a void lock away; raises `flash/busy` for one that holds."""
        holder = self._holder()
        if holder is not None:
            left_s = _holds_for_s(holder, *device_clock(self._device))
            if left_s > 0:
                ours = holder.machine == self._claim.machine
                who = f"process {holder.pid}" + (
                    " on this machine" if ours else f" on {holder.name or 'another machine'}"
                )
                raise EdgecError(
                    "flash/busy",
                    f"{who} is flashing this device; its claim ends in {left_s:.0f} s unless it is renewed",
                    where=self._where,
                    hint="wait for it; if you know that it is dead, remove the lock on the device",
                )
        elif self._device.entry(self._path) is None:
            return
        # Renamed first: of two that find it void, one takes it away, and the other does not take the first one's new.
        gone = f"{self._root}/.{LOCK}.{secrets.token_hex(8)}"
        try:
            self._device.rename(self._path, gone)
        except EdgecError as error:
            if error.code != "device/missing":
                raise
            return
        self._device.remove(gone)


def this_machine() -> str:
    """A name for the machine, its boot and its process namespace: within it, process numbers say who lives."""
    facts = [socket.gethostname()]
    for path in ("/proc/sys/kernel/random/boot_id", "/etc/machine-id"):
        try:
            facts.append(Path(path).read_text(encoding="ascii").strip())
        except (OSError, UnicodeDecodeError):
            facts.append("")
    try:
        facts.append(str(Path("/proc/self/ns/pid").readlink()))
    except OSError:
        facts.append("")
    return hashlib.sha256("\n".join(facts).encode()).hexdigest()[:16]


def device_clock(device: Transport) -> tuple[str, float]:
    """Which boot of the device this is, and the seconds since; the time of day where it does not say."""
    try:
        boot = device.read_bytes("/proc/sys/kernel/random/boot_id").decode("ascii", "replace").strip()
        return boot, float(device.read_bytes("/proc/uptime").split()[0])
    except (ValueError, IndexError):
        pass
    except EdgecError as error:
        if error.code not in ("device/missing", "device/io"):
            raise
    return "date", float(device.exec(["date", "+%s"], timeout_s=SLACK_S).stdout)


def _holds_for_s(holder: Claim, boot: str, now_s: float) -> float:
    """Seconds that a claim still holds; 0 for a void one."""
    if holder.machine == this_machine():  # rule 1
        ended = holder.nonce not in _held if holder.pid == os.getpid() else not _is_alive(holder.pid)
        if ended:
            return 0.0
    if holder.boot != boot:  # rule 2
        return 0.0
    return max(0.0, holder.until_s - now_s)


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:  # it is somebody else's
        return True
    try:
        # A process that has ended and whose parent has not looked yet.
        return ") Z " not in Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return True
