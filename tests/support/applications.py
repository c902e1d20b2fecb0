"""An application around the small net: a bundle with labels and a recipe, pictures, and app.py with faults to plant."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from edgec.pipeline import run_build
from edgec.tensors import Array
from tests.support.small_net import small_net

LABELS = ("dog", "cat", "bird", "ant", "fox", "owl", "bee", "elk", "cow", "yak")
RECIPE = """reader = "array"
[inputs."*"]
transpose = [2, 0, 1]
scale = 0.00392156862745098
mean = [0.485, 0.456, 0.406]
std = [0.229, 0.224, 0.225]
"""
APP = """import numpy as np
FAULT = {fault!r}
LABELS = {labels!r}

def preprocess(path):
    x = np.load(path).astype(np.float32)
    if "bgr" in FAULT:
        x = x[:, :, ::-1]
    if "mirror" in FAULT:
        x = x[:, ::-1]
    if "0-255" not in FAULT:
        x = x / np.float32(255)
        if "0-1" not in FAULT:
            x = (x - np.float32([0.485, 0.456, 0.406])) / np.float32([0.229, 0.224, 0.225])
    if "channels-first" in FAULT:
        x = x.transpose(2, 0, 1)
    if "raises" in FAULT:
        raise KeyError("no such camera")
    return np.ascontiguousarray(x[None])

def postprocess(outputs):
    best = int(np.argmax(outputs))
    if "off-by-one" in FAULT:
        return {{"class": best + 1}}
    if "labels-sorted" in FAULT:
        return {{"label": sorted(LABELS)[best]}}
    if "boxes" in FAULT:
        return {{"boxes": [[0.0, float(outputs.max())]]}}
    return [{{"label": LABELS[best], "score": float(outputs.max())}}]
"""


def pixels(count: int = 8, size: int = 16) -> list[Array]:
    """Pictures with colours and structure of their own, uint8 height × width × RGB."""
    rng = np.random.default_rng(3)
    rows, columns = np.mgrid[0:size, 0:size]
    found = []
    for i in range(count):
        planes = [
            np.sin(columns / (2 + i)) * 60 + 120,
            np.cos(rows / (3 + i)) * 70 + 100,
            (columns * 7 + rows * 5) % 160,
        ]
        noise = rng.normal(0, 8, (size, size, 3))
        found.append((np.stack(planes, axis=-1) + noise).clip(0, 255).astype(np.uint8))
    return found


def write_pictures(folder: Path, count: int = 8) -> Path:
    """The pictures as .npy files, so that a device needs no image library; one folder a class."""
    for i, picture in enumerate(pixels(count)):
        place = folder / f"class{i % 2}"
        place.mkdir(parents=True, exist_ok=True)
        np.save(place / f"picture{i}.npy", picture)
    return folder


def write_app(folder: Path, fault: str = "") -> Path:
    """app.py with a fault (or several, in one text)."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "app.py"
    path.write_text(APP.format(fault=fault, labels=LABELS))
    return path


def build_application(folder: Path, precision: str = "int8") -> Path:
    """The small net's bundle, calibrated on the pictures with the recipe."""
    (folder / "recipe.toml").write_text(RECIPE)
    (folder / "net.onnx").write_bytes(small_net().to_bytes())
    (folder / "labels.txt").write_text("\n".join(LABELS) + "\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EDGEC_CACHE", str(folder / "cache"))
        result = run_build(
            folder / "net.onnx",
            target="raspberrypi4",
            precision=precision,
            calibration=f"{folder / 'recipe.toml'}:{write_pictures(folder / 'pictures')}",
            labels=folder / "labels.txt",
            output=folder,
            effort="fast",  # its bits tell sets of kernels apart, whatever repairs come to
        )
    assert result.path is not None
    return Path(result.path)
