"""How one runtime on one device wants a model quantized: the facts the planner reads, no code.

Sources of the rows stand in the TOML files (TFLite quantization spec, XNNPACK delegate, OpenVINO LPT).
"""

from __future__ import annotations

import math
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from edgec.tensors import DType

#: What activations of an int8 model can be stored in.
_STORED = (DType.INT8, DType.UINT8)

#: Pairs of scales are compared as `low <= ratio < high`.
_Ratio = tuple[float, float]

Reverted = Literal["int16x8", "dynamic", "float16", "float32"]


class _Facts(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class FixedOutput(_Facts):
    """An operator whose int8 output range is fixed by the runtime."""

    scale: float = Field(gt=0)
    zero_point: int


class Scheme(_Facts):
    """Quantization rules of one runtime.

    Operator names are ONNX operator types. `int8_ops` run in int8 and run fast there; anything else stays float.
    `same_scale_ops` give their output the parameters of their input (and all inputs one union range);
    "MatMul:activations" in `int8_ops` lets products of two activations run in int8 too, where these are at least
    `int8_product_share` of the model's multiplications. `symmetric_products`: their kernel takes no zero points: the
    second operand is symmetric, the first too or without negative values.
    `int8_outputs`: kernels write what they are quantized to; False where they may write float and only
    what an int8 operator reads is quantized.
    `dynamic_grouped`: convolutions with groups, depthwise ones among them, are fast with int8 weights and float data.
    `widened_weights`: products that widen int8 weights beside float data and multiply in float: small, but no faster.
    `depthwise_channels`: what depthwise convolutions alone read may have a scale and a zero point a channel.
    `int8_min_positions`: convolutions with fewer output positions (those of a squeeze-and-excitation block have one)
    have int8 weights beside float data: their time goes into reading the weights.
    `accuracy_allowance`: share of an int8 model's estimated latency, and of its weights' bytes, that may go into
    accuracy: layers that 8 bits hurt run with int8 weights beside float data, or in float. 0 keeps all of it in int8.
    `revert_to`: what single nodes of an int8 model may run in where an accuracy budget asks for more than int8 gives;
    none where the device computes in int8 alone.
    `power_of_two_scales`: kernels rescale by shifts alone, so every scale is a power of two, the smallest one that
    covers the range. Sums then often lie right between two steps, where runtimes round differently (XNNPACK's Add up).
    """

    activation_dtype: DType = DType.INT8
    activation_symmetric: bool = False
    weight_granularity: Literal["channel", "tensor"] = "channel"
    weight_symmetric: Literal[True] = True
    weight_narrow: bool = True
    weight_bits: int = Field(default=8, ge=4, le=8)
    power_of_two_scales: bool = False
    int8_ops: frozenset[str] = frozenset()
    int16_ops: frozenset[str] = frozenset()
    dynamic_ops: frozenset[str] = frozenset()
    dynamic_grouped: bool = True
    widened_weights: frozenset[str] = frozenset()
    int8_outputs: bool = True
    int8_product_share: float = Field(default=0.0, ge=0, le=1)
    symmetric_products: bool = False
    depthwise_channels: bool = False
    int8_min_positions: int = Field(default=1, ge=1)
    accuracy_allowance: float = Field(default=0.0, ge=0, le=1)
    revert_to: tuple[Reverted, ...] = ("float32",)
    same_scale_ops: frozenset[str] = frozenset()
    fixed_output: dict[str, FixedOutput] = Field(default_factory=dict)
    fused_activations: frozenset[str] = frozenset()
    add_scale_ratio: _Ratio | None = None
    mul_scale_ratio: _Ratio | None = None

    @field_validator("activation_dtype")
    @classmethod
    def _is_stored(cls, dtype: DType) -> DType:
        if dtype not in _STORED:
            raise ValueError(
                f"int8 models store data in {' or '.join(_STORED)}, not in {dtype}; int16 is precision int16x8"
            )
        return dtype

    @field_validator("add_scale_ratio", "mul_scale_ratio")
    @classmethod
    def _is_a_range(cls, ratio: _Ratio | None) -> _Ratio | None:
        if ratio is not None and not 0 <= ratio[0] < ratio[1]:
            raise ValueError(f"no ratio is at least {ratio[0]:g} and below {ratio[1]:g}")
        return ratio

    @model_validator(mode="after")
    def _rows_agree(self) -> Self:
        """Rows that contradict each other are refused, where one of them would silently win."""
        if both := sorted(self.same_scale_ops & self.fixed_output.keys()):
            raise ValueError(f"{both[0]} is in same_scale_ops, and fixed_output gives it a scale of its own")
        low, high = self.activation_dtype.limits
        for op, fixed in self.fixed_output.items():
            if not low <= fixed.zero_point <= high:
                raise ValueError(
                    f"fixed_output.{op}: zero_point {fixed.zero_point} is no {self.activation_dtype} ({low} to {high})"
                )
            if self.power_of_two_scales and math.frexp(fixed.scale)[0] != 0.5:
                raise ValueError(f"fixed_output.{op}: scale {fixed.scale:g} is no power of two")
        return self
