"""Keep statistics on disk under what they depend on: the model's contents, the data's, and the algorithm's version."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import tempfile
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir

from edgec.errors import Finding, Severity
from edgec.graph.model import Model
from edgec.quantization.types import Statistics, TensorStats
from edgec.tensors import Array

#: Raise when calibration begins to give other statistics for the same model and data.
ALGORITHM_VERSION = 3


def cache_folder() -> Path:
    """Where statistics are kept: $EDGEC_CACHE, else edgec in $XDG_CACHE_HOME, else ~/.cache/edgec."""
    if chosen := os.environ.get("EDGEC_CACHE"):
        return Path(chosen)
    home = os.environ.get("XDG_CACHE_HOME")
    return (Path(home) if home else Path.home() / ".cache") / "edgec"


def model_digest(model: Model) -> str:
    """sha256 over the model's graph and weights, for models of any size."""
    sha = hashlib.sha256()
    work = model.clone().ir
    for graph in (work.graph, *(g for g in work.graph.subgraphs())):
        for name in sorted(graph.initializers):
            tensor = graph.initializers[name].const_value
            if tensor is None:
                continue
            sha.update(f"{name} {tensor.dtype.name} {tuple(tensor.shape)}\n".encode())
            text = tensor.dtype == ir.DataType.STRING
            sha.update(repr(tensor.numpy().tolist()).encode() if text else tensor.tobytes())
            graph.initializers[name].const_value = ir.ExternalTensor(
                "hashed", 0, 0, tensor.dtype, shape=ir.Shape(tensor.shape.numpy()), name=name, base_dir=""
            )
    sha.update(ir.serde.serialize_model(work).SerializeToString(deterministic=True))
    return sha.hexdigest()


def statistics_key(model: Model, data_digest: str, tensors: Sequence[str]) -> str:
    """The digest that statistics are kept under."""
    parts = [str(ALGORITHM_VERSION), model_digest(model), data_digest, *sorted(tensors)]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def load_statistics(folder: Path, key: str) -> Statistics | None:
    """What is kept under the key; None when there is nothing, or it is damaged."""
    try:
        with _file(folder, key).open("rb") as stream, np.load(stream, allow_pickle=False) as arrays:
            return _unpack({name: arrays[name] for name in arrays.files}, key)
    except (OSError, ValueError, KeyError, IndexError, TypeError, EOFError, zipfile.BadZipFile):
        return None


def save_statistics(folder: Path, key: str, statistics: Statistics) -> bool:
    """Keep statistics, all or nothing. False when the folder cannot be written: then the next run works again."""
    path = _file(folder, key)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, suffix=".part")
    except OSError:
        return False
    try:
        with os.fdopen(handle, "wb") as stream:
            np.savez_compressed(stream, allow_pickle=False, **_pack(statistics))
        Path(temporary).replace(path)
    except OSError:
        with contextlib.suppress(OSError):
            Path(temporary).unlink()
        return False
    return True


def _file(folder: Path, key: str) -> Path:
    return folder / "statistics" / f"{key}.npz"


def _pack(statistics: Statistics) -> dict[str, Array]:
    """Flat arrays: all tensors one after the other."""
    names = sorted(statistics.tensors)
    tensors = [statistics.tensors[name] for name in names]
    header = {
        "names": names,
        "samples": statistics.samples,
        "findings": [finding.as_dict() for finding in statistics.findings],
        "has_channels": [t.channel_min is not None for t in tensors],
    }
    empty = np.zeros(0, np.float32)
    return {
        "header": np.frombuffer(json.dumps(header).encode(), np.uint8),
        "ranges": np.array([(t.minimum, t.maximum, t.bin_width) for t in tensors], np.float64).reshape(-1, 3),
        "bins": np.array([(t.first_bin, len(t.counts)) for t in tensors], np.int64).reshape(-1, 2),
        "counts": np.concatenate([np.zeros(0, np.int64), *(t.counts for t in tensors)]),
        "channels": np.array([0 if t.channel_min is None else len(t.channel_min) for t in tensors], np.int64),
        "channel_min": np.concatenate([empty, *(t.channel_min for t in tensors if t.channel_min is not None)]),
        "channel_max": np.concatenate([empty, *(t.channel_max for t in tensors if t.channel_max is not None)]),
        "runs": np.array([(len(t.lows), len(t.highs), t.runs) for t in tensors], np.int64).reshape(-1, 3),
        "lows": np.concatenate([empty, *(t.lows for t in tensors)]),
        "highs": np.concatenate([empty, *(t.highs for t in tensors)]),
    }


def _unpack(arrays: dict[str, Array], key: str) -> Statistics:
    header: dict[str, Any] = json.loads(arrays["header"].tobytes())
    counts = np.split(arrays["counts"], np.cumsum(arrays["bins"][:, 1])[:-1])
    ends = np.cumsum(arrays["channels"])[:-1]
    lows, highs = np.split(arrays["channel_min"], ends), np.split(arrays["channel_max"], ends)
    extremes = [np.split(arrays[key], np.cumsum(arrays["runs"][:, k])[:-1]) for k, key in enumerate(("lows", "highs"))]
    tensors = {}
    for i, name in enumerate(header["names"]):
        low, high, width = (float(x) for x in arrays["ranges"][i])
        has_channels = header["has_channels"][i]
        tensors[name] = TensorStats(
            minimum=low,
            maximum=high,
            bin_width=width,
            first_bin=int(arrays["bins"][i, 0]),
            counts=counts[i],
            channel_min=lows[i] if has_channels else None,
            channel_max=highs[i] if has_channels else None,
            runs=int(arrays["runs"][i, 2]),
            lows=extremes[0][i],
            highs=extremes[1][i],
        )
    findings = tuple(Finding(**{**f, "severity": Severity(f["severity"])}) for f in header["findings"])
    return Statistics(tensors=tensors, samples=int(header["samples"]), digest=key, findings=findings)
