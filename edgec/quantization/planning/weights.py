"""Scales of weights and biases of the units that run in int8.

w_scale[c] = max|w[c]| / 127;  bias scale[c] = s_x · w_scale[c], so that the accumulator takes the bias as it is.

1. The bias must fit: |b / scale| ≤ 2^30, half of what 32 bits hold, the other half for the products. Where it does not
   (a channel with next to no weights), the channel's weight scale is raised.
2. Kernels rescale by s_x · w_scale / s_y, at least 2^-31 and below 2^8: below, the weight scale is raised;
   above, the unit stays float.
3. The ONNX form keeps a 32 bit bias for 16 bit activations too (DequantizeLinear has no int64); the TFLite emitter
   widens it.
4. Kernels of 16 bit activations rescale their 64 bit sums by a factor of 15 bits. One rounded to that is off by up to
   2^-15, a step at the end of the range in every layer; so weight scales are raised to where the factor is exact.
5. What a depthwise convolution reads may have a scale a channel: s_x is then that of the channel which an output is of.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from edgec.graph.model import const_of
from edgec.graph.traits import bias_of, weight_axis, weight_of
from edgec.quantization.planning.affine import per_axis, power_of_two, weight_scales
from edgec.quantization.planning.units import Unit, bias_add_input
from edgec.quantization.types import TensorPlan
from edgec.targets.scheme import Scheme
from edgec.tensors import Array, DType, QParams

#: Rule 1.
BIAS_LIMIT = 2.0**30

#: Rule 2.
RESCALE_LIMITS = (2.0**-31, 256.0)

#: Rule 4.
_FACTOR_BITS = 15


def bias_value(unit: Unit) -> ir.Value | None:
    """The constant that is added to the products: an input of the head, or of the fused addition."""
    if unit.bias_add is not None:
        return bias_add_input(unit.bias_add, unit.head.outputs[0])
    position = bias_of(unit.head)
    return None if position is None else unit.head.inputs[position]


def plan_weight(
    unit: Unit, scheme: Scheme, data: QParams | None, output: QParams | None, *, dtype: DType = DType.INT8
) -> TensorPlan | None:
    """The plan of the unit's weight, or None when rule 2 forbids int8. `data` is None for dynamic range.

    `dtype` is that of the activations.
    """
    position = weight_of(unit.head)
    assert position is not None
    weight = _constant(unit.head.inputs[position])
    axis = weight_axis(unit.head, weight.ndim)
    if scheme.weight_granularity == "tensor":
        axis = None
    scales = weight_scales(weight, axis, scheme)
    if scheme.power_of_two_scales:
        scales = power_of_two(scales)
    reason = "symmetric, " + ("one scale for the tensor" if axis is None else f"a scale a channel (axis {axis})")
    if data is not None:
        raised = np.maximum(scales, _floor(unit, scales, data, output))
        raised = power_of_two(raised) if scheme.power_of_two_scales else raised
        sums = raised * data_scales(data, raised.size)
        if output is not None and float(sums.max()) / output.scale[0] >= RESCALE_LIMITS[1]:
            return None
        if bool((raised > scales).any()):
            reason += (
                f", raised for {int((raised > scales).sum())} of {scales.size} to keep bias and rescaling in limits"
            )
        scales = raised
        if dtype is DType.INT16 and output is not None:
            scales = _exact_factors(scales, output.scale[0] / data.scale[0])
    return TensorPlan(dtype=DType.INT8, qparams=per_axis(scales, axis), reason=reason)


def _exact_factors(scales: NDArray[np.float64], per_factor: float) -> NDArray[np.float64]:
    """Rule 4; a scale is its factor times `per_factor`."""
    mantissa, exponent = np.frexp(scales / per_factor)
    factors = np.ldexp(np.ceil(np.ldexp(mantissa, _FACTOR_BITS)), exponent - _FACTOR_BITS)
    return np.asarray(factors * per_factor, np.float64)


def _floor(unit: Unit, scales: NDArray[np.float64], data: QParams, output: QParams | None) -> NDArray[np.float64]:
    """The smallest scales that rules 1 and 2 allow."""
    floor = np.zeros_like(scales)
    if output is not None:
        floor += RESCALE_LIMITS[0] * output.scale[0] / data_scales(data, scales.size)
    bias = bias_value(unit)
    if bias is None:
        return floor
    biases = np.abs(_constant(bias).astype(np.float64)).reshape(-1)
    needed = biases / (data_scales(data, biases.size) * BIAS_LIMIT)
    if scales.size == 1:
        return np.asarray(np.maximum(floor, needed.max(initial=0.0)), np.float64)
    groups = needed.reshape(-1, scales.size)  # ConvTranspose: the groups share the scales of their channels
    return np.asarray(np.maximum(floor, groups.max(axis=0)), np.float64)


def plan_bias(unit: Unit, data: QParams, weight: QParams) -> TensorPlan | None:
    """The int32 plan of the unit's bias, or None when it has none."""
    bias = bias_value(unit)
    if bias is None:
        return None
    channels = _constant(bias).size
    count = channels if data.axis is not None else len(weight.scale)
    scales = data_scales(data, count).astype(np.float32) * np.asarray(weight.scale, np.float32)
    axis = None if scales.size == 1 else _constant(bias).ndim - 1
    if axis is not None:
        scales = np.tile(scales, channels // scales.size)
    return TensorPlan(
        dtype=DType.INT32,
        qparams=per_axis(scales.astype(np.float64), axis),
        reason="input scale × weight scale, so that the accumulator takes it as it is",
    )


def data_scales(data: QParams, outputs: int) -> NDArray[np.float64]:
    """The step of what each of a kernel's output channels reads (rule 5); one number where all have the same."""
    scales = np.asarray(data.scale, np.float64)
    return scales if data.axis is None else np.repeat(scales, outputs // scales.size)


def plan_float16(value: ir.Value) -> TensorPlan | None:
    """The float16 plan of a weight, or None when float16 does not hold its values."""
    weight = _constant(value)
    if weight.size and float(np.abs(weight).max()) > float(np.finfo(np.float16).max):
        return None
    return TensorPlan(
        dtype=DType.FLOAT16, qparams=QParams.per_tensor(1.0, 0), reason="stored in float16, widened when it is used"
    )


def _constant(value: ir.Value | None) -> Array:
    constant = const_of(value)
    assert constant is not None
    return constant
