"""Prepare a model for OpenVINO's importer: write what it reads well, and name what it reads wrongly.

1. What the importer lacks or computes wrongly is taken apart where ONNX or the compiler knows how.
2. What it accepts and computes wrongly otherwise (measured on ONNX's own node tests) is refused.
3. A bias in int32 behind a DequantizeLinear becomes the float32 constant that it stands for: the plugin adds the
   bias in float32 either way, and the importer would leave its arithmetic in the graph, to run every time.
4. The plugin computes float64 in float32, and turns infinities into large numbers on the way: float32 carries it.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx_ir as ir

from edgec.backends.openvino.importer import imported
from edgec.backends.openvino.parameters import adjust
from edgec.backends.openvino.wrong import why_wrong
from edgec.errors import EdgecError
from edgec.graph.edit import Editor
from edgec.graph.model import Model, attr, const_of
from edgec.passes.base import run_passes
from edgec.passes.carry_types import CarryTypes
from edgec.passes.decompose import can_decompose, decompose
from edgec.passes.eliminate import Eliminate
from edgec.passes.fold_constants import FoldConstants
from edgec.tensors import Array

#: Operators whose subgraphs are control flow; a subgraph of any other is part of the operator's definition.
_CONTROL = frozenset({"If", "Loop", "Scan"})
#: Parts may themselves be lacking.
_ROUNDS = 4


def take_apart(model: Model) -> Model:
    """Rules 1 and 4: a new model."""
    model = model.clone()
    if CarryTypes({ir.DataType.DOUBLE: ir.DataType.FLOAT}).run(model):  # rule 4
        run_passes(model, (FoldConstants(), Eliminate()), rounds=2)
    adjust(model)
    done: set[str] = set()
    for _ in range(_ROUNDS):
        lacking = _unreadable(model) - done
        done |= lacking
        wanted = _wanted(model, lacking)
        if any(wanted(node) for node in model.ir.graph.all_nodes()):
            model = decompose(model, wanted)
            adjust(model)
        if not lacking:
            break
    return model


def _wanted(model: Model, lacking: set[str]) -> Callable[[ir.Node], bool]:
    def wanted(node: ir.Node) -> bool:
        if not can_decompose(node.op_type, model.ir.opset_imports.get(node.domain, 1), node.domain):
            return False
        return (node.name or "") in lacking or bool(why_wrong(node)) or _defined_by_graphs(node)

    return wanted


def _defined_by_graphs(node: ir.Node) -> bool:
    graphs = any(a.type in (ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS) for a in node.attributes.values())
    return graphs and node.op_type not in _CONTROL


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
