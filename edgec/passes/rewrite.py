"""Rewrite small patterns: find the shape (`match`), ask whether it may go (`check`), replace it (`rewrite`).

`check` answers with a reason and the value to blame, so that "why did it not fire?" has an answer; the reasons
are kept in `RewritePass.refusals`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import onnx_ir as ir

from edgec.graph.edit import Editor, remove_dead
from edgec.graph.model import Model, label
from edgec.passes.shapes import infer_node

#: Whose operators rules may name; no name is in both.
_DOMAINS = ("", "ai.onnx.ml")


@dataclass(slots=True)
class Match:
    """A place where a rule's pattern fits: the node it ends in, and what the pattern's names stand for."""

    root: ir.Node
    values: dict[str, ir.Value] = field(default_factory=dict)
    nodes: dict[str, ir.Node] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True, slots=True)
class Refusal:
    """Why a rule that found its pattern did not fire."""

    reason: str
    value: str = ""
    rule: str = ""
    node: str = ""


class Rule(Protocol):
    """Three small methods and the operators at which to look."""

    @property
    def name(self) -> str:
        """What reports call the rule."""

    @property
    def roots(self) -> frozenset[str]:
        """Operator types in which the pattern ends."""

    def match(self, node: ir.Node) -> Match | None:
        """The pattern's place, or None when its shape is not there."""

    def check(self, match: Match) -> Refusal | None:
        """Why it may not be rewritten here, or None."""

    def rewrite(self, match: Match, editor: Editor) -> Sequence[ir.Node]:
        """Edit the graph; gives the new nodes, in order, so that their shapes can be inferred."""


class RewritePass:
    """Try every rule at every node once, in graph order; a rule sees what the ones before it made."""

    def __init__(self, name: str, rules: Sequence[Rule]) -> None:
        self._name = name
        self._rules: Mapping[str, list[Rule]] = {
            op: [rule for rule in rules if op in rule.roots] for rule in rules for op in rule.roots
        }
        self.refusals: list[Refusal] = []

    @property
    def name(self) -> str:
        """The pass's name."""
        return self._name

    def run(self, model: Model) -> bool:
        """Apply the rules; True when one fired."""
        editor = Editor(model)
        opsets = dict(model.ir.opset_imports)
        fired = False
        for graph in list(model.ir.graphs()):
            for node in list(graph):
                if node.graph is not None and node.domain in _DOMAINS:
                    fired |= self._at(node, editor, opsets)
        if fired:
            remove_dead(model.ir)
        return fired

    def _at(self, node: ir.Node, editor: Editor, opsets: dict[str, int]) -> bool:
        for rule in self._rules.get(node.op_type, ()):
            match = rule.match(node)
            if match is None:
                continue
            refusal = rule.check(match)
            if refusal is not None:
                self.refusals.append(
                    Refusal(reason=refusal.reason, value=refusal.value, rule=rule.name, node=label(node))
                )
                continue
            for new in rule.rewrite(match, editor):
                infer_node(new, opsets)
            return True
        return False
