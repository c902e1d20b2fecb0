"""How a model comes from an exporter's process: a graph, and one file of weights that stays mapped.

The file is unlinked once it is mapped: the weights live as long as the model does, and nothing stays behind.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir

from edgec.tensors import Array

_GRAPH, _WEIGHTS, _EXAMPLE = "model.onnx", "weights.bin", "example.npz"
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


def give_example(inputs: Mapping[str, Array], outputs: Mapping[str, Array], folder: Path) -> None:
    """Write what went in and came out when the framework ran the model itself."""
    named: dict[str, Any] = {f"in/{name}": value for name, value in inputs.items()}
    named.update({f"out/{name}": value for name, value in outputs.items()})
    np.savez(folder / _EXAMPLE, **named)


def take_example(folder: Path) -> tuple[dict[str, Array], dict[str, Array]]:
    """The inputs and outputs that were given; none where the framework did not run."""
    if not (folder / _EXAMPLE).exists():
        return {}, {}
    with np.load(folder / _EXAMPLE, allow_pickle=False) as arrays:
        sides = [
            {name.removeprefix(side): arrays[name] for name in arrays.files if name.startswith(side)}
            for side in ("in/", "out/")
        ]
    return sides[0], sides[1]


def digest_model(folder: Path) -> str:
    """sha256 of a model that was given, graph and weights."""
    return digest(path for path in (folder / _GRAPH, folder / _WEIGHTS) if path.exists())


def digest(files: Iterable[Path]) -> str:
    """sha256 over the files in the order given, a piece at a time."""
    sha = hashlib.sha256()
    for file in files:
        with file.open("rb") as stream:
            while chunk := stream.read(_CHUNK_BYTES):
                sha.update(chunk)
    return sha.hexdigest()
