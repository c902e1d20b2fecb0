"""float16 weights: constants kept in 16 bits, with a DEQUANTIZE that the runtime carries out once.

Only what 16 bits hold exactly is kept so: the plan has rounded the weights, and nothing may be rounded twice.
"""

from __future__ import annotations

import numpy as np

from edgec.backends.tflite.tir import Graph, Op, Tensor
from edgec.tensors import DType

#: Operators whose kernels take a constant through a DEQUANTIZE as they take the constant itself.
_READERS = frozenset(
    {
        "CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED", "TRANSPOSE_CONV", "BATCH_MATMUL", "GATHER", "ADD",
        "SUB", "MUL",
    }
)  # fmt: skip
#: Below this an operator more costs more bytes than it saves.
_MIN_ELEMENTS = 256


def halve_weights(graph: Graph) -> None:
    """Keep the float constants of an operator in float16, in place."""
    ops: list[Op] = []
    halves: dict[Tensor, Tensor] = {}
    for op in graph.ops:
        for position, t in enumerate(op.inputs):
            if t is None or op.kind not in _READERS or not _exact(t):
                continue
            if t not in halves:
                halves[t] = Tensor(f"{t.name}/float32", t.shape, DType.FLOAT32)
                assert t.data is not None
                kept = Tensor(t.name, t.shape, DType.FLOAT16, t.data.astype(np.float16))
                ops.append(Op("DEQUANTIZE", [kept], [halves[t]], origin=op.origin))
            op.inputs[position] = halves[t]
        ops.append(op)
    graph.ops = ops


def _exact(t: Tensor) -> bool:
    if t.data is None or t.storage is not None or t.dtype != DType.FLOAT32 or t.size < _MIN_ELEMENTS:
        return False
    if np.max(np.abs(t.data)) > np.finfo(np.float16).max:
        return False
    return bool(np.array_equal(t.data.astype(np.float16).astype(np.float32), t.data))
