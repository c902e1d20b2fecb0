"""A phone behind adb: `adb:SERIAL` for USB, `adb:HOST:PORT` for the network, by the adb program.

1. The program, not a library: it holds the user's keys, shares the USB port with the user's other tools, and knows
   every phone. Its words are not trusted, only exit codes: it says "1 file pushed" of a transfer that was cut.
2. Everything goes through the shell protocol of Android 7 and later, which has a separate stderr and clean bytes;
   older devices are refused. When the connection breaks, `adb shell` may end with 0, so that the device's shell writes
   the exit code after the command's own words: without it nothing has ended well.
3. adb notices a silent peer late or never: a command that has been still for a while is checked by a second one.
4. A network device that is gone stays "offline" for adb until it is disconnected.
"""

from __future__ import annotations

import re
import secrets
import shutil
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable
from typing import IO

from pydantic import Field

from edgec.devices.base import Transport
from edgec.devices.options import KindOptions
from edgec.devices.posix import GROUP, Ended, PosixDevice
from edgec.errors import EdgecError

_SERIAL = re.compile(r"[A-Za-z0-9][\w.:\[\]-]*")
_CHUNK_BYTES = 1 << 16


class Options(KindOptions):
    """What the inventory may say. `adb` is the program, `home` and `scratch` folders on the device."""

    adb: str = "adb"
    python: tuple[str, ...] = Field(("python3",), min_length=1)
    home: str = Field("/data/local/tmp/edgec", pattern="^/")
    scratch: str = Field("/data/local/tmp", pattern="^/")
    connect_timeout_s: float = Field(15.0, gt=0)
    keepalive_s: float = Field(10.0, gt=0)


def open_device(address: str, options: Options, name: str) -> Transport:
    """The device of that serial number, or at that address. Raises `EdgecError` (device/bad-address, …/unavailable)."""
    if not _SERIAL.fullmatch(address):
        hint = "write adb:SERIAL as `adb devices` lists it, or adb:HOST:PORT"
        raise EdgecError("device/bad-address", f"cannot read the serial number {address!r}", hint=hint)
    if shutil.which(options.adb) is None:
        hint = "install it (apt-get install adb, or Android's platform-tools), or name it as `adb` in devices.toml"
        raise EdgecError("device/unavailable", f"there is no program {options.adb!r}", where=name, hint=hint)
    return AdbDevice(address, options, name)


class AdbDevice(PosixDevice):
    """Commands through `adb shell`; the connection is adb's own."""

    def __init__(self, serial: str, options: Options, name: str) -> None:
        super().__init__(name=name, python=options.python, home=options.home, scratch=options.scratch)
        self._serial, self._options = serial, options
        self._ready = False

    def close(self) -> None:
        """The next call looks again whether the device is there; adb's own connection stays, it may serve others."""
        self._ready = False

    def _run(
        self, command: str, *, timeout_s: float | None, stdin: IO[bytes] | None = None, stdout: IO[bytes] | None = None
    ) -> Ended:
        if not self._ready:
            self._connect()
            self._ready = True
        return self._shell(command, timeout_s, stdin, stdout)

    def _shell(self, command: str, timeout_s: float | None, stdin: IO[bytes] | None, stdout: IO[bytes] | None) -> Ended:
        token = secrets.token_hex(8)
        line = f"export {GROUP}=$$; ({command}); c=$?; echo {token} $c >&2; exit $c"  # rule 2
        with tempfile.TemporaryFile() as said, tempfile.TemporaryFile() as captured:
            process = subprocess.Popen(
                [*self._adb, "shell", "-T", line],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=said,
                start_new_session=True,
            )
            assert process.stdin is not None
            assert process.stdout is not None
            beat = _Beat()
            feeder = threading.Thread(target=_feed, args=(stdin, process.stdin, beat), daemon=True)
            drainer = threading.Thread(target=_copy, args=(process.stdout, stdout or captured, beat), daemon=True)
            feeder.start()
            drainer.start()
            try:
                timed_out = self._watch(process, timeout_s, beat)
            finally:
                process.kill()
                process.wait()
                feeder.join()
                drainer.join()
                process.stdout.close()
            if beat.failure is not None:
                raise beat.failure
            said.seek(0)
            captured.seek(0)
            stderr, mark, code = said.read().rpartition(token.encode() + b" ")
            if not timed_out and not mark:
                raise self._lost(code.decode("utf-8", "replace").strip() or "the command did not come to its end")
            return Ended(
                returncode=-9 if timed_out else _code(int(code)),
                stdout=captured.read(),
                stderr=stderr if mark else code,
                timed_out=timed_out,
            )

    def _watch(self, process: subprocess.Popen[bytes], timeout_s: float | None, beat: _Beat) -> bool:
        """Wait for the end; whether the time was up. Raises `EdgecError` (device/lost) for a silent device (rule 3)."""
        end = time.monotonic() + timeout_s if timeout_s is not None else None
        while True:
            now = time.monotonic()
            wake = beat.last + self._options.keepalive_s
            try:
                process.wait(max(0.01, min(wake, end if end is not None else wake) - now))
            except subprocess.TimeoutExpired:
                now = time.monotonic()
                if end is not None and now >= end:
                    return True
                if now >= beat.last + self._options.keepalive_s:
                    if not self._answers():
                        raise self._lost("it has stopped answering") from None
                    beat.now()
            else:
                return False

    def _answers(self) -> bool:
        """Whether a second command gets through."""
        return self._call("shell", "-T", "-n", "true", timeout_s=2 * self._options.keepalive_s)[0] == 0

    def _connect(self) -> None:
        """Make sure that adb has the device, connecting anew where that may help (rule 4)."""
        state, text = self._call("get-state", timeout_s=self._options.connect_timeout_s)
        if state or text.strip() != "device" or not self._answers():
            if ":" in self._serial:
                self._call("disconnect", self._serial, timeout_s=self._options.connect_timeout_s, device=False)
                self._call("connect", self._serial, timeout_s=self._options.connect_timeout_s, device=False)
            state, text = self._call("get-state", timeout_s=self._options.connect_timeout_s)
        if state or text.strip() != "device":
            raise self._absent(text.strip())
        state, features = self._call("features", timeout_s=self._options.connect_timeout_s)
        if state:
            raise self._absent(features.strip())
        if "shell_v2" not in features.split():  # rule 2
            message = f"{self.name} is older than Android 7: its shell has no exit codes"
            raise EdgecError("device/unavailable", message, where=self._serial, hint="use a newer device")

    def _absent(self, said: str) -> EdgecError:
        if "unauthorized" in said:
            message, hint = (
                f"{self.name} has not allowed this computer",
                "unlock it and accept the question on its screen",
            )
            return EdgecError("device/auth", message, where=self._serial, hint=hint)
        hint = "switch on USB debugging, check cable or network; `adb devices` lists what adb sees"
        message = f"adb cannot reach {self.name}: {said.removeprefix('error: ') or 'no answer in time'}"
        return EdgecError("device/unreachable", message, where=self._serial, hint=hint)

    def _lost(self, why: str) -> EdgecError:
        self._ready = False
        hint = "check power, cable and network, and run it again: what was sent is continued"
        return EdgecError("device/lost", f"the connection to {self.name} broke: {why}", where=self._serial, hint=hint)

    def _call(self, *arguments: str, timeout_s: float, device: bool = True) -> tuple[int, str]:
        """Exit code and words of an adb command; a timeout is exit code -1."""
        command = [*(self._adb if device else [self._options.adb]), *arguments]
        try:
            done = subprocess.run(
                command, stdin=subprocess.DEVNULL, capture_output=True, timeout=timeout_s, check=False
            )
        except subprocess.TimeoutExpired:
            return -1, ""
        return done.returncode, (done.stdout if not done.returncode else done.stderr).decode("utf-8", "replace")

    @property
    def _adb(self) -> list[str]:
        return [self._options.adb, "-s", self._serial]


class _Beat:
    """When bytes moved last, and what went wrong in the threads that move them."""

    def __init__(self) -> None:
        self.last = time.monotonic()
        self.failure: BaseException | None = None

    def now(self) -> None:
        self.last = time.monotonic()


def _feed(source: IO[bytes] | None, sink: IO[bytes], beat: _Beat) -> None:
    """Write all of it; a command that stops reading says why by its exit code."""
    _guarded(beat, lambda: _move(source, sink, beat) if source else None)
    try:
        sink.close()
    except OSError:  # what was left in the buffer
        return


def _copy(source: IO[bytes], sink: IO[bytes], beat: _Beat) -> None:
    _guarded(beat, lambda: _move(source, sink, beat))


def _move(source: IO[bytes], sink: IO[bytes], beat: _Beat) -> None:
    read = getattr(source, "read1", source.read)
    while data := read(_CHUNK_BYTES):
        sink.write(data)
        sink.flush()
        beat.now()


def _guarded(beat: _Beat, work: Callable[[], None]) -> None:
    try:
        work()
    except (BrokenPipeError, ConnectionResetError):
        return
    except OSError as error:  # this machine's own disk
        beat.failure = error


def _code(code: int) -> int:
    """The shell adds 128 to a signal."""
    return 128 - code if 128 < code <= 128 + 64 else code
