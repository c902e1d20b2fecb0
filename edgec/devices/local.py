"""This machine as a device."""

from __future__ import annotations

import contextlib
import os
import platform
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from edgec.devices.base import Caps, ExecResult, Transport
from edgec.errors import EdgecError


def open_device(address: str) -> Transport:
    """The local device; it has no address."""
    if address:
        raise EdgecError("device/bad-address", f"the local device has no address, but {address!r} was given")
    return LocalDevice()


class LocalDevice:
    """Runs commands as subprocesses and copies files."""

    name = "local"
    # -P: the folder of the script must not shadow the modules it imports.
    python: Sequence[str] = (sys.executable, "-P")

    def caps(self) -> Caps:
        """What this machine is."""
        return Caps(
            system=platform.system(),
            arch=platform.machine(),
            cpus=os.cpu_count() or 1,
            memory_bytes=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
            disk_free_bytes=shutil.disk_usage(tempfile.gettempdir()).free,
            features=_cpu_features(),
        )

    @contextlib.contextmanager
    def scratch(self) -> Iterator[str]:
        """A temporary folder."""
        try:
            folder = tempfile.mkdtemp(prefix="edgec-run-")
        except OSError as error:
            raise _failed("make a temporary folder", tempfile.gettempdir(), error) from error
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def exec(self, argv: Sequence[str], *, timeout_s: float) -> ExecResult:
        """Run a command in a process group of its own."""
        try:
            process = subprocess.Popen(
                list(argv),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                start_new_session=True,
            )
        except OSError as error:
            raise _failed("start a command", argv[0], error) from error
        with process:
            timed_out = False
            try:
                stdout, stderr = process.communicate(timeout=timeout_s)
            except BaseException as error:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                if not isinstance(error, subprocess.TimeoutExpired):
                    raise
                timed_out = True
                stdout, stderr = process.communicate()
        text = stderr.decode("utf-8", "replace")
        return ExecResult(returncode=process.returncode, stdout=stdout, stderr=text, timed_out=timed_out)

    def push(self, local: Path, remote: str) -> None:
        """Copy."""
        _copy(local, Path(remote))

    def pull(self, remote: str, local: Path) -> None:
        """Copy."""
        _copy(Path(remote), local)

    def rename(self, source: str, destination: str) -> None:
        """os.replace."""
        try:
            Path(source).replace(destination)
        except OSError as error:
            raise _failed("rename", source, error) from error

    def sync(self, remote: str) -> None:
        """fsync the file or folder and the folder that holds its name."""
        path = Path(remote)
        for place in (path, path.parent):
            try:
                handle = os.open(place, os.O_RDONLY)
                try:
                    os.fsync(handle)
                finally:
                    os.close(handle)
            except OSError as error:
                raise _failed("sync", str(place), error) from error


def _copy(source: Path, destination: Path) -> None:
    try:
        if source.is_dir():
            shutil.copytree(source, destination, dirs_exist_ok=True)
        else:
            destination.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, destination)
    except (OSError, shutil.Error) as error:
        raise _failed("copy", str(source), error) from error


def _cpu_features() -> tuple[str, ...]:
    """Flags of the first core: `flags` on x86, `Features` on ARM; none where there is no /proc."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return ()
    found = (line.partition(":")[2].split() for line in lines if line.startswith(("flags", "Features")))
    return tuple(sorted(next(found, [])))


def _failed(action: str, where: str, error: Exception) -> EdgecError:
    reason = getattr(error, "strerror", None) or str(error)
    return EdgecError("device/io", f"cannot {action} on the local device: {reason}", where=where)
