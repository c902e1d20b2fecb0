"""Prepare a model for OpenVINO's importer: write what it reads well, and name what it reads wrongly.

1. A bias in int32 behind a DequantizeLinear becomes the float32 constant that it stands for: the plugin adds the
   bias in float32 either way, and the importer would leave its arithmetic in the graph, to run every time.
2. What the importer accepts and computes wrongly (measured on ONNX's own node tests) is refused.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx_ir as ir

from edgec.errors import Finding
from edgec.graph.edit import Editor
from edgec.graph.model import Model, attr, const_of, label, origin
from edgec.tensors import Array


def fold_biases(model: Model) -> None:
    """Rule 1, in place."""
    editor = Editor(model)
    for node in model.nodes():
        if node.op_type != "DequantizeLinear" or node.inputs[0] is None:
            continue
        quantized, scale = const_of(node.inputs[0]), const_of(node.inputs[1])
        if quantized is None or scale is None or quantized.dtype != np.int32 or node.outputs[0].is_graph_output():
            continue
        real = editor.const(_dequantized(quantized, scale, attr(node, "axis", 1)), f"{node.outputs[0].name}/folded")
        node.outputs[0].replace_all_uses_with(real)
        model.graph.remove(node, safe=True)
    used = {id(v) for n in model.ir.graph.all_nodes() for v in n.inputs} | {id(v) for v in model.graph.outputs}
    for name, value in list(model.graph.initializers.items()):
        if id(value) not in used and not value.is_graph_input():
            del model.graph.initializers[name]


def _dequantized(quantized: Array, scale: Array, axis: int) -> Array:
    if scale.size > 1:
        shape = [1] * quantized.ndim
        shape[axis] = -1
        scale = scale.reshape(shape)
    else:
        scale = scale.reshape(())
    return (quantized.astype(np.float32) * scale).astype(np.float32)


def _antialias(node: ir.Node) -> str:
    return "antialiasing is ignored" if attr(node, "antialias", 0) else ""


def _exclude_outside(node: ir.Node) -> str:
    return "exclude_outside is ignored" if attr(node, "exclude_outside", 0) else ""


def _aspect_ratio(node: ir.Node) -> str:
    policy = attr(node, "keep_aspect_ratio_policy", "stretch")
    return "" if policy == "stretch" else f"keep_aspect_ratio_policy={policy} is ignored"


#: Rule 2: operator, and what says why a node of it would be computed wrongly (empty: it would not).
WRONG: tuple[tuple[str, Callable[[ir.Node], str]], ...] = (
    ("Resize", _antialias),
    ("Resize", _exclude_outside),
    ("Resize", _aspect_ratio),
)


def wrong_nodes(model: Model) -> list[Finding]:
    """Rule 2: an error for each node that OpenVINO would compute wrongly."""
    return [
        Finding(
            code="backend/unsupported",
            message=f"OpenVINO would compute this {op} wrongly: {reason}",
            where=label(node),
            source=origin(node),
            hint="build with --backend tflite, or change the operator in the source model",
        )
        for node in model.nodes()
        for op, why in WRONG
        if node.op_type == op and node.domain in ("", "ai.onnx") and (reason := why(node))
    ]
