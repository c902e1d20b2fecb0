"""Write a few nodes as if they were arithmetic: `b("Mul", x, b("Add", x, 3.0))`."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir

from edgec.graph.edit import Editor
from edgec.tensors import Array


class Builder:
    """Makes nodes in place of `node`: numbers become constants of its type (or `kind`), names derive from its name."""

    def __init__(self, editor: Editor, node: ir.Node, kind: np.dtype[Any] | None = None) -> None:
        self._editor = editor
        self._node = node
        dtype = node.inputs[0].dtype if node.inputs and node.inputs[0] is not None else None
        self._kind = kind if kind is not None else np.dtype(np.float32) if dtype is None else dtype.numpy()
        self.nodes: list[ir.Node] = []

    def __call__(self, op_type: str, *inputs: ir.Value | Array | float | None, **attributes: Any) -> ir.Value:
        """One node; gives its first output."""
        return self.several(op_type, 1, *inputs, **attributes)[0]

    def several(
        self, op_type: str, count: int, *inputs: ir.Value | Array | float | None, **attributes: Any
    ) -> tuple[ir.Value, ...]:
        """One node with several outputs."""
        values = [self._value(item) for item in inputs]
        node = self._editor.node(op_type, values, attributes, name=f"{self._node.name}/{op_type}", outputs=count)
        self.nodes.append(node)
        return tuple(node.outputs)

    def _value(self, item: ir.Value | Array | float | None) -> ir.Value | None:
        if item is None or isinstance(item, ir.Value):
            return item
        array = item if isinstance(item, np.ndarray) else np.asarray(item, self._kind)
        return self._editor.const(array, f"{self._node.name}/constant")

    def inside(self) -> Builder:
        """A builder for the nodes of a subgraph, which are in its list `nodes` and nowhere else."""
        return Builder(self._editor, self._node)

    def name(self, of: str) -> str:
        """A value name that nothing has."""
        return self._editor.unique(f"{self._node.name}/{of}")

    def constant(self, array: Array) -> ir.Value:
        """A constant that several nodes share."""
        return self._editor.const(array, f"{self._node.name}/constant")

    def ints(self, *values: int) -> ir.Value:
        """A constant list of int64: axes, a shape."""
        return self._editor.const(np.asarray(values, np.int64), f"{self._node.name}/ints")

    def done(self, *outputs: ir.Value) -> None:
        """Put the nodes in the place of the old one."""
        self._editor.replace(self._node, self.nodes, list(outputs))
