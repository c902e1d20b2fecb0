"""Fusions on TIR: what the runtime does inside another operator should not be one of its own.

1. FULLY_CONNECTED flattens its input itself: RESHAPE to a matrix in front of it goes away.
2. ADD of a constant vector after a FULLY_CONNECTED or convolution with zero bias is its bias.
3. RELU, RELU6, RELU_N1_TO_1 fuse into the operator before them.
4. RESHAPE after RESHAPE is one; a RESHAPE to the same shape is none.
5. Equal operators on equal inputs are one.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from edgec.backends.tflite.fusions.weights import fold_into_weights
from edgec.backends.tflite.tir import Graph, Op, Tensor
from edgec.tensors import Array

_FUSIBLE = {
    "CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED", "ADD", "SUB", "MUL", "DIV", "MAX_POOL_2D",
    "AVERAGE_POOL_2D", "CONV_3D", "TRANSPOSE_CONV",
}  # fmt: skip
_ACTIVATIONS = {"RELU", "RELU6", "RELU_N1_TO_1"}
_BIASED = {"CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED"}


def flatten_into_fully_connected(graph: Graph) -> None:
    """Rule 1, before layout is assigned, so that the weights can follow the input's order."""
    producers, consumers = graph.producers(), graph.consumers()
    for op in graph.ops:
        if op.kind != "FULLY_CONNECTED" or op.options.get("keepNumDims"):
            continue
        x, w = op.inputs[0], op.inputs[1]
        source = producers.get(x) if x is not None else None
        if source is None or source.kind != "RESHAPE" or w is None or not w.is_const or x in graph.outputs:
            continue
        origin = source.inputs[0]
        assert x is not None and origin is not None
        plain = origin.storage == x.storage
        transferable = origin.storage is None and len(consumers.get(origin, [])) == 1 and origin not in graph.inputs
        if origin.is_const or not (plain or transferable) or origin.rank < 2 or origin.rank > 4:
            continue
        if not _splits_batch(origin.shape, x.shape[0]):
            continue
        origin.storage = x.storage
        op.inputs[0] = origin
    graph.prune()


def _splits_batch(shape: tuple[int, ...], batch: int) -> bool:
    count = 1
    for d in (*shape, 0):
        if count == batch:
            return True
        count *= d
    return False


def fuse(graph: Graph, *, exact: bool = False) -> None:
    """Rules 2 to 5 and `fusions.weights`, in place; `exact` leaves out what would round weights anew."""
    _share_equal(graph)
    merge_reshapes(graph)
    fuse_bias(graph)
    fold_into_weights(graph, exact=exact)
    _fuse_activations(graph)
    fold_into_weights(graph, exact=exact)  # factors behind a fused RELU
    merge_reshapes(graph)
    graph.prune()


def _single_reader(graph: Graph, consumers: dict[Tensor, list[Op]], t: Tensor) -> bool:
    return len(consumers.get(t, [])) == 1 and t not in graph.outputs


def fuse_bias(graph: Graph) -> None:
    """Rule 2, in place."""
    producers, consumers = graph.producers(), graph.consumers()
    dropped: set[Op] = set()
    for op in graph.ops:
        if op.kind != "ADD" or op.options.get("fusedActivationFunction", "NONE") != "NONE":
            continue
        for x, c in (op.inputs, op.inputs[::-1]):
            source = producers.get(x) if x is not None else None
            if source is None or source.kind not in _BIASED or x is None or c is None or c.data is None:
                continue
            channels = op.outputs[0].shape[-1]
            vector = c.size in (1, channels) and (c.size == 1 or c.shape[-1] == channels)
            bias = source.inputs[2] if len(source.inputs) > 2 else None
            ok = bias is not None and bias.data is not None and bias.storage is None
            untouched = x.storage is None and source.options.get("fusedActivationFunction") == "NONE"
            if not (vector and ok and untouched) or op.outputs[0].shape != x.shape:
                continue
            if not _single_reader(graph, consumers, x):
                continue
            assert bias is not None and bias.data is not None
            source.inputs[2] = _sum(f"{op.outputs[0].name}/bias", bias.data, c)
            source.outputs = [op.outputs[0]]
            producers[op.outputs[0]] = source
            dropped.add(op)
            break
    _drop(graph, dropped)


def _sum(name: str, bias: Array, added: Tensor) -> Tensor:
    """A bias with a constant added; where there was none, integers that were planned for it stay as they are."""
    if added.storage is not None and added.shape == bias.shape and not bias.any():
        return added
    total = bias + np.broadcast_to(added.real().reshape(-1), bias.shape)
    return Tensor(name, bias.shape, added.dtype, total.astype(np.float32))


def _fuse_activations(graph: Graph) -> None:
    producers, consumers = graph.producers(), graph.consumers()
    dropped: set[Op] = set()
    for op in graph.ops:
        if op.kind not in _ACTIVATIONS:
            continue
        x = op.inputs[0]
        source = producers.get(x) if x is not None else None
        if source is None or x is None or source.kind not in _FUSIBLE or x.storage is not None:
            continue
        if source.options.get("fusedActivationFunction", "NONE") != "NONE" or x.dtype != "float32":
            continue
        if not _single_reader(graph, consumers, x):
            continue
        source.options["fusedActivationFunction"] = op.kind
        source.outputs = [op.outputs[0]]
        producers[op.outputs[0]] = source
        dropped.add(op)
    _drop(graph, dropped)


def _drop(graph: Graph, dropped: set[Op]) -> None:
    graph.ops = [op for op in graph.ops if op not in dropped]
    graph.sort()


def merge_reshapes(graph: Graph) -> None:
    """Rule 4, in place."""
    producers = graph.producers()
    for op in graph.ops:
        if op.kind != "RESHAPE":
            continue
        x, out = op.inputs[0], op.outputs[0]
        source = producers.get(x) if x is not None else None
        if source is not None and source.kind == "RESHAPE" and x is not None:
            root = source.inputs[0]
            if (
                root is not None
                and (root.storage == x.storage or x.storage is None)
                and x.storage in (None, out.storage)
            ):
                op.inputs[0] = x = root
        if x is None or x.shape != out.shape or x.storage != out.storage or x in graph.inputs:
            continue
        if out in graph.outputs and (x in graph.outputs or x.is_const):
            continue
        graph.replace_uses(out, x)
    graph.prune()


def _signature(op: Op) -> tuple[Any, ...] | None:
    """What makes two operators equal; None for those that must not be shared."""
    if op.subgraphs or len(op.outputs) != 1:
        return None
    parts: list[Any] = [op.kind, op.outputs[0].storage, op.outputs[0].dtype]
    for t in op.inputs:
        if t is not None and t.data is not None:
            if t.size > 256:
                parts.append(id(t.data))
            else:
                parts.append((t.data.tobytes(), t.data.dtype.name, t.shape, t.storage))
        else:
            parts.append(None if t is None else id(t))
    options = sorted((k, v.tobytes() if isinstance(v, np.ndarray) else v) for k, v in op.options.items())
    return (*parts, str(options))


def _share_equal(graph: Graph) -> None:
    known: dict[tuple[Any, ...], Tensor] = {}
    for op in graph.ops:
        key = _signature(op)
        if key is None or op.kind.startswith("RANDOM"):
            continue
        if key in known and op.outputs[0] not in graph.outputs:
            graph.replace_uses(op.outputs[0], known[key])
        else:
            known.setdefault(key, op.outputs[0])
    graph.prune()
