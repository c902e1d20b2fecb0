"""A pooling window that reaches beyond the whole input becomes as large as the input.

With the size rounded up (`ceil_mode`) a window may be larger than what it slides over; it then stands once and sees
all of it. What lies beyond the input counts for nothing, neither in a maximum nor in a mean, so the window that ends
with the input gives the same. Some runtimes refuse the larger one.
"""

from __future__ import annotations

from collections.abc import Sequence

import onnx_ir as ir

from edgec.graph.edit import Editor
from edgec.graph.model import attr, static_shape
from edgec.passes.rewrite import Match, Refusal


class ClipWindow:
    """See the module."""

    name = "clip-window"
    roots = frozenset({"AveragePool", "MaxPool"})

    def match(self, node: ir.Node) -> Match | None:
        """A pool with a window wider than its input on some axis."""
        return Match(node) if _beyond(node) else None

    def check(self, match: Match) -> Refusal | None:
        """No padding on those axes, no dilation, one place for the window."""
        node = match.root
        shape = static_shape(node.outputs[0])
        spatial = len(attr(node, "kernel_shape"))
        pads = attr(node, "pads", (0,) * (2 * spatial))
        for axis in _beyond(node):
            if pads[axis] or pads[axis + spatial]:
                return Refusal(reason="the axis is padded", value=node.outputs[0].name or "")
            if attr(node, "dilations", (1,) * spatial)[axis] != 1:
                return Refusal(reason="the window is dilated", value=node.outputs[0].name or "")
            if shape is None or shape[axis + 2] != 1:
                return Refusal(reason="the window has not one place alone", value=node.outputs[0].name or "")
        return None

    def rewrite(self, match: Match, editor: Editor) -> Sequence[ir.Node]:  # noqa: ARG002 - the protocol's signature
        """The same node with smaller windows; sizes are rounded up only where that still says something."""
        node = match.root
        shape = static_shape(node.inputs[0])
        assert shape is not None
        kernel = list(attr(node, "kernel_shape"))
        strides = list(attr(node, "strides", (1,) * len(kernel)))
        for axis in _beyond(node):
            kernel[axis], strides[axis] = shape[axis + 2], 1
        node.attributes["kernel_shape"] = ir.AttrInt64s("kernel_shape", kernel)
        node.attributes["strides"] = ir.AttrInt64s("strides", strides)
        if kernel == list(shape[2:]) and not any(attr(node, "pads", ())):
            node.attributes.pop("ceil_mode", None)
        return []


def _beyond(node: ir.Node) -> list[int]:
    """Spatial axes on which the window is wider than the input."""
    shape = static_shape(node.inputs[0])
    kernel = attr(node, "kernel_shape", ())
    if shape is None or not attr(node, "ceil_mode", 0) or len(shape) != len(kernel) + 2:
        return []
    return [axis for axis, size in enumerate(kernel) if size > shape[axis + 2]]


WINDOW_RULES = (ClipWindow(),)
