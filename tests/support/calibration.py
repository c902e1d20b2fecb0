"""Calibration samples that are already in memory, graphs with known shapes, and pictures made of waves."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from onnx_ir.passes.common import ShapeInferencePass

from edgec.errors import Finding
from edgec.graph.model import Model
from edgec.tensors import Array
from tests.support.graphs import graph


def inferred(text: str, constants: Mapping[str, Array] | None = None) -> Model:
    """A graph from text whose values all have their types and, where they are static, shapes."""
    model = graph(text, constants=constants)
    ShapeInferencePass()(model.ir)
    return model


class InMemory:
    """Samples given as a list of feeds."""

    def __init__(self, feeds: Sequence[dict[str, Array]]) -> None:
        self._feeds = list(feeds)
        self.findings: tuple[Finding, ...] = ()
        self.read = 0

    @property
    def digest(self) -> str:
        sha = hashlib.sha256()
        for feed in self._feeds:
            for name in sorted(feed):
                sha.update(name.encode() + feed[name].tobytes())
        return sha.hexdigest()

    @property
    def count(self) -> int:
        return len(self._feeds)

    def __len__(self) -> int:
        return len(self._feeds)

    def __iter__(self) -> Iterator[dict[str, Array]]:
        for feed in self._feeds:
            self.read += 1
            yield feed


def smooth_images(count: int, height: int, width: int, *, seed: int = 0) -> Array:
    """[count, 3, height, width] in 0..255: low frequencies with different colours, a little noise."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0:height, 0:width] / max(height, width)
    waves = [np.sin(2 * np.pi * (x * a + y * b) + c) for a, b, c in rng.uniform(0.2, 1.5, (count * 3, 3))]
    images = 127 + 100 * np.stack(waves).reshape(count, 3, height, width)
    return np.clip(np.rint(images + rng.normal(0, 2, images.shape)), 0, 255).astype(np.float32)
