"""Walk through a quantized graph stretch by stretch, while its layers are being repaired: no node runs more than twice.

1. Float is run once, from end to end. Of what it gives, only what the layers read that a stretch begins with stays.
2. Values that live across the beginning of a stretch are kept for every sample as the repaired model computes them: the
   next stretch is run from these, and not from the model's inputs, once with the last repairs in it.
3. Where these values would take too much memory, the walk goes on from where it stood before.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from functools import partial

from edgec.graph.model import Model
from edgec.quantization.repair.layers import Layer, in_slices
from edgec.quantization.repair.moments import SLICE_BYTES
from edgec.quantization.repair.rounding import Moments
from edgec.quantization.run.apply import apply_plan, renew
from edgec.quantization.run.cores import in_order
from edgec.quantization.run.executor import Executor
from edgec.quantization.run.segment import MOST_BYTES, Part, bytes_of, living
from edgec.quantization.types import QuantPlan
from edgec.tensors import Array

Feed = Mapping[str, Array]
Halves = tuple[Moments, Moments]


class Walk:
    """Where a walk stands: for every sample the values that live there.

    `begins` are the layers that are held against float, of all stretches; `positions` how many of a sample count.
    """

    def __init__(self, model: Model, feeds: Sequence[Feed], begins: Collection[Layer], *, positions: int) -> None:
        self._model, self._feeds, self._positions = model, feeds, positions
        self._given: tuple[str, ...] = ()
        self._applied: tuple[QuantPlan, Model] | None = None
        self._values: list[Feed] = [{} for _ in feeds]
        executor = Executor(model, fetch=tuple(dict.fromkeys(layer.data for layer in begins)), any_layout=True)

        def in_float(feed: Feed) -> dict[str, Array]:
            found = executor.run(feed)
            return {layer.key: self._reads(layer, found[layer.data]) for layer in begins}

        self._float = list(in_order(in_float, feeds, executor.at_once))  # rule 1

    def gathered(self, layers: tuple[Layer, ...], plan: QuantPlan) -> Iterator[tuple[Layer, Halves]]:
        """Each layer with its moments over the even and over the odd samples, to be flushed; slices bound memory."""
        quantized = self._apply(plan)
        reads = {n.name or "": n.inputs[0].name or "" for n in quantized.nodes() if n.inputs and n.inputs[0]}
        for part in in_slices(layers, SLICE_BYTES // 4):
            given, living_here = self._given, () if part[0] is not layers[0] else self._living(part[0].node)
            carried = dict(zip(living_here, _written(quantized, living_here), strict=True))
            wanted = [*(reads[layer.node] for layer in part), *carried.values()]
            run = Part(quantized, _written(quantized, given), wanted)
            moments = {layer.key: _halves(layer, cross=layer.key in self._float[0]) for layer in part}
            known = ({**feed, **values} for feed, values in zip(self._feeds, self._values, strict=True))
            take = partial(self._taken, run, [(layer, reads[layer.node]) for layer in part], tuple(carried.values()))
            for i, (read, values) in enumerate(in_order(take, known, run.at_once)):
                for layer in part:
                    moments[layer.key][i % 2].add(read[layer.key], self._float[i].get(layer.key))
                if carried:  # rule 2
                    self._values[i] = values
            self._given = living_here or self._given
            for layer in part:
                yield layer, moments.pop(layer.key)

    def _taken(
        self, run: Part, reads: Sequence[tuple[Layer, str]], carried: Sequence[str], feed: Feed
    ) -> tuple[dict[str, Array], Feed]:
        """What layers read of one sample, by weight key, and the values that go on with it; the rest is let go."""
        found = run.run(feed)
        read = {layer.key: self._reads(layer, found[name]) for layer, name in reads}
        return read, {name: found[name] for name in carried}

    def _reads(self, layer: Layer, data: Array) -> Array:
        return layer.reads(data, layer.enough(self._positions, len(self._feeds)))

    def _apply(self, plan: QuantPlan) -> Model:
        """The quantized model, of which each repair changes integers alone."""
        if self._applied is None:
            quantized = apply_plan(self._model, plan)
        else:
            old, quantized = self._applied
            renew(quantized, old, plan)
        self._applied = plan, quantized
        return quantized

    def _living(self, node: str) -> tuple[str, ...]:
        """What lives before a node; nothing where that is too much (rule 3)."""
        names = living(self._model, node)
        return names if bytes_of(self._model, names) * len(self._feeds) <= MOST_BYTES else ()


def _written(quantized: Model, names: Sequence[str]) -> tuple[str, ...]:
    """What values are called in the quantized model before they are rounded: an output's name has gone on."""
    own = {v.name for n in quantized.nodes() if n.op_type != "DequantizeLinear" for v in n.outputs}
    return tuple(name if name in own else f"{name}/float" for name in names)


def _halves(layer: Layer, *, cross: bool) -> Halves:
    if cross:
        weight = layer.rows(layer.weight)
        return Moments.against_float(weight), Moments.against_float(weight)
    groups, _, fan_in = layer.shape
    return Moments.zeros(groups, fan_in), Moments.zeros(groups, fan_in)
