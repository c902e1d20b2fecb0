"""Where a framework's Python comes from: this one where the framework fits beside edgec, else a private environment.

1. The running interpreter, when all that an exporter needs is installed there in versions that it works with.
2. Else `<home>/envs/<name>`, which `edgec doctor --install <name>` makes from the exact list in `environments/`.
   It is made beside its place and moved there whole; one made from another list counts as outdated.
3. Else an error that names both ways.

<home> is $EDGEC_HOME, or `edgec` under $XDG_CACHE_HOME (~/.cache).
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from edgec.errors import EdgecError
from edgec.registry import did_you_mean

_LISTS = Path(__file__).parent / "environments"
_STAMP = "edgec-list.sha256"
_INSTALL_TIMEOUT_S = 3600
_TAIL_LINES = 8

State = Literal["here", "installed", "outdated", "missing"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Environment:
    """A framework's needs: `packages` maps what must be installed to the lowest version; `|` separates equals.

    `extra` is edgec's own extra that brings them, "" where they do not fit beside edgec.
    """

    name: str
    purpose: str
    packages: Mapping[str, str]
    extra: str = ""


ENVIRONMENTS = {
    e.name: e
    for e in (
        Environment(
            name="tensorflow",
            purpose="TensorFlow and Keras models",
            packages={"tensorflow|tensorflow-cpu": "2.16", "tf2onnx": "1.17", "tf-keras": "2.16"},
            extra="tensorflow",
        ),
        Environment(name="mindspore", purpose="MindSpore models", packages={"mindspore": "2.7"}),
    )
}


def python_of(name: str, *, where: str) -> tuple[str, ...]:
    """The command of the Python that has framework `name`. Raises `EdgecError` (`env/missing-environment`)."""
    environment, state = ENVIRONMENTS[name], state_of(name)
    if state == "here":
        return (sys.executable,)
    if state == "installed":
        return (str(_python(folder_of(name))),)
    both = f"pip install 'edgec[{environment.extra}]', or " if environment.extra else ""
    raise EdgecError(
        "env/missing-environment",
        f"reading this model needs {name}, which "
        + ("is installed for another version of edgec" if state == "outdated" else "is not installed"),
        where=where,
        hint=f"{both}edgec doctor --install {name} (an environment of its own, away from edgec's packages)",
    )


def state_of(name: str) -> State:
    """Whether and where framework `name` can be had."""
    if all(_fits(names, lowest) for names, lowest in ENVIRONMENTS[name].packages.items()):
        return "here"
    folder = folder_of(name)
    if not _python(folder).exists():
        return "missing"
    stamp = folder / _STAMP
    return "installed" if stamp.is_file() and stamp.read_text().strip() == _digest(name) else "outdated"


def describe() -> list[dict[str, Any]]:
    """All environments, JSON-ready, for `edgec doctor`."""
    rows = []
    for name, environment in ENVIRONMENTS.items():
        state = state_of(name)
        place = {"here": "beside edgec", "installed": str(folder_of(name))}.get(state, "")
        how = place or f"{state}: edgec doctor --install {name}"
        rows.append({"environment": name, "for": environment.purpose, "state": state, "place": how})
    return rows


def home() -> Path:
    """Where edgec keeps what it makes for itself."""
    own = os.environ.get("EDGEC_HOME")
    if own:
        return Path(own).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache").expanduser() / "edgec"


def folder_of(name: str) -> Path:
    """The folder of a private environment, whether it exists or not."""
    return home() / "envs" / name


def install(name: str) -> Path:
    """Make the private environment, or leave it where it is up to date. Returns its folder.

    Raises `EdgecError`: `cli/unknown-environment`, `env/install-failed`.
    """
    if name not in ENVIRONMENTS:
        raise EdgecError(
            "cli/unknown-environment",
            f"there is no environment {name!r}",
            hint=did_you_mean(name, ENVIRONMENTS),
        )
    folder = folder_of(name)
    if state_of(name) == "installed":
        return folder
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{name}-") as beside:
            made = Path(beside) / "env"
            _run([sys.executable, "-m", "venv", str(made)], name)
            listed = str(_LISTS / f"{name}.txt")
            pip = [str(_python(made)), "-m", "pip", "--disable-pip-version-check", "--quiet", "install"]
            _run([*pip, "--no-deps", "--only-binary=:all:", "--requirement", listed], name)
            (made / _STAMP).write_text(_digest(name) + "\n")
            if folder.exists():
                folder.replace(Path(beside) / "old")
            made.replace(folder)
    except OSError as error:
        raise EdgecError(
            "env/install-failed",
            f"the environment for {name} cannot be written: {error.strerror or error}",
            where=str(folder),
            hint="set EDGEC_HOME to a folder with room for it",
        ) from error
    return folder


def _run(argv: list[str], name: str) -> None:
    try:
        done = subprocess.run(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=_INSTALL_TIMEOUT_S,
            check=False,
            text=True,
            errors="replace",
        )
        words, failed = done.stdout, done.returncode != 0
    except subprocess.TimeoutExpired:
        words, failed = f"not done after {_INSTALL_TIMEOUT_S} s", True
    if failed:
        tail = "\n".join(words.strip().splitlines()[-_TAIL_LINES:])
        raise EdgecError(
            "env/install-failed",
            f"the environment for {name} could not be made with Python {sys.version_info[0]}.{sys.version_info[1]}",
            where=str(folder_of(name)),
            hint=f"check the network, or run edgec with a Python that {name} has wheels for; pip's last words:\n{tail}",
        )


def _python(folder: Path) -> Path:
    return folder / "bin" / "python"


def _digest(name: str) -> str:
    """Of the list and of the Python that it was installed with."""
    version = f"{sys.version_info[0]}.{sys.version_info[1]}".encode()
    return hashlib.sha256((_LISTS / f"{name}.txt").read_bytes() + version).hexdigest()


def _fits(names: str, lowest: str) -> bool:
    for name in names.split("|"):
        try:
            found = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
        return _numbers(found) >= _numbers(lowest)
    return False


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", version)[:3])
