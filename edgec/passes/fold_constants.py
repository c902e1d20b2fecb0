"""Walk the graph once: infer each node's shapes, and replace what depends on constants alone by its value.

With static inputs every Shape is a constant, so Shape → Gather → Concat → Reshape chains vanish on the way.
An If whose condition is constant is replaced by the branch it takes. DequantizeLinear stays: a quantized
weight is no float constant.
"""

from __future__ import annotations

import logging
import math
from collections import deque

import numpy as np
import onnx_ir as ir

from edgec.errors import EdgecError
from edgec.graph.edit import Editor, remove_dead
from edgec.graph.model import Model, attr, const_of, keep_origin, static_shape
from edgec.passes.evaluate import evaluate, refusal
from edgec.passes.shapes import infer_node
from edgec.tensors import Array

_log = logging.getLogger(__name__)


class FoldConstants:
    """See the module; `grown_bytes` bounds what folding may add to the model in all."""

    name = "fold-constants"

    def __init__(self, grown_bytes: int = 256 << 20) -> None:
        self._limit = grown_bytes

    def run(self, model: Model) -> bool:
        """Fold; True when a node was replaced."""
        folder = _Folder(model, self._limit)
        changed = folder.fold(model.ir.graph)
        return bool(remove_dead(model.ir)) or changed


def fold_graph(model: Model, graph: ir.Graph, grown_bytes: int = 16 << 20) -> bool:
    """Fold one graph of the model: the body of a loop whose inputs' shapes are set."""
    return _Folder(model, grown_bytes).fold(graph)


class _Folder:
    def __init__(self, model: Model, budget: int) -> None:
        self._editor = Editor(model)
        self._opsets = dict(model.ir.opset_imports)
        self._budget = budget
        self._impossible: set[tuple[str, str]] = set()

    def fold(self, graph: ir.Graph) -> bool:
        changed = False
        queue = deque(graph)
        while queue:
            node = queue.popleft()
            if node.op_type == "If" and node.domain == "":
                branch = self._taken(node)
                if branch is None:
                    changed |= self._fold_branches(node)
                    branch = self._only_possible(node)
                if branch is not None:
                    queue.extendleft(reversed(self._inline(node, branch)))
                    changed = True
                    continue
            values = self._known(node)
            if values is not None:
                self._become_constant(node, values)
                changed = True
        return changed

    def _fold_branches(self, node: ir.Node) -> bool:
        """Fold each branch; one that these input shapes do not fit is remembered as impossible."""
        changed = False
        for name in ("then_branch", "else_branch"):
            attribute = node.attributes.get(name)
            if attribute is None:
                continue
            try:
                changed |= self.fold(attribute.as_graph())
            except EdgecError as error:
                _log.debug("%s of %s cannot run with these shapes: %s", name, node.name, error)
                self._impossible.add((node.name or "", name))
        return changed

    def _only_possible(self, node: ir.Node) -> ir.Graph | None:
        """The branch to take when the other cannot run with these shapes (another sampling rate, say)."""
        possible = [
            node.attributes[name]
            for name in ("then_branch", "else_branch")
            if name in node.attributes and (node.name or "", name) not in self._impossible
        ]
        return possible[0].as_graph() if len(possible) == 1 else None

    def _known(self, node: ir.Node) -> list[Array] | None:
        """What the node gives, if that is known now; infers its shapes on the way."""
        if node.domain != "":
            infer_node(node, self._opsets)
            return None
        if node.op_type == "Constant":
            value = _constant(node)
            return None if value is None else [value]
        _settle_cast_like(node)
        infer_node(node, self._opsets)
        if node.op_type in ("Shape", "Size"):
            shape = static_shape(node.inputs[0])
            if shape is None:
                return None
            if node.op_type == "Size":
                return [np.asarray(np.prod(shape, dtype=np.int64), np.int64)]
            return [np.asarray(shape[attr(node, "start", 0) : attr(node, "end")], np.int64)]
        if refusal(node) is not None:
            return None
        size = sum(_nbytes(output) for output in node.outputs)
        if size > self._budget:
            return None
        self._budget -= size
        return evaluate(node, self._opsets.get("", 1))

    def _become_constant(self, node: ir.Node, values: list[Array]) -> None:
        constants = []
        for output, value in zip(node.outputs, values, strict=False):
            output.shape = ir.Shape(value.shape)
            constants.append(self._editor.const(value, output.name or node.name or "constant"))
            output.type = constants[-1].type
        for output, constant in zip(list(node.outputs), constants, strict=True):
            if not output.is_graph_output():
                output.replace_all_uses_with(constant)
                continue
            for user, index in list(output.uses()):
                user.replace_input_with(index, constant)
            identity = self._editor.node("Identity", [constant], name=f"{node.name}/constant")
            assert node.graph is not None
            node.graph.insert_before(node, identity)
            kept, name = identity.outputs[0], output.name
            kept.shape, kept.type = output.shape, output.type
            output.replace_all_uses_with(kept, replace_graph_outputs=True)
            output.name, kept.name = None, name
        assert node.graph is not None
        node.graph.remove(node, safe=True)

    def _taken(self, node: ir.Node) -> ir.Graph | None:
        condition = const_of(node.inputs[0]) if node.inputs else None
        if condition is None or condition.size != 1:
            return None
        name = "then_branch" if bool(condition.reshape(())) else "else_branch"
        attribute = node.attributes.get(name)
        return None if attribute is None else attribute.as_graph()

    def _inline(self, node: ir.Node, branch: ir.Graph) -> list[ir.Node]:
        """Move the branch's nodes in front of the If and let its outputs stand for the If's."""
        for value in list(branch.initializers.values()):
            del branch.initializers[value.name or ""]
            self._editor.graph.register_initializer(value)
        outputs = list(branch.outputs)
        branch.outputs.clear()
        nodes = list(branch)
        branch.remove(nodes)
        extra = []
        for index, value in enumerate(outputs):
            # A branch may give a value from outside, or the same one twice: each If output needs its own.
            if value.producer() not in nodes or value in outputs[:index]:
                extra.append(self._editor.node("Identity", [value], name=f"{node.name}/{index}"))
                outputs[index] = extra[-1].outputs[0]
        self._editor.replace(node, [*nodes, *extra], outputs)
        keep_origin(extra, node)
        return [*nodes, *extra]


def _constant(node: ir.Node) -> Array | None:
    for name, kind in (("value_float", np.float32), ("value_floats", np.float32)):
        if name in node.attributes:
            return np.asarray(attr(node, name), kind)
    for name in ("value_int", "value_ints"):
        if name in node.attributes:
            return np.asarray(attr(node, name), np.int64)
    value = attr(node, "value")
    return value if isinstance(value, np.ndarray) else None


def _settle_cast_like(node: ir.Node) -> None:
    """CastLike is a Cast as soon as the type to be like is known."""
    if node.op_type != "CastLike" or node.inputs[1] is None or node.inputs[1].dtype is None:
        return
    node.attributes["to"] = ir.AttrInt64("to", int(node.inputs[1].dtype))
    node.resize_inputs(1)
    node.op_type = "Cast"


def _nbytes(value: ir.Value) -> int:
    shape = static_shape(value)
    if shape is None or value.dtype is None:
        return 0
    return int(math.prod(shape) * value.dtype.itemsize)
