"""A runtime in a process of its own: feeds go in, outputs come out, and a crash kills only the process.

The other side is `edgec/runners/agent.py serve-stdio`, which describes the messages. It is started as a file, not
imported: the runtimes stay out of this process.
"""

from __future__ import annotations

import json
import math
import signal
import struct
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Literal

import numpy as np

import edgec
from edgec.errors import EdgecError
from edgec.tensors import Array

#: The installed agent. A bundle brings its own for its device; opening one on the host must not execute it.
AGENT = Path(edgec.__file__).parent / "runners" / "agent.py"

_TAIL_CHARACTERS = 1500


class Worker:
    """One model in one runtime process, started on the first call. Usable from several threads, one call at a time."""

    def __init__(
        self,
        model: Path,
        backend: str,
        *,
        threads: int = 1,
        kernels: str = "default",
        timeout_s: float = 300.0,
        agent: Path = AGENT,
    ) -> None:
        self._model = model
        self._command = [sys.executable, "-P", str(agent), "serve-stdio", str(model)]
        self._command += ["--backend", backend, "--threads", str(threads)]
        self._command += [] if kernels == "default" else ["--kernels", kernels]
        self._timeout_s = timeout_s
        self._process: subprocess.Popen[bytes] | None = None
        self._stderr: IO[bytes] | None = None
        self._lock = threading.Lock()
        #: Name and version of the runtime, known after the first call.
        self.runtime = ""

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """Outputs by the model's own names. Raises `EdgecError` (validate/…) for a refusal, a crash, a hang."""
        return self._call({}, feeds)[1]

    def time(self, feeds: Mapping[str, Array], *, clock: Literal["seconds", "cpu_seconds"] = "seconds") -> float:
        """Seconds that one run takes inside the runtime's process, without the way there and back.

        `cpu_seconds` are those of its processors, which other work on the machine does not stretch.
        """
        return float(self._call({}, feeds)[0][clock])

    def kernels(self) -> dict[str, Any]:
        """Which kernels the runtime chose."""
        return dict(self._call({"command": "kernels"}, {})[0]["kernels"])

    def close(self) -> None:
        """End the process. A later call starts a new one."""
        with self._lock:
            self._stop()

    def __enter__(self) -> Worker:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _call(self, header: Mapping[str, Any], feeds: Mapping[str, Array]) -> tuple[dict[str, Any], dict[str, Array]]:
        with self._lock:
            try:
                if self._process is None:
                    self.runtime = str(self._exchange(self._start(), None, {})[0]["runtime"])
                assert self._process is not None
                return self._exchange(self._process, header, feeds)
            except BaseException as error:
                # Out of step with the other side (an interrupt, a crash, a refusal): the next call starts afresh.
                if not (isinstance(error, EdgecError) and error.code in _HARMLESS):
                    self._stop()
                raise

    def _start(self) -> subprocess.Popen[bytes]:
        self._stderr = tempfile.TemporaryFile()  # noqa: SIM115  # lives as long as the process
        self._process = subprocess.Popen(
            self._command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._stderr
        )
        return self._process

    def _exchange(
        self, process: subprocess.Popen[bytes], header: Mapping[str, Any] | None, feeds: Mapping[str, Array]
    ) -> tuple[dict[str, Any], dict[str, Array]]:
        """Send a message (none when `header` is None) and read the answer, all within the timeout."""
        assert process.stdin is not None
        assert process.stdout is not None
        expired = threading.Event()

        def expire() -> None:
            expired.set()
            process.kill()

        watchdog = threading.Timer(self._timeout_s, expire)
        watchdog.daemon = True
        watchdog.start()
        try:
            if header is not None:
                _write_message(process.stdin, header, feeds)
            reply, tensors = _read_message(process.stdout)
        except (EOFError, OSError) as error:
            raise self._death(process, expired=expired.is_set()) from error
        finally:
            watchdog.cancel()
        if "error" in reply:
            record = reply["error"]
            raise EdgecError(
                f"validate/{record['code']}", record["message"], where=self._model.name, hint=record["hint"]
            )
        return reply, tensors

    def _death(self, process: subprocess.Popen[bytes], *, expired: bool) -> EdgecError:
        if expired:
            return timed_out(self._timeout_s, where=self._model.name)
        try:
            code = process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            process.kill()
            code = process.wait()
        assert self._stderr is not None
        self._stderr.seek(0)
        return crashed(code, self._stderr.read().decode("utf-8", "replace"), where=self._model.name)

    def _stop(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            for stream in (process.stdin, process.stdout):
                if stream is not None:
                    try:
                        stream.close()
                    except OSError:  # unsent bytes for a process that is gone
                        continue
            process.wait()
        if self._stderr is not None:
            self._stderr.close()
            self._stderr = None


#: Refusals after which both sides still agree on what comes next.
_HARMLESS = ("validate/io-mismatch", "validate/run-failed")


def crashed(code: int, stderr: str, *, where: str) -> EdgecError:
    """The error for a runtime process that died; `code` is negative for a signal."""
    try:
        how = f"killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
    except ValueError:
        how = f"killed by signal {-code}"
    tail = stderr.strip()[-_TAIL_CHARACTERS:]
    return EdgecError(
        "validate/runtime-crashed",
        f"the runtime was {how} while it ran the model" + (f"; it said:\n{tail}" if tail else ""),
        where=where,
        hint="the model makes this runtime crash; report it with the model, or try another --precision or --backend",
    )


def timed_out(timeout_s: float, *, where: str) -> EdgecError:
    """The error for a runtime process that did not answer."""
    return EdgecError(
        "validate/timeout",
        f"the runtime gave no answer within {timeout_s:g} s and was ended",
        where=where,
        hint="give it more time if the model is that slow; otherwise the runtime hangs on this model",
    )


def _write_message(stream: IO[bytes], header: Mapping[str, Any], tensors: Mapping[str, Array]) -> None:
    arrays = {name: np.asarray(value, order="C") for name, value in tensors.items()}
    entries = [{"name": name, "dtype": a.dtype.str, "shape": list(a.shape)} for name, a in arrays.items()]
    data = json.dumps({**header, "tensors": entries}).encode()
    stream.write(struct.pack("<I", len(data)) + data)
    for array in arrays.values():
        stream.write(array.reshape(-1).view(np.uint8).data)
    stream.flush()


def _read_message(stream: IO[bytes]) -> tuple[dict[str, Any], dict[str, Array]]:
    (size,) = struct.unpack("<I", _read_exactly(stream, 4))
    header: dict[str, Any] = json.loads(_read_exactly(stream, size))
    tensors: dict[str, Array] = {}
    for entry in header.get("tensors", []):
        dtype = np.dtype(entry["dtype"])
        data = _read_exactly(stream, math.prod(entry["shape"]) * dtype.itemsize)
        tensors[entry["name"]] = np.frombuffer(data, dtype).reshape(entry["shape"])
    return header, tensors


def _read_exactly(stream: IO[bytes], size: int) -> bytearray:
    """A bytearray, so that arrays made from it are writable."""
    data = bytearray(stream.read(size))
    if len(data) != size:
        raise EOFError
    return data
