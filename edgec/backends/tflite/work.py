"""How much work a TIR graph is: operator by operator, and the memory that is alive at the same time."""

from __future__ import annotations

import math

from edgec.artifact import OpWork
from edgec.backends.tflite.quantized_ops import WEIGHTED
from edgec.backends.tflite.tir import Graph, Op, Tensor
from edgec.backends.tflite.types import data_positions
from edgec.backends.tflite.versions import stored
from edgec.tensors import DType


def tensor_bytes(t: Tensor) -> int:
    """What a tensor takes in memory as it is stored."""
    return math.prod(max(d, 1) for d in t.shape) * (stored(t) or DType.FLOAT32).numpy.itemsize


def work_of(graph: Graph) -> tuple[OpWork, ...]:
    """One record an operator, those of branches and loop bodies too.

    A subgraph counts at each operator that calls it; a loop's once, how often it runs is not known.
    """
    return _work_of(graph, {})


def _work_of(graph: Graph, known: dict[Graph, tuple[OpWork, ...]]) -> tuple[OpWork, ...]:
    if graph not in known:
        records: list[OpWork] = []
        for op in graph.ops:
            records.append(_work(op))
            for inner in dict.fromkeys(op.subgraphs):
                records += _work_of(inner, known)
        known[graph] = tuple(records)
    return known[graph]


def _work(op: Op) -> OpWork:
    positions = set(data_positions(op))
    inputs = [t for t in op.inputs if t is not None]
    values = [t for i, t in enumerate(op.inputs) if t is not None and i in positions and not t.is_const]
    macs, window = _macs(op)
    known = values or op.outputs  # an operator that only calls others, such as CALL_ONCE, has neither
    dtype = (stored(known[0]) if known else None) or DType.FLOAT32
    return OpWork(
        kind=op.kind,
        dtype=str(dtype),
        macs=macs,
        window=window,
        channels=max(op.outputs[0].shape[-1], 1) if op.outputs and op.outputs[0].shape else 1,
        input_bytes=sum(tensor_bytes(t) for t in values),
        weight_bytes=sum(tensor_bytes(t) for t in inputs if t.is_const),
        output_bytes=sum(tensor_bytes(t) for t in op.outputs),
    )


def _macs(op: Op) -> tuple[int, int]:
    """Multiply-accumulates, and how many of them make one output value (0 where the operator has none)."""
    out = math.prod(max(d, 1) for d in op.outputs[0].shape) if op.outputs else 0
    if op.kind in WEIGHTED or op.kind == "CONV_3D":
        w = op.inputs[1]
        assert w is not None
        if op.kind == "DEPTHWISE_CONV_2D":
            window = w.shape[1] * w.shape[2]
        elif op.kind == "TRANSPOSE_CONV":  # every input value meets every weight of its channel
            x = op.inputs[2]
            assert x is not None
            return w.size * math.prod(max(d, 1) for d in x.shape[:-1]), w.size // w.shape[0]
        elif op.kind == "CONV_3D":
            window = w.size // w.shape[-1]
        else:
            window = w.size // w.shape[0]
        return out * window, window
    if op.kind == "BATCH_MATMUL":
        x = op.inputs[0]
        assert x is not None
        window = x.shape[-2] if op.options.get("adjX") else x.shape[-1]
        return out * window, window
    return 0, 0


def peak_bytes(graph: Graph) -> int:
    """The most bytes of computed values that are alive at the same time, in the order of execution."""
    return _peak_bytes(graph, {})


def _peak_bytes(graph: Graph, known: dict[Graph, int]) -> int:
    if graph not in known:
        own = _own_peak_bytes(graph)
        inner = {inner for op in graph.ops for inner in op.subgraphs}
        known[graph] = own + max((_peak_bytes(each, known) for each in inner), default=0)
    return known[graph]


def _own_peak_bytes(graph: Graph) -> int:
    last: dict[Tensor, int] = {t: len(graph.ops) for t in graph.outputs}
    for i, op in enumerate(graph.ops):
        for t in op.inputs:
            if t is not None and not t.is_const:
                last[t] = max(last.get(t, 0), i)
    alive = {t for t in graph.inputs if t in last}
    size = peak = sum(tensor_bytes(t) for t in alive)
    for i, op in enumerate(graph.ops):
        made = set(op.outputs) - alive
        alive |= made
        size += sum(tensor_bytes(t) for t in made)
        peak = max(peak, size)
        gone = {t for t in alive if last.get(t, i) <= i}
        size -= sum(tensor_bytes(t) for t in gone)
        alive -= gone
    return peak
