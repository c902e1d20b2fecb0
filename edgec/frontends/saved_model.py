"""Read a TensorFlow SavedModel or an unpacked TF Hub module: one of its signatures, `--signature` chooses."""

from __future__ import annotations

from edgec.frontends._tensorflow import load_with_tensorflow
from edgec.frontends.base import Loaded, Request

_GRAPHS = ("saved_model.pb", "saved_model.pbtxt")


def accepts(request: Request) -> bool:
    """True for folders that hold a saved graph."""
    path = request.path
    return path is not None and path.is_dir() and any((path / name).is_file() for name in _GRAPHS)


def load(request: Request) -> Loaded:
    """Read it. Raises `EdgecError` (`source/…`, `env/missing-environment`)."""
    return load_with_tensorflow(request, "saved_model")
