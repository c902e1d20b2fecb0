"""Read a Keras model: `.keras`, and the older `.h5`. TensorFlow runs in a process, and maybe a Python, of its own."""

from __future__ import annotations

import zipfile

from edgec.frontends._tensorflow import load_with_tensorflow
from edgec.frontends.base import Loaded, Request

_HDF5 = b"\x89HDF\r\n\x1a\n"


def accepts(request: Request) -> bool:
    """True for HDF5 files, and for zip archives with what Keras puts into them."""
    path = request.path
    if path is None or not path.is_file():
        return False
    try:
        with path.open("rb") as file:
            head = file.read(len(_HDF5))
        if head == _HDF5:
            return True
        if not head.startswith(b"PK"):
            return False
        with zipfile.ZipFile(path) as archive:
            return {"config.json", "metadata.json"} <= set(archive.namelist())
    except (OSError, zipfile.BadZipFile):
        return False


def load(request: Request) -> Loaded:
    """Read it. Raises `EdgecError` (`source/…`, `env/missing-environment`)."""
    return load_with_tensorflow(request, "keras")
