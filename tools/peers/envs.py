"""The peers' own virtual environments, made on demand under `.cache/venvs`; never part of the core's."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tools.peers.cases import CACHE

_INSTALL_TIMEOUT_S = 3600


class PeerMissing(Exception):  # noqa: N818  # a peer that is not there is reported, not an error
    """A peer cannot be had on this machine, and why."""


@dataclass(frozen=True, slots=True)
class Peer:
    """A converter: requirements in the order in which they are installed, and the oldest Python that runs it."""

    name: str
    version: str
    requirements: tuple[str, ...]
    python: tuple[int, int]


PEERS = (
    Peer("onnx2tf", "2.6.9", ("onnx2tf==2.6.9", "onnxsim"), (3, 12)),
    # torch first and alone, so that pip takes the plain CPU build where one is offered
    Peer("litert-torch", "0.10.0", ("torch==2.13.0", "litert-torch==0.10.0"), (3, 11)),
)


def peer_python(peer: Peer) -> Path:
    """The Python of the peer's environment, which is made when it is not there. Raises PeerMissing."""
    folder = CACHE / "venvs" / peer.name
    python, stamp = folder / "bin" / "python", folder / ".ready"
    wanted = "\n".join(peer.requirements)
    if stamp.exists() and stamp.read_text() == wanted:
        return python
    base = _base_python(peer)
    print(f"installing {peer.name} {peer.version} under {folder} …", file=sys.stderr, flush=True)
    _run([str(base), "-m", "venv", str(folder)], peer)
    for requirement in peer.requirements:
        _run([str(python), "-m", "pip", "install", "--quiet", requirement], peer)
    stamp.write_text(wanted)
    return python


def _run(command: list[str], peer: Peer) -> None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=_INSTALL_TIMEOUT_S)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise PeerMissing(f"{peer.name} cannot be installed: {error}") from error
    if done.returncode:
        raise PeerMissing(f"{peer.name} cannot be installed: {done.stderr.strip()[-300:]}")


def _base_python(peer: Peer) -> Path:
    for path in _pythons():
        script = f"import sys; sys.exit(sys.version_info[:2] < {peer.python})"
        if subprocess.run([str(path), "-c", script], capture_output=True, check=False).returncode == 0:
            return path
    major, minor = peer.python
    raise PeerMissing(f"{peer.name} needs Python {major}.{minor} or later: set PEER_PYTHON to one")


def _pythons() -> Iterator[Path]:
    """$PEER_PYTHON, this one, what is on PATH, and what pyenv holds."""
    if os.environ.get("PEER_PYTHON"):
        yield Path(os.environ["PEER_PYTHON"])
    yield Path(sys.executable)
    for name in ("python3.12", "python3.13"):
        found = shutil.which(name)
        if found:
            yield Path(found)
    root = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv")
    for name in ("3.12", "3.13"):
        yield from sorted(root.glob(f"versions/{name}*/bin/python"))
