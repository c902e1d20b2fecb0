"""Scales of constant operands, and the ratios of scales that kernels can compute with.

1. A constant of an addition or multiplication is quantized like an activation, over its own values.
2. ADD and SUB take input scales of `add_scale_ratio` times the output's, MUL a product of scales of
   `mul_scale_ratio` times it. Too small a scale is raised until it fits, which costs less than a step of the output:
   that of a constant, or that of a value that only this operator reads. Another operand outside the limits keeps the
   operator float.
"""

from __future__ import annotations

import onnx_ir as ir

from edgec.graph.model import const_of
from edgec.quantization.planning.affine import activation_params, power_of_two, single
from edgec.quantization.planning.assignment import Assignment, Numbers
from edgec.quantization.planning.ranges import Ranges
from edgec.quantization.planning.units import Unit
from edgec.quantization.types import TensorPlan
from edgec.tensors import QParams

#: Operators whose own output scale has been checked against their operands'.
_LIMITED = ("Add", "Sub", "Mul")


def plan_constants(units: list[tuple[int, Unit]], ranges: Ranges, numbers: Numbers, result: Assignment) -> None:
    """Rules 1 and 2 for every unit."""
    for i, unit in units:
        head = unit.head.name or ""
        for value in unit.constants():
            extent = ranges.of(value)
            if (value.name or "", head) not in result.constants and extent is not None:
                params = activation_params(
                    extent,
                    numbers.dtype,
                    symmetric=numbers.symmetric,
                    powers=numbers.scheme.power_of_two_scales,
                )
                result.constants[value.name or "", head] = TensorPlan(
                    dtype=numbers.dtype, qparams=params, reason=f"constant operand [{extent[0]:.6g}, {extent[1]:.6g}]"
                )
        reason = _check_ratio(unit, numbers, result)
        if reason:
            result.refused[i] = reason


def _check_ratio(unit: Unit, numbers: Numbers, result: Assignment) -> str:
    """Rule 2 for one unit: raise constants' scales in place, or say why the unit cannot run in int8."""
    op = unit.head.op_type
    limits = {
        "Add": numbers.scheme.add_scale_ratio,
        "Sub": numbers.scheme.add_scale_ratio,
        "Mul": numbers.scheme.mul_scale_ratio,
    }.get(op)
    output = result.activations.get(unit.outputs()[0].name or "")
    if limits is None or output is None:
        return ""
    out = output.qparams.scale[0]
    if op == "Mul":
        return _check_product(unit, limits, out, numbers, result)
    for value in (*unit.constants(), *unit.data()):
        plan = _plan_of(value, unit, result)
        ratio = plan.qparams.scale[0] / out
        if ratio < limits[0] and (const_of(value) is not None or _is_its_own(value, numbers)):
            _raise_scale(value, unit, limits[0] * out, numbers, result)
        elif not limits[0] <= ratio < limits[1]:
            return f"the scale of {value.name!r} is {ratio:.3g} × that of the output, outside the kernel's limits"
    return ""


def _check_product(unit: Unit, limits: tuple[float, float], out: float, numbers: Numbers, result: Assignment) -> str:
    operands = [*unit.data(), *unit.constants()]
    if len(operands) == 1:
        operands = operands * 2
    scales = [_plan_of(v, unit, result).qparams.scale[0] for v in operands]
    ratio = scales[0] * scales[1] / out
    if ratio < limits[0] and const_of(operands[1]) is not None:
        _raise_scale(operands[1], unit, limits[0] * out / scales[0], numbers, result)
        return ""
    if limits[0] <= ratio < limits[1]:
        return ""
    return f"the product of its scales is {ratio:.3g} × that of the output, outside the kernel's limits"


def _plan_of(value: ir.Value, unit: Unit, result: Assignment) -> TensorPlan:
    name = value.name or ""
    return result.constants.get((name, unit.head.name or "")) or result.activations[name]


def _is_its_own(value: ir.Value, numbers: Numbers) -> bool:
    """Whether a computed value's scale is nobody else's: one reader, and a producer that is free to choose it."""
    producer = value.producer()
    if producer is None or value.is_graph_output() or len(value.uses()) != 1:
        return False
    held = (*numbers.scheme.same_scale_ops, *numbers.scheme.fixed_output, *_LIMITED)
    return producer.op_type not in held


def _raise_scale(value: ir.Value, unit: Unit, floor: float, numbers: Numbers, result: Assignment) -> None:
    """Give an operand the smallest scale that the kernel takes, and a zero point from which it still fits."""
    key = (value.name or "", unit.head.name or "")
    constant = key in result.constants
    old = result.constants[key] if constant else result.activations[key[0]]
    qmin, qmax = old.dtype.limits
    powers = numbers.scheme.power_of_two_scales
    scale = float(power_of_two(floor)) if powers else single(floor * 1.01)
    low = (qmin - old.qparams.zero_point[0]) * old.qparams.scale[0]
    zero_point = old.qparams.zero_point[0] and min(max(round(qmin - low / scale), qmin), qmax)
    raised = TensorPlan(
        dtype=old.dtype,
        qparams=QParams.per_tensor(scale, zero_point),
        reason=f"{old.reason}, scale raised to the kernel's limit",
    )
    if constant:
        result.constants[key] = raised
    else:
        result.activations[key[0]] = raised
