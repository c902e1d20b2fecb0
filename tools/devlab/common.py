"""What the recipes share: where things are kept, how programs are run, and the word for what cannot be had."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import socket
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


class UnavailableError(Exception):
    """A part that this machine cannot have; the message says why and what would help."""


def cache() -> Path:
    """The folder of all virtual devices: EDGEC_DEVLAB, or `.cache/devlab` of the checkout."""
    return Path(os.environ.get("EDGEC_DEVLAB") or ROOT / ".cache" / "devlab").absolute()


def run(argv: Sequence[str | Path], *, env: Mapping[str, str] | None = None, timeout_s: float = 600) -> str:
    """The command's stdout. Raises `UnavailableError` with the end of what it said when it fails."""
    command = [str(word) for word in argv]
    try:
        done = subprocess.run(
            command,
            env={**os.environ, **(env or {})},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=timeout_s,
            check=False,
        )
    except FileNotFoundError as error:
        raise UnavailableError(f"{command[0]} is not installed") from error
    except subprocess.TimeoutExpired as error:
        raise UnavailableError(f"{command[0]} took longer than {timeout_s:g} s") from error
    if done.returncode:
        said = (done.stderr.strip() or done.stdout.strip() or f"exit code {done.returncode}").splitlines()
        raise UnavailableError(f"{' '.join(command[:4])} … failed: {' / '.join(said[-3:])}")
    return done.stdout


def need_root(what: str) -> None:
    """Raise `UnavailableError` for an ordinary user."""
    if os.geteuid() != 0:
        raise UnavailableError(f"{what} needs root")


def program(name: str) -> str:
    """The path of a program, also of those in sbin. Raises `UnavailableError`."""
    found = shutil.which(name, path=os.environ.get("PATH", "") + ":/usr/local/sbin:/usr/sbin:/sbin")
    if not found:
        raise UnavailableError(f"{name} is not installed (make devlab installs it on Debian, as root)")
    return found


def free_port() -> int:
    """A port of the loopback interface that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextlib.contextmanager
def locked(name: str) -> Iterator[None]:
    """Only one process at a time."""
    cache().mkdir(parents=True, exist_ok=True)
    with (cache() / f".{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def prepared(name: str, recipe: str, make: Callable[[Path], None]) -> Path:
    """The folder `name` of the cache, made once by `make`, and again when `recipe` (a version) changes."""
    folder = cache() / name
    stamp = folder / ".recipe"
    with locked(name):
        if not (stamp.is_file() and stamp.read_text() == recipe):
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True)
            make(folder)
            stamp.write_text(recipe)
    return folder


def existing(name: str, recipe: str, *, goal: str = "devlab") -> Path:
    """A prepared folder. Raises `UnavailableError` where it has not been made, or by an older recipe."""
    folder = cache() / name
    stamp = folder / ".recipe"
    if not (stamp.is_file() and stamp.read_text() == recipe):
        raise UnavailableError(f"{name} is not prepared (make {goal})")
    return folder
