"""How near runtimes come to what a 16x8 model means: its integers in exact arithmetic, every value rounded once.

`python -m tools.exact16 mobilenet_v2 resnet20_cifar10` builds models of `tools/acceptance.py` in 16x8 and prints which
share of the output values lies within 2 steps of each other: LiteRT, ONNX Runtime on the QDQ model without and with its
optimiser, and float64 on the integers of the .tflite, in which every sum of these nets is exact.

`--operators` tells where that comes from: each operator by itself, on what LiteRT gave it, and which share of its
values is not the exact step. What is left at the outputs beyond that is amplified on the way.
"""

from __future__ import annotations

import argparse
import itertools
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from edgec.backends.tflite.read_graph import read_graph
from edgec.backends.tflite.schema import fb
from edgec.backends.tflite.tir import Op, Tensor
from edgec.tensors import Array
from tools.acceptance import CASES, both_ways, find_data, find_model

#: Samples that a model is run on: until this many output values are compared, if the number of samples allows.
VALUES, FEWEST, MOST = 2000, 4, 48
Values = dict[Tensor, Array]


def exact(model: bytes, feed: Array) -> Array:
    """The model's one output for its one input, both real. Raises KeyError for operators that are not listed here."""
    graph = read_graph(model, "model.tflite").graph
    values: Values = {graph.inputs[0]: feed}
    for op in graph.ops:
        values[op.outputs[0]] = _computed(op, values)
    return values[graph.outputs[0]]


def _computed(op: Op, values: Values) -> Array:
    """What an operator's one output keeps."""
    out = op.outputs[0]
    real = KINDS[op.kind](op, [_real(t, values) for t in op.inputs if t is not None])
    return _stored(out, _activated(op, real).reshape(out.shape))


def by_operator(model: bytes, feed: Array) -> dict[str, float]:
    """By kind of operator, the share of values for which LiteRT has another step, given its own inputs.

    Raises KeyError for operators that are not listed here.
    """
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    graph = read_graph(model, "model.tflite").graph
    interpreter = Interpreter(
        model_content=model,
        experimental_preserve_all_tensors=True,
        experimental_op_resolver_type=OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
    )
    interpreter.allocate_tensors()
    interpreter.set_tensor(interpreter.get_input_details()[0]["index"], feed)
    interpreter.invoke()
    places = {d["name"]: d["index"] for d in interpreter.get_tensor_details()}

    def found(t: Tensor) -> Array:
        value = np.asarray(interpreter.get_tensor(places[t.name]))
        if t.storage is None:
            return value
        (scale,), (zero,) = t.storage.qparams.scale, t.storage.qparams.zero_point
        return np.asarray((value.astype(np.float64) - zero) * scale)

    wrong: dict[str, list[int]] = {}
    for op in graph.ops:
        out = op.outputs[0]
        if out.storage is None:
            continue
        given = {t: found(t) for t in op.inputs if t is not None and t.data is None}
        off = np.abs(found(out) - _computed(op, given)) > out.storage.qparams.scale[0] / 2
        counts = wrong.setdefault(op.kind, [0, 0])
        counts[0] += int(off.sum())
        counts[1] += off.size
    return {kind: off / size for kind, (off, size) in wrong.items()}


def _real(t: Tensor, values: Values) -> Array:
    if t.data is None:
        return values[t]
    if t.storage is None:
        return t.data.astype(np.float64)
    kept, shape = t.storage.qparams, [1] * t.rank
    if kept.axis is not None:
        shape[kept.axis] = -1
    scale, zero = (np.asarray(v, np.float64).reshape(shape) for v in (kept.scale, kept.zero_point))
    return np.asarray((t.data - zero) * scale)


def _stored(t: Tensor, real: Array) -> Array:
    """Real values as the tensor keeps them, ties to even; float32 is divided in float32, as by QuantizeLinear."""
    if t.storage is None:
        return real
    (scale,), (low, high) = t.storage.qparams.scale, t.storage.dtype.limits
    steps = np.rint(real / real.dtype.type(scale)).astype(np.float64)
    return np.asarray(np.clip(steps, low, high) * scale)


def _activated(op: Op, real: Array) -> Array:
    kinds = fb.ActivationFunctionType
    bounds = {kinds.NONE: (-np.inf, np.inf), kinds.RELU: (0, np.inf), kinds.RELU6: (0, 6)}
    return np.clip(real, *bounds[op.options.get("fusedActivationFunction", kinds.NONE)])


def _convolve(op: Op, inputs: list[Array]) -> Array:
    """Both convolutions: the sum over the window's positions of shifted inputs times their weights."""
    x, w, bias = inputs
    depthwise = op.kind == "DEPTHWISE_CONV_2D"
    strides = [op.options[f"stride{axis}"] for axis in "HW"]
    _, rows, columns, _ = op.outputs[0].shape
    window = w.shape[1:3]
    if op.options["padding"] == fb.Padding.SAME:
        spare = [
            max((size - 1) * s + k - have, 0)
            for size, s, k, have in zip((rows, columns), strides, window, x.shape[1:3], strict=True)
        ]
        x = np.pad(x, [(0, 0), *((p // 2, p - p // 2) for p in spare), (0, 0)])
    total = np.zeros(op.outputs[0].shape)
    for i, j in itertools.product(*map(range, window)):
        end = i + (rows - 1) * strides[0] + 1, j + (columns - 1) * strides[1] + 1
        part = x[:, i : end[0] : strides[0], j : end[1] : strides[1]]
        total += part * w[0, i, j] if depthwise else part @ w[:, i, j].T
    return total + bias


def _pool(op: Op, inputs: list[Array]) -> Array:
    if op.outputs[0].shape[1:3] != (1, 1):
        raise KeyError("AVERAGE_POOL_2D of more than one window")
    return np.asarray(inputs[0].mean(axis=(1, 2)))


def _slice(op: Op, inputs: list[Array]) -> Array:
    masks = ("beginMask", "endMask", "shrinkAxisMask", "ellipsisMask", "newAxisMask")
    begin_mask, end_mask, *others = (op.options.get(m, 0) for m in masks)
    if any(others):
        raise KeyError("STRIDED_SLICE with masks of axes")
    places = [
        slice(None if begin_mask >> k & 1 else b, None if end_mask >> k & 1 else e, s)
        for k, (b, e, s) in enumerate(zip(*(v.astype(int).tolist() for v in inputs[1:]), strict=True))
    ]
    return inputs[0][tuple(places)]


#: What each operator means, on real numbers.
KINDS: dict[str, Callable[[Op, list[Array]], Array]] = {
    "QUANTIZE": lambda _, v: v[0],
    "DEQUANTIZE": lambda _, v: v[0],
    "RESHAPE": lambda _, v: v[0],
    "RELU": lambda _, v: np.maximum(v[0], 0),
    "RELU6": lambda _, v: np.clip(v[0], 0, 6),
    "LOGISTIC": lambda _, v: 1 / (1 + np.exp(-v[0])),
    "ADD": lambda _, v: v[0] + v[1],
    "SUB": lambda _, v: v[0] - v[1],
    "MUL": lambda _, v: v[0] * v[1],
    "PAD": lambda _, v: np.pad(v[0], v[1].astype(int)),
    "CONCATENATION": lambda op, v: np.concatenate(v, axis=op.options.get("axis", 0)),
    "STRIDED_SLICE": _slice,
    "MEAN": lambda _, v: v[0].mean(axis=tuple(v[1].astype(int).ravel())),
    "AVERAGE_POOL_2D": _pool,
    "CONV_2D": _convolve,
    "DEPTHWISE_CONV_2D": _convolve,
    "FULLY_CONNECTED": lambda _, v: v[0].reshape(-1, v[1].shape[1]) @ v[1].T + (v[2] if len(v) > 2 else 0),
}


def shares(bundle: Any, data: str) -> dict[str, float]:
    """Shares of the output values within 2 steps, by pair, of an open 16x8 bundle with one input and one output.

    Raises KeyError for operators that are not listed here.
    """
    from ai_edge_litert.interpreter import Interpreter

    from edgec.pipeline import kept_graphs
    from edgec.pipeline.compare import model_of
    from edgec.quantization.data.samples import open_samples

    model = bundle.read(bundle.manifest.model)
    interpreter = Interpreter(model_content=model)
    interpreter.allocate_tensors()
    (given,) = interpreter.get_output_details()
    qdq = bundle.read(kept_graphs.QUANTIZED)
    number = min(max(VALUES // int(np.prod(given["shape"])), FEWEST), MOST)
    feeds = list(itertools.islice(open_samples(data, model_of(qdq, "qdq").inputs()), number))
    found: dict[str, list[Array]] = {"LiteRT": [], "exact": []}
    for feed in feeds:
        last = channels_last(interpreter, feed)
        interpreter.set_tensor(interpreter.get_input_details()[0]["index"], last)
        interpreter.invoke()
        found["LiteRT"].append(interpreter.get_tensor(given["index"]).ravel())
        found["exact"].append(exact(model, last).ravel())
    for kind, rows in zip(("ORT", "ORT optimised"), both_ways(qdq, feeds), strict=True):
        found[kind] = [next(iter(row.values())).ravel() for row in rows]
    stacked = {kind: np.stack(rows).astype(np.float64) for kind, rows in found.items()}
    step = float(bundle.manifest.outputs[0].step or 0)
    pairs = (("LiteRT", "ORT"), ("ORT optimised", "ORT"), ("LiteRT", "exact"), ("ORT", "exact"))
    return {f"{a} / {b}": float((np.abs(stacked[a] - stacked[b]) < 2.5 * step).mean()) for a, b in pairs}


def channels_last(interpreter: Any, feed: dict[str, Array]) -> Array:
    """The one input as the model takes it."""
    (taken,), (x,) = interpreter.get_input_details(), feed.values()
    return x if tuple(taken["shape"]) == x.shape else x.transpose(0, 2, 3, 1)


def compared(name: str, operators: bool = False) -> dict[str, float]:
    """The shares of one of the acceptance models: of its outputs, or of its kinds of operators."""
    from ai_edge_litert.interpreter import Interpreter

    from edgec.pipeline import run_build

    case = next(c for c in CASES if c.name == name)
    with tempfile.TemporaryDirectory() as folder:
        options: dict[str, Any] = {"precision": "int16x8", "effort": "fast", "inputs": case.inputs, "keep_graphs": True}
        data = find_data(case.calibration, Path(folder))
        built = run_build(find_model(case), target="raspberrypi", calibration=data, output=folder, **options)
        assert built.bundle is not None
        with built.bundle as bundle:
            if not operators:
                return shares(bundle, data)
            model = bundle.read(bundle.manifest.model)
            feed = channels_last(Interpreter(model_content=model), dict(bundle.goldens()[0].inputs))
            return by_operator(model, feed)


def main() -> int:
    """One line a model."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("models", nargs="+", help="names of models of tools/acceptance.py")
    parser.add_argument("--operators", action="store_true", help="each kind by itself: values that are not exact")
    options = parser.parse_args()
    for name in options.models:
        found = compared(name, options.operators)
        print(name, ", ".join(f"{what} {100 * share:.3f} %" for what, share in found.items()), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
