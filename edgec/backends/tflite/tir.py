"""TIR: the graph of TFLite operators before it is written.

A tensor's `shape` and `dtype` describe the value; `storage` says how it is kept when that differs: a real
value annotated with `storage` is kept as integers, q = real / scale + zero_point. Lowerings emit real-valued
operators in the source's layout with explicit TRANSPOSE; the layout solver and the type pass do the rest.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from edgec.tensors import Array, DType, QParams


@dataclass(frozen=True, slots=True)
class Storage:
    """How a real value is kept as integers."""

    dtype: DType
    qparams: QParams


@dataclass(slots=True, eq=False)
class Tensor:
    """A value. Constants carry `data`: the stored integers when `storage` is set, else the values."""

    name: str
    shape: tuple[int, ...]
    dtype: DType
    data: Array | None = None
    storage: Storage | None = None

    @property
    def rank(self) -> int:
        """Number of axes."""
        return len(self.shape)

    @property
    def is_const(self) -> bool:
        """True for constants."""
        return self.data is not None

    @property
    def size(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)

    def real(self) -> Array:
        """A constant's real values. Raises ValueError for a tensor that is not constant."""
        if self.data is None:
            raise ValueError(f"{self.name} is not constant")
        if self.storage is None:
            return self.data
        return self.storage.qparams.dequantize(self.data)


@dataclass(slots=True, eq=False)
class Op:
    """One TFLite operator; `kind` is its BuiltinOperator name, `options` the fields of its options table.

    `version` is the one that a file declares, 0 for an operator of our own, whose version follows from its use.
    """

    kind: str
    inputs: list[Tensor | None]
    outputs: list[Tensor]
    options: dict[str, Any] = field(default_factory=dict)
    origin: str = ""
    subgraphs: list[Graph] = field(default_factory=list)
    version: int = 0

    def data_inputs(self) -> list[Tensor]:
        """Inputs that are computed, not constant."""
        return [t for t in self.inputs if t is not None and not t.is_const]


@dataclass(slots=True, eq=False)
class Graph:
    """Operators in execution order, with the graph's inputs and outputs."""

    name: str
    inputs: list[Tensor] = field(default_factory=list)
    outputs: list[Tensor] = field(default_factory=list)
    ops: list[Op] = field(default_factory=list)

    def graphs(self) -> Iterator[Graph]:
        """This graph and those its operators call, each once, however many call it."""
        seen, stack = {self}, [self]
        while stack:
            graph = stack.pop()
            yield graph
            for inner in dict.fromkeys(inner for op in graph.ops for inner in op.subgraphs):
                if inner not in seen:
                    seen.add(inner)
                    stack.append(inner)

    def every_op(self) -> Iterator[Op]:
        """All operators, those of branches and loop bodies too, as often as they are written in the file."""
        for graph in self.graphs():
            yield from graph.ops

    def producers(self) -> dict[Tensor, Op]:
        """The operator that computes each tensor."""
        return {t: op for op in self.ops for t in op.outputs}

    def consumers(self) -> dict[Tensor, list[Op]]:
        """The operators that read each tensor (an operator twice if it reads it twice)."""
        table: dict[Tensor, list[Op]] = {}
        for op in self.ops:
            for t in op.inputs:
                if t is not None:
                    table.setdefault(t, []).append(op)
        return table

    def replace_uses(self, old: Tensor, new: Tensor, *, within: Iterable[Op] | None = None) -> None:
        """Let every reader of `old` (in `within`, or all of them and the graph's outputs) read `new`."""
        for op in self.ops if within is None else within:
            op.inputs = [new if t is old else t for t in op.inputs]
        if within is None:
            self.outputs = [new if t is old else t for t in self.outputs]

    def prune(self) -> None:
        """Drop operators whose results nobody reads."""
        needed = set(self.outputs)
        kept: list[Op] = []
        for op in reversed(self.ops):
            if any(t in needed for t in op.outputs):
                kept.append(op)
                needed.update(t for t in op.inputs if t is not None)
        self.ops = kept[::-1]

    def sort(self) -> None:
        """Put operators back into an order in which every value is computed before it is read."""
        producers = self.producers()
        order: list[Op] = []
        state: dict[Op, bool] = {}
        for root in self.ops:
            stack: list[tuple[Op, bool]] = [(root, False)]
            while stack:
                op, done = stack.pop()
                if done:
                    order.append(op)
                    continue
                if op in state:
                    continue
                state[op] = True
                stack.append((op, True))
                for t in reversed(op.inputs):
                    source = producers.get(t) if t is not None else None
                    if source is not None and source not in state:
                        stack.append((source, False))
        self.ops = order


def constant(name: str, data: Array | Sequence[int] | float, dtype: DType | None = None) -> Tensor:
    """A constant tensor; Python numbers and lists need a `dtype`."""
    array = np.asarray(data, None if dtype is None else dtype.numpy)
    return Tensor(name=name, shape=tuple(array.shape), dtype=DType.of(array), data=array)


def int32(name: str, values: Sequence[int] | int | Array) -> Tensor:
    """An int32 constant: shapes, axes, paddings."""
    return constant(name, np.asarray(values, np.int32))
