"""The lowest version of each operator that covers how it is used, so that old runtimes accept the file.

The rows restate TensorFlow's `op_version.cc`. A rule is (version, predicate); the first that holds wins.
"""

from __future__ import annotations

from collections.abc import Callable

from edgec.backends.tflite.tir import Op, Tensor
from edgec.tensors import DType

Rule = tuple[int, Callable[[Op], bool]]


def stored(t: Tensor | None) -> DType | None:
    """The element type in the file."""
    if t is None:
        return None
    return t.dtype if t.storage is None else t.storage.dtype


def _input(position: int, *dtypes: DType) -> Callable[[Op], bool]:
    return lambda op: len(op.inputs) > position and stored(op.inputs[position]) in dtypes


def _option(name: str) -> Callable[[Op], bool]:
    return lambda op: bool(op.options.get(name))


def _rank_over(limit: int, position: int = 0) -> Callable[[Op], bool]:
    def rule(op: Op) -> bool:
        t = op.inputs[position]
        return t is not None and t.rank > limit

    return rule


def _either(*dtypes: DType) -> Callable[[Op], bool]:
    return lambda op: stored(op.inputs[0]) in dtypes or stored(op.outputs[0]) in dtypes


def _not_rank_4(op: Op) -> bool:
    t = op.inputs[0]
    return t is not None and t.rank != 4


def _hybrid(op: Op) -> bool:
    return stored(op.inputs[0]) == DType.FLOAT32 and stored(op.inputs[1]) == DType.INT8


def _hybrid_per_channel(op: Op) -> bool:
    w = op.inputs[1]
    return _hybrid(op) and w is not None and w.storage is not None and w.storage.qparams.axis is not None


def _broadcast_over_4d(op: Op) -> bool:
    shapes = [t.shape for t in op.inputs if t is not None]
    return len(shapes) > 1 and shapes[0] != shapes[1] and max(len(s) for s in shapes) > 4


def _grouped(op: Op) -> bool:
    x, w = op.inputs[0], op.inputs[1]
    return x is not None and w is not None and x.shape[-1] != w.shape[-1]


def _scale_at_least_one(op: Op) -> bool:
    scales = [t.storage.qparams.scale[0] for t in (*op.inputs, *op.outputs) if t is not None and t.storage]
    return len(scales) == 3 and scales[0] * scales[1] / scales[2] >= 1.0


def _integer(op: Op) -> bool:
    x = op.inputs[0]
    return x is not None and x.storage is None and x.dtype == DType.INT16


_INT8 = _input(0, DType.INT8)
_BYTE = _input(0, DType.INT8, DType.UINT8)
_INT16 = _input(0, DType.INT16)
_BOOL = _input(0, DType.BOOL)
_INT8_INT16: list[Rule] = [(3, _INT16), (2, _INT8)]

RULES: dict[str, list[Rule]] = {
    "CONV_2D": [(6, _grouped), (5, _hybrid_per_channel), (4, _INT16), (3, _INT8), (2, _hybrid)],
    "DEPTHWISE_CONV_2D": [
        (5, _INT16),
        (6, _hybrid_per_channel),
        (4, _hybrid),
        (3, _INT8),
        (2, lambda op: op.options.get("dilationWFactor", 1) != 1 or op.options.get("dilationHFactor", 1) != 1),
    ],
    "FULLY_CONNECTED": [
        (12, _hybrid_per_channel),
        (7, _INT16),
        (6, lambda op: len(op.inputs) == 2),
        (5, _option("keepNumDims")),
        (4, _INT8),
        (9, lambda op: _hybrid(op) and bool(op.options.get("asymmetricQuantizeInputs"))),
        (3, _hybrid),
    ],
    "TRANSPOSE_CONV": [
        (4, lambda op: op.options.get("fusedActivationFunction", "NONE") != "NONE"),
        (3, lambda op: len(op.inputs) == 4 and op.inputs[3] is not None),
        (2, _input(1, DType.INT8)),
    ],
    "GATHER": [
        (6, _input(1, DType.INT16)),
        (5, _option("batchDims")),
        (4, _INT16),
        (3, _BOOL),
        (2, _INT8),
    ],
    "SIGN": [(2, _input(0, DType.INT32))],
    "MUL": [
        (7, lambda op: _integer(op) or stored(op.inputs[0]) == DType.UINT32),
        (6, _input(0, DType.COMPLEX64)),
        (5, _input(0, DType.INT64)),
        (4, _INT16),
        (3, _scale_at_least_one),
        (2, _INT8),
    ],
    "ADD": [(5, _integer), (4, _input(0, DType.INT64)), (3, _INT16), (2, _INT8)],
    "SUB": [(5, _INT16), (4, _input(0, DType.INT64)), (3, _broadcast_over_4d), (2, _INT8)],
    "DIV": [(2, _broadcast_over_4d)],
    "MAX_POOL_2D": _INT8_INT16,
    "AVERAGE_POOL_2D": _INT8_INT16,
    "SOFTMAX": _INT8_INT16,
    "MEAN": _INT8_INT16,
    "SUM": [(2, _INT8)],
    "MIRROR_PAD": _INT8_INT16,
    "REDUCE_MAX": _INT8_INT16,
    "REDUCE_MIN": _INT8_INT16,
    "RELU6": _INT8_INT16,
    "RSQRT": _INT8_INT16,
    "TANH": _INT8_INT16,
    "LOGISTIC": _INT8_INT16,
    "TRANSPOSE": [(6, _rank_over(5)), (5, _INT16), (4, _rank_over(4)), (3, _BOOL), (2, _INT8)],
    "SPLIT": [(4, _input(1, DType.INT16)), (3, _input(1, DType.INT32)), (2, _input(1, DType.INT8))],
    "SPLIT_V": [(2, _INT8)],
    "SLICE": [(6, _input(0, DType.UINT32)), (5, _rank_over(4)), (4, _INT16), (2, _INT8)],
    "STRIDED_SLICE": [(7, _input(0, DType.UINT32)), (4, _rank_over(4)), (3, _BOOL), (2, _INT8)],
    "UNPACK": [(4, _INT16), (3, _BOOL), (2, _BYTE)],
    "PACK": [(4, _input(0, DType.UINT32)), (3, _INT16), (2, _INT8)],
    "DEQUANTIZE": [(3, _input(0, DType.INT16, DType.FLOAT16)), (2, _INT8)],
    "QUANTIZE": [(2, lambda op: stored(op.outputs[0]) == DType.INT16)],
    "FLOOR_DIV": [(3, _input(0, DType.INT8, DType.INT16)), (2, _input(0, DType.FLOAT32))],
    "FLOOR_MOD": [(2, _input(0, DType.INT8, DType.INT16))],
    "L2_NORMALIZATION": [(2, _INT8)],
    "ABS": [(5, _input(0, DType.INT32)), (4, _integer), (3, _INT16), (2, _BYTE)],
    "RELU": [(3, _INT16), (2, _BYTE)],
    "REVERSE_V2": [(3, _INT8), (2, _BOOL)],
    "RESIZE_BILINEAR": [(4, _INT16), (3, _option("halfPixelCenters")), (2, _INT8)],
    "RESIZE_NEAREST_NEIGHBOR": [
        (4, _INT16),
        (3, lambda op: bool(op.options.get("halfPixelCenters") or op.options.get("alignCorners"))),
        (2, _INT8),
    ],
    "MAXIMUM": [(4, _INT16), (3, _broadcast_over_4d), (2, _INT8)],
    "MINIMUM": [(4, _INT16), (3, _broadcast_over_4d), (2, _INT8)],
    "TILE": [(3, _INT8)],
    "TOPK_V2": _INT8_INT16,
    "GATHER_ND": [(5, _BOOL), (4, _input(1, DType.INT16)), (3, _INT16)],
    "FILL": [
        (4, _input(1, DType.FLOAT16)),
        (3, _input(1, DType.INT8, DType.INT16)),
        (2, _input(1, DType.BOOL)),
    ],
    "EQUAL": [(4, _INT16), (2, _INT8)],
    "NOT_EQUAL": [(2, _INT8)],
    "LESS": _INT8_INT16,
    "GREATER_EQUAL": _INT8_INT16,
    "GREATER": [(2, _INT8)],
    "LESS_EQUAL": [(2, _INT8)],
    "LEAKY_RELU": [(2, _INT16)],
    "RANGE": [(2, _input(0, DType.INT64))],
    "BATCH_MATMUL": [
        (3, _INT16),
        (2, _INT8),
        (4, lambda op: _hybrid(op) and bool(op.options.get("asymmetricQuantizeInputs"))),
    ],
    "PAD": [(4, _rank_over(4)), (3, _INT16), (2, _INT8)],
    "PADV2": [(4, _rank_over(4)), (3, _INT16), (2, _INT8)],
    "CONCATENATION": [(4, _input(0, DType.UINT32)), (3, _INT16), (2, _INT8)],
    "ARG_MAX": [(3, _BOOL), (2, _INT8)],
    "ARG_MIN": [(3, _BOOL), (2, _INT8)],
    "SELECT": [(4, _input(0, DType.UINT32)), (3, _rank_over(4)), (2, _INT8)],
    "SELECT_V2": [(2, _input(0, DType.UINT32))],
    "SPACE_TO_DEPTH": [(2, _INT8)],
    "DEPTH_TO_SPACE": [(2, _INT8)],
    "CAST": [
        (5, _either(DType.FLOAT64, DType.FLOAT16)),
        (4, _either(DType.UINT16)),
        (3, _either(DType.INT8)),
        (2, _either(DType.UINT32)),
    ],
    "EXP": [(2, _INT8), (2, _INT16)],
    "LOG": [(2, _INT8), (2, _INT16)],
    "REDUCE_PROD": [(2, _INT8), (2, _INT16)],
    "GELU": [(2, _BYTE)],
    "LOG_SOFTMAX": [(2, _INT8)],
    "SQUARED_DIFFERENCE": [(2, _INT8)],
    "DYNAMIC_UPDATE_SLICE": [(2, _input(2, DType.INT64))],
    "SPACE_TO_BATCH_ND": [(4, _INT16), (3, _not_rank_4), (2, _INT8)],
    "BATCH_TO_SPACE_ND": [(4, _INT16), (3, _not_rank_4), (2, _INT8)],
    "WHERE": [(1, _BOOL), (2, lambda _: True)],
    "BROADCAST_TO": [(3, _input(0, DType.INT8, DType.INT16)), (2, lambda _: True)],
}


def op_version(op: Op) -> int:
    """The version to declare for an operator; 1 where no rule says more. What a file declared stays."""
    if op.version:
        return op.version
    for version, holds in RULES.get(op.kind, []):
        if holds(op):
            return version
    return 1
