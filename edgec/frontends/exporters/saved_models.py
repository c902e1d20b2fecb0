"""SavedModels as functions of named tensors: one signature of those that the folder has.

TF Hub's reusable form has none and can be called; so can some that were saved without asking for one.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from named import named_outputs, natural, unique
from refusal import SourceError, essence


def from_saved_model(path: Path, wanted: str | None) -> tuple[Callable[..., Any], dict[str, Any]]:
    """One signature as a function of named tensors, and the TensorSpecs of its inputs."""
    import tensorflow as tf

    try:
        loaded = tf.saved_model.load(str(path))
    except Exception as error:
        raise SourceError(
            "source/malformed", f"TensorFlow cannot load {path.name}: {essence(error)}", "copy or export it again"
        ) from error
    signatures = {str(k): v for k, v in loaded.signatures.items() if k != "__saved_model_init_op"}
    function = chosen(signatures, wanted, loaded, path)
    _, named = function.structured_input_signature
    inputs: dict[str, Any] = {name: named[name] for name in sorted(named, key=natural)}  # the file has no order
    function.edgec_keeps = loaded  # its variables die with it

    def call(**feeds: Any) -> dict[str, Any]:
        outputs: dict[str, Any] = named_outputs(function(**feeds), None)
        return {name: outputs[name] for name in sorted(outputs, key=natural)}

    return call, inputs


def chosen(signatures: dict[str, Any], wanted: str | None, loaded: Any, path: Path) -> Any:
    """The signature that was asked for, the serving one, or the only one."""
    listing = ", ".join(sorted(signatures)) or "none"
    if wanted is not None:
        if wanted not in signatures:
            raise SourceError(
                "source/unknown-signature", f"{path.name} has no signature {wanted!r}", f"it has: {listing}"
            )
        return signatures[wanted]
    if "serving_default" in signatures:
        return signatures["serving_default"]
    if len(signatures) == 1:
        return next(iter(signatures.values()))
    if signatures:
        raise SourceError(
            "source/unknown-signature",
            f"{path.name} has several signatures and none is the default",
            f"choose with --signature: {listing}",
        )
    return callable_of(loaded, path)


def callable_of(loaded: Any, path: Path) -> Any:
    """A SavedModel without signatures that can be called (TF Hub's reusable form), as one with a signature."""
    import tensorflow as tf

    concrete = list(getattr(getattr(loaded, "__call__", None), "concrete_functions", ()) or ())  # noqa: B004
    for function in concrete:
        args, kwargs = function.structured_input_signature
        tensors = [a for a in tf.nest.flatten((args, kwargs)) if isinstance(a, tf.TensorSpec)]
        rest = [a for a in tf.nest.flatten((args, kwargs)) if not isinstance(a, tf.TensorSpec)]
        if any(a is True for a in rest) or not tensors:
            continue
        return _Reusable(loaded, args, kwargs, tensors)
    raise SourceError(
        "source/unknown-signature",
        f"{path.name} has no signature and nothing that can be called",
        "save it with tf.saved_model.save(model, path, signatures=…)",
    )


class _Reusable:
    """A saved `__call__` under the interface of a signature."""

    def __init__(self, loaded: Any, args: Any, kwargs: Any, tensors: list[Any]) -> None:
        self._loaded, self._structure = loaded, (args, kwargs)
        names = unique([re.sub(r":\d+$", "", t.name or "input") for t in tensors])
        self.structured_input_signature = ((), dict(zip(names, tensors, strict=True)))

    def __call__(self, **feeds: Any) -> Any:
        import tensorflow as tf

        given = iter(feeds[name] for name in self.structured_input_signature[1])
        flat = [next(given) if isinstance(leaf, tf.TensorSpec) else leaf for leaf in tf.nest.flatten(self._structure)]
        args, kwargs = tf.nest.pack_sequence_as(self._structure, flat)
        return self._loaded(*args, **kwargs)
