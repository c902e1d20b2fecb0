"""Write a plan into the graph as QuantizeLinear and DequantizeLinear: the QDQ model that every backend compiles.

1. A quantized value v becomes v → QuantizeLinear → DequantizeLinear. Quantized nodes read the result; float nodes
   read it too when a quantized node wrote v, else they go on reading v. Nodes of the other width (int8 or int16) read
   a second pair, behind the first.
2. A graph output that a quantized node wrote keeps its name, which goes to the DequantizeLinear; what the node
   writes is renamed to `name/float`.
3. Weights, constant operands and biases become integer initializers behind a DequantizeLinear; float16 weights
   an initializer behind a Cast.
4. Each node carries its scheme in `metadata_props["edgec.scheme"]`: a float node between quantized values
   looks like a quantized one otherwise. Why stands in "edgec.reason", of nodes and of what dequantizes a value.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedNodesPass

from edgec.graph.model import Model, const_of, keep_origin
from edgec.quantization.types import STATIC, NodePlan, QuantPlan, TensorPlan
from edgec.quantization.use_keys import lookup
from edgec.tensors import Array, DType, QParams

#: Node metadata key that carries what the plan decided for the node.
SCHEME_KEY = "edgec.scheme"
#: Node metadata key that carries why: the plan's reason for a node, or for the value that a DequantizeLinear gives.
REASON_KEY = "edgec.reason"

#: Schemes whose nodes read and write int16.
_WIDE = ("int16x8",)


def has_qdq(model: Model) -> bool:
    """True for a model that carries QuantizeLinear or DequantizeLinear already: it is compiled as it is."""
    return any(n.op_type in ("QuantizeLinear", "DequantizeLinear") for n in model.nodes())


def has_float16_weights(model: Model) -> bool:
    """True for a model of a plan that stores some weights in float16."""
    return any(n.metadata_props.get(SCHEME_KEY) == "float16" for n in model.nodes())


def apply_plan(model: Model, plan: QuantPlan) -> Model:
    """The QDQ model. A model that is quantized already comes back as an untouched copy."""
    result = model.clone()
    if has_qdq(model):
        return result
    editor = _Editor(result, plan)
    for node in result.nodes():
        editor.quantize_constants(node)
    for name, tensor_plan in plan.activations.items():
        editor.quantize_value(name, tensor_plan)
    editor.drop_unused()
    return result


def renew(quantized: Model, old: QuantPlan, plan: QuantPlan) -> None:
    """Put the integers of a plan where those of an older one stand in its QDQ model; their parameters are the same."""
    nodes = {node.name: node for node in quantized.nodes() if node.op_type == "DequantizeLinear"}
    for mine, theirs in ((plan.weights, old.weights), (plan.biases, old.biases)):
        for key, entry in mine.items():
            if theirs[key] is not entry and entry.data is not None:
                value = nodes[f"{key}/dequantize"].inputs[0]
                assert value is not None
                value.const_value = ir.Tensor(entry.data, name=value.name)


def without_activation_pairs(model: Model) -> Model:
    """A quantized model with float activations: of each QuantizeLinear → DequantizeLinear pair its range is left.

    Constants keep their integers, so what differs from the model itself is the rounding of activations. Where the
    integers end the values end too: a quantizer that removes a Relu leaves it to them. An output that a pair wrote
    keeps its name.
    """
    result = model.clone()
    for node in result.nodes():
        quantize = node.inputs[0].producer() if node.op_type == "DequantizeLinear" and node.inputs[0] else None
        if quantize is None or quantize.op_type != "QuantizeLinear" or quantize.inputs[0] is None:
            continue
        value, source, last = node.outputs[0], quantize.inputs[0], node
        if (ends := _ends(quantize)) is not None:
            last = _clip(result.graph, source, ends, ir.Value(name=f"{value.name}/held", shape=value.shape))
            result.graph.insert_after(node, last)
            source = last.outputs[0]
        if value.is_graph_output():
            through = ir.node("Identity", [source], outputs=[ir.Value(name=value.name, shape=value.shape)])
            through.outputs[0].type = value.type
            result.graph.insert_after(last, through)
            for i, output in enumerate(result.graph.outputs):
                if output is value:
                    result.graph.outputs[i] = through.outputs[0]
            value.name = f"{value.name}/dequantized"
        ir.convenience.replace_all_uses_with(value, source)
    RemoveUnusedNodesPass()(result.ir)
    return result


def _ends(quantize: ir.Node) -> tuple[float, float] | None:
    """The lowest and highest value that the integers stand for; None where that is not one pair of numbers."""
    scale = const_of(quantize.inputs[1])
    zero = const_of(quantize.inputs[2]) if len(quantize.inputs) > 2 else np.zeros((), np.uint8)
    if scale is None or zero is None or scale.size != 1 or zero.size != 1 or zero.dtype.kind not in "iu":
        return None
    low, high = DType.of(zero).limits
    step, middle = float(scale.item()), int(zero.item())
    return (low - middle) * step, (high - middle) * step


def _clip(graph: ir.Graph, value: ir.Value, ends: tuple[float, float], output: ir.Value) -> ir.Node:
    bounds = []
    for word, end in zip(("low", "high"), ends, strict=True):
        bound = np.asarray(end, value.dtype.numpy() if value.dtype is not None else np.float32)
        name = f"{output.name}/{word}"
        bounds.append(ir.Value(name=name, shape=ir.Shape(()), const_value=ir.tensor(bound, name=name)))
        bounds[-1].dtype = ir.DataType.from_numpy(bound.dtype)
        graph.register_initializer(bounds[-1])
    output.type = value.type
    return ir.node("Clip", [value, *bounds], outputs=[output], name=output.name)


class _Editor:
    """Edits one graph; names of new values and nodes are made of the old ones, and unique."""

    def __init__(self, model: Model, plan: QuantPlan) -> None:
        self.graph = model.graph
        self.plan = plan
        self._values = {v.name: v for v in self.graph.inputs}
        self._values.update({v.name: v for n in self.graph for v in n.outputs})
        self._names = {*self._values, *self.graph.initializers} | {n.name for n in self.graph}
        self._constants: dict[tuple[str, bool], ir.Value] = {}
        self._replaced: dict[str, ir.Value] = {}

    def _fresh(self, name: str) -> str:
        candidate, i = name, 1
        while candidate in self._names:
            candidate, i = f"{name}_{i}", i + 1
        self._names.add(candidate)
        return candidate

    def _initializer(self, name: str, array: Array) -> ir.Value:
        name = self._fresh(name)
        tensor = ir.Tensor(array, name=name)
        value = ir.Value(name=name, shape=ir.Shape(array.shape), type=ir.TensorType(tensor.dtype), const_value=tensor)
        self.graph.register_initializer(value)
        return value

    def _node(self, op: str, name: str, inputs: list[ir.Value], output: ir.Value, **attributes: int) -> ir.Node:
        return ir.node(op, inputs, attributes=attributes, outputs=[output], name=self._fresh(name))

    def _scheme(self, node: ir.Node) -> NodePlan | None:
        return self.plan.nodes.get(node.name or "")

    def quantize_constants(self, node: ir.Node) -> None:
        """Rules 3 and 4 for one node."""
        decided = self._scheme(node)
        if decided is None:
            return
        node.metadata_props[SCHEME_KEY] = decided.scheme
        node.metadata_props[REASON_KEY] = decided.reason
        if decided.scheme == "float32":
            return
        for i, value in enumerate(node.inputs):
            if value is None or const_of(value) is None or value.dtype != ir.DataType.FLOAT:
                continue
            for is_bias, plans in ((True, self.plan.biases), (False, self.plan.weights)):
                found = lookup(plans, value.name or "", node.name or "")
                if found is not None and (is_bias or found[1].dtype is not DType.INT32):
                    node.replace_input_with(i, self._constant(value, found[0], found[1], is_bias, node))
                    break

    def _constant(self, value: ir.Value, key: str, plan: TensorPlan, is_bias: bool, reader: ir.Node) -> ir.Value:
        if (key, is_bias) in self._constants:
            return self._constants[key, is_bias]
        array = const_of(value)
        assert array is not None
        if plan.dtype is DType.FLOAT16:
            stored = self._initializer(f"{key}/float16", array.astype(np.float16))
            out = self._value(f"{key}/cast", value)
            node = self._node("Cast", f"{key}/widen", [stored], out, to=int(ir.DataType.FLOAT))
        else:
            stored = self._initializer(f"{key}/quantized", integers_of(array, plan))
            out = self._value(f"{key}/dequantized", value)
            node = self._dequantize(f"{key}/dequantize", stored, out, plan, self._parameters(key, plan))
        _inherit([node], reader)
        node.metadata_props[REASON_KEY] = plan.reason
        # Constants come first: whatever reads them stands behind.
        self.graph.insert_before(self.graph[0], node)
        self._constants[key, is_bias] = out
        return out

    def _value(self, name: str, like: ir.Value) -> ir.Value:
        return ir.Value(name=self._fresh(name), shape=like.shape, type=ir.TensorType(ir.DataType.FLOAT))

    def _parameters(self, name: str, plan: TensorPlan) -> list[ir.Value]:
        """Scale and zero point initializers. An int32 bias has no zero point: ONNX fixes it to 0."""
        params = plan.qparams
        scale = np.asarray(params.scale, np.float32)
        zero = np.asarray(params.zero_point, plan.dtype.numpy)
        if params.axis is None:
            scale, zero = scale.reshape(()), zero.reshape(())
        values = [self._initializer(f"{name}/scale", scale)]
        if plan.dtype is not DType.INT32:
            values.append(self._initializer(f"{name}/zero_point", zero))
        return values

    def _dequantize(
        self, name: str, q: ir.Value, out: ir.Value, plan: TensorPlan, parameters: list[ir.Value]
    ) -> ir.Node:
        axis = {} if plan.qparams.axis is None else {"axis": plan.qparams.axis}
        return self._node("DequantizeLinear", name, [q, *parameters], out, **axis)

    def quantize_value(self, name: str, plan: TensorPlan) -> None:
        """Rules 1 and 2 for one value."""
        value = self._values[name]
        producer = value.producer()
        decided = None if producer is None else self._scheme(producer)
        by_quantized = decided is not None and decided.scheme in STATIC
        readers = [(n, i) for n, i in value.uses() if by_quantized or self._reads_quantized(n)]
        is_output = value.is_graph_output() and by_quantized
        if is_output:
            value.name = self._fresh(f"{name}/float")
        pair = self._pair(name, value, plan, name if is_output else self._fresh(f"{name}/dq"))
        out = pair[1].outputs[0]
        other = self.plan.requantized.get(name)
        wide = None if other is None else other.dtype is DType.INT16
        elsewhere = [(n, i) for n, i in readers if wide is not None and self._is_wide(n) is wide]
        for node, i in readers:
            node.replace_input_with(i, out)
        if is_output:
            for i, output in enumerate(self.graph.outputs):
                if output is value:
                    self.graph.outputs[i] = out
        self._insert(producer, pair)
        pair[1].metadata_props[REASON_KEY] = plan.reason
        if other is not None and elsewhere:
            second = self._pair(f"{name}/other", out, other, self._fresh(f"{name}/other/dq"))
            for node, i in elsewhere:
                node.replace_input_with(i, second[1].outputs[0])
            self.graph.insert_after(pair[1], second)
            _inherit(second, pair[1])
            second[1].metadata_props[REASON_KEY] = other.reason

    def _pair(self, name: str, value: ir.Value, plan: TensorPlan, out_name: str) -> list[ir.Node]:
        """QuantizeLinear and DequantizeLinear of a value, not yet in the graph."""
        q = ir.Value(name=self._fresh(f"{name}/q"), shape=value.shape, type=ir.TensorType(ir.DataType[plan.dtype.name]))
        out = ir.Value(name=out_name, shape=value.shape, type=ir.TensorType(ir.DataType.FLOAT))
        parameters = self._parameters(name, plan)
        axis = {} if plan.qparams.axis is None else {"axis": plan.qparams.axis}
        quantize = self._node("QuantizeLinear", f"{name}/quantize", [value, *parameters], q, **axis)
        return [quantize, self._dequantize(f"{name}/dequantize", q, out, plan, parameters)]

    def _is_wide(self, node: ir.Node) -> bool | None:
        """Whether a node reads int16; None where it reads floats."""
        decided = self._scheme(node)
        return None if decided is None or decided.scheme not in STATIC else decided.scheme in _WIDE

    def _insert(self, producer: ir.Node | None, new: list[ir.Node]) -> None:
        if producer is None:
            self.graph.insert_before(self.graph[0], new)
            return
        _inherit(new, producer)
        self.graph.insert_after(producer, new)

    def _reads_quantized(self, node: ir.Node) -> bool:
        decided = self._scheme(node)
        return decided is not None and decided.scheme in STATIC

    def drop_unused(self) -> None:
        """Remove float constants that only quantized nodes read."""
        for name, value in list(self.graph.initializers.items()):
            if not value.uses() and not value.is_graph_output() and not value.is_graph_input():
                del self.graph.initializers[name]


def _inherit(new: list[ir.Node], old: ir.Node) -> None:
    """The new nodes come from the same line of the user's; what the plan decided is about `old` alone."""
    keep_origin(new, old)
    for node in new:
        node.metadata_props.pop(SCHEME_KEY, None)
        node.metadata_props.pop(REASON_KEY, None)


def integers_of(array: Array, plan: TensorPlan) -> Array:
    """What a constant is stored as."""
    if plan.data is not None:
        return plan.data
    if plan.dtype is not DType.INT32:
        return plan.qparams.quantize(array, plan.dtype)
    return _quantize_bias(array, plan.qparams)


def _quantize_bias(array: Array, params: QParams) -> Array:
    """Biases in float64: their quotients exceed the 24 bits of float32."""
    scale = np.asarray(params.scale, np.float64)
    low, high = DType.INT32.limits
    return np.clip(np.rint(array.astype(np.float64) / scale), low, high).astype(np.int32)
