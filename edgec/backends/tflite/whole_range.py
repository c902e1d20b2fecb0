"""Weights of few bits in the whole range of int8: the same numbers in finer steps.

1. Integers of 4 bits times 16, with a 16th of the scale, are the same weights; any power of two is exact. It is one for
   the whole tensor, as large as int8 and the bias in its 32 bits leave room for.
2. It matters where a kernel rounds a sum twice, to an integer and then to a step (the reference kernels, CMSIS-NN): a
   sum of products of few bits is coarse, and one value in thirty lands on a wrong step.
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from edgec.backends.tflite.tir import Storage, Tensor
from edgec.tensors import DType

#: Rule 1: what a bias may come to, with a bit to spare for the sum beside it.
_MOST_BIAS = 2.0**30


def in_whole_range(weight: Tensor, bias: Tensor | None, data_scale: float) -> Tensor:
    """`weight` with as large integers as rule 1 allows; itself where that is what it has."""
    stored = weight.storage
    if stored is None or stored.dtype != DType.INT8 or weight.data is None or any(stored.qparams.zero_point):
        return weight
    room = DType.INT8.limits[1] / max(int(np.abs(weight.data.astype(np.int16)).max(initial=0)), 1)
    if bias is not None and bias.data is not None:
        steps = np.abs(bias.real().astype(np.float64)) / (data_scale * np.asarray(stored.qparams.scale, np.float64))
        room = min(room, _MOST_BIAS / max(float(steps.max(initial=0)), 1.0))
    factor = 2 ** int(math.log2(room)) if room >= 2 else 1
    if factor == 1:
        return weight
    qparams = replace(stored.qparams, scale=tuple(scale / factor for scale in stored.qparams.scale))
    return replace(weight, data=(weight.data * factor).astype(np.int8), storage=Storage(stored.dtype, qparams))
