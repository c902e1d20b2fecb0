"""float64 inputs and outputs are float32 in the artifact: TFLite mostly computes in float32, and the host converts.

The binding refuses values beyond float32's range; a CAST on the device would make infinities of them.
"""

from __future__ import annotations

from edgec.backends.tflite.tir import Graph, Op, Tensor
from edgec.tensors import DType


def narrow_io(graph: Graph) -> None:
    """Take the casts at the border away, in place."""
    for t in graph.inputs:
        readers = graph.consumers().get(t, [])
        casts = [op for op in readers if _casts(op, DType.FLOAT64, DType.FLOAT32)]
        if t.dtype != DType.FLOAT64 or len(casts) != len(readers) or t in graph.outputs:
            continue
        if any(op.outputs[0] in graph.outputs for op in casts):
            continue
        t.dtype = DType.FLOAT32
        for op in casts:
            graph.replace_uses(op.outputs[0], t)
            graph.ops.remove(op)
    for t in list(graph.outputs):
        source = _cast_from(graph, t)
        if source is not None:
            source.name = t.name
            graph.ops = [op for op in graph.ops if t not in op.outputs]
            graph.outputs = [source if o is t else o for o in graph.outputs]


def _casts(op: Op, before: DType, after: DType) -> bool:
    x = op.inputs[0]
    return op.kind == "CAST" and x is not None and x.dtype == before and op.outputs[0].dtype == after


def _cast_from(graph: Graph, t: Tensor) -> Tensor | None:
    """The float32 tensor that may stand for a float64 output, or None."""
    producer = graph.producers().get(t)
    if producer is None or not _casts(producer, DType.FLOAT32, DType.FLOAT64) or graph.consumers().get(t):
        return None
    source = producer.inputs[0]
    if source is None or source.is_const or source in graph.inputs or source in graph.outputs:
        return None
    return source
