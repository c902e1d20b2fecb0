"""Read an ONNX file: every opset, external data, models over 2 GB (weights stay on disk, mapped).

The file is checked before anything is computed from it: every weight's size against its shape, every external
file's location and length, names, order and types of the graph.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import onnx
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]  # protobuf ships no types

from edgec.errors import EdgecError
from edgec.frontends._onnx_model import from_proto
from edgec.frontends.base import Loaded, Request, describe_file, existing, known_magic
from edgec.graph.check_proto import check_proto, external_files
from edgec.graph.model import SourceInfo

_CHUNK_BYTES = 1 << 20


def accepts(request: Request) -> bool:
    """True for files named .onnx, and for files that no magic number tells to be something else."""
    path = request.path
    if path is None or not path.is_file() or path.stat().st_size == 0:
        return False
    return known_magic(path) is None and (path.suffix == ".onnx" or _starts_like_onnx(path))


def _starts_like_onnx(path: Path) -> bool:
    # Field 1 (ir_version) as a varint comes first in what all exporters write.
    with path.open("rb") as file:
        return file.read(1) == b"\x08"


def load(request: Request) -> Loaded:
    """Read, check, upgrade and give static inputs; see the module. Raises `EdgecError` (`source/…`)."""
    path = existing(request)
    proto = _parse(path)
    check_proto(proto, path)
    source = SourceInfo(kind="onnx", name=path.name, digest=_digest(path, proto))
    return from_proto(proto, source=source, name=path.stem, inputs=request.inputs, folder=path.parent)


def _parse(path: Path) -> onnx.ModelProto:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise EdgecError(
            "source/unreadable", f"{path.name} cannot be read: {error.strerror}", where=str(path)
        ) from error
    if not data:
        found, remedy = describe_file(path)
        raise EdgecError("source/unknown-format", f"{path.name} is {found}", where=str(path), hint=remedy)
    proto = onnx.ModelProto()
    try:
        proto.ParseFromString(data)
    except (DecodeError, RecursionError, ValueError) as error:
        known = known_magic(path)
        if known is not None:
            raise EdgecError(
                "source/unknown-format",
                f"{path.name} is {known[0]}, not an ONNX model",
                where=str(path),
                hint=known[1],
            ) from error
        raise EdgecError(
            "source/truncated",
            f"{path.name} is no complete ONNX file",
            where=str(path),
            hint="it was cut short or damaged: copy or export it again, and compare sizes",
        ) from error
    return proto


def _digest(path: Path, proto: onnx.ModelProto) -> str:
    """sha256 over the file and the external data it names, in name order, a piece at a time."""
    sha = hashlib.sha256()
    for file in [path, *external_files(proto, path.parent)]:
        with file.open("rb") as stream:
            while chunk := stream.read(_CHUNK_BYTES):
                sha.update(chunk)
    return sha.hexdigest()
