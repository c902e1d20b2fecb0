"""Export the torch test models to ONNX under `.cache/models`: `python tools/export_models.py [NAME …]`."""

from __future__ import annotations

import os
import sys
import warnings
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
CACHE = ROOT / ".cache" / "models"
OPSET = 18


def export(name: str, folder: Path = CACHE) -> Path:
    """Export one model unless it is there already; returns the file. Needs torch and onnxscript."""
    path = folder / f"{name}.onnx"
    if path.exists():
        return path
    sys.path.insert(0, str(ROOT))
    import torch

    from tests.support.torch_models import torch_model

    folder.mkdir(parents=True, exist_ok=True)
    temporary = folder / f".{name}.{os.getpid()}.onnx"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter warns about its own internals
        program = torch.onnx.export(
            torch_model(name),
            (torch.zeros(1, 3, 224, 224),),
            input_names=["input"],
            output_names=["output"],
            opset_version=OPSET,
            dynamo=True,
            verbose=False,
        )
    if program is None:
        raise SystemExit(f"torch could not export {name}")
    program.save(str(temporary), external_data=False)
    temporary.replace(path)  # another process may be exporting the same model
    return path


def main(names: list[str]) -> None:
    """Export the named models, or all."""
    for name in names or ["mobilenet_v2", "mobilenet_v3_small", "vit_tiny"]:
        print(export(name))


if __name__ == "__main__":
    main(sys.argv[1:])
