"""Crops of the zoo's pictures, the same every time: what the rows on pictures calibrate with and are judged by."""

from __future__ import annotations

from pathlib import Path

import numpy as np

CACHE = Path(__file__).resolve().parent.parent / ".cache"
SIDE = 256


def crops(count: int) -> Path:
    """A folder of that many crops."""
    from PIL import Image

    from tests.support import models

    folder = CACHE / "accuracy" / f"crops-{count}"
    if folder.exists():
        return folder
    pictures = sorted(
        p for p in models.zoo("images").iterdir() if p.suffix in (".bmp", ".jpg") and "mask" not in p.stem
    )
    rng = np.random.default_rng(0)
    temporary = folder.with_suffix(".part")
    temporary.mkdir(parents=True, exist_ok=True)
    for i in range(count):
        picture = Image.open(pictures[i % len(pictures)]).convert("RGB")
        side = int(min(picture.size) * rng.uniform(0.35, 1))
        x, y = (int(rng.integers(0, extent - side + 1)) for extent in picture.size)
        crop = picture.crop((x, y, x + side, y + side)).resize((SIDE, SIDE), Image.Resampling.BICUBIC)
        crop.save(temporary / f"{i:04d}.png")
    temporary.rename(folder)
    return folder
