"""Gradient of ai.onnx.preview.training as the nodes that compute it: reverse-mode differentiation of the graph.

1. What lies between `y` and the tensors in `xs` is differentiated; those in `zs`, and everything else, are constants.
2. A Gradient that is fed other values than the named tensors gets a copy of that part of the graph, computed from them.
3. From `y` backwards each node hands the gradient of its output to its inputs (`derivatives.py`), where they add up;
   what was broadcast is summed back. A tensor that `y` does not depend on has the gradient 0.
4. Gradients of gradients come by themselves: the first one is ordinary nodes by then.

An operator without a rule is refused by name, all of them at once.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from edgec.errors import EdgecError, Finding
from edgec.graph.build import Builder
from edgec.graph.edit import Editor, remove_dead
from edgec.graph.model import Model, attr, label, origin, static_shape
from edgec.passes.derivatives import RULES, summed_to
from edgec.passes.fold_constants import FoldConstants
from edgec.passes.shapes import infer_node

_DOMAIN = "ai.onnx.preview.training"
_HINT = "export the model without the gradient, or write that part with operators that have a derivative here"


class Differentiate:
    """See the module."""

    name = "differentiate"

    def run(self, model: Model) -> bool:
        """Replace every Gradient of the main graph; True when there was one. Raises `EdgecError`."""
        found = [n for n in model.nodes() if n.domain == _DOMAIN and n.op_type == "Gradient"]
        if not found:
            return False
        _know_shapes(model)
        for node in found:
            _Reverse(model, node).replace()
        if not any(n.domain == _DOMAIN for n in model.ir.graph.all_nodes()):
            model.ir.opset_imports.pop(_DOMAIN, None)
        remove_dead(model.ir)
        return True


def _know_shapes(model: Model) -> None:
    """Shapes and types as folding constants finds them, on a copy: folded weights would no longer lead to `y`."""
    folded = model.clone()
    FoldConstants().run(folded)
    known = _named(folded)
    for node in model.graph:
        for value in node.outputs:
            found = known.get(value.name or "")
            if found is not None:
                value.type, value.shape = found.type or value.type, found.shape or value.shape
        if any(static_shape(value) is None for value in node.outputs):
            infer_node(node, dict(model.ir.opset_imports))


class _Reverse:
    """One Gradient on its way to ordinary nodes."""

    def __init__(self, model: Model, gradient: ir.Node) -> None:
        self.editor = Editor(model)
        self.opsets = dict(model.ir.opset_imports)
        self.gradient = gradient
        self.made: list[ir.Node] = []
        self.sums: dict[ir.Value, ir.Value] = {}
        named = _named(model)
        xs, zs = attr(gradient, "xs", ()), attr(gradient, "zs", ())
        self.xs = [self._find(named, name) for name in xs]
        self.stops = [*self.xs, *(self._find(named, name) for name in zs)]
        self.y = self._find(named, attr(gradient, "y", ""))
        self.path = _between(self.y, self.xs, self.stops, list(model.graph))

    def _find(self, named: dict[str, ir.Value], name: str) -> ir.Value:
        if name in named:
            return named[name]
        raise EdgecError(
            "graph/unknown-tensor",
            f"{label(self.gradient)} is the gradient of or by {name!r}, which the graph does not have",
            where=label(self.gradient),
            source=origin(self.gradient),
            hint="export the model again",
        )

    def replace(self) -> None:
        """Rules 1 to 3."""
        self._refuse()
        self._feed()
        kind = self.y.dtype.numpy() if self.y.dtype is not None else np.dtype(np.float32)
        self.sums[self.y] = self.editor.const(np.ones(self._shape(self.y), kind), f"{self.gradient.name}/seed")
        for node in reversed(self.path):
            self._back(node)
        b = self._builder(self.gradient)
        results = [self._result(b, x) for x in self.xs[: len(self.gradient.outputs)]]
        self._keep(b)
        self.editor.replace(self.gradient, self.made, results)

    def _refuse(self) -> None:
        findings = [_without(node) for node in self.path if node.domain or node.op_type not in RULES]
        if findings:
            first = findings[0]
            raise EdgecError(
                first.code, first.message, where=first.where, source=first.source, hint=first.hint, findings=findings
            )

    def _feed(self) -> None:
        """Rule 2."""
        fed = dict(zip(self.stops, self.gradient.inputs, strict=False))
        if all(value is given or given is None for value, given in fed.items()):
            return
        known: dict[ir.Value, ir.Value] = {value: given for value, given in fed.items() if given is not None}
        copies = []
        graph = self.gradient.graph
        assert graph is not None
        for node in _between(self.y, self.stops, self.stops, list(graph)):
            inputs = [None if v is None else known.get(v, v) for v in node.inputs]
            attributes = {name: attr(node, name) for name in node.attributes}
            copy = self.editor.node(
                node.op_type, inputs, attributes, name=f"{node.name}/fed", outputs=len(node.outputs), domain=node.domain
            )
            for before, after in zip(node.outputs, copy.outputs, strict=True):
                after.type, after.shape = before.type, before.shape
                known[before] = after
            copies.append((node, copy))
        self.made.extend(copy for _, copy in copies)
        on_path = set(self.path)
        self.path = [copy for node, copy in copies if node in on_path]
        self.y = known.get(self.y, self.y)
        self.xs = [known[x] for x in self.xs]

    def _back(self, node: ir.Node) -> None:
        """Rule 3, for one node."""
        g = self.sums.get(node.outputs[0])
        if g is None:
            return
        b = self._builder(node)
        gradients = RULES[node.op_type](b, node, g)
        if gradients is None:
            finding = _without(node)
            raise EdgecError(
                finding.code, finding.message, where=finding.where, source=finding.source, hint=finding.hint
            )
        self._keep(b)
        for value, given in zip(node.inputs, gradients, strict=False):
            if value is None or given is None or value.dtype is None or not value.dtype.is_floating_point():
                continue
            b = self._builder(node)
            own = summed_to(b, given, self._shape(given), self._shape(value))
            before = self.sums.get(value)
            self.sums[value] = own if before is None else b("Add", before, own)
            self._keep(b)

    def _result(self, b: Builder, x: ir.Value) -> ir.Value:
        known = self.sums.get(x)
        if known is None:
            kind = x.dtype.numpy() if x.dtype is not None else np.dtype(np.float32)
            known = b.constant(np.zeros(self._shape(x), kind))
        return b("Identity", known)

    def _builder(self, node: ir.Node) -> Builder:
        kind = node.outputs[0].dtype
        return Builder(self.editor, self.gradient, None if kind is None else kind.numpy())

    def _keep(self, b: Builder) -> None:
        for node in b.nodes:
            infer_node(node, self.opsets)
        self.made.extend(b.nodes)

    def _shape(self, value: ir.Value) -> tuple[int, ...]:
        shape = static_shape(value)
        if shape is None:
            raise EdgecError(
                "graph/unknown-shape",
                f"{label(self.gradient)} needs the shape of {value.name!r}, which cannot be inferred",
                where=label(self.gradient),
                source=origin(self.gradient),
                hint="fix the inputs with --input NAME:1x3x224x224",
            )
        return shape


def _without(node: ir.Node) -> Finding:
    kind = f"{node.domain}.{node.op_type}" if node.domain else node.op_type
    return Finding(
        code="graph/no-derivative",
        message=f"the model takes a gradient through {label(node)}, and {kind} has no derivative here"
        if node.domain or node.op_type not in RULES
        else f"the model takes a gradient through {label(node)}, whose {kind} has a derivative here only with known "
        "shapes and constant axes and exponents",
        where=label(node),
        source=origin(node),
        hint=_HINT,
    )


def _named(model: Model) -> dict[str, ir.Value]:
    graph = model.graph
    values = [*graph.inputs, *graph.initializers.values(), *(o for node in graph for o in node.outputs)]
    return {value.name: value for value in values if value.name}


def _between(y: ir.Value, xs: Sequence[ir.Value], stops: Sequence[ir.Value], order: Sequence[ir.Node]) -> list[ir.Node]:
    """Rule 1: the nodes that `y` needs and that need one of `xs`, nothing behind a stop, in the graph's order."""
    ends = set(stops)
    needed: set[ir.Node] = set()
    open_ = [y]
    while open_:
        value = open_.pop()
        producer = None if value in ends else value.producer()
        if producer is not None and producer not in needed:
            needed.add(producer)
            open_.extend(v for v in producer.inputs if v is not None)
    reached = set(xs)
    path = []
    for node in order:
        if node in needed and any(v in reached for v in node.inputs):
            path.append(node)
            reached.update(o for o in node.outputs if o not in ends)
    return path
