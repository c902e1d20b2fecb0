"""If, Loop and Scan as TFLite's IF and WHILE, for what is not decided or written out before.

1. A subgraph reads values of the graph around it: constants become its own, computed ones extra inputs.
2. A loop carries a counter, the condition where it can change, the state, one buffer for each scan output, and
   (unchanged) what the body reads from outside.
3. A scan output is written row by row into a buffer of its full length, so the number of rounds must be known.
4. Subgraphs compute in float: what is stored in integers outside is dequantized in front of the operator (`types`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import onnx_ir as ir

from edgec.backends.tflite.context import Context, Refusal
from edgec.backends.tflite.ops.loops import inner_context, subgraph_input
from edgec.backends.tflite.tir import Graph, Tensor
from edgec.graph.model import attr, const_of
from edgec.passes.unroll_loops import loop_rounds, scan_rounds
from edgec.tensors import DType

#: The operators that are lowered here.
CONTROL = frozenset({"If", "Loop", "Scan"})
#: Lowers the nodes of a subgraph into a context; raises Refusal for the first that cannot be.
Walk = Callable[[Context, ir.Graph], None]
_NONE = {"fusedActivationFunction": "NONE"}


def lower_control(ctx: Context, node: ir.Node, walk: Walk) -> list[Tensor]:
    """The tensors of an If's, Loop's or Scan's outputs."""
    for value in node.outputs:
        if not isinstance(value.type, ir.TensorType) or value.shape is None or not value.shape.is_static():
            raise Refusal("dynamic-shape", f"the shape of {value.name!r} is only known when the model runs")
    if node.op_type == "If":
        return _if(ctx, node, walk)
    return _loop(ctx, node, walk) if node.op_type == "Loop" else _scan(ctx, node, walk)


def _captured(ctx: Context, graphs: Sequence[ir.Graph]) -> list[ir.Value]:
    """Computed values of the graphs around that these read, each once (rule 1)."""
    own: set[ir.Value] = set()
    read: dict[ir.Value, None] = {}
    for graph in graphs:
        for inner in (graph, *graph.subgraphs()):
            own.update(inner.inputs)
            own.update(inner.initializers.values())
            own.update(v for n in inner for v in n.outputs)
            read.update(dict.fromkeys(v for n in inner for v in n.inputs if v is not None))
            read.update(dict.fromkeys(inner.outputs))
    outside = [v for v in read if v not in own and const_of(v) is None]
    unknown = [v for v in outside if v not in ctx.values]
    if unknown:
        raise Refusal("inputs", f"input {unknown[0].name} is not available")
    return [v for v in outside if ctx.values[v].data is None]


class _Body:
    """A subgraph under construction."""

    def __init__(self, ctx: Context, name: str) -> None:
        self.ctx = inner_context(ctx, name)
        # constants of the graphs around are read as they are; anything else must be an input
        self.ctx.values = {v: t for v, t in ctx.values.items() if t.data is not None}

    def add(self, like: Tensor, value: ir.Value | None = None) -> Tensor:
        """A new input, which stands for an ONNX value: a float one where that is stored in integers (rule 4)."""
        t = subgraph_input(self.ctx, like, "in")
        if value is not None:
            self.ctx.values[value] = t
        return t

    def finish(self, outputs: Sequence[Tensor]) -> Graph:
        """The graph; every output is computed in it, and is a tensor of its own."""
        taken: set[Tensor] = set()
        results = []
        for t in outputs:
            if t.data is not None or t in self.ctx.graph.inputs or t in taken:
                shape = np.asarray(t.shape, np.int32)
                t = self.ctx.emit("RESHAPE", [t, self.ctx.int32(shape)], t.shape, t.dtype, newShape=shape)
            taken.add(t)
            results.append(t)
        self.ctx.graph.outputs = results
        self.ctx.graph.prune()
        return self.ctx.graph


def _if(ctx: Context, node: ir.Node, walk: Walk) -> list[Tensor]:
    branches = [node.attributes[name].as_graph() for name in ("then_branch", "else_branch")]
    captured = _captured(ctx, branches)
    condition = ctx.reshape(ctx.tensor(node.inputs[0]), ())
    outputs = [ctx.new(*ctx.out_spec(node, i)[1:], "if") for i in range(len(node.outputs))]
    graphs = []
    for name, branch in zip(("then", "else"), branches, strict=True):
        body = _Body(ctx, name)
        for value in captured:
            body.add(ctx.tensor(value), value)
        walk(body.ctx, branch)
        results = [body.ctx.tensor(v) for v in branch.outputs]
        if [(t.shape, t.dtype) for t in results] != [(t.shape, t.dtype) for t in outputs]:
            raise Refusal("branches", "the branches of the If give different shapes or types")
        graphs.append(body.finish(results))
    ctx.emit_multi("IF", [condition, *(ctx.tensor(v) for v in captured)], outputs)
    ctx.graph.ops[-1].subgraphs = graphs
    return outputs


def _loop(ctx: Context, node: ir.Node, walk: Walk) -> list[Tensor]:
    body = node.attributes["body"].as_graph()
    rounds = loop_rounds(node)
    state = [ctx.tensor(v) for v in node.inputs[2:]]
    limit = None if node.inputs[0] is None else ctx.tensor(node.inputs[0])
    if rounds is not None:
        limit = ctx.constant([rounds], DType.INT32)
    elif len(node.outputs) > len(state):
        raise Refusal("rounds", "a Loop with scan outputs needs a number of rounds that is known when compiling")
    start = node.inputs[1] if len(node.inputs) > 1 else None
    going = None
    if rounds is None:
        going = ctx.constant(True, DType.BOOL) if start is None else ctx.tensor(start)
    work = _Loop(ctx, node, body, walk, limit=limit, going=going)

    def enter(inner: Context, count: Tensor, alive: Tensor | None) -> None:
        number = inner.cast(inner.reshape(count, ()), DType.INT64)
        inner.values[body.inputs[0]] = number
        inner.values[body.inputs[1]] = alive if alive is not None else inner.constant(True, DType.BOOL)

    return work.run(state, body.inputs[2:], body.outputs[1:], body.outputs[0], enter)


def _scan(ctx: Context, node: ir.Node, walk: Walk) -> list[Tensor]:
    body = node.attributes["body"].as_graph()
    number, rounds = int(attr(node, "num_scan_inputs")), scan_rounds(node)
    count = len(node.inputs) - number
    if rounds is None:
        raise Refusal("rounds", "the length of a Scan's inputs must be known when compiling")
    axes = attr(node, "scan_input_axes", (0,) * number)
    directions = attr(node, "scan_input_directions", (0,) * number)
    made = len(node.outputs) - count
    work = _Loop(ctx, node, body, walk, limit=ctx.constant([rounds], DType.INT32), going=None)
    work.output_axes = [int(a) for a in attr(node, "scan_output_axes", (0,) * made)]
    work.output_directions = [bool(d) for d in attr(node, "scan_output_directions", (0,) * made)]
    scanned = [v for v in node.inputs[count:] if v is not None]
    work.extra = scanned

    def enter(inner: Context, counter: Tensor, _alive: Tensor | None) -> None:
        for own, outer, axis, backwards in zip(body.inputs[count:], scanned, axes, directions, strict=True):
            source = inner.tensor(outer)
            place = _reversed(inner, counter, rounds) if backwards else counter
            axis = int(axis) % source.rank
            shape = [1 if i == axis else d for i, d in enumerate(source.shape)]
            row = inner.emit("GATHER", [source, place], shape, source.dtype, axis=axis, batchDims=0)
            inner.values[own] = inner.reshape(row, [d for i, d in enumerate(source.shape) if i != axis])

    return work.run([ctx.tensor(v) for v in node.inputs[:count]], body.inputs[:count], body.outputs, None, enter)


def _reversed(ctx: Context, counter: Tensor, rounds: int) -> Tensor:
    return ctx.binary("SUB", ctx.constant([rounds - 1], DType.INT32), counter, **_NONE)


class _Loop:
    """A WHILE under construction (rule 2)."""

    def __init__(
        self, ctx: Context, node: ir.Node, body: ir.Graph, walk: Walk, *, limit: Tensor | None, going: Tensor | None
    ) -> None:
        self.ctx, self.node, self.body, self.walk = ctx, node, body, walk
        self.limit, self.going = limit, going
        self.output_axes: list[int] = []
        self.output_directions: list[bool] = []
        self.extra: list[ir.Value] = []

    def run(
        self,
        state: list[Tensor],
        own_state: Sequence[ir.Value],
        results: Sequence[ir.Value],
        lasting: ir.Value | None,
        enter: Callable[[Context, Tensor, Tensor | None], None],
    ) -> list[Tensor]:
        """Emit it; gives the last state and the scan outputs."""
        ctx, count = self.ctx, len(state)
        buffers = [self._buffer(i) for i in range(count, len(self.node.outputs))]
        fixed = list(dict.fromkeys([*_captured(ctx, [self.body]), *self.extra]))
        fixed = [v for v in fixed if ctx.tensor(v).data is None]
        variables = [ctx.constant([0], DType.INT32)]
        variables += [] if self.going is None else [ctx.reshape(self.going, ())]
        computed_limit = self.limit is not None and self.limit.data is None
        if self.limit is not None and computed_limit:
            variables.append(ctx.reshape(ctx.cast(self.limit, DType.INT32), (1,)))
        first_state = len(variables)
        variables += [*state, *buffers]
        first_fixed = len(variables)
        variables += [ctx.tensor(v) for v in fixed]

        body = _Body(ctx, "body")
        inputs = [body.add(t) for t in variables]
        inner = body.ctx
        inner.values.update(zip(own_state, inputs[first_state:], strict=False))
        inner.values.update(zip(fixed, inputs[first_fixed:], strict=True))
        enter(inner, inputs[0], inputs[1] if self.going is not None else None)
        self.walk(inner, self.body)
        values = [inner.tensor(v) for v in results]
        for before, after in zip(state, values[:count], strict=True):
            if (before.shape, before.dtype) != (after.shape, after.dtype):
                raise Refusal("state-shape", "the loop's state changes its shape or type from round to round")
        rows = inputs[first_state + count : first_fixed]
        written = [
            self._write(inner, i, b, v, inputs[0]) for i, (b, v) in enumerate(zip(rows, values[count:], strict=True))
        ]
        following = [inner.binary("ADD", inputs[0], inner.constant([1], DType.INT32), **_NONE)]
        if self.going is not None:
            assert lasting is not None
            following.append(inner.reshape(inner.tensor(lasting), ()))
        if computed_limit:
            following.append(inputs[first_state - 1])
        graph = body.finish([*following, *values[:count], *written, *inputs[first_fixed:]])
        outputs = [ctx.new(t.shape, t.dtype, "loop") for t in variables]
        ctx.emit_multi("WHILE", variables, outputs)
        ctx.graph.ops[-1].subgraphs = [self._condition(variables, first_state), graph]
        return outputs[first_state:first_fixed]

    def _condition(self, variables: list[Tensor], first_state: int) -> Graph:
        body = _Body(self.ctx, "condition")
        inputs = [body.add(t) for t in variables]
        inner, parts = body.ctx, []
        if self.limit is not None:
            limit = inputs[first_state - 1]
            if self.limit.data is not None:
                limit = inner.constant([int(self.limit.data.reshape(-1)[0])], DType.INT32)
            parts.append(inner.reshape(inner.emit("LESS", [inputs[0], limit], (1,), DType.BOOL), ()))
        if self.going is not None:
            parts.append(inputs[1])
        result = parts[0] if len(parts) == 1 else inner.binary("LOGICAL_AND", parts[0], parts[1])
        return body.finish([result])

    def _buffer(self, index: int) -> Tensor:
        _, shape, dtype = self.ctx.out_spec(self.node, index)
        return self.ctx.constant(np.zeros(shape, dtype.numpy), dtype)

    def _write(self, inner: Context, index: int, buffer: Tensor, value: Tensor, counter: Tensor) -> Tensor:
        """The buffer with this round's row (rule 3)."""
        axis = (self.output_axes[index] if self.output_axes else 0) % buffer.rank
        if self.output_directions and self.output_directions[index]:
            counter = _reversed(inner, counter, buffer.shape[axis])
        row = inner.reshape(value, [1 if i == axis else d for i, d in enumerate(buffer.shape)])
        parts = [counter if i == axis else inner.constant([0], DType.INT32) for i in range(buffer.rank)]
        place = counter
        if len(parts) > 1:
            place = inner.emit("CONCATENATION", parts, (len(parts),), DType.INT32, axis=0, **_NONE)
        return inner.emit("DYNAMIC_UPDATE_SLICE", [buffer, row, place], buffer.shape, buffer.dtype)
