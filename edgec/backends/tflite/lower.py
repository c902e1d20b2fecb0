"""Lower an ONNX graph to TIR, node by node; what cannot be lowered becomes a finding, and the walk goes on.

Quantize / dequantize pairs do not become operators, see `pairs`.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx_ir as ir

from edgec.backends.tflite.context import Context, Refusal
from edgec.backends.tflite.control import CONTROL, lower_control
from edgec.backends.tflite.ops import all_lowerings
from edgec.backends.tflite.ops.double import stays_double
from edgec.backends.tflite.pairs import QUANTIZERS, lower_quantizer
from edgec.backends.tflite.tir import Graph, Op, Tensor
from edgec.errors import EdgecError, Finding
from edgec.graph.model import Model, const_of, dtype_of, label, origin, shape_of
from edgec.tensors import Array, DType

#: Operators whose result's size depends on the data: LiteRT sizes it at run time.
DYNAMIC_OUTPUTS = frozenset({"NonZero", "Compress", "Unique", "NonMaxSuppression", "Range"})
#: What may follow them: these lowerings work with sizes that are not known.
DYNAMIC_THROUGH = frozenset({
    "Abs", "Add", "And", "Cast", "Ceil", "Clip", "Concat", "Cos", "Div", "Elu", "Equal", "Erf", "Exp", "Flatten",
    "Floor", "Gather", "GatherND", "Gelu", "Greater", "GreaterOrEqual", "HardSwish", "Identity", "LeakyRelu",
    "Less", "LessOrEqual", "Log", "Max", "Min", "Mod", "Mul", "Neg", "Not", "Or", "Pow", "Reciprocal", "Relu",
    "Reshape", "Round", "Sigmoid", "Sign", "Sin", "Slice", "Softplus", "Softsign", "Sqrt", "Squeeze", "Sub", "Tanh",
    "Transpose", "Unsqueeze", "Where",
})  # fmt: skip


def lower(model: Model, *, narrow: bool = False) -> tuple[Graph, list[Finding]]:
    """TIR of a model's main graph, and findings for every node that TFLite cannot express.

    `narrow`: the runtime has no kernels for float64, which is computed in float32 then.
    """
    ctx = Context(graph=Graph(name="main"), opset=model.opset, double=not narrow and stays_double(model))
    findings: list[Finding] = []
    for value in model.graph.inputs:
        if value.is_initializer():
            continue
        if not isinstance(value.type, ir.TensorType):
            findings.append(_no_tensor(value))
            continue
        t = Tensor(name=value.name or "input", shape=shape_of(value), dtype=dtype_of(value))
        if any(d < 0 for d in t.shape):
            findings.append(_dynamic(value))
            t.shape = tuple(max(d, 1) for d in t.shape)
        ctx.values[value] = t
        ctx.graph.inputs.append(t)
    for value in model.graph.initializers.values():
        data = const_of(value)
        if data is not None and _storable(data):
            ctx.values[value] = _initializer(value.name or "const", data)
    for node in model.nodes():
        _lower_node(ctx, node, findings)
    ctx.node = None
    for value in model.graph.outputs:
        if not isinstance(value.type, ir.TensorType):
            findings.append(_no_tensor(value))
            continue
        ctx.graph.outputs.append(_output(ctx, value))
    return ctx.graph, findings


def _storable(data: Array) -> bool:
    return data.dtype.name in set(DType) or data.dtype.kind in "OST"


def _initializer(name: str, data: Array) -> Tensor:
    if data.dtype.kind in "OST":
        texts = [t.decode() if isinstance(t, bytes) else str(t) for t in data.reshape(-1)]
        array = np.asarray([*texts, None], object)[:-1].reshape(data.shape)
        return Tensor(name=name, shape=tuple(data.shape), dtype=DType.STRING, data=array)
    return Tensor(name=name, shape=tuple(data.shape), dtype=DType.of(data), data=data)


def trial_input(value: ir.Value) -> Tensor:
    """A value as a tensor outside of any graph: its constant, or a stand-in."""
    data = const_of(value)
    if data is not None and _storable(data):
        return _initializer(value.name or "const", data)
    return Tensor(name=value.name or "value", shape=shape_of(value), dtype=dtype_of(value))


def _no_tensor(value: ir.Value) -> Finding:
    return Finding(
        code="backend/unsupported",
        message=f"{value.name!r} is a sequence or an optional; TFLite models take and give tensors",
        where=value.name or "",
        rule="tflite/tensor-io",
        hint="take the elements out in the model itself, and give each as an input or output",
    )


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
    if any(v in ctx.blind for v in node.inputs if v is not None):
        _placeholders(ctx, node)
        ctx.blind.update(node.outputs)
        return
    try:
        if node.op_type in QUANTIZERS and node.domain in ("", "ai.onnx"):
            results = [lower_quantizer(ctx, node)]
        elif node.op_type in CONTROL and node.domain in ("", "ai.onnx"):
            results = lower_control(ctx, node, _walk)
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


def _walk(ctx: Context, graph: ir.Graph) -> None:
    """Lower the nodes of a subgraph. Raises Refusal for the first that cannot be."""
    findings: list[Finding] = []
    for value in graph.initializers.values():
        ctx.values[value] = trial_input(value)
    for node in graph:
        _lower_node(ctx, node, findings)
        if findings:
            first = findings[0]
            raise Refusal(
                first.rule.removeprefix("tflite/") or "subgraph", f"inside of it, {first.message}", first.hint
            )


def dispatch(ctx: Context, node: ir.Node) -> list[Tensor]:
    """Lower one node: the tensors of its outputs. Raises Refusal, or EdgecError where a type has no name."""
    table = all_lowerings()
    name = node.op_type if node.domain in ("", "ai.onnx") else f"{node.domain}.{node.op_type}"
    if name not in table:
        raise Refusal("operator", f"operator {name} has no TFLite equivalent", "see docs/ops.md for what is supported")
    empty = _empty_outputs(ctx, node)
    if empty is not None:
        return empty
    if node.op_type not in DYNAMIC_THROUGH:
        _check_sizes(ctx, node)
    result = table[name](ctx, node)
    results = result if isinstance(result, list) else [result]
    for position, value in enumerate(node.outputs[len(results) :], len(results)):
        if value.name and (value.uses() or value.is_graph_output()):
            raise Refusal("outputs", f"output {position} of {node.op_type} has no TFLite form")
    return results


def _check_sizes(ctx: Context, node: ir.Node) -> None:
    """Raises Refusal for a node that reads or writes a tensor of unknown size and cannot."""
    read = [v for v in node.inputs if v is not None and v in ctx.values and min(ctx.values[v].shape, default=0) < 0]
    written = [v for v in node.outputs if v.name and v.shape is not None and not v.shape.is_static()]
    for value in read if node.op_type in DYNAMIC_OUTPUTS else [*read, *written]:
        raise Refusal("dynamic-shape", f"the shape of {value.name!r} is only known when the model runs")


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
            ctx.blind.add(value)
        ctx.values[value] = Tensor(name=value.name or "refused", shape=shape, dtype=dtype)
