"""A machine behind SSH: `ssh:user@host[:port]` or `ssh://user@host:port`, by asyncssh.

1. The host key must be known; nobody is asked, nothing is learnt.
2. With `identity` only that key is tried; without, the user's own keys and agent are.
3. `~/.ssh/config` is read only when the inventory names it.
4. Keepalives find a peer that is gone, so a transfer needs no time limit.
"""

from __future__ import annotations

import asyncio
import io
import os
import re
import signal
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from pydantic import Field

from edgec.devices.base import UNKNOWN_SIGNAL, Transport
from edgec.devices.loop import await_here
from edgec.devices.options import KindOptions, Place
from edgec.devices.posix import Ended, PosixDevice
from edgec.errors import EdgecError

if TYPE_CHECKING:
    import asyncssh

_ADDRESS = re.compile(r"(?://)?(?:(?P<user>[^@\s]+)@)?(?P<host>\[[^\]\s]+\]|[^@:/\s]+)(?::(?P<port>\d{1,5}))?/?")
_CHUNK_BYTES = 1 << 16


class Options(KindOptions):
    """What the inventory may say. `home` and `scratch` are folders on the device, `config` an OpenSSH configuration."""

    identity: Place | None = None
    known_hosts: Place | None = None
    config: Place | None = None
    agent: bool = True
    python: tuple[str, ...] = Field(("python3",), min_length=1)
    home: str = Field("", pattern="^(/.*)?$")
    scratch: str = Field("", pattern="^(/.*)?$")
    connect_timeout_s: float = Field(15.0, gt=0)
    keepalive_s: float = Field(5.0, gt=0)


def open_device(address: str, options: Options, name: str) -> Transport:
    """The device at `user@host[:port]`. Raises `EdgecError`: device/bad-address, device/unavailable."""
    found = _ADDRESS.fullmatch(address)
    port = int(found["port"] or 22) if found else 0
    if not found or not 0 < port < 65536:
        raise EdgecError("device/bad-address", f"cannot read the address {address!r}", hint="write ssh:user@host:port")
    try:
        import asyncssh  # noqa: F401
    except ImportError as error:
        raise EdgecError(
            "device/unavailable", "asyncssh is not installed", where=name, hint="pip install 'edgec[ssh]'"
        ) from error
    return SshDevice(found["host"].strip("[]"), port, found["user"], options, name)


class SshDevice(PosixDevice):
    """One connection, made by the first call and again by the first one after it broke."""

    def __init__(self, host: str, port: int, user: str | None, options: Options, name: str) -> None:
        super().__init__(name=name, python=options.python, home=options.home, scratch=options.scratch)
        self._host, self._port, self._user, self._options = host, port, user, options
        self._connection: asyncssh.SSHClientConnection | None = None
        self._lock = threading.Lock()

    def close(self) -> None:
        """Close the connection, if there is one."""
        with self._lock:
            connection, self._connection = self._connection, None
            if connection is not None:
                await_here(_close(connection))

    def _run(
        self, command: str, *, timeout_s: float | None, stdin: IO[bytes] | None = None, stdout: IO[bytes] | None = None
    ) -> Ended:
        import asyncssh

        connection = self._connected()
        try:
            return await_here(_run(connection, command, timeout_s, stdin, stdout))
        except (asyncssh.Error, ConnectionError, EOFError) as error:
            self.close()
            raise EdgecError(
                "device/lost",
                f"the connection to {self.name} broke: {str(error) or type(error).__name__}",
                where=self._where,
                hint="check power and network, and run it again: what was sent is continued",
            ) from error

    def _connected(self) -> asyncssh.SSHClientConnection:
        with self._lock:
            if self._connection is None or self._connection.is_closed():
                self._connection = self._connect()
            return self._connection

    def _connect(self) -> asyncssh.SSHClientConnection:
        import asyncssh

        seen: list[str] = []

        class Client(asyncssh.SSHClient):
            """Keeps the fingerprint of a key that is not known."""

            def validate_host_public_key(self, _host: str, _addr: str, _port: int, key: asyncssh.SSHKey) -> bool:
                seen.append(f"{key.get_algorithm()} {key.get_fingerprint()}")
                return False

        try:
            return await_here(_connect(self._host, self._port, Client, self._settings()))
        except asyncssh.HostKeyNotVerifiable as error:
            raise self._stranger(seen, str(error)) from error
        except (asyncssh.PermissionDenied, asyncssh.KeyImportError, asyncssh.KeyEncryptionError) as error:
            identity = self._options.identity
            key = f"the key {identity}" if identity else "your keys and agent"
            raise EdgecError(
                "device/auth",
                f"{self.name} does not accept {key}: {error}",
                where=self._where,
                hint="name the right private key as `identity` in devices.toml, or run ssh-copy-id to the device",
            ) from error
        except (asyncssh.Error, OSError) as error:
            raise EdgecError(
                "device/unreachable",
                f"cannot connect to {self.name}: {_why(error)}",
                where=self._where,
                hint="check the address and the port, and that the device is on and in this network",
            ) from error

    def _settings(self) -> dict[str, Any]:
        options = self._options
        settings: dict[str, Any] = {
            "config": [str(options.config)] if options.config else None,  # rule 3
            "connect_timeout": options.connect_timeout_s,
            "login_timeout": 2 * options.connect_timeout_s,
            "keepalive_interval": options.keepalive_s,  # rule 4
            "keepalive_count_max": 3,
            "encoding": None,
        }
        if self._user:
            settings["username"] = self._user
        if options.known_hosts:
            settings["known_hosts"] = self._readable(options.known_hosts, "known_hosts")
        if options.identity:  # rule 2
            settings["client_keys"] = [self._readable(options.identity, "identity")]
        if options.identity or not options.agent:
            settings["agent_path"] = None
        return settings

    def _readable(self, path: Path, option: str) -> str:
        if not os.access(path, os.R_OK) or not path.is_file():
            code = "device/auth" if option == "identity" else "device/host-key"
            raise EdgecError(code, f"cannot read the {option} file of {self.name}", where=str(path))
        return str(path)

    def _stranger(self, seen: Sequence[str], why: str) -> EdgecError:
        shown = f": it shows {seen[-1]}" if seen else f": {why}"
        place = self._options.known_hosts or "~/.ssh/known_hosts"
        return EdgecError(
            "device/host-key",
            f"the host key of {self.name} is not the one in {place}{shown}",
            where=self._where,
            hint="compare it with `ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub` on the device; if it is the same, "
            f"put what `ssh-keyscan -p {self._port} {self._host}` says into {place}",
        )

    @property
    def _where(self) -> str:
        return f"{self._user + '@' if self._user else ''}{self._host}:{self._port}"


async def _connect(
    host: str, port: int, client: type[asyncssh.SSHClient], settings: dict[str, Any]
) -> asyncssh.SSHClientConnection:
    import asyncssh

    return await asyncssh.connect(host, port, client_factory=client, **settings)


async def _close(connection: asyncssh.SSHClientConnection) -> None:
    connection.close()
    try:
        await asyncio.wait_for(connection.wait_closed(), 2)
    except TimeoutError:
        connection.abort()


async def _run(
    connection: asyncssh.SSHClientConnection,
    command: str,
    timeout_s: float | None,
    stdin: IO[bytes] | None,
    stdout: IO[bytes] | None,
) -> Ended:
    process: asyncssh.SSHClientProcess[bytes] = await connection.create_process(command, encoding=None)
    captured = io.BytesIO()
    said = io.BytesIO()
    work = asyncio.gather(
        _feed(process, stdin or io.BytesIO()),
        _drain(process.stdout, stdout or captured),
        _drain(process.stderr, said),
        process.wait_closed(),
    )
    timed_out = False
    try:
        await asyncio.wait_for(work, timeout_s)
    except TimeoutError:
        timed_out = True
    finally:
        process.close()
    if not timed_out and process.exit_status is None and process.exit_signal is None:
        raise EOFError("it ended without an exit status")
    code = -9 if timed_out else _code(process)
    return Ended(returncode=code, stdout=captured.getvalue(), stderr=said.getvalue(), timed_out=timed_out)


async def _feed(process: asyncssh.SSHClientProcess[bytes], source: IO[bytes]) -> None:
    """Write all of it; a command that stops reading says why by its exit code."""
    try:
        while data := source.read(_CHUNK_BYTES):
            process.stdin.write(data)
            await process.stdin.drain()
        process.stdin.write_eof()
    except BrokenPipeError:
        return


async def _drain(stream: asyncssh.SSHReader[bytes], sink: IO[bytes]) -> None:
    while data := await stream.read(_CHUNK_BYTES):
        sink.write(data)


def _code(process: asyncssh.SSHClientProcess[bytes]) -> int:
    if process.exit_signal is None:
        return process.exit_status or 0
    # sshd names the signals that the protocol lists; SIGBUS and SIGTRAP are not among them.
    return -int(getattr(signal, f"SIG{process.exit_signal[0]}", UNKNOWN_SIGNAL))


def _why(error: Exception) -> str:
    """The reason in words; a timeout has none of its own."""
    if isinstance(error, OSError) and error.errno:  # asyncio puts the address into strerror; resolvers count down
        return os.strerror(error.errno) if error.errno > 0 else str(error.strerror)
    return str(error) or ("no answer in time" if isinstance(error, TimeoutError) else type(error).__name__)
