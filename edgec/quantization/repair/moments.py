"""Second moments of what each layer reads, over a few samples: what rounding and bias correction work with.

Whole activations pass through one sample at a time; the layers are taken in slices, so that memory is bounded.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from edgec.graph.model import Model
from edgec.quantization.repair.layers import Layer, in_slices
from edgec.quantization.repair.rounding import Moments
from edgec.quantization.run.executor import Executor
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
    take: Callable[[Mapping[str, Moments], tuple[Layer, ...]], None],
    *,
    positions: int = POSITIONS,
) -> None:
    """Moments by weight key of what the layers read in float, to be flushed, handed to `take` slice by slice."""
    for part in in_slices(layers, SLICE_BYTES):
        moments: dict[str, Moments] = {}
        for layer in part:
            groups, _, fan_in = layer.shape
            moments.setdefault(layer.key, Moments.zeros(groups, fan_in))
        executor = Executor(model, fetch=tuple(dict.fromkeys(layer.data for layer in part)), any_layout=True)
        for values in executor.run_all(feeds):
            for layer in part:
                moments[layer.key].add(layer.reads(values[layer.data], positions))
        take(moments, part)
