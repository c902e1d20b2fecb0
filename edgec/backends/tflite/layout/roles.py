"""Which role each operator has: the table, and the few operators whose role depends on their operands."""

from __future__ import annotations

from edgec.backends.tflite.layout.role import Role
from edgec.backends.tflite.layout.role_axes import AxisOp, Gather, Pack
from edgec.backends.tflite.layout.role_moves import Reshape, Transpose
from edgec.backends.tflite.layout.role_pointwise import BroadcastTo, Elementwise, LastAxis
from edgec.backends.tflite.layout.role_products import BatchMatmul, FlattenFullyConnected
from edgec.backends.tflite.tir import Op

_OPAQUE = Role()
_ELEMENTWISE = [
    "ADD",
    "SUB",
    "MUL",
    "DIV",
    "MAXIMUM",
    "MINIMUM",
    "POW",
    "SQUARED_DIFFERENCE",
    "FLOOR_DIV",
    "FLOOR_MOD",
    "ATAN2",
    "EQUAL",
    "NOT_EQUAL",
    "LESS",
    "LESS_EQUAL",
    "GREATER",
    "GREATER_EQUAL",
    "LOGICAL_AND",
    "LOGICAL_OR",
    "LOGICAL_NOT",
    "SELECT_V2",
    "PRELU",
    "RELU",
    "RELU6",
    "RELU_N1_TO_1",
    "RELU_0_TO_1",
    "LOGISTIC",
    "TANH",
    "ELU",
    "LEAKY_RELU",
    "HARD_SWISH",
    "GELU",
    "ABS",
    "CEIL",
    "FLOOR",
    "ROUND",
    "NEG",
    "EXP",
    "LOG",
    "SQRT",
    "RSQRT",
    "SQUARE",
    "SIN",
    "COS",
    "SIGN",
    "CAST",
    "QUANTIZE",
    "DEQUANTIZE",
    "BITWISE_XOR",
    "RIGHT_SHIFT",
    "ZEROS_LIKE",
]
_REDUCERS = ["MEAN", "SUM", "REDUCE_MAX", "REDUCE_MIN", "REDUCE_PROD", "REDUCE_ANY", "REDUCE_ALL", "ARG_MAX", "ARG_MIN"]

ROLES: dict[str, Role] = {
    **dict.fromkeys(_ELEMENTWISE, Elementwise()),
    **dict.fromkeys(_REDUCERS, AxisOp(axis_inputs=(1,), drops=True)),
    "BROADCAST_TO": BroadcastTo(),
    "SOFTMAX": LastAxis(),
    "LOG_SOFTMAX": LastAxis(),
    "FULLY_CONNECTED": LastAxis(),
    "TRANSPOSE": Transpose(),
    "RESHAPE": Reshape(),
    "CONCATENATION": AxisOp(axis_options=("axis",)),
    "SPLIT": AxisOp(axis_inputs=(0,), data=1),
    "SPLIT_V": AxisOp(axis_inputs=(2,), vectors=()),
    "PAD": AxisOp(vectors=(1,)),
    "PADV2": AxisOp(vectors=(1,)),
    "MIRROR_PAD": AxisOp(vectors=(1,)),
    "SLICE": AxisOp(vectors=(1, 2)),
    "STRIDED_SLICE": AxisOp(vectors=(1, 2, 3)),
    "TILE": AxisOp(vectors=(1,)),
    "REVERSE_V2": AxisOp(axis_inputs=(1,)),
    "CUMSUM": AxisOp(axis_inputs=(1,)),
    "GATHER": Gather(),
    "PACK": Pack(),
    "BATCH_MATMUL": BatchMatmul(),
}
_FLATTEN = FlattenFullyConnected()
_POINTWISE = LastAxis()


def role_of(op: Op) -> Role:
    """The role of an operator; opaque where the table has none."""
    if op.kind == "FULLY_CONNECTED" and not op.options.get("keepNumDims"):
        x = op.inputs[0]
        w = op.inputs[1]
        if x is not None and x.rank != 2 and w is not None and w.is_const and not x.is_const:
            return _FLATTEN
    if op.kind == "GATHER" and op.options.get("batchDims"):
        return _OPAQUE
    if op.kind != "TRANSPOSE" and any(min(t.shape, default=0) < 0 for t in (*op.inputs, *op.outputs) if t is not None):
        return _OPAQUE  # sizes that only the data tell
    if op.kind == "CONV_2D" and _pointwise(op):
        return _POINTWISE
    role = ROLES.get(op.kind, _OPAQUE)
    return role if _static(op, role) else _OPAQUE


def _pointwise(op: Op) -> bool:
    """A convolution that sees one position at a time does not care how positions are ordered."""
    w = op.inputs[1]
    strides = (op.options.get("strideH", 1), op.options.get("strideW", 1))
    return w is not None and w.is_const and w.shape[1:3] == (1, 1) and strides == (1, 1)


def _static(op: Op, role: Role) -> bool:
    """Whether the parameters that a role would rewrite are constants."""
    if isinstance(role, AxisOp):
        return all(op.inputs[i] is not None and op.inputs[i].is_const for i in (*role.vectors, *role.axis_inputs))  # type: ignore[union-attr]
    if isinstance(role, (Transpose, Reshape, BroadcastTo)):
        x = op.inputs[1] if len(op.inputs) > 1 else None
        return x is not None and x.is_const
    if isinstance(role, BatchMatmul):
        return not op.options.get("adjX") and not op.options.get("adjY")
    return True
