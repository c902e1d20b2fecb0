"""Small Keras nets, each saved in every format that its Keras has, beside inputs and what the net makes of them.

Run as `python keras_nets.py FOLDER 2|3` in the Python that has TensorFlow; imports nothing of edgec.
"""

from __future__ import annotations

import os
import sys
import types
from pathlib import Path
from typing import Any


def main(folder: Path, version: str) -> None:
    """Save all nets of one Keras."""
    os.environ.update(TF_CPP_MIN_LOG_LEVEL="3", CUDA_VISIBLE_DEVICES="-1")
    if version == "2":
        os.environ["TF_USE_LEGACY_KERAS"] = "1"
        import tf_keras as keras
    else:
        import keras
    keras.utils.set_random_seed(0)
    for build in NETS[version]:
        save(build(keras, keras.layers), folder / build.__name__)


def save(model: Any, stem: Path) -> None:
    """The net in three formats, and its answers."""
    import numpy as np

    rng = np.random.default_rng(0)
    for layer in model.layers:
        for w in layer.weights:
            if any(word in w.name for word in ("moving", "gamma", "beta")):
                w.assign(rng.uniform(0.7, 1.1, w.shape))
    model.save(f"{stem}.keras")
    model.save(f"{stem}.h5")
    (model.export if hasattr(model, "export") else model.save)(f"{stem}.saved")
    feeds = {}
    for t in model.inputs:
        shape, name = [1, *list(t.shape)[1:]], t.name.split(":")[0]
        whole = "int" in str(t.dtype)
        feeds[name] = rng.integers(0, 30, shape).astype("int32") if whole else rng.standard_normal(shape, "float32")
    several = len(feeds) > 1
    made = model(feeds if several else next(iter(feeds.values())), training=False)
    outputs = made if isinstance(made, dict) else {"only": made}
    arrays: dict[str, Any] = {f"in_{k}": v for k, v in feeds.items()} | {
        f"out_{k}": np.asarray(v) for k, v in outputs.items()
    }
    np.savez(f"{stem}.npz", **arrays)


def cnn(keras: types.ModuleType, layers: Any) -> Any:
    """What image nets are made of; everything in NHWC."""
    x = i = layers.Input((16, 16, 3), name="image")
    x = layers.Rescaling(0.5, offset=-0.1)(x)
    x = layers.Conv2D(8, 3, strides=2, padding="same", use_bias=False)(x)
    x = layers.BatchNormalization()(x)
    x = layers.ReLU(6.0)(x)
    x = layers.SeparableConv2D(12, 3, padding="same", activation="relu")(x)
    x = layers.Add()([x, layers.DepthwiseConv2D(3, padding="same")(x)])
    x = layers.ZeroPadding2D(1)(x)
    x = layers.Conv2D(8, 3, activation="swish")(x)
    x = layers.MaxPooling2D()(x)
    x = layers.Resizing(8, 8)(x)
    x = layers.Conv2DTranspose(6, 2, strides=2)(x)
    x = layers.UpSampling2D()(x)
    x = layers.GlobalAveragePooling2D()(x)
    x = layers.Dropout(0.5)(x)
    return keras.Model(i, layers.Dense(5, name="scores")(x))


def several(keras: types.ModuleType, layers: Any) -> Any:
    """Dicts of inputs and outputs, integers, recurrent layers, attention."""
    ids = layers.Input((12,), dtype="int32", name="ids")
    frames = layers.Input((10, 6), name="frames")
    x = layers.Embedding(30, 8)(ids)
    x = layers.Conv1D(8, 3, padding="causal", activation="tanh")(x)
    x = layers.LayerNormalization()(x)
    x = layers.Add()([x, layers.MultiHeadAttention(2, 4)(x, x)])
    x = layers.GlobalMaxPooling1D()(x)
    y = layers.Bidirectional(layers.LSTM(8, return_sequences=True))(frames)
    y = layers.GRU(7)(y)
    h = layers.Dense(9, activation="gelu")(layers.Concatenate()([x, y]))
    outputs = {"class": layers.Dense(3, activation="sigmoid", name="class")(h), "box": layers.Dense(2, name="box")(h)}
    return keras.Model({"ids": ids, "frames": frames}, outputs)


def plain(keras: types.ModuleType, layers: Any) -> Any:
    """A Sequential whose inputs nobody named."""
    parts = [layers.Input((8, 8, 2)), layers.Conv2D(4, 3), layers.PReLU(), layers.AveragePooling2D(2)]
    return keras.Sequential([*parts, layers.Flatten(), layers.Dense(3)])


def scripted(keras: types.ModuleType, layers: Any) -> Any:
    """A Lambda layer: code in the file."""
    i = layers.Input((4,), name="x")
    return keras.Model(i, layers.Lambda(lambda t: t * 2.0, name="double")(i))


def branching(keras: types.ModuleType, layers: Any) -> Any:
    """An operation between layers, which Keras 2 saves as a TFOpLambda."""
    i = layers.Input((4, 4, 2), name="x")
    x = layers.Conv2D(3, 2)(i)
    return keras.Model(i, layers.Dense(2)(layers.Flatten()(x * 0.5 + 1.0)))


NETS: dict[str, tuple[Any, ...]] = {"3": (cnn, several, plain, scripted), "2": (cnn, branching)}

if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
