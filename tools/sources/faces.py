"""Face or not: the 200 labelled pictures that come with scikit-image, for MTCNN's second and third net.

Even pictures calibrate, odd ones are the test. A net sees a picture at its own size, scaled as MTCNN does.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from edgec.bundle.bundle import Bundle
from edgec.tensors import Array
from tools.sources.files import in_wheel
from tools.sources.row import Accuracy

_FACES = 100  # the first of 200


def _pictures(size: int) -> Array:
    """[200, 3, size, size] in MTCNN's scale; bilinear from 25 x 25."""
    gray = np.load(in_wheel("scikit-image==0.26.0", "skimage/data/lfw_subset.npy")).astype(np.float32)
    place = (np.arange(size) + 0.5) * gray.shape[1] / size - 0.5
    low = np.clip(np.floor(place).astype(int), 0, gray.shape[1] - 2)
    part = np.clip(place - low, 0, 1).astype(np.float32)
    rows = gray[:, low] * (1 - part)[None, :, None] + gray[:, low + 1] * part[None, :, None]
    square = rows[:, :, low] * (1 - part) + rows[:, :, low + 1] * part
    levels = square * 255 if gray.max() <= 1 else square
    return np.repeat(((levels - 127.5) / 128)[:, None], 3, axis=1)


def face_accuracy(size: int, documented: str = "") -> Accuracy:
    """Accuracy of a net with the input `x` and the output `faces` (not a face, a face)."""
    return Accuracy(calibration=_even(size), measure=_odd(size), documented=documented)


def _even(size: int) -> Callable[[Path], str]:
    def write(folder: Path) -> str:
        np.save(folder / "faces.npy", _pictures(size)[::2])
        return str(folder / "faces.npy")

    return write


def _odd(size: int) -> Callable[[Bundle], float]:
    def measure(bundle: Bundle) -> float:
        right = 0
        pictures = _pictures(size)
        for index in range(1, len(pictures), 2):
            faces = bundle.run({"x": pictures[index][None]})["faces"]
            right += int((faces[0, 1] > faces[0, 0]) == (index < _FACES))
        return right / (len(pictures) // 2)

    return measure
