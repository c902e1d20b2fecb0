"""The values that flow through quantization: statistics of tensors, and the plan made from them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from edgec.errors import Finding
from edgec.tensors import Array, DType, QParams

NodeScheme = Literal["int8", "int16x8", "dynamic", "float16", "float32"]
#: Schemes whose nodes read and write integers: scales are fixed before the model runs.
STATIC: tuple[NodeScheme, ...] = ("int8", "int16x8")


@dataclass(frozen=True, kw_only=True, slots=True)
class TensorStats:
    """What calibration saw in one tensor.

    `counts[i]` is how many of the sampled values fell into
    [(i + first_bin)·bin_width, (i + first_bin + 1)·bin_width); `bin_width` is a power of two, so that
    histograms of any two runs merge exactly. `minimum`, `maximum` are over all values, not the sampled ones.
    `lows` are the smallest of all runs' own minima, smallest first; `highs` the largest of their maxima, largest first.
    """

    minimum: float
    maximum: float
    bin_width: float
    first_bin: int
    counts: Array
    channel_min: Array | None = None
    channel_max: Array | None = None
    runs: int = 1
    lows: Array = field(default_factory=lambda: np.zeros(0, np.float32))
    highs: Array = field(default_factory=lambda: np.zeros(0, np.float32))


@dataclass(frozen=True, kw_only=True, slots=True)
class Statistics:
    """Statistics of all observed tensors of one model over one data set, with what the data doctor found."""

    tensors: Mapping[str, TensorStats]
    samples: int
    digest: str
    findings: tuple[Finding, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class TensorPlan:
    """How one value is quantized, and why. `data` are the integers of a constant that is not rounded to nearest."""

    dtype: DType
    qparams: QParams
    reason: str
    data: Array | None = field(default=None, compare=False, repr=False)


@dataclass(frozen=True, kw_only=True, slots=True)
class NodePlan:
    """What one node runs in, and why."""

    scheme: NodeScheme
    reason: str


@dataclass(frozen=True, kw_only=True, slots=True)
class QuantPlan:
    """All decisions. `activations`, `weights` and `biases` map value names, `nodes` maps node names.

    `activations` says how a value is stored by what writes it; `requantized` how those read it that compute in the
    other width (int8 or int16).
    """

    activations: Mapping[str, TensorPlan] = field(default_factory=dict)
    requantized: Mapping[str, TensorPlan] = field(default_factory=dict)
    weights: Mapping[str, TensorPlan] = field(default_factory=dict)
    biases: Mapping[str, TensorPlan] = field(default_factory=dict)
    nodes: Mapping[str, NodePlan] = field(default_factory=dict)
    findings: tuple[Finding, ...] = ()
