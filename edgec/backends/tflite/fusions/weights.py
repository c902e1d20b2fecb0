"""Factors and offsets that a linear operator's weights can take in, across whatever only moves its result.

1. y = move(W·x + b) · f, f the same for all values of an output channel: W' = W·f, b' = b·f, a channel at a time.
   A channel must go through the MUL with all its values or with none: part of a SPLIT may be scaled.
2. (z · g + o) · Wᵀ with g and o along the last axis, all readers FULLY_CONNECTED: W' = W·g, b' = b + W·o.
   This is what is left of a normalisation's own scale and bias.

`exact` allows only rewrites after which 16 bits still hold every weight: float16 weights must stay what they are.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from edgec.backends.tflite.tir import Graph, Op, Storage, Tensor
from edgec.tensors import Array, DType, QParams

#: The axis of the weights that holds output channels.
_CHANNEL_AXIS = {"FULLY_CONNECTED": 0, "CONV_2D": 0, "DEPTHWISE_CONV_2D": 3}
_NONE = "NONE"


def fold_into_weights(graph: Graph, *, exact: bool) -> None:
    """Rules 1 and 2, in place."""
    dropped: set[Op] = set()
    producers, consumers = graph.producers(), graph.consumers()
    for op in graph.ops:
        if op.kind == "MUL" and op not in dropped and _scale_back(graph, producers, consumers, op, exact=exact):
            dropped.add(op)
    graph.ops = [op for op in graph.ops if op not in dropped]
    _absorb_all(graph, exact=exact)


def _constant_operand(op: Op) -> tuple[Tensor, Array] | None:
    """The computed and the constant operand of a plain float MUL or ADD."""
    if len(op.inputs) != 2 or op.options.get("fusedActivationFunction", _NONE) != _NONE:
        return None
    for x, c in (op.inputs, op.inputs[::-1]):
        if x is None or c is None or c.data is None or c.storage is not None or x.is_const:
            continue
        plain = x.storage is None and op.outputs[0].storage is None and x.dtype == c.dtype == DType.FLOAT32
        if plain and x.shape == op.outputs[0].shape:
            return x, c.data
    return None


# --- rule 1 -------------------------------------------------------------------------------------------


def _scale_back(
    graph: Graph, producers: dict[Tensor, Op], consumers: dict[Tensor, list[Op]], op: Op, *, exact: bool
) -> bool:
    found = _constant_operand(op)
    if found is None or not np.all(np.isfinite(found[1])):
        return False
    x, factor = found
    path = _path(graph, producers, consumers, x)
    if path is None:
        return False
    source = path[0]
    factors = _factors(source.outputs[0].shape, path[1:], x, np.broadcast_to(factor, x.shape))
    if factors is None:
        return False
    if source.options.get("fusedActivationFunction", _NONE) == "RELU" and np.any(factors <= 0):
        return False
    if not _scale_weights(source, factors, exact=exact):
        return False
    last = path[-1]
    last.outputs = [op.outputs[0] if t is x else t for t in last.outputs]
    producers[op.outputs[0]] = last
    return True


def _path(graph: Graph, producers: dict[Tensor, Op], consumers: dict[Tensor, list[Op]], x: Tensor) -> list[Op] | None:
    """From a linear operator through movers to x: nothing on the way is read by anything else."""
    path: list[Op] = []
    t = x
    while True:
        op = producers.get(t)
        if op is None or len(consumers.get(t, [])) != 1 or t in graph.outputs or t.storage is not None:
            return None
        path.append(op)
        if op.kind in _CHANNEL_AXIS:
            fused = op.options.get("fusedActivationFunction", _NONE)
            return path[::-1] if fused in (_NONE, "RELU") else None
        source = op.inputs[1] if op.kind == "SPLIT" else op.inputs[0]
        parameter = op.inputs[0] if op.kind == "SPLIT" else op.inputs[-1]
        if op.kind not in ("RESHAPE", "TRANSPOSE", "SPLIT") or source is None or parameter is None:
            return None
        if parameter.data is None:
            return None
        t = source


def _factors(shape: tuple[int, ...], movers: list[Op], x: Tensor, factor: Array) -> Array | None:
    """One factor a channel, 1 for those that do not reach x; None where a channel has no single one."""
    channels = shape[-1]
    ids = np.broadcast_to(np.arange(channels, dtype=np.int32), shape)
    for i, op in enumerate(movers):
        following = movers[i + 1] if i + 1 < len(movers) else None
        ids = _moved(op, ids, x if following is None else following.inputs[1 if following.kind == "SPLIT" else 0])
    flat, values = ids.reshape(-1), factor.reshape(-1)
    result = np.ones(channels, np.float32)
    result[flat] = values
    reached = np.bincount(flat, minlength=channels)
    complete = np.isin(reached, (0, int(np.prod(shape[:-1]))))
    return result if np.all(complete) and np.array_equal(result[flat], values) else None


def _moved(op: Op, ids: Array, output: Tensor | None) -> Array:
    """What a mover makes of an array, at one of its outputs."""
    if op.kind == "RESHAPE":
        return ids.reshape(op.outputs[0].shape)
    parameter = op.inputs[0] if op.kind == "SPLIT" else op.inputs[1]
    assert parameter is not None and parameter.data is not None
    if op.kind == "TRANSPOSE":
        return ids.transpose([int(p) for p in parameter.data])
    position = next(i for i, t in enumerate(op.outputs) if t is output)
    return np.split(ids, len(op.outputs), int(parameter.data.reshape(())))[position]


def _scale_weights(op: Op, factors: Array, *, exact: bool) -> bool:
    """Multiply the output channels of a linear operator; False where its weights are not ours to change."""
    w, bias = op.inputs[1], op.inputs[2] if len(op.inputs) > 2 else None
    if w is None or w.data is None or bias is None or bias.data is None or bias.storage is not None:
        return False
    axis = _CHANNEL_AXIS[op.kind]
    if bias.shape != factors.shape or w.shape[axis] != len(factors):
        return False
    if w.storage is None:
        view = [1] * w.rank
        view[axis] = -1
        scaled = (w.data * factors.reshape(view)).astype(np.float32)
        if exact and not np.array_equal(scaled.astype(np.float16), scaled):
            return False
        op.inputs[1] = replace(w, data=scaled)
    else:
        qparams = _scaled(w.storage.qparams, axis, factors)
        if qparams is None:
            return False
        op.inputs[1] = replace(w, storage=Storage(w.storage.dtype, qparams))
    op.inputs[2] = replace(bias, data=(bias.data * factors).astype(np.float32))
    return True


def _scaled(qparams: QParams, axis: int, factors: Array) -> QParams | None:
    """Integer weights keep their integers: their scales take the factors in."""
    uniform = bool(np.all(factors == factors[0]))
    if np.any(factors <= 0) or qparams.axis not in (None, axis) or (qparams.axis is None and not uniform):
        return None
    scales = np.asarray(qparams.scale, np.float32) * (factors if qparams.axis is not None else factors[0])
    return replace(qparams, scale=tuple(float(s) for s in scales.astype(np.float32)))


# --- rule 2 -------------------------------------------------------------------------------------------


def _absorb_all(graph: Graph, *, exact: bool) -> None:
    readers, dropped = graph.consumers(), set()
    for op in reversed(graph.ops):
        out = op.outputs[0]
        rounds = exact and op.kind == "MUL"
        if out in graph.outputs or rounds or not _absorb(op, readers.get(out, [])):
            continue
        dropped.add(op)
        x = readers[out][0].inputs[0]
        assert x is not None
        readers[x] = [reader for reader in readers[x] if reader is not op] + readers.pop(out)
    graph.ops = [op for op in graph.ops if op not in dropped]


def _absorb(op: Op, readers: list[Op]) -> bool:
    found = _constant_operand(op) if op.kind in ("MUL", "ADD") else None
    if found is None:
        return False
    x, constant = found
    size = x.shape[-1] if x.shape else 0
    vector = constant.size in (1, size) and (constant.size == 1 or constant.shape[-1] == size)
    scaled = op.kind == "MUL"
    if not vector or not readers or not all(_takes(reader, op.outputs[0], size, scaled=scaled) for reader in readers):
        return False
    values = np.broadcast_to(constant.reshape(-1), (size,)).astype(np.float64)
    for reader in readers:
        w, bias = reader.inputs[1], reader.inputs[2]
        assert w is not None and w.data is not None and bias is not None and bias.data is not None
        if scaled:
            reader.inputs[1] = replace(w, data=(w.data * values).astype(np.float32))
        else:
            reader.inputs[2] = replace(bias, data=(bias.data + w.real() @ values).astype(np.float32))
        reader.inputs[0] = x
    return True


def _takes(op: Op, t: Tensor, size: int, *, scaled: bool) -> bool:
    """Whether a reader is a product with constants whose columns are the last axis of t; floats if they are scaled."""
    if op.kind != "FULLY_CONNECTED" or op.inputs[0] is not t or t in op.inputs[1:]:
        return False
    w, bias = op.inputs[1], op.inputs[2] if len(op.inputs) > 2 else None
    if w is None or w.data is None or bias is None or bias.data is None:
        return False
    return not (scaled and w.storage) and bias.storage is None and w.shape[1] == size
