"""Keep the float and the QDQ model of a build, for `edgec compare`, under the digest of the artifact made from them.

In the cache the recipe that read the calibration data lies beside them: other data is read alike.

They go into the cache folder, the oldest out of it beyond `MAX_KEPT` builds or `MAX_BYTES`; `--keep-graphs` puts them
into the bundle as well. A bundle's own model files are the key, so nothing about the cache stands in it.
"""

from __future__ import annotations

import contextlib
import hashlib
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path

from edgec.errors import EdgecError
from edgec.graph.model import Model
from edgec.quantization.calibration.cache import cache_folder
from edgec.quantization.data.recipe import Recipe

#: Names of the two in a bundle and in the cache.
FLOAT, QUANTIZED = "graphs/float.onnx", "graphs/quantized.onnx"

_RECIPE = "recipe.json"

MAX_KEPT = 32
MAX_BYTES = 2 << 30

Graphs = Mapping[str, bytes]


def graphs_of(model: Model, quantized: Model) -> Graphs | None:
    """Both as ONNX files; None for models too large for one file each."""
    try:
        return {FLOAT: model.to_bytes(), QUANTIZED: quantized.to_bytes()}
    except EdgecError as error:
        if error.code != "graph/too-large":
            raise
        return None


def key_of(files: Mapping[str, str]) -> str:
    """The key of an artifact: sha256 over its files' names and sha256."""
    lines = [f"{name} {sha256}\n" for name, sha256 in sorted(files.items())]
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def sha256_of(data: bytes) -> str:
    """As a manifest gives it."""
    return hashlib.sha256(data).hexdigest()


def keep(key: str, graphs: Graphs, recipe: Recipe | None = None) -> None:
    """Put both into the cache, whole or not at all; a cache that cannot be written is no reason to fail."""
    folder = _home() / key
    with contextlib.suppress(OSError):
        folder.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(dir=folder.parent, prefix=".part-"))
        try:
            for name, data in graphs.items():
                (temporary / Path(name).name).write_bytes(data)
            if recipe is not None:
                (temporary / _RECIPE).write_text(recipe.model_dump_json(), "utf-8")
            shutil.rmtree(folder, ignore_errors=True)
            temporary.replace(folder)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
        _prune(folder)


def find(key: str) -> Graphs | None:
    """What the cache holds under a key; None when it is not there."""
    folder = _home() / key
    try:
        return {name: (folder / Path(name).name).read_bytes() for name in (FLOAT, QUANTIZED)}
    except OSError:
        return None


def find_recipe(key: str) -> Recipe | None:
    """How calibration read its samples; None when the cache does not tell."""
    try:
        return Recipe.model_validate_json((_home() / key / _RECIPE).read_text("utf-8"))
    except (OSError, ValueError):
        return None


def _home() -> Path:
    return cache_folder() / "graphs"


def _prune(newest: Path) -> None:
    """Remove the oldest builds beyond the limits, never the newest."""
    kept = sorted((f for f in newest.parent.iterdir() if f.is_dir()), key=lambda f: f.stat().st_mtime, reverse=True)
    total = 0
    for count, folder in enumerate(kept):
        total += sum(file.stat().st_size for file in folder.iterdir())
        if folder != newest and (count >= MAX_KEPT or total > MAX_BYTES):
            shutil.rmtree(folder, ignore_errors=True)
