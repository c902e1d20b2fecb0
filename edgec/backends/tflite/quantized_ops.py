"""What each TFLite operator can do with integers: data, no code.

int8: kernels with int8 activations (XNNPACK or builtin); `same`: output must carry the input's parameters;
`int16`: kernels with int16 activations; hybrid: float activations with int8 weights.
"""

from __future__ import annotations

#: Movers through which storage may be inferred: one data input, values only moved or selected.
TRANSPARENT = frozenset(
    [
        "RESHAPE",
        "TRANSPOSE",
        "SLICE",
        "STRIDED_SLICE",
        "SPLIT",
        "SPLIT_V",
        "GATHER",
        "GATHER_ND",
        "PAD",
        "PADV2",
        "MIRROR_PAD",
        "MAX_POOL_2D",
        "TILE",
        "BROADCAST_TO",
        "DEPTH_TO_SPACE",
        "SPACE_TO_DEPTH",
        "RESIZE_NEAREST_NEIGHBOR",
        "REVERSE_V2",
        "UNPACK",
        "REDUCE_MAX",
        "REDUCE_MIN",
    ]
)
#: Movers of data: their output holds the input's very numbers, so parameters pass through in both directions.
MOVERS = TRANSPARENT | {
    "AVERAGE_POOL_2D",
    "CONCATENATION",
    "MAXIMUM",
    "MINIMUM",
    "PACK",
    "RESIZE_BILINEAR",
    "SELECT_V2",
}
WEIGHTED = frozenset({"CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED", "TRANSPOSE_CONV"})
INT8 = (
    MOVERS
    | WEIGHTED
    | frozenset(
        [
            "ADD",
            "SUB",
            "MUL",
            "SQUARED_DIFFERENCE",
            "BATCH_MATMUL",
            "LOGISTIC",
            "TANH",
            "SOFTMAX",
            "LOG_SOFTMAX",
            "L2_NORMALIZATION",
            "MEAN",
            "SUM",
            "RELU",
            "RELU6",
            "RELU_N1_TO_1",
            "LEAKY_RELU",
            "PRELU",
            "HARD_SWISH",
            "GELU",
            "EXP",
            "ABS",
            "SQRT",
            "RSQRT",
            "ELU",
            "NEG",
            "QUANTIZE",
        ]
    )
)
INT16 = (
    (MOVERS - {"DEPTH_TO_SPACE", "SPACE_TO_DEPTH"})
    | WEIGHTED
    | frozenset(
        [
            "ADD",
            "SUB",
            "MUL",
            "BATCH_MATMUL",
            "LOGISTIC",
            "TANH",
            "SOFTMAX",
            "MEAN",
            "SUM",
            "RELU",
            "RELU6",
            "LEAKY_RELU",
            "QUANTIZE",
        ]
    )
)
HYBRID = frozenset({"CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED"})
#: Inputs that hold values; all others are shapes, axes and indices.
DATA_INPUTS = {
    "SPLIT": (1,), "RESHAPE": (0,), "TRANSPOSE": (0,), "SLICE": (0,), "STRIDED_SLICE": (0,), "GATHER": (0,),
    "GATHER_ND": (0,), "PAD": (0,), "PADV2": (0, 2), "MIRROR_PAD": (0,), "TILE": (0,), "BROADCAST_TO": (0,),
    "RESIZE_NEAREST_NEIGHBOR": (0,), "RESIZE_BILINEAR": (0,), "REVERSE_V2": (0,), "SPLIT_V": (0,), "MEAN": (0,),
    "SUM": (0,), "REDUCE_MAX": (0,), "REDUCE_MIN": (0,), "SELECT_V2": (1, 2), "TRANSPOSE_CONV": (1, 2, 3),
}  # fmt: skip
