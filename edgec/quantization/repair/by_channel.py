"""A range a channel for what depthwise convolutions alone read, where the target's kernels take that.

Each of their outputs reads one channel, so each channel may have its own steps, and weights have a scale a channel
already. Behind what commutes with factors equalisation does the same, for every target; behind HardSwish, SiLU or a sum
nothing else does. A channel's largest value is known less well than the tensor's, and what goes beyond it is cut off:
so ranges have room, and this is for models with values whose channels differ much.

What a rounding makes of a convolution's outputs, Σ step² · Σ w² over its channels, says how much less it becomes.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from edgec.graph.model import Model, const_of
from edgec.graph.traits import is_depthwise
from edgec.quantization.types import QuantPlan, TensorPlan
from edgec.tensors import Array

#: Power of a value's rounding that is left with a range a channel, over what one range makes: where channels hardly
#: differ, it is not worth a range each; where they differ little everywhere, it is not worth a trial.
_LEFT, _WORTH_A_TRIAL = 0.9, 0.25


def worth_by_channel(model: Model, plan: QuantPlan, other: QuantPlan) -> frozenset[str]:
    """Names of the values that `other`, a plan with a range a channel for all that can have it, rounds less.

    `plan` is the same with one range a value.
    """
    apart = {name: entry for name, entry in other.activations.items() if entry.qparams.axis is not None}
    values = {v.name or "": v for v in (*model.graph.inputs, *(v for n in model.nodes() for v in n.outputs))}
    left = {name: _left(values[name], plan.activations[name], entry) for name, entry in apart.items()}
    if min(left.values(), default=1.0) > _WORTH_A_TRIAL:
        return frozenset()
    return frozenset(name for name, share in left.items() if share < _LEFT)


def _left(value: ir.Value, one: TensorPlan, apart: TensorPlan) -> float:
    """The share of a value's rounding that is left with a scale a channel."""
    squares = np.square(np.asarray(apart.qparams.scale, np.float64) / one.qparams.scale[0])
    weights = sum((_powers(user, len(squares)) for user, _ in value.uses()), np.zeros(len(squares)))
    return float(np.sum(squares * weights) / max(float(np.sum(weights)), np.finfo(np.float64).tiny))


def _powers(user: ir.Node, channels: int) -> Array:
    """Σ w² of what a depthwise convolution multiplies each channel with; nothing for readers of floats."""
    weight = const_of(user.inputs[1]) if is_depthwise(user) else None
    if weight is None:
        return np.zeros(channels)
    return np.asarray(np.square(weight.astype(np.float64)).reshape(channels, -1).sum(axis=1))
