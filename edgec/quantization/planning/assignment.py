"""What the planner's steps hand each other: how activations are stored, and the scales found so far."""

from __future__ import annotations

from dataclasses import dataclass, field

from edgec.errors import Finding
from edgec.quantization.types import TensorPlan
from edgec.targets.scheme import Scheme
from edgec.tensors import DType


@dataclass(frozen=True, kw_only=True, slots=True)
class Numbers:
    """How activations are stored: element type, symmetry, and the scheme they come from."""

    dtype: DType
    symmetric: bool
    scheme: Scheme


@dataclass(slots=True)
class Assignment:
    """Parameters by value name (constants by `use_key`), and why units, by index, must stay float."""

    activations: dict[str, TensorPlan] = field(default_factory=dict)
    constants: dict[tuple[str, str], TensorPlan] = field(default_factory=dict)
    refused: dict[int, str] = field(default_factory=dict)
    findings: list[Finding] = field(default_factory=list)
