"""Move each output's mean error into its bias: b ← b + E[y] − E[ŷ].

Fast: the part that the layer's own rounding makes, (W − Ŵ)·E[x], from the means of what it reads.
Full: what a run of the quantized model shows, which includes the shifts of all layers before it; so the layers are
corrected in order, a few stretches of the graph at a time.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

import numpy as np

from edgec.graph.model import Model
from edgec.quantization.repair.layers import Layer
from edgec.quantization.run.apply import apply_plan
from edgec.quantization.run.executor import Executor
from edgec.quantization.types import QuantPlan, TensorPlan
from edgec.tensors import Array, DType

Feeds = Iterable[Mapping[str, Array]]

#: Stretches of the graph that full correction goes through one after the other.
STRETCHES = 6


def own_shift(layer: Layer, rounded: Array, mean: Array) -> Array:
    """(W − Ŵ)·E[x]: one number an output. `rounded` are integers of the weight's shape, `mean` is [groups, fan-in]."""
    error = layer.rows(layer.weight).astype(np.float64) - layer.rows(rounded) * layer.scales()[:, :, None]
    return np.asarray(np.einsum("gon,gn->go", error, mean).reshape(-1))


def shifted(plan: QuantPlan, shifts: Mapping[str, tuple[Array, Array]]) -> QuantPlan:
    """The plan with biases that hold `bias + shift`; `shifts` gives both by bias key."""
    biases = dict(plan.biases)
    for key, (bias, shift) in shifts.items():
        old = biases[key]
        biases[key] = replace(
            old, data=_integers(old, bias, shift), reason=f"{_plain(old.reason)}, mean error moved in"
        )
    return replace(plan, biases=biases)


def _plain(reason: str) -> str:
    return reason.removesuffix(", mean error moved in")


def _integers(plan: TensorPlan, bias: Array, shift: Array) -> Array:
    scale = np.asarray(plan.qparams.scale, np.float64)
    low, high = DType.INT32.limits
    wanted = (bias.astype(np.float64).reshape(-1) + shift) / scale
    return np.clip(np.rint(wanted), low, high).astype(np.int32).reshape(bias.shape)


def correct_fully(model: Model, plan: QuantPlan, layers: tuple[Layer, ...], feeds: Feeds) -> QuantPlan:
    """The plan after all its layers' biases are corrected in order."""
    own = tuple(layer for layer in layers if layer.bias_key is not None)
    if not own:
        return plan
    feeds = list(feeds)
    wanted = _means(model, {layer.node: (layer.output, layer.bias) for layer in own}, feeds)
    for part in np.array_split(np.arange(len(own)), min(STRETCHES, len(own))):
        stretch = [own[i] for i in part]
        quantized = apply_plan(model, plan)
        names = _outputs(quantized, stretch)
        got = _means(quantized, {layer.node: (names[layer.node], layer.bias) for layer in stretch}, feeds)
        shifts = {}
        for layer in stretch:
            assert layer.bias_key is not None and layer.bias is not None
            present = _present(plan.biases[layer.bias_key], layer.bias)
            shift = wanted[layer.node] - got[layer.node]
            shifts[layer.bias_key] = (layer.bias, present - layer.bias.astype(np.float64).reshape(-1) + shift)
        plan = shifted(plan, shifts)
    return plan


def _present(plan: TensorPlan, bias: Array) -> Array:
    """The bias in force, as real numbers."""
    if plan.data is None:
        return bias.astype(np.float64).reshape(-1)
    return np.asarray(plan.data.reshape(-1) * np.asarray(plan.qparams.scale, np.float64))


def _outputs(quantized: Model, layers: Iterable[Layer]) -> dict[str, str]:
    """What each layer's sum is called in the quantized model, where a graph output has moved its name."""
    names = {v.name for n in quantized.nodes() if n.op_type != "DequantizeLinear" for v in n.outputs}
    return {x.node: x.output if x.output in names else f"{x.output}/float" for x in layers}


def _means(model: Model, outputs: Mapping[str, tuple[str, Array | None]], feeds: Feeds) -> dict[str, Array]:
    """Mean of each output channel over all samples and positions, by node."""
    executor = Executor(model, fetch=tuple(dict.fromkeys(name for name, _ in outputs.values())), any_layout=True)
    sums: dict[str, Array] = {}
    count = 0
    for values in executor.run_all(feeds):
        count += 1
        for node, (name, bias) in outputs.items():
            assert bias is not None
            value = values[name]
            channels = 1 if value.ndim > 2 and value.shape[1] == bias.size else value.ndim - 1
            axes = tuple(i for i in range(value.ndim) if i != channels)
            sums[node] = sums.get(node, 0.0) + value.mean(axis=axes, dtype=np.float64)
    return {node: total / max(count, 1) for node, total in sums.items()}
