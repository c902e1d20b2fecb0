"""Round weights and set biases by what the quantized model gives each layer, so that a layer mends those before it.

With x what a layer reads in float and x̂ what the quantized model gives it, Ŵ and b̂ keep Ŵ·x̂ + b̂ closest to W·x + b:

1. The layers are taken in order, a few stretches of the graph at a time: each stretch sees the repairs of those before,
   and only the layers it begins with mend what they are given. Those behind them see errors that will be gone by then.
2. Ŵ is `rounding.round_rows` of moments about the means, as b̂ takes the means in whole; of plain ones without a bias.
3. b̂ = b + W·E[x] − Ŵ·E[x̂], or b + (W − Ŵ)·E[x̂] behind the beginning. A bias or a weight that several layers share is
   left to the first, or as it is.
4. Half of the samples says how far the other half is to be trusted (`rounding`); each is held about its own means.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace

import numpy as np

from edgec.graph.model import Model
from edgec.quantization.repair.bias import STRETCHES, shifted
from edgec.quantization.repair.layers import Layer, find_layers
from edgec.quantization.repair.rounding import round_rows
from edgec.quantization.repair.walk import Halves, Walk
from edgec.quantization.run.cores import in_order, physical_cores
from edgec.quantization.types import QuantPlan, TensorPlan
from edgec.tensors import Array

Feeds = Iterable[Mapping[str, Array]]


def follow(
    model: Model, plan: QuantPlan, feeds: Feeds, *, positions: int, bits: int = 8, stretches: int = STRETCHES
) -> QuantPlan:
    """The plan with weights and biases made for what the quantized model really feeds its layers."""
    layers = find_layers(model, plan)
    uses = Counter(layer.key for layer in layers)
    once = {layer.key: layer for layer in reversed(layers)}
    first = tuple(layer for layer in layers if once[layer.key] is layer)
    parts = tuple(_stretches(first, stretches))
    begins = [layer for part in parts for layer in _beginning(model, part)]  # rule 1
    walk = Walk(model, list(feeds), begins, positions=positions)
    for stretch in parts:
        weights, shifts = dict(plan.weights), {}

        def mend(found: tuple[Layer, Halves]) -> tuple[Layer, TensorPlan, Array | None]:
            layer, (even, odd) = found
            biased = layer.bias_key is not None and uses[layer.key] == 1
            weight, shift = _mended(layer, (even.flush(), odd.flush()), biased=biased, limit=2 ** (bits - 1) - 1)
            return layer, weight, shift if biased else None

        for layer, weight, shift in in_order(mend, walk.gathered(stretch, plan), physical_cores()):
            weights[layer.key] = weight
            if shift is not None:
                assert layer.bias_key is not None and layer.bias is not None
                shifts[layer.bias_key] = (layer.bias, shift)
        plan = shifted(replace(plan, weights=weights), shifts)
    return plan


def _stretches(layers: tuple[Layer, ...], count: int) -> Iterator[tuple[Layer, ...]]:
    """The layers in order in about `count` parts; the last layer is one of its own, as nothing can mend it later."""
    inner = layers[:-1]
    for part in np.array_split(np.arange(len(inner)), min(count, max(len(inner), 1))):
        if len(part):
            yield tuple(inner[i] for i in part)
    if layers:
        yield layers[-1:]


def _beginning(model: Model, stretch: tuple[Layer, ...]) -> list[Layer]:
    names = beginnings(model, stretch)
    return [layer for layer in stretch if layer.node in names]


def beginnings(model: Model, stretch: tuple[Layer, ...]) -> set[str]:
    """The nodes of a stretch that depend on no other of it."""
    nodes = {layer.node for layer in stretch}
    behind: set[str] = set()
    found: set[str] = set()
    for node in model.nodes():
        follows = any(value is not None and value.name in behind for value in node.inputs)
        if node.name in nodes and not follows:
            found.add(node.name)
        if follows or node.name in nodes:
            behind.update(value.name or "" for value in node.outputs)
    return found


def _mended(layer: Layer, halves: Halves, *, biased: bool, limit: int) -> tuple[TensorPlan, Array]:
    """The layer's weight in the plan, and what its bias has to take in, one number an output."""
    weight, scales = layer.rows(layer.weight), layer.scales()
    even, odd = halves
    if biased:  # rule 2
        even.centre()
        odd.centre()
    pulls = [half.pull(weight) for half in halves if half.cross is not None and half.count]  # rule 4
    whole = even.join(odd)
    rounded = round_rows(weight, scales, whole, limit=limit, pulls=pulls)
    error = weight.astype(np.float64) - rounded * scales[:, :, None].astype(np.float64)
    shift = np.einsum("gon,gn->go", error, whole.mean) + whole.mean_pull(weight)  # rule 3
    reason = f"{layer.plan.reason}; rounded for the layer's output and the errors before it"
    return replace(layer.plan, data=layer.weight_of(rounded), reason=reason), shift.reshape(-1)
