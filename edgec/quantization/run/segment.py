"""A part of a model as a model of its own: what is computed from some given values to some fetched ones."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence

import onnx_ir as ir

from edgec.graph.model import Model, static_shape
from edgec.quantization.run.cores import in_order
from edgec.quantization.run.executor import Executor
from edgec.tensors import Array

#: What the values between two parts may take, of all samples together.
MOST_BYTES = 512 * 2**20


def segment(model: Model, given: Collection[str], fetch: Sequence[str]) -> Model:
    """A copy of what computes `fetch` (values that nodes write) when the values `given` are known.

    It takes the model's inputs and `given`. Weight tensors are shared.
    """
    graph = model.graph
    inputs = [v.name or "" for v in graph.inputs if not v.is_initializer()]
    known = list(dict.fromkeys([*inputs, *given]))
    part = ir.convenience.extract(graph, known, list(dict.fromkeys(fetch)))
    return Model(ir=ir.Model(part, ir_version=model.ir.ir_version), source=model.source, name=model.name)


class Part:
    """What computes some values from given ones; given ones may be among them. `at_once`: runs at a time at most."""

    def __init__(self, model: Model, given: Sequence[str], fetch: Sequence[str]) -> None:
        known = {*given, *(v.name or "" for v in model.graph.inputs)}
        wanted = [name for name in dict.fromkeys(fetch) if name not in known]
        self._fetch = fetch
        self._executor = (
            Executor(segment(model, given, wanted), fetch=wanted, consume=True, any_layout=True) if wanted else None
        )
        self.at_once = 1 if self._executor is None else self._executor.at_once

    def run(self, feed: Mapping[str, Array]) -> dict[str, Array]:
        """The fetched values of one sample."""
        found = {} if self._executor is None else self._executor.run(feed)
        return {name: found[name] if name in found else feed[name] for name in self._fetch}

    def run_all(self, feeds: Iterable[Mapping[str, Array]]) -> Iterator[dict[str, Array]]:
        """The fetched values of each sample."""
        return in_order(self.run, feeds, self.at_once)


def living(model: Model, node: str) -> tuple[str, ...]:
    """The computed values that nodes from `node` on read and nodes before it write, in graph order."""
    found: list[str] = []
    order = {n.name: i for i, n in enumerate(model.nodes())}
    place = order[node]
    for writer in model.nodes():
        if order[writer.name] >= place:
            break
        # a reader inside a subgraph has no place of its own: what it reads is kept
        found += [v.name or "" for v in writer.outputs if any(order.get(n.name, place) >= place for n, _ in v.uses())]
    return tuple(found)


def bytes_of(model: Model, names: Collection[str]) -> float:
    """Bytes of some values; infinite where a shape is not known."""
    wanted, total = set(names), 0.0
    for node in model.nodes():
        for value in node.outputs:
            if value.name in wanted:
                shape = static_shape(value)
                size = value.dtype.itemsize if value.dtype is not None else 8
                total += math.inf if shape is None else math.prod(shape) * size
    return total
