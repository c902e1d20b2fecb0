"""The door to the TFLite schema: operator, option and type tables, taken from the runtime's own package."""

from __future__ import annotations

from functools import cache
from typing import Any

from ai_edge_litert import schema_py_generated as fb

from edgec.tensors import DType

TENSOR_TYPE = {
    DType.FLOAT32: fb.TensorType.FLOAT32,
    DType.FLOAT16: fb.TensorType.FLOAT16,
    DType.FLOAT64: fb.TensorType.FLOAT64,
    DType.INT8: fb.TensorType.INT8,
    DType.UINT8: fb.TensorType.UINT8,
    DType.INT16: fb.TensorType.INT16,
    DType.UINT16: fb.TensorType.UINT16,
    DType.INT32: fb.TensorType.INT32,
    DType.UINT32: fb.TensorType.UINT32,
    DType.INT64: fb.TensorType.INT64,
    DType.UINT64: fb.TensorType.UINT64,
    DType.BOOL: fb.TensorType.BOOL,
    DType.COMPLEX64: fb.TensorType.COMPLEX64,
    DType.STRING: fb.TensorType.STRING,
}
#: Of ready files; what they do with strings is not read.
DTYPE_OF = {code: dtype for dtype, code in TENSOR_TYPE.items() if dtype != DType.STRING}

#: Operators whose options table has another name than the operator, or that share one.
_OPTIONS = {
    "AVERAGE_POOL_2D": "Pool2D",
    "MAX_POOL_2D": "Pool2D",
    "L2_POOL_2D": "Pool2D",
    "CONV_3D_TRANSPOSE": "Conv3D",
    "MEAN": "Reducer",
    "SUM": "Reducer",
    "REDUCE_MAX": "Reducer",
    "REDUCE_MIN": "Reducer",
    "REDUCE_PROD": "Reducer",
    "REDUCE_ANY": "Reducer",
    "REDUCE_ALL": "Reducer",
    "MAXIMUM": "MaximumMinimum",
    "MINIMUM": "MaximumMinimum",
    "L2_NORMALIZATION": "L2Norm",
    "PADV2": "PadV2",
    "TOPK_V2": "TopKV2",
    "SELECT_V2": "SelectV2",
    "REVERSE_V2": "ReverseV2",
    "BATCH_MATMUL": "BatchMatMul",
    "RFFT2D": "Rfft2d",
    "ATAN2": "ATan2",
    "RANDOM_UNIFORM": "Random",
    "RANDOM_STANDARD_NORMAL": "Random",
    "UNIDIRECTIONAL_SEQUENCE_RNN": "SequenceRNN",
    "NON_MAX_SUPPRESSION_V4": "NonMaxSuppressionV4",
    "NON_MAX_SUPPRESSION_V5": "NonMaxSuppressionV5",
    "SPACE_TO_BATCH_ND": "SpaceToBatchND",
    "BATCH_TO_SPACE_ND": "BatchToSpaceND",
    "SPLIT_V": "SplitV",
}
_NO_OPTIONS = {
    "RELU", "RELU6", "RELU_N1_TO_1", "RELU_0_TO_1", "LOGISTIC", "TANH", "FLOOR", "CEIL", "ROUND", "ELU",
    "PRELU", "RSQRT", "SQRT", "LOG", "SIN", "IMAG", "REAL", "COMPLEX_ABS",
}  # fmt: skip


def op_code(kind: str) -> int:
    """The BuiltinOperator code of an operator name. Raises KeyError for a name the schema lacks."""
    return int(vars(fb.BuiltinOperator)[kind])


@cache
def op_name(code: int) -> str:
    """The name of a BuiltinOperator code."""
    names = {v: k for k, v in vars(fb.BuiltinOperator).items() if k.isupper() or ("_" in k and k[0] != "_")}
    return str(names[code])


@cache
def options_table(kind: str) -> tuple[str, int, int] | None:
    """Name, union code, and union number (1 or 2) of an operator's options table; None where it has none."""
    if kind in _NO_OPTIONS:
        return None
    stem = _OPTIONS.get(kind)
    if stem is None:
        stem = "".join(part.capitalize() for part in kind.split("_"))
        for known in vars(fb):
            if known.lower() == f"{stem}OptionsT".lower():
                stem = known[: -len("OptionsT")]
                break
    name = f"{stem}Options"
    first = vars(fb.BuiltinOptions).get(name)
    if first is not None:
        return name, int(first), 1
    second = vars(fb.BuiltinOptions2).get(name)
    return None if second is None else (name, int(second), 2)


def make_options(kind: str, values: dict[str, Any]) -> tuple[Any, int, int]:
    """The options object of an operator, its union code and union number. Raises KeyError for a wrong field."""
    table = options_table(kind)
    if table is None:
        if values:
            raise KeyError(f"{kind} takes no options, got {sorted(values)}")
        return None, 0, 1
    name, code, union = table
    options = getattr(fb, name + "T")()
    for key, value in values.items():
        if not hasattr(options, key):
            raise KeyError(f"{name} has no field {key!r}")
        setattr(options, key, _enum(key, value))
    return options, code, union


_ENUMS = {
    "fusedActivationFunction": fb.ActivationFunctionType,
    "padding": fb.Padding,
    "mode": fb.MirrorPadMode,
    "kernelType": fb.LSTMKernelType,
}


def _enum(key: str, value: Any) -> Any:
    if isinstance(value, DType):
        return TENSOR_TYPE[value]
    if isinstance(value, str) and key in _ENUMS:
        return vars(_ENUMS[key])[value]
    return value


__all__ = ["DTYPE_OF", "TENSOR_TYPE", "fb", "make_options", "op_code", "op_name", "options_table"]
