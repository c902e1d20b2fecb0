"""Keras models as functions of named tensors, read by the Keras that wrote them: tf-keras is Keras 2.

Code in a model file (Lambda layers) is run only where the user trusts it.
"""

from __future__ import annotations

import importlib
import json
import os
import re
import shutil
import tempfile
import traceback
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from named import named_outputs, unique
from refusal import SourceError, essence


def from_keras(path: Path, request: dict[str, Any]) -> tuple[Callable[..., Any], dict[str, Any]]:
    """A function from named tensors to named tensors, and the TensorSpecs of its inputs."""
    config, version = configuration(path)
    refuse_code(config, path, trust=request["trust"])
    if config is None and not request["factory"]:
        raise SourceError(
            "source/needs-factory",
            f"{path.name} holds weights and no model",
            "save the whole model (model.save('model.keras')), or name the function that builds it: "
            "--factory module:function",
        )
    legacy = version.startswith(("0.", "1.", "2."))
    if legacy:
        os.environ["TF_USE_LEGACY_KERAS"] = "1"  # tf.keras in the user's own module follows it
    keras = importlib.import_module("tf_keras" if legacy else "keras")
    objects = dict(map(custom_object, request["custom"]))
    try:
        if config is None:
            model = custom_object(request["factory"])[1]()
            model.load_weights(str(path))
        else:
            model = load_model(keras, path, objects, trust=request["trust"])
    except SourceError:
        raise
    except Exception as error:
        raise SourceError(
            "source/malformed", f"Keras cannot load {path.name}: {essence(error)}", advice(error)
        ) from error
    return as_function(model, request["inputs"], request["dtypes"])


def configuration(path: Path) -> tuple[dict[str, Any] | None, str]:
    """The model's configuration (None in a file of weights) and the Keras version that wrote it."""
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            metadata = json.loads(archive.read("metadata.json"))
            return json.loads(archive.read("config.json")), str(metadata.get("keras_version", "3"))
    import h5py

    try:
        with h5py.File(path, "r") as file:
            attributes = {key: file.attrs[key] for key in ("model_config", "keras_version") if key in file.attrs}
            inside = file.get("model_weights")
            if "keras_version" not in attributes and inside is not None and "keras_version" in inside.attrs:
                attributes["keras_version"] = inside.attrs["keras_version"]
    except OSError as error:
        raise SourceError("source/truncated", f"{path.name} is no complete HDF5 file: {essence(error)}") from error
    text = {key: v.decode() if isinstance(v, bytes) else str(v) for key, v in attributes.items()}
    config = json.loads(text["model_config"]) if "model_config" in text else None
    return config, text.get("keras_version", "2" if config is not None else "3")


def layers_of(config: Any) -> Iterator[dict[str, Any]]:
    """Every object with a class in a configuration, at any depth."""
    if isinstance(config, dict):
        if "class_name" in config:
            yield config
        for value in config.values():
            yield from layers_of(value)
    elif isinstance(config, list):
        for value in config:
            yield from layers_of(value)


def refuse_code(config: Any, path: Path, *, trust: bool) -> None:
    """Only what the user trusts runs code."""
    held = [layer for layer in layers_of(config) if layer["class_name"] in ("Lambda", "__lambda__", "function_lambda")]
    if held and not trust:
        first = held[0].get("config")
        name = first.get("name", "") if isinstance(first, dict) else ""
        raise SourceError(
            "source/untrusted",
            f"{path.name} holds Python code (Lambda layer {name!r}), which runs when the model is read",
            "give --trust if you know who made the file; or replace the Lambda by layers, and save again",
        )


def custom_object(text: str) -> tuple[str, Any]:
    """`module:name` as the name and the thing."""
    module, _, name = text.partition(":")
    try:
        return name, getattr(importlib.import_module(module), name)
    except Exception as error:
        raise SourceError(
            "source/custom",
            f"{text!r} cannot be imported: {essence(error)}",
            "write it as module:name; the folder that edgec is started in is on Python's path",
        ) from error


def load_model(keras: Any, path: Path, objects: dict[str, Any], *, trust: bool) -> Any:
    """The whole model. Keras tells the formats apart by the name, so a file without one gets it."""
    options = {"custom_objects": objects, "compile": False, "safe_mode": not trust}
    if path.suffix == (".keras" if zipfile.is_zipfile(path) else ".h5"):
        return keras.models.load_model(str(path), **options)
    with tempfile.TemporaryDirectory(prefix="edgec-") as folder:
        named = Path(folder) / ("model.keras" if zipfile.is_zipfile(path) else "model.h5")
        shutil.copyfile(path, named)
        return keras.models.load_model(str(named), **options)


def as_function(
    model: Any, given: dict[str, list[int]], dtypes: dict[str, str]
) -> tuple[Callable[..., Any], dict[str, Any]]:
    """A model as a function of named tensors. Inputs of one that was never called are what the user gives."""
    import tensorflow as tf

    nested = getattr(model, "_inputs_struct", None)
    nested = getattr(model, "_nested_inputs", None) if nested is None else nested
    tensors = list(getattr(model, "inputs", None) or ())
    names = input_names(model, nested, tensors) if tensors else list(given)
    if not names:
        raise SourceError(
            "source/needs-inputs",
            "the model was never called on data, so its inputs are not known",
            "give them with --input name:1x28x28, or call it once before saving",
        )
    if not tensors:
        tensors = [tf.TensorSpec(shape, dtypes.get(name, "float32"), name=name) for name, shape in given.items()]
    structure = tensors if nested is None else nested
    inputs = {name: tf.TensorSpec(t.shape, t.dtype) for name, t in zip(names, tensors, strict=True)}
    count = len(model.outputs) if getattr(model, "outputs", None) else 0

    def call(**feeds: Any) -> dict[str, Any]:
        flat = [feeds[name] for name in names]
        packed = tf.nest.pack_sequence_as(structure, flat) if len(flat) > 1 or isinstance(structure, dict) else flat[0]
        made = model(packed, training=False)
        outputs: dict[str, Any] = named_outputs(made, output_names(model, made, count))
        return outputs

    return call, inputs


def input_names(model: Any, nested: Any, tensors: list[Any]) -> list[str]:
    """The names a user knows: a dict's keys, else those of the input layers."""
    if isinstance(nested, dict):
        flat = sorted(nested) if all(not isinstance(v, (list, tuple, dict)) for v in nested.values()) else []
        if len(flat) == len(tensors):
            return flat
    known = getattr(model, "input_names", None)
    names = list(known) if known and len(known) == len(tensors) else [t.name.split(":")[0] for t in tensors]
    numbered: list[str] = unique([str(n) for n in names])
    return numbered


def output_names(model: Any, made: Any, count: int) -> list[str] | None:
    """The names of a model's outputs, those of the layers that make them; None where it has none."""
    if isinstance(made, dict):
        return None
    known = list(getattr(model, "output_names", None) or ())
    return unique([str(n) for n in known]) if known and len(known) == count else None


def advice(error: Exception) -> str:
    """What to do about a model that Keras does not load."""
    message = str(error)
    missing = re.search(
        r"(?:Unknown (?:layer|object|\w+ function)|Could not locate class|Could not find)\W+'?(\w+)'?", message
    )
    if missing:
        return f"it uses {missing[1]!r} of your own: give --custom module:{missing[1]}"
    last = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in last if "site-packages" not in frame.filename and frame.filename != __file__]
    if own:
        return f"raised in {Path(own[-1].filename).name}:{own[-1].lineno}"
    return "load it with the version of Keras that wrote it, and export it as a SavedModel (model.export)"
