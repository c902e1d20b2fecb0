"""TensorFlow and Keras models to ONNX: load → concrete function with static shapes → freeze → tf2onnx → names.

Run as `python -P tensorflow_to_onnx.py request.json response.json` in the Python that has TensorFlow; imports
nothing of edgec.

1. A free first dimension becomes 1 (which is said), what the user gives is taken; others stay free.
2. Inputs and outputs get the source's own names and order; an input that nothing reads stays an input.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

from onnx_names import finish, refuse_foreign, write_out
from refusal import SourceError, answer, essence

OPSET = 18


def export(request: dict[str, Any]) -> dict[str, Any]:
    """Write `request["output"]`; versions and findings."""
    os.environ.update(TF_CPP_MIN_LOG_LEVEL="3", CUDA_VISIBLE_DEVICES="-1", KERAS_BACKEND="tensorflow")
    sys.path.append(str(Path.cwd()))  # the user's own modules, behind everything that is installed
    source = Path(request["source"])
    if request["kind"] == "saved_model":
        from saved_models import from_saved_model

        call, inputs = from_saved_model(source, request["signature"])
    else:
        from keras_models import from_keras

        call, inputs = from_keras(source, request)
    specs, findings = static_specs(inputs, request["inputs"])
    versions = convert(call, specs, Path(request["output"]))
    return {"findings": findings, "versions": versions}


def static_specs(inputs: dict[str, Any], given: dict[str, list[int]]) -> tuple[dict[str, Any], list[dict[str, str]]]:
    """Rule 1."""
    import tensorflow as tf

    findings, specs = [], {}
    for name in given:
        if name not in inputs:
            raise SourceError(
                "source/unknown-input", f"the model has no input {name!r}", "it has: " + ", ".join(inputs)
            )
    for name, spec in inputs.items():
        if spec.dtype in (tf.string, tf.resource, tf.variant):
            raise SourceError(
                "graph/unsupported-type",
                f"input {name!r} takes {spec.dtype.name}, which no edge runtime does",
                "export the part of the model that takes numbers",
            )
        dims = None if spec.shape.rank is None else spec.shape.as_list()
        if name in given:
            shape = list(given[name])
            fits = dims is None or (
                len(dims) == len(shape) and all(d in (None, s) for d, s in zip(dims, shape, strict=True))
            )
            if not fits:
                raise SourceError(
                    "source/input-shape",
                    f"shape {text(shape)} does not fit input {name!r}, which is {text(dims or [])}",
                    "change only the free dimensions",
                )
            dims = shape
        elif dims and dims[0] is None:
            findings.append(
                {
                    "code": "source/default-shape",
                    "severity": "info",
                    "message": f"input {name!r} dimension 0 fixed to 1",
                    "where": name,
                    "hint": f"another batch: --input {name}:{text([2, *dims[1:]])}",
                }
            )
            dims = [1, *dims[1:]]
        specs[name] = tf.TensorSpec(dims, spec.dtype, name=re.sub(r"[^A-Za-z0-9_.]", "_", name))
    return specs, findings


def text(dims: Sequence[int | None]) -> str:
    """2x?x3."""
    return "x".join("?" if d is None else str(d) for d in dims)


def convert(call: Callable[..., Any], specs: dict[str, Any], output: Path) -> dict[str, str]:
    """Trace, freeze, translate and write; the versions of what did it."""
    import onnx
    import tensorflow as tf
    import tf2onnx
    from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

    names = list(specs)
    order: list[str] = []

    def positional(*tensors: Any) -> list[Any]:
        made = call(**dict(zip(names, tensors, strict=True)))
        order[:] = list(made)
        # An identity each: an output may be an input, or the same tensor as another one.
        return [tf.identity(value) for value in made.values()]

    try:
        concrete = tf.function(positional, autograph=False).get_concrete_function(*specs.values())
    except SourceError:
        raise
    except Exception as error:
        raise SourceError(
            "source/trace-failed",
            f"TensorFlow cannot run the model on these shapes: {essence(error)}",
            "check the shapes given with --input",
        ) from error
    try:
        frozen = convert_variables_to_constants_v2(concrete, lower_control_flow=False, aggressive_inlining=True)
        graph = frozen.graph.as_graph_def()
    except ValueError as error:
        raise SourceError("source/too-large", f"the model does not fit into 2 GiB: {essence(error)}") from error
    ins = [t.name for t in frozen.inputs if t.dtype != tf.resource]
    outs = [t.name for t in frozen.outputs]
    try:
        proto, _ = tf2onnx.convert.from_graph_def(
            graph, name=output.stem, input_names=list(ins), output_names=list(outs), opset=OPSET
        )
    except Exception as error:
        raise SourceError(
            "source/export-failed",
            f"tf2onnx cannot translate the model: {essence(error)}",
            "try another signature, or export the model to ONNX by other means",
        ) from error
    write_out(proto.graph)
    refuse_foreign(proto)
    finish(proto, dict(zip(ins, specs.items(), strict=True)), dict(zip(outs, order, strict=True)))
    onnx.save(proto, str(output))
    return {"tensorflow": tf.__version__, "tf2onnx": tf2onnx.__version__}


if __name__ == "__main__":
    sys.exit(answer(sys.argv, export))
