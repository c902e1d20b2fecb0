"""Prepare a model for OpenVINO's importer: write what it reads well, and name what it reads wrongly.

1. What the importer lacks or computes wrongly is taken apart where ONNX or the compiler knows how.
2. What it accepts and computes wrongly otherwise (measured on ONNX's own node tests) is refused.
3. A bias in int32 behind a DequantizeLinear becomes the float32 constant that it stands for: the plugin adds the
   bias in float32 either way, and the importer would leave its arithmetic in the graph, to run every time.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx_ir as ir

from edgec.backends.openvino.importer import imported
from edgec.errors import EdgecError, Finding
from edgec.graph.edit import Editor
from edgec.graph.model import Model, attr, const_of, label, origin, shape_of
from edgec.passes.decompose import can_decompose, decompose
from edgec.tensors import Array


def take_apart(model: Model) -> Model:
    """Rule 1: a new model."""
    lacking = _unreadable(model)

    def wanted(node: ir.Node) -> bool:
        if not can_decompose(node.op_type, model.ir.opset_imports.get(node.domain, 1), node.domain):
            return False
        return (node.name or "") in lacking or bool(_why_wrong(node))

    return decompose(model, wanted)


def _unreadable(model: Model) -> set[str]:
    try:
        with imported(model):
            return set()
    except EdgecError as error:
        return {finding.where for finding in error.findings}


def fold_biases(model: Model) -> None:
    """Rule 3, in place."""
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


def _uneven_corners(node: ir.Node) -> str:
    """With align_corners ONNX spreads over input size × scale, OpenVINO over that rounded down."""
    given = node.inputs[2] if len(node.inputs) > 2 else None
    if attr(node, "coordinate_transformation_mode", "half_pixel") != "align_corners" or given is None:
        return ""
    scales = const_of(given)
    if scales is None:
        return "align_corners with scales that are computed at run time"
    if not scales.size or node.inputs[0] is None or node.inputs[0].shape is None:
        return ""
    sizes = np.asarray(shape_of(node.inputs[0])) * scales.astype(np.float64)
    uneven = bool(np.any(np.abs(sizes - np.rint(sizes)) > 1e-6))
    return "align_corners with scales that do not divide the size" if uneven else ""


def _batchwise(node: ir.Node) -> str:
    return "layout=1 (batch first) is ignored" if attr(node, "layout", 0) else ""


def _peepholes(node: ir.Node) -> str:
    return "its peephole weights are ignored" if len(node.inputs) > 7 and node.inputs[7] is not None else ""


def _max_mode(node: ir.Node) -> str:
    return "mode=max takes the largest sample, not the largest weighted one" if attr(node, "mode") == "max" else ""


def _attention_window(node: ir.Node) -> str:
    sizes = [attr(node, key, -1) for key in ("left_window_size", "right_window_size", "local_window_size")]
    if any(size is not None and size >= 0 for size in sizes):
        return "the attention window is ignored"
    products = node.outputs[3] if len(node.outputs) > 3 else None
    read = products is not None and (products.is_graph_output() or bool(products.uses()))
    return "its fourth output lacks the causal mask" if read and attr(node, "is_causal", 0) else ""


def _repeats(node: ir.Node) -> str:
    return "" if const_of(node.inputs[1]) is not None else "repeats that are computed at run time"


#: Rule 2: operator, and what says why a node of it would be computed wrongly (empty: it would not).
WRONG: tuple[tuple[str, Callable[[ir.Node], str]], ...] = (
    ("Resize", _antialias),
    ("Resize", _exclude_outside),
    ("Resize", _aspect_ratio),
    ("Resize", _uneven_corners),
    ("RNN", _batchwise),
    ("LSTM", _batchwise),
    ("GRU", _batchwise),
    ("LSTM", _peepholes),
    ("RoiAlign", _max_mode),
    ("Attention", _attention_window),
    ("Tile", _repeats),
)


def wrong_nodes(model: Model) -> list[Finding]:
    """Rule 2: an error for each node that OpenVINO would compute wrongly."""
    return [
        Finding(
            code="backend/unsupported",
            message=f"OpenVINO would compute this {node.op_type} wrongly: {reason}",
            where=label(node),
            source=origin(node),
            hint="build with --backend tflite, or change the operator in the source model",
        )
        for node in model.nodes()
        for reason in _why_wrong(node)
    ]


def _why_wrong(node: ir.Node) -> list[str]:
    if node.domain not in ("", "ai.onnx"):
        return []
    return [reason for op, why in WRONG if node.op_type == op and (reason := why(node))]
