"""Lower an ONNX graph to TIR, node by node; what cannot be lowered becomes a finding, and the walk goes on.

Quantize / dequantize pairs do not become operators: they annotate the tensor between them with its storage.
1. DequantizeLinear of a constant is a constant with integer storage.
2. QuantizeLinear → DequantizeLinear on a value that nobody else reads annotates the value itself.
3. On a value that is also read in float, it becomes a QUANTIZE to a second, annotated tensor.
4. DequantizeLinear of an integer input annotates that input; an integer output is the annotated tensor.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx_ir as ir

from edgec.backends.tflite.context import Context, Refusal
from edgec.backends.tflite.ops import all_lowerings
from edgec.backends.tflite.tir import Graph, Op, Storage, Tensor
from edgec.errors import EdgecError, Finding
from edgec.graph.model import Model, attr, const_of, dtype_of, label, origin, shape_of
from edgec.tensors import Array, DType, QParams

#: Taken by this module itself, see above.
QUANTIZERS = frozenset({"QuantizeLinear", "DequantizeLinear"})


#: Operators whose result's size depends on the data; as graph outputs LiteRT sizes them at run time.
DYNAMIC_OUTPUTS = frozenset({"NonZero", "Compress", "Unique", "NonMaxSuppression", "Range", "Slice"})


def lower(model: Model) -> tuple[Graph, list[Finding]]:
    """TIR of a model's main graph, and findings for every node that TFLite cannot express."""
    ctx = Context(graph=Graph(name="main"), opset=model.opset)
    findings: list[Finding] = []
    for value in model.graph.inputs:
        if value.is_initializer():
            continue
        t = Tensor(name=value.name or "input", shape=shape_of(value), dtype=dtype_of(value))
        if any(d < 0 for d in t.shape):
            findings.append(_dynamic(value))
            t.shape = tuple(max(d, 1) for d in t.shape)
        ctx.values[value] = t
        ctx.graph.inputs.append(t)
    for value in model.graph.initializers.values():
        data = const_of(value)
        if data is not None and data.dtype.name in set(DType):
            ctx.values[value] = _initializer(value.name or "const", data)
    for node in model.nodes():
        _lower_node(ctx, node, findings)
    ctx.node = None
    for value in model.graph.outputs:
        ctx.graph.outputs.append(_output(ctx, value))
    return ctx.graph, findings


def _initializer(name: str, data: Array) -> Tensor:
    return Tensor(name=name, shape=tuple(data.shape), dtype=DType.of(data), data=data)


def trial_input(value: ir.Value) -> Tensor:
    """A value as a tensor outside of any graph: its constant, or a stand-in."""
    data = const_of(value)
    if data is not None and data.dtype.name in set(DType):
        return _initializer(value.name or "const", data)
    return Tensor(name=value.name or "value", shape=shape_of(value), dtype=dtype_of(value))


def _dynamic(value: ir.Value) -> Finding:
    return Finding(
        code="backend/dynamic-shape",
        message=f"input {value.name!r} has a free dimension",
        where=value.name or "",
        rule="static-shape",
        hint=f"fix it with --input {value.name}:…",
    )


def _output(ctx: Context, value: ir.Value) -> Tensor:
    """The tensor of a graph output, under the output's own name."""
    t = ctx.values[value]
    if t in ctx.graph.inputs or t in ctx.graph.outputs or t.is_const:
        # an output must be computed: copy what is only passed through
        ctx.graph.ops.append(_copy_op(ctx, t, value))
        return ctx.graph.ops[-1].outputs[0]
    t.name = value.name or t.name
    return t


def _copy_op(ctx: Context, t: Tensor, value: ir.Value) -> Op:
    out = Tensor(name=value.name or "output", shape=t.shape, dtype=t.dtype, storage=t.storage)
    shape = np.asarray(t.shape, np.int32)
    return Op(kind="RESHAPE", inputs=[t, ctx.int32(shape)], outputs=[out], options={"newShape": shape})


def _lower_node(ctx: Context, node: ir.Node, findings: list[Finding]) -> None:
    ctx.node = node
    mark = len(ctx.graph.ops)
    try:
        if node.op_type in QUANTIZERS and node.domain in ("", "ai.onnx"):
            results = [_quantize(ctx, node) if node.op_type == "QuantizeLinear" else _dequantize(ctx, node)]
        else:
            results = dispatch(ctx, node)
        for value, t in zip(node.outputs, results, strict=False):
            ctx.values[value] = t
            if t.data is None and t not in ctx.graph.inputs:
                t.name = value.name or t.name
    except Refusal as refusal:
        findings.append(_refused(node, refusal.rule, refusal.message, refusal.hint))
    except EdgecError as error:
        findings.append(replace(error.finding, where=label(node), source=origin(node)))
    if any(v not in ctx.values for v in node.outputs if v.name):
        del ctx.graph.ops[mark:]
        _placeholders(ctx, node)


def dispatch(ctx: Context, node: ir.Node) -> list[Tensor]:
    """Lower one node: the tensors of its outputs. Raises Refusal, or EdgecError where a type has no name."""
    table = all_lowerings()
    if node.domain not in ("", "ai.onnx") or node.op_type not in table:
        name = node.op_type if not node.domain else f"{node.domain}.{node.op_type}"
        raise Refusal("operator", f"operator {name} has no TFLite equivalent", "see docs/ops.md for what is supported")
    empty = _empty_outputs(ctx, node)
    if empty is not None:
        return empty
    for value in node.outputs:
        dynamic = value.name and value.shape is not None and not value.shape.is_static()
        if dynamic and not (node.op_type in DYNAMIC_OUTPUTS and value.is_graph_output() and not value.uses()):
            raise Refusal("dynamic-shape", f"the shape of {value.name!r} is only known when the model runs")
    result = table[node.op_type](ctx, node)
    results = result if isinstance(result, list) else [result]
    for position, value in enumerate(node.outputs[len(results) :], len(results)):
        if value.name and (value.uses() or value.is_graph_output()):
            raise Refusal("outputs", f"output {position} of {node.op_type} has no TFLite form")
    return results


def _empty_outputs(ctx: Context, node: ir.Node) -> list[Tensor] | None:
    """Outputs without elements need no operator; None when there is one that has elements."""
    named = [v for v in node.outputs if v.name]
    if not named or not all(v.shape is not None and v.dtype is not None and 0 in v.shape for v in named):
        return None
    return [
        ctx.constant(np.zeros([max(d, 0) for d in shape_of(v)]), dtype_of(v))
        if v.name
        else ctx.constant(0, DType.FLOAT32)
        for v in node.outputs
    ]


def _refused(node: ir.Node, rule: str, message: str, hint: str) -> Finding:
    return Finding(
        code="backend/unsupported-op" if rule == "operator" else "backend/unsupported",
        message=message,
        where=label(node),
        source=origin(node),
        rule=f"tflite/{rule}",
        hint=hint or "change the layer, or build with --backend openvino",
    )


def _placeholders(ctx: Context, node: ir.Node) -> None:
    """Stand-ins for a refused node's outputs, so that the nodes after it are examined too."""
    for value in node.outputs:
        if value in ctx.values:
            continue
        try:
            shape, dtype = shape_of(value), dtype_of(value)
        except EdgecError:
            shape, dtype = (), DType.FLOAT32
        ctx.values[value] = Tensor(name=value.name or "refused", shape=shape, dtype=dtype)


# --- quantization -------------------------------------------------------------------------------------


def _storage(ctx: Context, node: ir.Node, dtype: DType, rank: int) -> Storage:
    """Scale and zero point of a Q or DQ node. uint8 becomes int8 with a shifted zero point."""
    scale = ctx.const(ctx.tensor(node.inputs[1]), "scale").astype(np.float32)
    has_zero = len(node.inputs) > 2 and node.inputs[2] is not None
    zero = ctx.const(ctx.tensor(node.inputs[2]), "zero point") if has_zero else np.zeros_like(scale, np.int64)
    zeros = zero.astype(np.int64).reshape(-1) - (128 if dtype == DType.UINT8 else 0)
    if attr(node, "block_size", 0):
        raise Refusal("blocked", "blocked quantization has no TFLite form")
    axis = None
    if scale.size > 1:
        axis = attr(node, "axis", 1)
        axis = axis + rank if axis < 0 else axis
    scales = scale.reshape(-1)
    if not (np.all(np.isfinite(scales)) and np.all(scales > 0)):
        raise Refusal("scale", "quantization scales must be positive and finite")
    if axis is not None and np.any(zeros):
        raise Refusal("zero-point", "per-channel quantization must be symmetric (zero point 0)")
    return Storage(
        DType.INT8 if dtype == DType.UINT8 else dtype,
        QParams(scale=tuple(scales.tolist()), zero_point=tuple(zeros.tolist()), axis=axis),
    )


def _quantize(ctx: Context, node: ir.Node) -> Tensor:
    value = node.inputs[0]
    x = ctx.tensor(value)
    dtype = dtype_of(node.outputs[0])
    if dtype not in (DType.INT8, DType.UINT8, DType.INT16):
        raise Refusal("dtype", f"QuantizeLinear to {dtype} has no TFLite form")
    storage = _storage(ctx, node, dtype, x.rank)
    assert value is not None
    alone = len(value.uses()) == 1 and not value.is_graph_output()
    fresh = x.storage is None and x.data is None and x not in ctx.graph.inputs
    if alone and fresh:  # rule 2
        x.storage = storage
        return x
    if x.storage == storage:
        return x
    out = ctx.new(x.shape, x.dtype, "quantized")  # rule 3
    out.storage = storage
    ctx.emit_multi("QUANTIZE", [x], [out])
    return out


def _dequantize(ctx: Context, node: ir.Node) -> Tensor:
    x = ctx.tensor(node.inputs[0])
    if x.storage is not None:  # the pair of rule 2 or 3
        return x
    if x.dtype not in (DType.INT8, DType.UINT8, DType.INT16, DType.INT32):
        raise Refusal("dtype", f"DequantizeLinear of {x.dtype} has no TFLite form")
    storage = _storage(ctx, node, x.dtype, x.rank)
    if x.data is not None:  # rule 1
        data = x.data if x.dtype != DType.UINT8 else (x.data.astype(np.int16) - 128).astype(np.int8)
        return Tensor(name=x.name, shape=x.shape, dtype=DType.FLOAT32, data=data, storage=storage)
    if x in ctx.graph.inputs and x.dtype == storage.dtype:  # rule 4
        x.dtype, x.storage = DType.FLOAT32, storage
        return x
    raise Refusal("dequantize", "DequantizeLinear of a computed integer has no TFLite form")
