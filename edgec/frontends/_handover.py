"""How a model comes from an exporter's process: a graph, and one file of weights that stays mapped.

The file is unlinked once it is mapped: the weights live as long as the model does, and nothing stays behind.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path

import onnx
import onnx_ir as ir

_GRAPH, _WEIGHTS = "model.onnx", "weights.bin"
_CHUNK_BYTES = 1 << 20
#: Smaller tensors stay in the graph's own file.
_SMALL_BYTES = 1024


def give(model: ir.Model, folder: Path) -> None:
    """Write a model into the folder, one weight after the other."""
    ir.save(model, folder / _GRAPH, external_data=_WEIGHTS, size_threshold_bytes=_SMALL_BYTES)


def take(folder: Path) -> ir.Model:
    """The model that was given; its weights are mapped, and the folder may go."""
    proto = onnx.load(str(folder / _GRAPH), load_external_data=False)
    model = ir.serde.deserialize_model(proto)
    ir.external_data.set_base_dir(model.graph, folder)
    for value in model.graph.initializers.values():
        tensor = value.const_value
        if isinstance(tensor, ir.ExternalTensor):
            # The array holds the map, and the map the file, whatever becomes of its name.
            value.const_value = ir.Tensor(tensor.numpy(), dtype=tensor.dtype, name=tensor.name)
    return model


def digest(files: Iterable[Path]) -> str:
    """sha256 over the files in the order given, a piece at a time."""
    sha = hashlib.sha256()
    for file in files:
        with file.open("rb") as stream:
            while chunk := stream.read(_CHUNK_BYTES):
                sha.update(chunk)
    return sha.hexdigest()
