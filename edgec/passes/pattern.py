"""A small language for graph patterns: `op("Mul", X, op("Sigmoid", X))` finds x·σ(x).

A `Var` stands for any value, the same one wherever its name is used; `Scalar` for a constant with one element.
Operators whose operands may be swapped are tried both ways.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from edgec.graph.edit import Editor
from edgec.graph.model import const_of
from edgec.passes.rewrite import Match, Refusal

_COMMUTES = frozenset({"Add", "Max", "Min", "Mul"})


@dataclass(frozen=True, slots=True)
class Var:
    """Any value; the same name must stand for the same value."""

    name: str


@dataclass(frozen=True, slots=True)
class Scalar:
    """A constant of one element (in any shape), near `value` (relative 1e-3) where that is given."""

    name: str
    value: float | None = None


@dataclass(frozen=True, slots=True)
class Tensor:
    """Any constant."""

    name: str


@dataclass(frozen=True, slots=True)
class Op:
    """A node of one of `types`; inputs beyond those listed must be absent unless `more` is set."""

    types: frozenset[str]
    inputs: tuple[Pattern, ...]
    name: str = ""
    more: bool = False


Pattern = Var | Scalar | Tensor | Op


def op(types: str, *inputs: Pattern, name: str = "", more: bool = False) -> Op:
    """Short form of `Op`; alternatives are written `"Div|Mul"`."""
    return Op(frozenset(types.split("|")), inputs, name, more)


def scalar_of(value: ir.Value | None) -> float | None:
    """The number that a constant of one element holds, or None."""
    tensor = value.const_value if value is not None else None
    if tensor is None or tensor.size != 1:
        return None
    array = const_of(value)
    return None if array is None or array.dtype.kind not in "fiu" else float(array.reshape(()))


def match_value(pattern: Pattern, value: ir.Value | None, match: Match) -> bool:
    """Match a pattern against a value; on success `match` holds the bindings, on failure it is as it was."""
    if value is None:
        return False
    if isinstance(pattern, Var):
        return match.values.setdefault(pattern.name, value) is value
    if isinstance(pattern, Scalar):
        number = scalar_of(value)
        if number is None or (pattern.value is not None and not _near(number, pattern.value)):
            return False
        match.values[pattern.name] = value
        return True
    if isinstance(pattern, Tensor):
        if value.const_value is None:
            return False
        match.values[pattern.name] = value
        return True
    producer = value.producer()
    return producer is not None and producer.outputs[0] is value and match_node(pattern, producer, match)


def match_node(pattern: Op, node: ir.Node, match: Match) -> bool:
    """As `match_value`, for the node itself."""
    if node.op_type not in pattern.types or node.domain != "":
        return False
    inputs = list(node.inputs)
    while inputs and inputs[-1] is None:
        inputs.pop()
    count = len(pattern.inputs)
    if len(inputs) < count or (len(inputs) > count and not pattern.more):
        return False
    orders: list[Sequence[ir.Value | None]] = [inputs]
    if count == 2 and node.op_type in _COMMUTES:
        orders.append(inputs[::-1])
    for order in orders:
        values, nodes = dict(match.values), dict(match.nodes)
        if all(match_value(p, v, match) for p, v in zip(pattern.inputs, order, strict=False)):
            match.nodes[pattern.name or f"{node.op_type}#{len(match.nodes)}"] = node
            return True
        match.values, match.nodes = values, nodes
    return False


def _near(number: float, wanted: float) -> bool:
    return bool(np.isclose(number, wanted, rtol=1e-3, atol=1e-7))


class PatternRule(ABC):
    """A rule made of alternative patterns; subclasses add what `check` must look at, and `rewrite`."""

    name = "pattern"
    patterns: tuple[Op, ...] = ()

    @property
    def roots(self) -> frozenset[str]:
        """Operators in which the patterns end."""
        return frozenset().union(*(pattern.types for pattern in self.patterns))

    def match(self, node: ir.Node) -> Match | None:
        """The first alternative that fits."""
        for pattern in self.patterns:
            match = Match(node)
            if match_node(pattern, node, match):
                return match
        return None

    def check(self, match: Match) -> Refusal | None:
        """What lies inside the pattern must be read by nobody outside it."""
        return interior_use(match)

    @abstractmethod
    def rewrite(self, match: Match, editor: Editor) -> Sequence[ir.Node]:
        """Replace the root; what is left over dies."""

    def swap(
        self,
        match: Match,
        editor: Editor,
        op_type: str,
        inputs: Sequence[ir.Value | None],
        attributes: dict[str, object] | None = None,
    ) -> Sequence[ir.Node]:
        """Put one node of `op_type` in the root's place."""
        new = editor.node(op_type, inputs, attributes, name=f"{match.root.name}/{op_type}")
        editor.replace(match.root, [new], [new.outputs[0]])
        return [new]


def interior_use(match: Match) -> Refusal | None:
    """A refusal when a value inside the pattern is read outside it, or is a graph output."""
    nodes = list(match.nodes.values())
    for node in nodes:
        if node is match.root:
            continue
        for output in node.outputs:
            if output.is_graph_output() or any(user not in nodes for user, _ in output.uses()):
                return Refusal(reason="a value inside the pattern is read elsewhere", value=output.name or "")
    return None
