"""What changed between opsets, one small function a change; `ADAPTERS` lists them by operator and version.

Attributes that became inputs turn into constants. Most opset changes only add types and need nothing.
Sources: the ONNX changelog (docs/Changelog.md) and ONNX Runtime's behaviour for the old forms.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from edgec.graph.edit import Editor
from edgec.graph.model import attr, const_of
from edgec.passes.old_form import Adapter, NoNewForm
from edgec.tensors import Array


def _int64(values: int | Sequence[int]) -> Array:
    return np.asarray(values, np.int64)


def _set(node: ir.Node, name: str, value: object) -> None:
    node.attributes[name] = ir.convenience.convert_attribute(name, value)  # type: ignore[arg-type]  # ints, strings, tuples


def _take(node: ir.Node, name: str) -> object:
    """Remove an attribute and give its value, or None."""
    value = attr(node, name)
    node.attributes.pop(name, None)
    return value


def _float_type(node: ir.Node) -> np.dtype[np.float32]:
    value = node.inputs[0]
    known = value.dtype if value is not None else None
    return np.dtype(np.float32) if known is None else known.numpy()


def _set_inputs(node: ir.Node, inputs: Sequence[ir.Value | None]) -> None:
    node.resize_inputs(len(inputs))
    for index, value in enumerate(inputs):
        if node.inputs[index] is not value:
            node.replace_input_with(index, value)


def _attribute_to_input(name: str, position: int) -> Adapter:
    """An adapter that moves an integer-list attribute to an input."""

    def adapt(node: ir.Node, editor: Editor) -> None:
        values = _take(node, name)
        if values is None:
            return
        inputs: list[ir.Value | None] = list(node.inputs)
        inputs += [None] * (position + 1 - len(inputs))
        inputs[position] = editor.const(_int64(values), f"{node.name}/{name}")  # type: ignore[arg-type]  # an int list
        _set_inputs(node, inputs)

    return adapt


def _clip_11(node: ir.Node, editor: Editor) -> None:
    low, high = _take(node, "min"), _take(node, "max")
    kind = _float_type(node)
    inputs: list[ir.Value | None] = [node.inputs[0], None, None]
    for index, (name, bound) in enumerate((("min", low), ("max", high)), start=1):
        if bound is not None:
            inputs[index] = editor.const(np.asarray(bound, kind), f"{node.name}/{name}")
    while inputs[-1] is None:
        inputs.pop()
    _set_inputs(node, inputs)


def _pad_11(node: ir.Node, editor: Editor) -> None:
    pads, value = _take(node, "pads"), _take(node, "value")
    fill = editor.const(np.asarray(value or 0.0, _float_type(node)), f"{node.name}/value")
    _set_inputs(node, [node.inputs[0], editor.const(_int64(pads), f"{node.name}/pads"), fill])  # type: ignore[arg-type]  # an int list


def _slice_10(node: ir.Node, editor: Editor) -> None:
    starts, ends, axes = (_take(node, name) for name in ("starts", "ends", "axes"))
    inputs = [node.inputs[0]]
    for name, values in (("starts", starts), ("ends", ends), ("axes", axes)):
        if values is not None:
            inputs.append(editor.const(_int64(values), f"{node.name}/{name}"))  # type: ignore[arg-type]  # an int list
    _set_inputs(node, inputs)


def _topk_10(node: ir.Node, editor: Editor) -> None:
    k = _take(node, "k")
    _set_inputs(node, [node.inputs[0], editor.const(_int64([k]), f"{node.name}/k")])  # type: ignore[list-item]  # an int


def _split_18(node: ir.Node, _editor: Editor) -> None:
    # Without sizes the split was always equal; opset 18 wants the count said.
    if len(node.inputs) < 2 or node.inputs[1] is None:
        _set(node, "num_outputs", len(node.outputs))


def _dropout_12(node: ir.Node, _editor: Editor) -> None:
    # At inference Dropout is the identity whatever its ratio.
    node.attributes.pop("ratio", None)


def _batchnorm_9(node: ir.Node, editor: Editor) -> None:
    if _take(node, "spatial") != 0:
        return
    x, scale, bias, mean, var = node.inputs
    name = node.name or "batchnorm"
    eps = editor.const(np.asarray(attr(node, "epsilon", 1e-5), _float_type(node)), f"{name}/epsilon")
    centred = editor.node("Sub", [x, mean], name=f"{name}/centred")
    shifted = editor.node("Add", [var, eps], name=f"{name}/var")
    deviation = editor.node("Sqrt", [shifted.outputs[0]], name=f"{name}/deviation")
    normal = editor.node("Div", [centred.outputs[0], deviation.outputs[0]], name=f"{name}/normal")
    scaled = editor.node("Mul", [normal.outputs[0], scale], name=f"{name}/scaled")
    result = editor.node("Add", [scaled.outputs[0], bias], name=f"{name}/result")
    _only_first_output(node)
    editor.replace(node, [centred, shifted, deviation, normal, scaled, result], [result.outputs[0]])


def _batchnorm_14(node: ir.Node, _editor: Editor) -> None:
    if node.op_type == "BatchNormalization":
        _only_first_output(node)


def _only_first_output(node: ir.Node) -> None:
    if any(output.uses() or output.is_graph_output() for output in node.outputs[1:]):
        raise NoNewForm("its training outputs are used")
    node.resize_outputs(1)


def _flattened(node: ir.Node, editor: Editor) -> None:
    """Before opset 13 Softmax and its kin ran over all axes from `axis` on, taken as one."""
    x = node.inputs[0]
    assert x is not None
    axis = int(attr(node, "axis", 1))
    rank = None if x.shape is None else len(x.shape)
    _set(node, "axis", -1)
    if axis == -1 or (rank is not None and axis == rank - 1):
        return
    name = node.name or node.op_type
    shape = editor.node("Shape", [x], name=f"{name}/shape")
    flat = editor.node("Flatten", [x], {"axis": axis}, name=f"{name}/flat")
    core = editor.node(node.op_type, [flat.outputs[0]], {"axis": -1}, name=f"{name}/core")
    back = editor.node("Reshape", [core.outputs[0], shape.outputs[0]], name=f"{name}/back")
    editor.replace(node, [shape, flat, core, back], [back.outputs[0]])


def _upsample_10(node: ir.Node, editor: Editor) -> None:
    scales = _take(node, "scales")
    factor = (
        editor.const(np.asarray(scales, np.float32), f"{node.name}/scales") if scales is not None else node.inputs[1]
    )
    mode = str(attr(node, "mode", "nearest"))
    _to_resize(node, editor, factor, "linear" if mode in ("linear", "bilinear") else mode)


def _resize_11(node: ir.Node, editor: Editor) -> None:
    _to_resize(node, editor, node.inputs[1], str(attr(node, "mode", "nearest")))


def _to_resize(node: ir.Node, editor: Editor, scales: ir.Value | None, mode: str) -> None:
    name = node.name or "resize"
    new = editor.node(
        "Resize",
        [node.inputs[0], None, scales],
        {"mode": mode, "coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"},
        name=f"{name}/resize",
    )
    editor.replace(node, [new], [new.outputs[0]])


def _resize_13(node: ir.Node, _editor: Editor) -> None:
    """`tf_half_pixel_for_nn` went: floor((x + ½)/s) is half_pixel rounded half up."""
    if attr(node, "coordinate_transformation_mode") != "tf_half_pixel_for_nn":
        return
    if attr(node, "mode", "nearest") != "nearest" or attr(node, "nearest_mode") != "floor":
        raise NoNewForm("tf_half_pixel_for_nn with other than nearest, floor")
    _set(node, "coordinate_transformation_mode", "half_pixel")
    _set(node, "nearest_mode", "round_prefer_ceil")


def _scatter_11(node: ir.Node, _editor: Editor) -> None:
    node.op_type = "ScatterElements"


def _roi_align_16(node: ir.Node, _editor: Editor) -> None:
    # The default became half_pixel; the old behaviour has this name.
    _set(node, "coordinate_transformation_mode", "output_half_pixel")


def _grid_sample_20(node: ir.Node, _editor: Editor) -> None:
    names = {"bilinear": "linear", "bicubic": "cubic"}
    mode = str(attr(node, "mode", "bilinear"))
    _set(node, "mode", names.get(mode, mode))


def _dft_20(node: ir.Node, editor: Editor) -> None:
    axis = _take(node, "axis")
    length = node.inputs[1] if len(node.inputs) > 1 else None
    constant = editor.const(_int64(1 if axis is None else axis), f"{node.name}/axis")  # type: ignore[arg-type]  # an int
    _set_inputs(node, [node.inputs[0], length, constant])


def _group_norm_21(node: ir.Node, editor: Editor) -> None:
    """Scale and bias went from one a group to one a channel."""
    x = node.inputs[0]
    channels = x.shape[1] if x is not None and x.shape is not None and len(x.shape) > 1 else None
    scale, bias = const_of(node.inputs[1]), const_of(node.inputs[2])
    if not isinstance(channels, int) or scale is None or bias is None:
        raise NoNewForm("its scale is no constant, or its channels are not known")
    groups = int(attr(node, "num_groups"))
    if scale.shape != (groups,) or groups <= 0 or channels % groups:
        raise NoNewForm("its scale does not have one value a group")
    each = channels // groups
    for index, values in ((1, scale), (2, bias)):
        constant = editor.const(np.repeat(values, each), f"{node.name}/{'scale' if index == 1 else 'bias'}")
        node.replace_input_with(index, constant)


def _scan_9(node: ir.Node, editor: Editor) -> None:
    """Scan had a batch axis in front, and sequence lengths; a batch of one is a Scan without it."""
    if node.inputs[0] is not None:
        raise NoNewForm("it has sequence lengths")
    values = [v for v in node.inputs[1:] if v is not None]
    if any(v.shape is None or not len(v.shape) or v.shape[0] != 1 for v in values):
        raise NoNewForm("its batch is not known to be 1")
    directions = _take(node, "directions")
    axis = editor.const(_int64([0]), f"{node.name}/axis")
    inputs = [editor.node("Squeeze", [v, axis], name=f"{node.name}/squeezed") for v in values]
    body = node.attributes.pop("body")
    attributes: dict[str, object] = {name: attr(node, name) for name in node.attributes}
    if directions is not None:
        attributes["scan_input_directions"] = directions
    scan = editor.node(
        "Scan",
        [n.outputs[0] for n in inputs],
        attributes,
        name=f"{node.name}/scan",
        outputs=len(node.outputs),
    )
    scan.attributes["body"] = body
    outputs = [editor.node("Unsqueeze", [v, axis], name=f"{node.name}/batch") for v in scan.outputs]
    editor.replace(node, [*inputs, scan, *outputs], [n.outputs[0] for n in outputs])


_REDUCTIONS = ("L1", "L2", "LogSum", "LogSumExp", "Max", "Mean", "Min", "Prod", "SumSquare")

#: Operator → (first opset of the new form, adapter), in order.
ADAPTERS: dict[str, tuple[tuple[int, Adapter], ...]] = {
    "BatchNormalization": ((9, _batchnorm_9), (14, _batchnorm_14)),
    "Clip": ((11, _clip_11),),
    "DFT": ((20, _dft_20),),
    "Dropout": ((12, _dropout_12),),
    "GridSample": ((20, _grid_sample_20),),
    "GroupNormalization": ((21, _group_norm_21),),
    "Hardmax": ((13, _flattened),),
    "LogSoftmax": ((13, _flattened),),
    "Pad": ((11, _pad_11),),
    "ReduceSum": ((13, _attribute_to_input("axes", 1)),),
    "Resize": ((11, _resize_11), (13, _resize_13)),
    "RoiAlign": ((16, _roi_align_16),),
    "Scan": ((9, _scan_9),),
    "Scatter": ((11, _scatter_11),),
    "Slice": ((10, _slice_10),),
    "Softmax": ((13, _flattened),),
    "Split": ((13, _attribute_to_input("split", 1)), (18, _split_18)),
    "Squeeze": ((13, _attribute_to_input("axes", 1)),),
    "TopK": ((10, _topk_10),),
    "Unsqueeze": ((13, _attribute_to_input("axes", 1)),),
    "Upsample": ((10, _upsample_10),),
} | {f"Reduce{kind}": ((18, _attribute_to_input("axes", 1)),) for kind in _REDUCTIONS}
