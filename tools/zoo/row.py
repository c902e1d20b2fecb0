"""One row: write the model, read it through the frontend, build it, and compare it with torch.

python -m tools.zoo.row NAME OUT.json        one JSON object into OUT.json, whatever happens short of a crash
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from edgec.errors import EdgecError
from edgec.metrics import sqnr_db
from edgec.tensors import Array
from tools.zoo.models import Row, rows, write_model

#: Column → target.
COLUMNS = {"tflite": "linux-x86_64", "openvino": "intel-cpu"}
#: Columns that are built in int8 too.
INT8 = ("tflite",)
SAMPLES = 8


def measure(row: Row, folder: Path) -> dict[str, Any]:
    """What the row's columns hold; `EdgecError` where it does not even load."""
    from edgec.frontends._hf.load import offline_and_quiet
    from edgec.frontends._hf.opening import open_folder
    from edgec.frontends.base import SourceOptions, load_source

    source = folder / row.name
    with offline_and_quiet():
        write_model(row, source)
        opened = open_folder(source, part=row.part, given=row.inputs)
    feeds = [_feed(opened.inputs, opened.config, seed) for seed in range(SAMPLES)]
    wanted = [_eager(opened.module, feed) for feed in feeds]
    start = time.perf_counter()
    loaded = load_source(source, inputs=row.inputs, options=SourceOptions(signature=row.part))
    result: dict[str, Any] = {
        "name": row.name,
        "class": row.cls,
        "part": row.part or "",
        "parameters": sum(p.numel() for p in opened.module.parameters()),
        "nodes": len(loaded.model.graph),
        "load_s": round(time.perf_counter() - start, 2),
    }
    exported = folder / f"{row.name}.onnx"
    exported.write_bytes(loaded.model.to_bytes())
    data = folder / "samples.npz"
    np.savez(data, allow_pickle=False, **{name: np.concatenate([feed[name] for feed in feeds]) for name in feeds[0]})
    for column, target in COLUMNS.items():
        result[column] = _column(exported, target, column, feeds, wanted, folder / column, data)
    return result


def _column(model: Path, target: str, backend: str, feeds: Any, wanted: Any, out: Path, data: Path) -> dict[str, Any]:
    """Float and int8 of one backend. What fails says why under `finding`, or `int8_finding`."""
    cell: dict[str, Any] = {}
    start = time.perf_counter()
    try:
        summary, outputs = _build(model, target, backend, feeds, out / "float", precision="float32")
    except EdgecError as error:
        return {"finding": _words(error)}
    cell["seconds"] = round(time.perf_counter() - start, 2)
    cell["error"] = _error(wanted, outputs)
    cell["transposes"] = summary["transposes"]
    cell["operators"] = summary["operator_count"]
    if backend not in INT8:
        return cell
    try:
        _, outputs = _build(
            model, target, backend, feeds, out / "int8", precision="int8", calibration=str(data), effort="fast"
        )
        cell["int8_db"] = _db(wanted, outputs)
    except EdgecError as error:
        cell["int8_finding"] = _words(error)
    return cell


def _build(
    model: Path, target: str, backend: str, feeds: Any, out: Path, **options: Any
) -> tuple[dict[str, Any], list[dict[str, Array]]]:
    from edgec.pipeline import run_build

    result = run_build(model, target=target, backend=backend, output=out, **options)
    failed = [f for f in result.findings if f.severity == "error"]
    assert result.bundle is not None
    if failed:
        raise EdgecError(failed[0].code, failed[0].message, where=failed[0].where)
    with result.bundle as bundle:
        return result.summary, [bundle.run(feed) for feed in feeds]


def _feed(inputs: Mapping[str, Any], config: Any, seed: int) -> dict[str, Array]:
    """Seeded values of the kind that each input takes: tokens of the vocabulary, masks that leave some out."""
    rng = np.random.default_rng(seed)
    return {name: _values(name, tensor, config, rng) for name, tensor in inputs.items()}


def _values(name: str, tensor: Any, config: Any, rng: np.random.Generator) -> Array:
    example: Array = tensor.numpy()
    if name.endswith("input_ids"):
        text = getattr(config, "text_config", config)
        return np.asarray(rng.integers(3, getattr(text, "vocab_size", 100), example.shape))
    if name.endswith("attention_mask"):
        return _mask(example, int(rng.integers(0, example.shape[-1] // 2)), left=name == "attention_mask")
    if name == "bbox":
        low = rng.integers(0, 500, (*example.shape[:-1], 2))
        return np.concatenate([low, low + rng.integers(0, 500, low.shape)], axis=-1)
    if name == "position_ids":
        return example
    if example.dtype.kind in "iub":
        return np.asarray(rng.integers(0, 2, example.shape), example.dtype)
    return np.asarray(rng.standard_normal(example.shape), np.float32)


def _mask(ones: Array, padding: int, *, left: bool) -> Array:
    """A mask that leaves some places out: at the left, as a decoder's past is padded, or at the right."""
    mask = ones.copy()
    mask[..., :padding] = 0
    return mask if left else mask[..., ::-1].copy()


def _eager(module: Any, feed: Mapping[str, Array]) -> dict[str, Array]:
    """What torch itself makes of a feed, under the names that the frontend gives."""
    import torch

    from edgec.frontends._torch_tree import dotted, leaves, nest, unique

    with torch.no_grad():
        answer = module(**nest({name: torch.from_numpy(value) for name, value in feed.items()}))
    found = list(leaves(answer))
    names = unique([dotted(path, "output") for path, _ in found], list(feed))
    return {name: value.numpy() for name, (_, value) in zip(names, found, strict=True)}


def _error(wanted: list[dict[str, Array]], outputs: list[dict[str, Array]]) -> float:
    """The largest difference of any output, relative to that output's largest value."""
    worst = 0.0
    for name in wanted[0]:
        reference = np.stack([o[name] for o in wanted])
        value = np.stack([o[name] for o in outputs])
        if reference.dtype.kind != "f":
            worst = max(worst, float(np.mean(reference != value)))
            continue
        if not np.isfinite(value).all():
            return float("inf")
        worst = max(worst, float(np.abs(reference - value).max() / max(float(np.abs(reference).max()), 1e-9)))
    return float(f"{worst:.3g}")


def _db(wanted: list[dict[str, Array]], outputs: list[dict[str, Array]]) -> float:
    """SQNR of the worst float output."""
    floats = [name for name in wanted[0] if wanted[0][name].dtype.kind == "f"]
    return round(min(sqnr_db(np.stack([o[n] for o in wanted]), np.stack([o[n] for o in outputs])) for n in floats), 1)


def _words(error: EdgecError) -> str:
    first = error.findings[0] if error.findings else error.finding
    rest = f" (+{len(error.findings) - 1})" if len(error.findings) > 1 else ""
    return f"{error.code}: {error.finding.message}" if not error.findings else f"{first.code}: {first.message}{rest}"


def main() -> int:
    """Measure the row named first, into the file named second."""
    name, out = sys.argv[1], Path(sys.argv[2])
    row = next(row for row in rows() if row.name == name)
    start = time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="edgec-zoo-") as folder:
        try:
            result = measure(row, Path(folder))
        except EdgecError as error:
            finding = {"finding": _words(error)}
            result = {"name": name, "class": row.cls, "part": row.part or "", **dict.fromkeys(COLUMNS, finding)}
    result["total_s"] = round(time.perf_counter() - start, 1)
    out.write_text(json.dumps(result, indent=1, allow_nan=True) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
