"""What operators with int8 weights beside float data do to what they read: they round it at run time, row by row.

Such kernels take the range of each row as they find it (a row of a matrix product, a whole sample of a convolution) and
round to 255 steps of it. The QDQ model says nothing of this; here it is written out, for judging alone.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from edgec.graph.edit import Editor
from edgec.graph.model import Model, shape_of
from edgec.quantization.run.apply import SCHEME_KEY
from edgec.targets.scheme import Scheme

_STEPS = 255.0


def as_run(model: Model, scheme: Scheme) -> Model:
    """A QDQ model as the target runs it: a copy that rounds at run time, or itself where kernels widen weights."""
    return model if scheme.widened_weights else round_at_run_time(model.clone())


def round_at_run_time(model: Model) -> Model:
    """The model with rounded inputs of its dynamic-range operators; itself, changed in place."""
    editor = Editor(model)
    done: dict[tuple[str, bool], ir.Value] = {}
    for node in model.nodes():
        value = node.inputs[0] if node.inputs else None
        if node.metadata_props.get(SCHEME_KEY) != "dynamic" or value is None or value.dtype != ir.DataType.FLOAT:
            continue
        key = value.name or "", node.op_type == "Conv"
        if key not in done:
            done[key] = rounded_rows(value, node, editor)
        node.replace_input_with(0, done[key])
    return model


def rounded_rows(value: ir.Value, reader: ir.Node, editor: Editor) -> ir.Value:
    """s·round(x / s) with s = (high − low) / 255 of each row, 0 within [low, high] and itself one of the steps."""
    rank = len(shape_of(value))
    axes = tuple(range(1, rank)) if reader.op_type == "Conv" else (rank - 1,)
    new: list[ir.Node] = []

    def add(op_type: str, *inputs: ir.Value, **attributes: int) -> ir.Value:
        node = editor.node(op_type, inputs, attributes, name=f"{value.name}/run-time-{op_type}")
        node.outputs[0].type = value.type
        new.append(node)
        return node.outputs[0]

    over = editor.const(np.asarray(axes, np.int64), f"{value.name}/run-time-axes")
    zero = editor.const(np.zeros((), np.float32), f"{value.name}/run-time-zero")
    steps = editor.const(np.asarray(_STEPS, np.float32), f"{value.name}/run-time-steps")
    tiny = editor.const(np.asarray(1e-30, np.float32), f"{value.name}/run-time-tiny")
    low = add("Min", add("ReduceMin", value, over, keepdims=1), zero)
    high = add("Max", add("ReduceMax", value, over, keepdims=1), zero)
    step = add("Max", add("Div", add("Sub", high, low), steps), tiny)
    result = add("Mul", add("Round", add("Div", value, step)), step)
    result.shape = value.shape
    editor.graph.insert_before(reader, new)
    return result
