"""Run a command of this machine in a process group of its own, and end all of it when its time is up."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from collections.abc import Mapping, Sequence

from edgec.devices.base import ExecResult
from edgec.errors import EdgecError


def run_process(
    argv: Sequence[str], *, timeout_s: float, device: str, env: Mapping[str, str] | None = None, stdin: bytes = b""
) -> ExecResult:
    """The command's result. Raises `EdgecError`: device/missing when there is no such command, device/io."""
    try:
        process = subprocess.Popen(
            list(argv),
            stdin=subprocess.PIPE if stdin else subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
            env={**os.environ, **env} if env else None,
        )
    except OSError as error:
        code = "device/missing" if isinstance(error, FileNotFoundError) else "device/io"
        message = f"cannot start {argv[0]!r} on {device}: {error.strerror}"
        raise EdgecError(code, message, where=argv[0]) from error
    with process:
        timed_out = False
        try:
            stdout, stderr = process.communicate(stdin or None, timeout=timeout_s)
        except BaseException as error:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            if not isinstance(error, subprocess.TimeoutExpired):
                raise
            timed_out = True
            stdout, stderr = process.communicate()
    text = stderr.decode("utf-8", "replace")
    return ExecResult(returncode=process.returncode, stdout=stdout, stderr=text, timed_out=timed_out)
