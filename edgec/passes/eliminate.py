"""Remove what computes nothing: Identity, Dropout, and no-op forms of Reshape, Transpose, Cast, Slice and their kin.

Each entry of `NO_OPS` looks at one node and gives the value that its output equals, or None.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx_ir as ir

from edgec.graph.edit import Editor, remove_dead
from edgec.graph.model import Model, attr, const_of

Equal = Callable[[ir.Node], ir.Value | None]


class Eliminate:
    """See the module."""

    name = "eliminate"

    def run(self, model: Model) -> bool:
        """Remove no-ops and dead nodes; True when something went."""
        editor = Editor(model)
        changed = False
        for graph in list(model.ir.graphs()):
            for node in list(graph):
                find = NO_OPS.get(node.op_type) if node.domain == "" else None
                source = find(node) if find is not None else None
                if source is not None and not _pinned(node, source):
                    editor.bypass(node, source)
                    changed = True
        return bool(remove_dead(model.ir)) or changed


def _pinned(node: ir.Node, source: ir.Value) -> bool:
    """True when the node must stay: it gives an output its name, and nobody else reads it."""
    output = node.outputs[0]
    fixed = source.is_graph_input() or source.is_initializer() or source.is_graph_output()
    return output.is_graph_output() and (fixed or source.graph is not node.graph) and not output.uses()


def _always(node: ir.Node) -> ir.Value | None:
    return node.inputs[0]


def _dropout(node: ir.Node) -> ir.Value | None:
    training = const_of(node.inputs[2]) if len(node.inputs) > 2 and node.inputs[2] is not None else False
    mask_used = len(node.outputs) > 1 and (node.outputs[1].uses() or node.outputs[1].is_graph_output())
    return None if training is None or bool(training) or mask_used else node.inputs[0]


def _same_shape(node: ir.Node) -> ir.Value | None:
    source, output = node.inputs[0], node.outputs[0]
    if source is None or source.shape is None or output.shape is None:
        return None
    static = source.shape.is_static() and output.shape.is_static()
    return source if static and source.shape == output.shape else None


def _transpose(node: ir.Node) -> ir.Value | None:
    perm = attr(node, "perm")
    source = node.inputs[0]
    if perm is None or source is None or source.shape is None:
        return None
    # Axes of size 1 may move; the others must keep their order, and the shape must stay.
    moving = [axis for axis in perm if source.shape[axis] != 1]
    return _same_shape(node) if moving == sorted(moving) else None


def _cast(node: ir.Node) -> ir.Value | None:
    source = node.inputs[0]
    return source if source is not None and source.dtype == ir.DataType(attr(node, "to")) else None


def _slice(node: ir.Node) -> ir.Value | None:
    steps = const_of(node.inputs[4]) if len(node.inputs) > 4 and node.inputs[4] is not None else np.ones(1)
    return _same_shape(node) if steps is not None and bool(np.all(steps == 1)) else None


def _concat(node: ir.Node) -> ir.Value | None:
    return node.inputs[0] if len(node.inputs) == 1 else None


def _pad(node: ir.Node) -> ir.Value | None:
    pads = const_of(node.inputs[1])
    return node.inputs[0] if pads is not None and not np.any(pads) else None


def _split(node: ir.Node) -> ir.Value | None:
    return node.inputs[0] if len(node.outputs) == 1 else None


def _resize(node: ir.Node) -> ir.Value | None:
    if len(node.inputs) > 1 and attr(node, "coordinate_transformation_mode") == "tf_crop_and_resize":
        return None
    return _same_shape(node)


def _pool(node: ir.Node) -> ir.Value | None:
    kernel, strides = attr(node, "kernel_shape", ()), attr(node, "strides", ())
    single = all(k == 1 for k in kernel) and all(s == 1 for s in strides)
    return _same_shape(node) if single and len(node.outputs) == 1 else None


def _neutral(value: float, *, first_too: bool) -> Equal:
    """x + 0, x · 1 and their kin, where the constant does not broadcast x to a bigger shape."""

    def find(node: ir.Node) -> ir.Value | None:
        for index in (0, 1) if first_too else (0,):
            constant = const_of(node.inputs[1 - index])
            source = node.inputs[index]
            if constant is None or not constant.size or not bool(np.all(constant == value)):
                continue
            if source is None or source.shape is None or source.shape != node.outputs[0].shape:
                continue
            if source.shape.is_static():
                return source
        return None

    return find


#: Operator → what its output equals, if it does nothing.
NO_OPS: dict[str, Equal] = {
    "Add": _neutral(0.0, first_too=True),
    "AveragePool": _pool,
    "Cast": _cast,
    "Concat": _concat,
    "Div": _neutral(1.0, first_too=False),
    "Dropout": _dropout,
    "Expand": _same_shape,
    "Flatten": _same_shape,
    "Identity": _always,
    "MaxPool": _pool,
    "Mul": _neutral(1.0, first_too=True),
    "Pad": _pad,
    "Reshape": _same_shape,
    "Resize": _resize,
    "Slice": _slice,
    "Split": _split,
    "Squeeze": _same_shape,
    "Sub": _neutral(0.0, first_too=False),
    "Sum": _concat,
    "Tile": _same_shape,
    "Transpose": _transpose,
    "Unsqueeze": _same_shape,
}
