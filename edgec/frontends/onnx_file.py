"""Read an ONNX file: every opset, external data, models over 2 GB (weights stay on disk, mapped).

The file is checked before anything is computed from it: every weight's size against its shape, every external
file's location and length, names, order and types of the graph.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

import onnx
import onnx_ir as ir
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]  # protobuf ships no types
from onnx_ir.passes.common import (
    InlinePass,
    LiftSubgraphInitializersToMainGraphPass,
    RemoveInitializersFromInputsPass,
)

from edgec.errors import EdgecError, Finding
from edgec.frontends.base import Loaded, describe_file, known_magic
from edgec.graph.check_proto import check_proto, external_files
from edgec.graph.edit import remove_dead
from edgec.graph.model import Model, SourceInfo
from edgec.graph.names import name_everything
from edgec.graph.verify import verify
from edgec.passes.fix_inputs import fix_inputs
from edgec.passes.lower_opset import lower_opset
from edgec.passes.upgrade_opset import upgrade_opset

_CHUNK_BYTES = 1 << 20


def accepts(path: Path) -> bool:
    """True for files named .onnx, and for files that no magic number tells to be something else."""
    if not path.is_file() or path.stat().st_size == 0:
        return False
    return known_magic(path) is None and (path.suffix == ".onnx" or _starts_like_onnx(path))


def _starts_like_onnx(path: Path) -> bool:
    # Field 1 (ir_version) as a varint comes first in what all exporters write.
    with path.open("rb") as file:
        return file.read(1) == b"\x08"


def load(path: Path, inputs: Mapping[str, tuple[int, ...]]) -> Loaded:
    """Read, check, upgrade and give static inputs; see the module. Raises `EdgecError` (`source/…`)."""
    proto = _parse(path)
    check_proto(proto, path)
    digest = _digest(path, proto)
    try:
        onnx_model = ir.serde.deserialize_model(proto)
        ir.external_data.set_base_dir(onnx_model.graph, path.parent)
    except Exception as error:  # whatever onnx_ir raises on a file that parses but is no graph
        raise EdgecError(
            "source/malformed",
            f"{path.name} holds no valid graph: {_first_line(error)}",
            where=str(path),
            hint="check it with onnx.checker.check_model, and export it again",
        ) from error
    model = Model(ir=onnx_model, source=SourceInfo(kind="onnx", name=path.name, digest=digest), name=path.stem)
    return Loaded(model=model, findings=_prepare(model, inputs))


def _prepare(model: Model, inputs: Mapping[str, tuple[int, ...]]) -> tuple[Finding, ...]:
    onnx_model = model.ir
    try:
        InlinePass()(onnx_model)
        RemoveInitializersFromInputsPass()(onnx_model)
        LiftSubgraphInitializersToMainGraphPass()(onnx_model)
    except Exception as error:  # recursive functions and the like: onnx_ir raises several types
        raise EdgecError(
            "source/malformed",
            f"the model's functions or initializers do not fit together: {_first_line(error)}",
            where=model.source.name,
            hint="check it with onnx.checker.check_model, and export it again",
        ) from error
    name_everything(onnx_model)
    remove_dead(onnx_model)
    verify(onnx_model)
    findings = fix_inputs(model, inputs)
    upgrade_opset(model)
    lower_opset(model)
    onnx_model = model.ir
    onnx_model.ir_version = max(onnx_model.ir_version, 10)
    verify(onnx_model)
    return findings


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


def _first_line(error: Exception) -> str:
    cause = error
    while cause.__cause__ is not None and isinstance(cause.__cause__, Exception):
        cause = cause.__cause__
    lines = str(cause).strip().splitlines()
    return lines[0][:300] if lines else type(cause).__name__
