"""Second moments of what each layer reads, over a few samples: what rounding and bias correction work with.

Whole activations pass through one sample at a time; the layers are taken in slices, so that memory is bounded.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

import numpy as np

from edgec.graph.model import Model
from edgec.quantization.algorithms.layers import Layer, in_slices
from edgec.quantization.algorithms.rounding import Moments
from edgec.quantization.executor import Executor
from edgec.tensors import Array

#: Positions a sample that a layer's moments are taken from.
POSITIONS = 128

#: Memory for the moments of one slice of layers.
SLICE_BYTES = 512 * 2**20

Feeds = Iterable[Mapping[str, Array]]


def gather(
    layers: tuple[Layer, ...],
    feeds: Feeds,
    model: Model,
    quantized: Model | None,
    take: Callable[[Mapping[str, Moments], tuple[Layer, ...]], None],
    *,
    positions: int = POSITIONS,
) -> None:
    """Moments by weight key, handed to `take` slice by slice.

    With `quantized`, layers read what the quantized model gives them, and the cross moments say how float differs.
    """
    reads = {} if quantized is None else {n.name or "": n.inputs[0] for n in quantized.nodes() if n.inputs}
    for part in in_slices(layers, SLICE_BYTES):
        moments: dict[str, Moments] = {}
        for layer in part:
            groups, _, fan_in = layer.shape
            moments.setdefault(layer.key, Moments.zeros(groups, fan_in, cross=quantized is not None))
        names = tuple(dict.fromkeys(layer.data for layer in part))
        plain = Executor(model, fetch=names)
        inside = {layer.node: value.name or "" for layer in part if (value := reads.get(layer.node)) is not None}
        coded = None if quantized is None else Executor(quantized, fetch=tuple(dict.fromkeys(inside.values())))
        for feed in feeds:
            values = plain.run(feed)
            others = coded.run(feed) if coded is not None else None
            for layer in part:
                columns = layer.columns(values[layer.data], positions)
                if others is None:
                    moments[layer.key].add(columns)
                else:
                    moments[layer.key].add(layer.columns(others[inside[layer.node]], positions), columns)
        take({key: found.flush() for key, found in moments.items()}, part)


def gather_means(
    layers: tuple[Layer, ...], feeds: Feeds, model: Model, *, positions: int = POSITIONS
) -> dict[str, Array]:
    """Mean of what each layer reads, [groups, fan-in], by weight key."""
    executor = Executor(model, fetch=tuple(dict.fromkeys(layer.data for layer in layers)))
    sums: dict[str, Array] = {}
    counts: dict[str, int] = {}
    for feed in feeds:
        values = executor.run(feed)
        for layer in layers:
            columns = layer.columns(values[layer.data], positions)
            sums[layer.key] = sums.get(layer.key, 0.0) + columns.sum(axis=2, dtype=np.float64)
            counts[layer.key] = counts.get(layer.key, 0) + columns.shape[2]
    return {key: total / counts[key] for key, total in sums.items()}
