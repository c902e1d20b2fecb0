"""Two more labelled rows of the accuracy table, with data out of wheels: pictures of animals, and kinds of files."""

from __future__ import annotations

import gzip
import io
import json
import pickle
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from edgec.frontends.base import load_source
from edgec.passes.pipelines import canonicalize
from edgec.tensors import Array, TensorSpec
from tools.accuracy_rows import CACHE, Feeds, Material, _material, _wheel

_MAGIKA = "magika/models/standard_v3_3/"
_EDGE_BYTES, _BLOCK_BYTES = 1024, 4096  # what Magika sees of each end of a file, and where it looks for it
#: Ends of names that say without doubt what a file is, in Magika's words.
_KINDS = {"py": "python", "pyi": "python", "png": "png", "so": "elf", "tif": "tiff", "jpg": "jpeg", "npy": "npy"}
_KINDS |= {
    "ini": "ini",
    "yaml": "yaml",
    "onnx": "onnx",
    "json": "json",
    "md": "markdown",
    "xml": "xml",
    "js": "javascript",
}
TRAINED = 8000  # drawings that the small CNN has learned from
_A_KIND = 60  # files of one kind at most, so that Python is not all there is


class _ArraysOnly(pickle.Unpickler):
    """Reads a pickled array and refuses everything else."""

    def find_class(self, module: str, name: str) -> Any:
        if module.endswith("multiarray") and name == "_reconstruct":
            return np.ndarray.__reduce__(np.zeros(0))[0]
        if (module, name) in {("numpy", "ndarray"), ("numpy", "dtype")}:
            return getattr(np, name)
        raise pickle.UnpicklingError(f"{module}.{name} is no array")


def animals() -> tuple[Array, Array]:
    """Drawings of animals [10000, 1, 28, 28] in [0, 1], and which animal each is, in an order from a seed."""
    with _wheel("animal-mnist==0.4") as archive:
        folder = "animal_mnist/data/Animal_MNIST/animal_{}_version_3.gz"
        pictures, labels = (
            _ArraysOnly(io.BytesIO(gzip.decompress(archive.read(folder.format(part))))).load()
            for part in ("data", "label")
        )
    order = np.random.default_rng(0).permutation(len(labels))
    x = (pictures.reshape(-1, 1, 28, 28)[order] / np.float32(255)).astype(np.float32)
    return x, labels[order].astype(np.int64)


def animal_mnist() -> Material:
    """Which animal is it? A small CNN trained on most of them here, from a seed."""
    x, y = animals()
    path = CACHE / "models" / "animal_mnist.onnx"
    if not path.exists():
        _train(x[:TRAINED], y[:TRAINED], path)
    feeds = [{"x": row[None]} for row in x[TRAINED:]]
    return _material(path, feeds, y[TRAINED:].tolist())


def _train(x: Array, y: Array, path: Path) -> None:
    """Two passes over the pictures, with Adam; an ONNX file."""
    import torch
    from torch import nn

    torch.manual_seed(0)

    def block(cin: int, cout: int, stride: int) -> list[nn.Module]:
        return [nn.Conv2d(cin, cout, 3, stride, 1, bias=False), nn.BatchNorm2d(cout), nn.ReLU6()]

    net = nn.Sequential(
        *block(1, 16, 1), *block(16, 32, 2), *block(32, 32, 1), *block(32, 64, 2),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, int(y.max()) + 1), nn.Softmax(1),
    )  # fmt: skip
    optimizer = torch.optim.Adam(net.parameters(), 3e-3)
    for _ in range(2):
        for rows in torch.randperm(len(x)).split(100):
            optimizer.zero_grad()
            scores = net[:-1](torch.from_numpy(x[rows]))
            nn.functional.cross_entropy(scores, torch.from_numpy(y[rows])).backward()
            optimizer.step()
    program = torch.onnx.export(
        net.eval(), (torch.zeros(1, 1, 28, 28),), input_names=["x"], output_names=["y"], opset_version=18,
        dynamo=True, verbose=False,
    )  # fmt: skip
    assert program is not None
    path.parent.mkdir(parents=True, exist_ok=True)
    program.save(str(path), external_data=False)


def magika() -> Material:
    """Magika, which says what a file is: files out of four wheels, labelled by the ends of their names."""
    with _wheel("magika==1.0.3") as archive:
        path = CACHE / "models" / "magika.onnx"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(archive.read(_MAGIKA + "model.onnx"))
        classes: list[str] = json.loads(archive.read(_MAGIKA + "config.min.json"))["target_labels_space"]
    model = canonicalize(load_source(path, inputs={"bytes": (1, 2 * _EDGE_BYTES)}).model)
    feeds, kinds = files(model.inputs()[0])
    return Material(model, feeds[0::2], feeds[1::2], [classes.index(kind) for kind in kinds[1::2]])


def files(spec: TensorSpec) -> tuple[Feeds, list[str]]:
    """Files of known kinds as Magika's input, and their kinds."""
    counts: dict[str, int] = {}
    feeds: Feeds = []
    kinds: list[str] = []
    for name, content in _files():
        kind = _KINDS.get(name.rpartition(".")[2])
        if kind is None or len(content) < 64 or counts.get(kind, 0) >= _A_KIND:
            continue
        counts[kind] = counts.get(kind, 0) + 1
        feeds.append({spec.name: _ends(content).astype(spec.dtype.numpy)[None]})
        kinds.append(kind)
    return feeds, kinds


def _files() -> Iterator[tuple[str, bytes]]:
    """Names and contents, the same every time."""
    for requirement in ("scikit-image==0.26.0", "rapidocr==3.10.0", "magika==1.0.3", "basic-pitch==0.4.0"):
        with _wheel(requirement) as archive:
            for info in sorted(archive.infolist(), key=lambda i: i.filename):
                if not info.is_dir():
                    yield info.filename, archive.read(info)


def _ends(content: bytes) -> Array:
    """A file's first and last bytes as Magika takes them: without blanks at the ends, 256 where there is nothing."""
    first, last = content[:_BLOCK_BYTES].lstrip(), content[-_BLOCK_BYTES:].rstrip()
    found = np.full(2 * _EDGE_BYTES, 256, np.int64)
    head, tail = first[:_EDGE_BYTES], last[-_EDGE_BYTES:]
    found[: len(head)] = list(head)
    found[2 * _EDGE_BYTES - len(tail) :] = list(tail)
    return found


WHEELS: dict[str, Callable[[], Material]] = {"animal_mnist": animal_mnist, "magika": magika}
