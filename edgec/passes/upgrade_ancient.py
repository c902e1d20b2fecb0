"""What changed between opsets 1 and 7, as adapters: exporters of 2017 and 2018 wrote these forms.

1. Arithmetic broadcast only where `broadcast` said so, the second operand's axes beginning at `axis`.
2. Training switches (`is_test`) and buffer hints (`consumed_inputs`) were attributes.
3. Sizes that are inputs now (Reshape, Tile, Upsample) were attributes, types in Cast were names.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from edgec.graph.edit import Editor
from edgec.graph.model import attr
from edgec.passes.old_form import Adapter, NoNewForm

_HINTS = ("consumed_inputs", "is_test", "output_sequence")


def _without_hints(node: ir.Node, _editor: Editor) -> None:  # rule 2
    for name in _HINTS:
        node.attributes.pop(name, None)


def _unsqueezed(node: ir.Node, editor: Editor, position: int, count: int) -> None:
    """Give input `position` that many trailing axes of size 1."""
    value = node.inputs[position]
    if count <= 0 or value is None or value.shape is None:
        return
    rank = len(value.shape)
    axes = editor.const(np.arange(rank, rank + count, dtype=np.int64), f"{node.name}/axes")
    wide = editor.node("Unsqueeze", [value, axes], name=f"{node.name}/aligned")
    assert node.graph is not None
    node.graph.insert_before(node, [wide])
    node.replace_input_with(position, wide.outputs[0])


def _broadcast(node: ir.Node, editor: Editor) -> None:  # rule 1
    _without_hints(node, editor)
    broadcast, axis = attr(node, "broadcast", 0), attr(node, "axis")
    node.attributes.pop("broadcast", None)
    node.attributes.pop("axis", None)
    if not broadcast or axis is None:
        return
    left, right = node.inputs[0], node.inputs[1]
    if left is None or right is None or left.shape is None or right.shape is None:
        raise NoNewForm("it broadcasts along an axis, and the ranks are not known")
    axis = int(axis) + (len(left.shape) if axis < 0 else 0)
    _unsqueezed(node, editor, 1, len(left.shape) - axis - len(right.shape))


def _prelu(node: ir.Node, editor: Editor) -> None:
    """The slope has one value a channel."""
    _without_hints(node, editor)
    x, slope = node.inputs[0], node.inputs[1]
    if x is None or x.shape is None or slope is None or slope.shape is None:
        raise NoNewForm("its rank is not known")
    if len(slope.shape) == 1 and slope.shape[0] != 1:
        _unsqueezed(node, editor, 1, len(x.shape) - 2)


def _gemm(node: ir.Node, _editor: Editor) -> None:
    node.attributes.pop("broadcast", None)


def _size_input(attribute: str) -> Adapter:  # rule 3
    def adapt(node: ir.Node, editor: Editor) -> None:
        _without_hints(node, editor)
        values = attr(node, attribute)
        if values is None:
            return
        del node.attributes[attribute]
        node.resize_inputs(2)
        node.replace_input_with(1, editor.const(np.asarray(values, np.int64), f"{node.name}/{attribute}"))

    return adapt


def _tile(node: ir.Node, _editor: Editor) -> None:
    if len(node.inputs) == 3:
        raise NoNewForm("it repeats along one axis")


def _upsample(node: ir.Node, _editor: Editor) -> None:
    scales = (1.0, 1.0, attr(node, "height_scale"), attr(node, "width_scale"))
    if scales[2] is None:
        return
    del node.attributes["height_scale"], node.attributes["width_scale"]
    node.attributes["scales"] = ir.AttrFloat32s("scales", tuple(float(s) for s in scales))


def _cast(node: ir.Node, _editor: Editor) -> None:
    name = attr(node, "to")
    if isinstance(name, str):
        node.attributes["to"] = ir.AttrInt64("to", int(ir.DataType[name.upper()]))


def _concat(node: ir.Node, _editor: Editor) -> None:
    if "axis" not in node.attributes:
        node.attributes["axis"] = ir.AttrInt64("axis", 1)


def _pad(node: ir.Node, _editor: Editor) -> None:
    if "paddings" in node.attributes:
        node.attributes["pads"] = ir.AttrInt64s("pads", attr(node, "paddings"))
        del node.attributes["paddings"]


_BROADCASTING = ("Add", "And", "Div", "Equal", "Greater", "Less", "Mul", "Or", "Pow", "Sub", "Xor")
_HINTED = [
    "Abs",
    "BatchNormalization",
    "Ceil",
    "Clip",
    "Dropout",
    "Elu",
    "Exp",
    "Floor",
    "GRU",
    "HardSigmoid",
    "InstanceNormalization",
    "LSTM",
    "LeakyRelu",
    "Log",
    "Max",
    "Mean",
    "Min",
    "Neg",
    "RNN",
    "Reciprocal",
    "Relu",
    "Selu",
    "Sigmoid",
    "Sqrt",
    "Sum",
    "Tanh",
]

#: Operator → (first opset of the new form, adapter), in order.
ANCIENT: dict[str, tuple[tuple[int, Adapter], ...]] = {
    **dict.fromkeys(_BROADCASTING, ((7, _broadcast),)),
    **dict.fromkeys(_HINTED, ((7, _without_hints),)),
    "Cast": ((6, _cast),),
    "Concat": ((4, _concat),),
    "Gemm": ((7, _gemm),),
    "PRelu": ((7, _prelu),),
    "Pad": ((2, _pad),),
    "Reshape": ((5, _size_input("shape")),),
    "Tile": ((6, _tile),),
    "Upsample": ((7, _upsample),),
}
