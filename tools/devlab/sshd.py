"""A real OpenSSH server on loopback, with keys and known hosts of its own."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tools.devlab.common import UnavailableError, free_port, program, run

_CONFIG = """\
Port {port}
ListenAddress 127.0.0.1
HostKey {folder}/host_ed25519
PidFile {folder}/sshd.pid
AuthorizedKeysFile {folder}/authorized_keys
PasswordAuthentication no
KbdInteractiveAuthentication no
UsePAM no
PermitRootLogin prohibit-password
StrictModes no
MaxStartups 200
MaxSessions 200
{environment}
"""

#: A bash that sshd starts at this depth does not read the user's own .bashrc.
ENVIRONMENT = {"SHLVL": "2"}


@dataclass(frozen=True, kw_only=True, slots=True)
class Server:
    """A running sshd: everything a client needs to know."""

    port: int
    user: str
    identity: Path
    known_hosts: Path
    folder: Path
    pid: int

    @property
    def address(self) -> str:
        """As a device."""
        return f"ssh:{self.user}@127.0.0.1:{self.port}"

    @property
    def options(self) -> dict[str, str]:
        """What the inventory must say beside the address."""
        return {"identity": str(self.identity), "known_hosts": str(self.known_hosts)}

    def known_at(self, port: int) -> str:
        """The line of a known_hosts file for the server behind a proxy at another port."""
        return self.known_hosts.read_text().replace(f":{self.port} ", f":{port} ")


def write_files(folder: Path, port: int, extra: Sequence[str] = (), env: Mapping[str, str] | None = None) -> None:
    """Keys, known hosts and the server's configuration."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("host_ed25519", "id"):
        if not (folder / name).exists():
            run([program("ssh-keygen"), "-q", "-t", "ed25519", "-N", "", "-C", "edgec-devlab", "-f", folder / name])
    (folder / "authorized_keys").write_text((folder / "id.pub").read_text())
    public = " ".join((folder / "host_ed25519.pub").read_text().split()[:2])
    (folder / "known_hosts").write_text(f"[127.0.0.1]:{port} {public}\n")
    lines = "".join(f"{line}\n" for line in extra)
    # sshd heeds one SetEnv line alone.
    environment = "SetEnv " + " ".join(f"{key}={value}" for key, value in {**ENVIRONMENT, **(env or {})}.items())
    text = _CONFIG.format(port=port, folder=folder, environment=environment) + lines
    (folder / "sshd_config").write_text(text)


def start(
    folder: Path, *, extra: Sequence[str] = (), wrapper: Sequence[str] = (), env: Mapping[str, str] | None = None
) -> tuple[Server, subprocess.Popen[bytes]]:
    """Start one; `extra` are lines of its configuration, `wrapper` starts it, `env` is its sessions'."""
    binary = program("sshd")
    if os.geteuid() == 0:
        Path("/run/sshd").mkdir(exist_ok=True)
    port = free_port()
    write_files(folder, port, extra, env)
    command = [*wrapper, binary, "-D", "-f", str(folder / "sshd_config"), "-E", str(folder / "sshd.log")]
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    try:
        _wait(process, port, folder)
    except BaseException:
        stop(process)
        raise
    server = Server(
        port=port,
        user=run(["id", "-un"]).strip(),
        identity=folder / "id",
        known_hosts=folder / "known_hosts",
        folder=folder,
        pid=process.pid,
    )
    return server, process


def stop(process: subprocess.Popen[bytes]) -> None:
    """End the server; sessions that are open go on, as on a real device."""
    process.terminate()
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(timeout=10)
    process.kill()
    process.wait()
    if process.stderr:
        process.stderr.close()


@contextlib.contextmanager
def running(folder: Path, *, extra: Sequence[str] = (), wrapper: Sequence[str] = ()) -> Iterator[Server]:
    """A server for the length of a `with`."""
    server, process = start(folder, extra=extra, wrapper=wrapper)
    try:
        yield server
    finally:
        stop(process)


def _wait(process: subprocess.Popen[bytes], port: int, folder: Path) -> None:
    end = time.monotonic() + 60
    while time.monotonic() < end:
        if process.poll() is not None:
            log = folder / "sshd.log"
            said = log.read_text() if log.exists() else ""
            errors = process.stderr.read().decode("utf-8", "replace") if process.stderr else ""
            raise UnavailableError(f"sshd does not start: {(said + errors).strip()[-500:]}")
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=5) as client:
            if client.recv(4) == b"SSH-":
                return
        time.sleep(0.05)
    raise UnavailableError("sshd does not answer within 60 s")
