"""A small convolutional net in a file, and samples to calibrate it with."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from edgec.graph.model import Model
from edgec.tensors import Array
from tests.support.plans import kernel, typed

#: Convolutions, a skip, a gate, pooling, a classifier.
TEXT = """(float[1,3,16,16] image) => (float[1,10] scores)
{ c1 = Conv<kernel_shape=[3,3], pads=[1,1,1,1]>(image, w1, b1) r1 = Relu(c1)
  c2 = Conv<kernel_shape=[3,3], pads=[1,1,1,1], group=16>(r1, w2) r2 = Clip(c2, lo, hi)
  s = Add(r1, r2) p = MaxPool<kernel_shape=[2,2], strides=[2,2]>(s) a = Conv(p, w3) g = Sigmoid(a) m = Mul(a, g)
  v = GlobalAveragePool(m) f = Flatten(v) scores = Gemm<transB=1>(f, w4, b4) }"""


def small_net() -> Model:
    """The net with seeded weights."""
    constants = {
        "w1": kernel(16, 3, 3, 3, scale=0.3),
        "b1": kernel(16, seed=1),
        "w2": kernel(16, 1, 3, 3, seed=2),
        "w3": kernel(16, 16, 1, 1, seed=3),
        "w4": kernel(10, 16, seed=4),
        "b4": kernel(10, seed=5),
        "lo": np.asarray(0, np.float32),
        "hi": np.asarray(6, np.float32),
    }
    return typed(TEXT, constants)


def samples(count: int = 24, seed: int = 7) -> Array:
    """[count, 3, 16, 16] of noise with a different brightness and contrast each."""
    rng = np.random.default_rng(seed)
    noise = rng.standard_normal((count, 3, 16, 16))
    return (noise * rng.uniform(0.3, 1.5, (count, 1, 1, 1)) + rng.uniform(-1, 1, (count, 1, 1, 1))).astype(np.float32)


def write_small_net(folder: Path) -> tuple[Path, Path]:
    """The net as `net.onnx` and samples as `samples.npy`."""
    model, data = folder / "net.onnx", folder / "samples.npy"
    model.write_bytes(small_net().to_bytes())
    np.save(data, samples())
    return model, data
