"""Runs on the device, from stdin: unpack a runtime's archive, or say the digest of what is unpacked.

    python3 - unpack ARCHIVE FOLDER
    python3 - digest FOLDER

Python >= 3.9 and its standard library; prints the digest of the folder's files, in the terms of `edgec.flash.wheels`.
"""

from __future__ import annotations

import hashlib
import sys
import zipfile
from pathlib import Path


def digest(folder: Path) -> str:
    """One number for names and contents; compiled files are Python's own affair."""
    listing = hashlib.sha256()
    for path in sorted(path for path in folder.rglob("*") if path.is_file() and "__pycache__" not in path.parts):
        sha = hashlib.sha256()
        with path.open("rb") as stream:
            for chunk in iter(lambda: stream.read(1 << 20), b""):
                sha.update(chunk)
        listing.update(f"{sha.hexdigest()} {path.relative_to(folder).as_posix()}\n".encode())
    return listing.hexdigest()[:16]


def main(arguments: list[str]) -> None:
    """Do it."""
    folder = Path(arguments[-1])
    if arguments[0] == "unpack":
        with zipfile.ZipFile(arguments[1]) as packed:
            packed.extractall(folder)
    sys.stdout.write(digest(folder) + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])
