"""Walk through a graph stretch by stretch, in float and quantized side by side: no node runs more than it has to.

1. Values that live across the beginning of a stretch are kept for every sample, in float and as the quantized model
   computes them; the stretch starts from these, not from the model's inputs.
2. What lives across the next beginning is computed once the stretch has been repaired, with what is gathered there.
3. Where a beginning's values would take too much memory, the walk goes on from the last one.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence

from edgec.graph.model import Model
from edgec.quantization.algorithms.layers import Layer, in_slices
from edgec.quantization.algorithms.moments import SLICE_BYTES
from edgec.quantization.algorithms.rounding import Moments
from edgec.quantization.apply import apply_plan
from edgec.quantization.executor import Executor
from edgec.quantization.segment import bytes_of, living, segment
from edgec.quantization.types import QuantPlan
from edgec.tensors import Array

Feed = Mapping[str, Array]
Halves = tuple[Moments, Moments]

#: Rule 3: for the values of all samples, in float; as much again is taken for the quantized ones.
MOST_BYTES = 256 * 2**20


class Walk:
    """Where a walk stands: for every sample the values that live there."""

    def __init__(self, model: Model, feeds: Sequence[Feed]) -> None:
        self._model, self._feeds = model, feeds
        self._given: tuple[str, ...] = ()
        self._plain: list[Feed] = [{} for _ in feeds]
        self._coded: list[Feed] = [{} for _ in feeds]

    def gathered(
        self, layers: tuple[Layer, ...], plan: QuantPlan, begins: Collection[str], positions: int
    ) -> Iterator[tuple[Layer, Halves]]:
        """Each layer with its moments over the even and over the odd samples; memory is bounded by taking slices.

        Against float for the nodes in `begins`, of what they read alone for the others.
        """
        quantized = apply_plan(self._model, plan)
        reads = {n.name or "": n.inputs[0].name or "" for n in quantized.nodes() if n.inputs and n.inputs[0]}
        self._move(layers[0].node, quantized)
        coded_given = _written(quantized, self._given)
        for part in in_slices(layers, SLICE_BYTES // 4):
            begun = {layer.node for layer in part if layer.node in begins}
            plain = _Part(self._model, self._given, [layer.data for layer in part if layer.node in begun])
            coded = _Part(quantized, coded_given, [reads[layer.node] for layer in part])
            moments = {layer.key: _halves(layer, cross=layer.node in begun) for layer in part}
            for i, feed in enumerate(self._feeds):
                expected = plain.run({**feed, **self._plain[i]})
                actual = coded.run({**feed, **self._coded[i]})
                for layer in part:
                    wanted = layer.columns(expected[layer.data], positions) if layer.node in begun else None
                    moments[layer.key][i % 2].add(layer.columns(actual[reads[layer.node]], positions), wanted)
            for layer in part:
                even, odd = moments.pop(layer.key)
                yield layer, (even.flush(), odd.flush())

    def _move(self, node: str, quantized: Model) -> None:
        """Go on to a node (rules 2 and 3)."""
        names = living(self._model, node)
        if not names or bytes_of(self._model, names) * len(self._feeds) > MOST_BYTES:
            return
        plain = _Part(self._model, self._given, names)
        coded = _Part(quantized, _written(quantized, self._given), _written(quantized, names))
        for i, feed in enumerate(self._feeds):
            self._plain[i] = plain.run({**feed, **self._plain[i]})
            self._coded[i] = coded.run({**feed, **self._coded[i]})
        self._given = names


class _Part:
    """What computes some values from given ones; given ones may be among them."""

    def __init__(self, model: Model, given: Sequence[str], fetch: Sequence[str]) -> None:
        known = {*given, *(v.name or "" for v in model.graph.inputs)}
        wanted = [name for name in dict.fromkeys(fetch) if name not in known]
        self._fetch = fetch
        self._executor = Executor(segment(model, given, wanted), fetch=wanted) if wanted else None

    def run(self, feed: Feed) -> dict[str, Array]:
        """The fetched values."""
        found = {} if self._executor is None else self._executor.run(feed)
        return {name: found[name] if name in found else feed[name] for name in self._fetch}


def _written(quantized: Model, names: Sequence[str]) -> tuple[str, ...]:
    """What values are called in the quantized model before they are rounded: an output's name has gone on."""
    own = {v.name for n in quantized.nodes() if n.op_type != "DequantizeLinear" for v in n.outputs}
    return tuple(name if name in own else f"{name}/float" for name in names)


def _halves(layer: Layer, *, cross: bool) -> Halves:
    groups, _, fan_in = layer.shape
    return Moments.zeros(groups, fan_in, cross=cross), Moments.zeros(groups, fan_in, cross=cross)
