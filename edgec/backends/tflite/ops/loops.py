"""WHILE loops: a condition that counts, and a body that is written like any other graph.

The body reads constants of the outer graph as its own; computed values that it needs are carried along unchanged.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from edgec.backends.tflite.context import Context
from edgec.backends.tflite.tir import Graph, Tensor
from edgec.tensors import DType

#: Given the body's context, the step number (int32 of shape [1]), the carried values and the fixed ones: the
#: carried values after the step.
Step = Callable[[Context, Tensor, list[Tensor], list[Tensor]], list[Tensor]]


def inner_context(ctx: Context, name: str) -> Context:
    """A context that writes a subgraph of the operator at hand."""
    return Context(graph=Graph(name=name), opset=ctx.opset, node=ctx.node)


def subgraph_input(inner: Context, like: Tensor, hint: str) -> Tensor:
    """A new input of the subgraph, of another tensor's shape and type."""
    t = inner.new(like.shape, like.dtype, hint)
    inner.graph.inputs.append(t)
    return t


def counted_loop(
    ctx: Context,
    steps: int,
    carried: Sequence[Tensor],
    fixed: Sequence[Tensor],
    step: Step,
    graphs: list[Graph] | None = None,
) -> list[Tensor]:
    """Run `step` that many times; gives the carried values at the end.

    Loops that differ in nothing but their values may share `graphs`: the first fills the list.
    """
    counter = ctx.constant([0], DType.INT32)
    variables = [counter, *carried, *(t for t in fixed if t.data is None)]
    if not graphs:
        made = [_condition(ctx, steps, variables), _body(ctx, variables, len(carried), fixed, step)]
        graphs = made if graphs is None else graphs
        graphs[:] = made
    outputs = [ctx.new(t.shape, t.dtype, "loop") for t in variables]
    ctx.emit_multi("WHILE", variables, outputs)
    ctx.graph.ops[-1].subgraphs = list(graphs)
    return outputs[1 : 1 + len(carried)]


def _condition(ctx: Context, steps: int, variables: list[Tensor]) -> Graph:
    condition = inner_context(ctx, "condition")
    for t in variables:
        subgraph_input(condition, t, "v")
    count = condition.graph.inputs[0]
    limit = condition.constant([steps], DType.INT32)
    condition.graph.outputs = [condition.emit("LESS", [count, limit], (1,), DType.BOOL)]
    return condition.graph


def _body(ctx: Context, variables: list[Tensor], count: int, fixed: Sequence[Tensor], step: Step) -> Graph:
    body = inner_context(ctx, "body")
    inputs = [subgraph_input(body, t, "v") for t in variables]
    moving = iter(inputs[1 + count :])
    inside = [next(moving) if t.data is None else t for t in fixed]
    results = step(body, inputs[0], inputs[1 : 1 + count], inside)
    following = body.binary("ADD", inputs[0], body.constant([1], DType.INT32), fusedActivationFunction="NONE")
    body.graph.outputs = [following, *results, *inputs[1 + count :]]
    return body.graph
