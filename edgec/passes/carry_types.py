"""Let wider types carry what no runtime computes in: bfloat16 and 8-bit floats in float32, 4-bit integers in 8 bits.

1. Inputs and outputs of the model keep their type at the border: the model remembers it (`Model.source_inputs`), and
   who feeds it converts. Every number of the narrow type is one of the wide type, so no input changes.
2. bfloat16 is computed in float32, without rounding between operators, as accelerators do. But what is cast to
   bfloat16 and, moved at most, back is rounded: that is all that such casts are for (`rounding_casts`).
3. A cast to a float of 8 or 4 bits saturates here and is rounded at the border, so it must be an output of the model.
4. Integers of 4 and 2 bits wrap in a cast, and saturate in QuantizeLinear, as ONNX says.

A model with a narrow type that this cannot carry is left as it is, for the backends to refuse.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx_ir as ir

from edgec.graph.build import Builder
from edgec.graph.edit import Editor, all_values
from edgec.graph.model import SOURCE_TYPE, Model, attr
from edgec.passes.rounding_casts import MOVERS, kept_between, only_rounds
from edgec.passes.shapes import infer_node
from edgec.passes.spread import spread

_T = ir.DataType
#: Floats of 8 and 4 bits, and their largest number. FLOAT8E8M0 is not here: its casts round in their own way.
_LARGEST = {
    _T.FLOAT8E4M3FN: 448.0,
    _T.FLOAT8E4M3FNUZ: 240.0,
    _T.FLOAT8E5M2: 57344.0,
    _T.FLOAT8E5M2FNUZ: 57344.0,
    _T.FLOAT4E2M1: 6.0,
}
#: Integers of a few bits: how many, and whether signed.
_FEW_BITS = {_T.INT4: (4, True), _T.UINT4: (4, False), _T.INT2: (2, True), _T.UINT2: (2, False)}
#: Narrow type and what carries it.
CARRIERS: dict[ir.DataType, ir.DataType] = {
    _T.BFLOAT16: _T.FLOAT,
    _T.FLOAT8E8M0: _T.FLOAT,
    **dict.fromkeys(_LARGEST, _T.FLOAT),
    **{kind: _T.INT8 if signed else _T.UINT8 for kind, (_, signed) in _FEW_BITS.items()},
}
_CASTS = frozenset({"Cast", "CastLike", "QuantizeLinear", "DequantizeLinear"})
_TYPE_ATTRIBUTES = ("dtype", "to", "output_dtype", "precision", "stash_type", "softmax_precision")


class CarryTypes:
    """See the module."""

    name = "carry-types"

    def __init__(self, carriers: Mapping[ir.DataType, ir.DataType] | None = None) -> None:
        self._carriers = dict(CARRIERS if carriers is None else carriers)

    def run(self, model: Model) -> bool:
        """Rewrite in place; True when the model had such a type."""
        graphs = list(model.ir.graphs())
        kept = kept_between(model.ir)
        nodes = [n for graph in graphs for n in graph if kept.isdisjoint((*n.inputs[:1], *n.outputs))]
        if not any(self._narrow(v) for v in all_values(model.ir) if v not in kept) and not any(
            self._makes(n) for n in nodes
        ):
            return False
        for node in nodes:
            if any(output.dtype is None for output in node.outputs):
                infer_node(node, dict(model.ir.opset_imports))
        if not all(self._carried(node) for node in nodes):
            return False
        editor = Editor(model)
        for node in nodes:
            self._rewrite(node, editor)
        kept = kept_between(model.ir)
        for value in list(all_values(model.ir)):
            if value not in kept:
                self._retype(value, model)
        return True

    def _narrow(self, value: ir.Value | None) -> bool:
        return value is not None and value.dtype in self._carriers

    def _makes(self, node: ir.Node) -> bool:
        return any(attr(node, name) in self._carriers for name in _TYPE_ATTRIBUTES if name in node.attributes)

    def _carried(self, node: ir.Node) -> bool:
        kinds = {v.dtype for v in (*node.inputs, *node.outputs) if v is not None and self._narrow(v)}
        if not kinds:
            return True
        if node.op_type == "BitCast":
            return False
        small = kinds - {_T.BFLOAT16, _T.DOUBLE}
        if small and (node.domain != "" or node.op_type not in _CASTS | MOVERS):
            return False
        made = node.outputs[0]
        if node.op_type not in _CASTS or made.dtype not in small:
            return True
        if made.dtype in _FEW_BITS:
            return True
        return made.dtype in _LARGEST and made.is_graph_output() and not made.uses()  # rule 3

    def _rewrite(self, node: ir.Node, editor: Editor) -> None:
        x, made = node.inputs[0] if node.inputs else None, node.outputs[0]
        if node.op_type in ("Cast", "CastLike") and (self._narrow(x) or self._narrow(made)):
            _cast(node, made.dtype or _T.FLOAT, editor, self._carriers)
        elif node.op_type == "QuantizeLinear" and self._narrow(made):
            _quantize(node, editor, self._carriers)
        elif node.op_type == "DequantizeLinear" and x is not None and x.dtype in (*_LARGEST, _T.FLOAT8E8M0):
            _dequantize(node, editor)
        else:
            self._map_attributes(node)

    def _map_attributes(self, node: ir.Node) -> None:
        for name, attribute in list(node.attributes.items()):
            if name in _TYPE_ATTRIBUTES and attribute.value in self._carriers:
                node.attributes[name] = ir.AttrInt64(name, int(self._carriers[_T(attribute.value)]))
            elif attribute.type == ir.AttributeType.TENSOR and attribute.as_tensor().dtype in self._carriers:
                node.attributes[name] = ir.AttrTensor(name, self._converted(attribute.as_tensor()))

    def _converted(self, tensor: ir.TensorProtocol) -> ir.TensorProtocol:
        carrier = self._carriers[tensor.dtype]
        return ir.Tensor(np.asarray(tensor.numpy()).astype(carrier.numpy()), name=tensor.name)

    def _retype(self, value: ir.Value, model: Model) -> None:
        kind = value.dtype
        if kind is None or kind not in self._carriers:
            return
        if value.graph is model.graph and (value.is_graph_input() or value.is_graph_output()):  # rule 1
            model.ir.metadata_props.setdefault(SOURCE_TYPE + (value.name or ""), kind.numpy().name)
        if value.const_value is not None:
            value.const_value = self._converted(value.const_value)
        carrier = self._carriers[kind]
        if isinstance(value.type, ir.TensorType):
            value.type = ir.TensorType(carrier)
        elif isinstance(value.type, ir.SequenceType):
            value.type = ir.SequenceType(ir.TensorType(carrier))


def _cast(node: ir.Node, kind: ir.DataType, editor: Editor, carriers: Mapping[ir.DataType, ir.DataType]) -> None:
    b, x = Builder(editor, node), node.inputs[0]
    to = int(carriers.get(kind, kind))
    if kind == _T.BFLOAT16 and x is not None and x.dtype != kind and only_rounds(node):  # rule 2
        b.done(b("Cast", b("Cast", b("Cast", x, to=to), to=int(kind)), to=to))
        return
    if kind in _FEW_BITS:  # rule 4
        bits, signed = _FEW_BITS[kind]
        low = b("BitwiseAnd", b("Cast", x, to=int(_T.INT32)), np.asarray((1 << bits) - 1, np.int32))
        if signed:
            sign = np.asarray(1 << (bits - 1), np.int32)
            low = b("Sub", b("BitwiseXor", low, sign), sign)
        b.done(b("Cast", low, to=to))
        return
    wide = b("Cast", x, to=to)
    b.done(_saturated(b, wide, kind) if kind in _LARGEST and attr(node, "saturate", 1) else wide)


def _saturated(b: Builder, x: ir.Value, kind: ir.DataType) -> ir.Value:
    """No larger than the largest number. NaN stays NaN (which runtimes' Clip need not promise), or is −0 in 4 bits."""
    largest = np.asarray(_LARGEST[kind], np.float32)
    within = b("Max", b("Min", x, largest), np.asarray(-_LARGEST[kind], np.float32))
    nothing = np.asarray(-0.0, np.float32) if kind == _T.FLOAT4E2M1 else x
    return b("Where", b("IsNaN", x), nothing, within)


def _quantize(node: ir.Node, editor: Editor, carriers: Mapping[ir.DataType, ir.DataType]) -> None:
    b, kind = Builder(editor, node), node.outputs[0].dtype
    assert kind is not None
    axis, block = int(attr(node, "axis", 1)), int(attr(node, "block_size", 0))
    if kind in _LARGEST:
        real = b("Cast", node.inputs[0], to=int(_T.FLOAT))
        quotient = b("Div", real, spread(b, node.inputs[1], node, axis, block, int(_T.FLOAT)))
        b.done(_saturated(b, quotient, kind) if attr(node, "saturate", 1) else b("Identity", quotient))
        return
    bits, signed = _FEW_BITS[kind]
    attributes = {name: attr(node, name) for name in node.attributes if name not in ("output_dtype", "saturate")}
    inputs = list(node.inputs)
    if len(inputs) < 3 or inputs[2] is None:
        attributes["output_dtype"] = int(carriers[kind])
    made = b("QuantizeLinear", *inputs, **attributes)
    low = -(1 << (bits - 1)) if signed else 0
    wide = b("Cast", made, to=int(_T.INT32))  # few runtimes clip 8-bit numbers
    wide = b("Min", b("Max", wide, np.asarray(low, np.int32)), np.asarray(low + (1 << bits) - 1, np.int32))
    b.done(b("Cast", wide, to=int(carriers[kind])))


def _dequantize(node: ir.Node, editor: Editor) -> None:
    """(x − zero point) · scale, in the scale's type"""
    b, scale = Builder(editor, node), node.inputs[1]
    kind = scale.dtype if scale is not None and scale.dtype is not None else _T.FLOAT
    to = int(_T.FLOAT if kind == _T.BFLOAT16 else kind)
    axis, block = int(attr(node, "axis", 1)), int(attr(node, "block_size", 0))
    x = b("Cast", node.inputs[0], to=to)
    if len(node.inputs) > 2 and node.inputs[2] is not None:
        x = b("Sub", x, spread(b, node.inputs[2], node, axis, block, to))
    b.done(b("Mul", x, spread(b, scale, node, axis, block, to)))
