"""A model in a process of its own: the release's agent with `serve-stdio`. What kills it kills only it."""

from __future__ import annotations

import collections
import contextlib
import json
import os
import signal
import struct
import subprocess
import sys
import threading
from pathlib import Path
from typing import IO, Any

import numpy as np

from edgec.service.problems import ServiceError

_MAX_HEADER_BYTES = 1 << 24
#: Refusals of the agent after which both sides still agree on what comes next.
_HARMLESS = ("io-mismatch", "run-failed")


class Child:
    """Starts at once. One call at a time; the caller sees to that. Raises ServiceError for whatever goes wrong."""

    def __init__(
        self, agent: Path, model: Path, engine: str, *, runtime: Path | None, threads: int, timeout_s: float
    ) -> None:
        command = [sys.executable, str(agent), "serve-stdio", str(model), "--backend", engine]
        env = dict(os.environ)
        if runtime is not None:
            env["PYTHONPATH"] = os.pathsep.join([str(runtime), *filter(None, [env.get("PYTHONPATH")])])
        env["PYTHONDONTWRITEBYTECODE"] = "1"  # the release stays as it was sent
        self._process = subprocess.Popen(
            [*command, "--threads", str(threads)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=env,
            start_new_session=True,  # an interrupt at the terminal is for the service, which ends it in order
        )
        self._tail: collections.deque[bytes] = collections.deque(maxlen=8)
        self._listener = threading.Thread(target=self._listen, daemon=True)
        self._listener.start()
        try:
            hello, _ = self._exchange(None, {}, timeout_s)
        except ServiceError:
            self.close()
            raise
        self.runtime = str(hello.get("runtime", ""))

    @property
    def pid(self) -> int:
        """Of the process."""
        return self._process.pid

    @property
    def alive(self) -> bool:
        """False once it has ended."""
        return self._process.poll() is None

    def run(self, feeds: dict[str, Any], timeout_s: float) -> tuple[dict[str, Any], float]:
        """Outputs by the model's names, and the seconds that they took inside."""
        header, outputs = self._exchange({}, feeds, timeout_s)
        return outputs, float(header["seconds"])

    def close(self) -> None:
        """End it."""
        self._process.kill()
        self._process.wait()
        self._listener.join(timeout=5)
        for stream in (self._process.stdin, self._process.stdout, self._process.stderr):
            if stream is not None:
                with contextlib.suppress(OSError):  # unsent bytes for a process that is gone
                    stream.close()

    def _listen(self) -> None:
        assert self._process.stderr is not None
        while data := os.read(self._process.stderr.fileno(), 512):
            self._tail.append(data)

    def _exchange(
        self, header: dict[str, Any] | None, feeds: dict[str, Any], timeout_s: float
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        expired = threading.Event()

        def expire() -> None:
            expired.set()
            self._process.kill()

        watchdog = threading.Timer(timeout_s, expire)
        watchdog.daemon = True
        watchdog.start()
        try:
            assert self._process.stdin is not None
            assert self._process.stdout is not None
            if header is not None:
                _write(self._process.stdin, header, feeds)
            reply, tensors = _read(self._process.stdout)
        except (EOFError, OSError, ValueError) as error:
            if expired.is_set():
                message = f"the model gave no answer within {timeout_s:g} s; its process was ended"
                raise ServiceError(504, "timeout", message) from error
            raise self._death() from error
        finally:
            watchdog.cancel()
        if "error" in reply:
            record = reply["error"]
            status = 400 if record["code"] == "io-mismatch" else 500
            raise ServiceError(status, record["code"], record["message"], record.get("hint", ""))
        return reply, tensors

    def _death(self) -> ServiceError:
        try:
            code = self._process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            code = self._process.wait()
        self._listener.join(timeout=5)
        said = b"".join(self._tail).decode("utf-8", "replace").strip().splitlines()
        how = f"ended with exit code {code}"
        if code < 0:
            with contextlib.suppress(ValueError):
                how = f"was killed by {signal.Signals(-code).name}"
        message = f"the runtime {how} while it ran the model" + (f": {said[-1][:300]}" if said else "")
        return ServiceError(500, "runtime-crashed", message, "the service goes on; try another input, or roll back")


def harmless(error: ServiceError) -> bool:
    """True when the process can be used on after this."""
    return error.code in _HARMLESS


def _write(stream: IO[bytes], header: dict[str, Any], tensors: dict[str, Any]) -> None:
    arrays = {name: np.ascontiguousarray(value).reshape(np.shape(value)) for name, value in tensors.items()}
    entries = [{"name": n, "dtype": a.dtype.str, "shape": list(a.shape)} for n, a in arrays.items()]
    data = json.dumps({**header, "tensors": entries}).encode()
    stream.write(struct.pack("<I", len(data)) + data)
    for array in arrays.values():
        stream.write(array.tobytes())
    stream.flush()


def _read(stream: IO[bytes]) -> tuple[dict[str, Any], dict[str, Any]]:
    (size,) = struct.unpack("<I", _exactly(stream, 4))
    if size > _MAX_HEADER_BYTES:
        raise EOFError
    header = json.loads(_exactly(stream, size))
    tensors = {}
    for entry in header.get("tensors", []):
        dtype, shape = np.dtype(entry["dtype"]), tuple(entry["shape"])
        data = _exactly(stream, int(np.prod(shape, dtype=np.int64)) * dtype.itemsize)
        tensors[entry["name"]] = np.frombuffer(data, dtype).reshape(shape)
    return header, tensors


def _exactly(stream: IO[bytes], size: int) -> bytes:
    data = stream.read(size)
    if len(data) != size:
        raise EOFError
    return data
