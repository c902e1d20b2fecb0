"""Add an entry to a .tflite file's metadata; what the file computes stays as it is."""

from __future__ import annotations

import flatbuffers
import numpy as np

from edgec.backends.tflite.schema import fb
from edgec.backends.tflite.writer import _Buffer


def add_metadata(data: bytes, name: str, content: bytes) -> bytes:
    """The file with `content` under `name`, which replaces an older entry of that name."""
    model = fb.ModelT.InitFromObj(fb.Model.GetRootAsModel(data, 0))
    model.buffers = [_aligned(buffer.data) for buffer in model.buffers]
    kept = [entry for entry in model.metadata or () if entry.name != name.encode()]
    entry = fb.MetadataT()
    entry.name, entry.buffer = name.encode(), len(model.buffers)
    model.buffers.append(_aligned(np.frombuffer(content, np.uint8)))
    model.metadata = sorted([*kept, entry], key=lambda e: bytes(e.name))
    builder = flatbuffers.Builder(len(data) + len(content) + 65536)
    builder.Finish(model.Pack(builder), file_identifier=b"TFL3")
    return bytes(builder.Output())


def _aligned(data: object) -> _Buffer:
    entry = _Buffer()
    entry.data = None if data is None else np.asarray(data, np.uint8)
    return entry
