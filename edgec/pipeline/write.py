"""Write one stage's product into a folder, for `--stop-after`."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

from edgec.artifact import Artifact
from edgec.errors import EdgecError
from edgec.graph.model import Model
from edgec.quantization.types import QuantPlan, Statistics


def write_product(folder: Path, stem: str, stage: str, product: Any, plan: QuantPlan | None) -> Path:
    """Write a model, statistics or artifact; a plan goes beside it as JSON. Returns the main file's path."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if plan is not None and stage == "quantize":
            _write(folder / f"{stem}.plan.json", _json(_decisions(plan)))
        if isinstance(product, Model):
            return _write(folder / f"{stem}.{stage}.onnx", product.to_bytes())
        if isinstance(product, Artifact):
            paths = [_write(folder / f"{stem}{Path(n).suffix}", data) for n, data in product.files.items()]
            main = list(product.files).index(product.main)
            return paths[main]
        if isinstance(product, Statistics):
            table = {
                name: {"min": s.minimum, "max": s.maximum, "bin_width": s.bin_width, "first_bin": s.first_bin}
                for name, s in product.tensors.items()
            }
            return _write(folder / f"{stem}.statistics.json", _json({"samples": product.samples, "tensors": table}))
    except OSError as error:
        raise EdgecError("io/write", f"cannot write into {folder}: {error.strerror}", where=str(folder)) from error
    raise EdgecError(
        "cli/no-product",
        f"stage {stage} has no product in this build",
        hint="--stop-after calibrate needs --calibration and an int8 precision",
    )


def _write(path: Path, data: bytes) -> Path:
    temporary = path.with_name(f".{path.name}.part")
    try:
        temporary.write_bytes(data)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    return path


def _decisions(plan: QuantPlan) -> dict[str, Any]:
    """The plan without the integers of constants: those stand in the model."""
    weights = {key: replace(entry, data=None) for key, entry in plan.weights.items()}
    biases = {key: replace(entry, data=None) for key, entry in plan.biases.items()}
    return asdict(replace(plan, weights=weights, biases=biases))


def _json(value: Any) -> bytes:
    def plain(item: Any) -> Any:
        if isinstance(item, np.ndarray):
            return item.tolist()
        if isinstance(item, np.generic):
            return item.item()
        return str(item)

    return json.dumps(value, indent=1, sort_keys=True, default=plain).encode() + b"\n"
