"""What is made of a value, number by number, before anything else reads it: σ(x), x·σ(x), or a Gelu taken apart.

What rounding costs there is what counts: steps where the function is flat are wasted.

1. A reader belongs to the function when it works on single numbers, and all that it reads is the value, what the
   function has made of it already, or constants of one number.
2. Where more than one result goes on, or the value itself, there is no one function: x counts as it is.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx_ir as ir

from edgec.graph.model import const_of
from edgec.passes.evaluate import compute
from edgec.tensors import Array

#: A value's numbers to what is made of them, in any number and order.
Response = Callable[[Array], Array]

#: Operators on single numbers without a place where they are infinitely steep.
_SINGLE = frozenset(
    {
        *("Add", "Celu", "Clip", "Elu", "Erf", "Gelu", "HardSigmoid", "HardSwish", "LeakyRelu", "Max", "Min", "Mish"),
        *("Mul", "Neg", "Relu", "Selu", "Sigmoid", "Softplus", "Softsign", "Sub", "Swish", "Tanh", "ThresholdedRelu"),
    }
)
#: These hand every number on.
_KEEP = frozenset({"Flatten", "Identity", "Reshape", "Squeeze", "Transpose", "Unsqueeze"})


def response_of(value: ir.Value) -> Response | None:
    """The function that readers make of a value; None where it is the value itself (rule 2), or cannot be computed."""
    nodes = _function(value)
    graph = nodes[0].graph if nodes else None
    if graph is None:
        return None
    opset = graph.opset_imports.get("", 18)
    result = _goes_on(value, nodes)
    if result is None:
        return None

    def response(numbers: Array) -> Array:
        known: dict[ir.Value, Array] = {value: np.asarray(numbers, np.float32)}
        for node in nodes:
            arrays = [None if v is None else known[v] if v in known else const_of(v) for v in node.inputs]
            kept = node.op_type in _KEEP
            found = [arrays[0]] if kept else compute(node, opset, arrays)
            assert found is not None and found[0] is not None
            known[node.outputs[0]] = found[0].reshape(-1)
        return known[result].astype(np.float64)

    try:
        return response if np.isfinite(response(np.asarray([-1.0, 0.0, 1.0]))).all() else None
    except AssertionError:
        return None


def _function(value: ir.Value) -> list[ir.Node]:
    """The nodes of rule 1, each behind those that it reads."""
    nodes: list[ir.Node] = []
    made = {value}
    waiting = [value]
    while waiting:
        for user, _ in waiting.pop().uses():
            if user.outputs[0] not in made and _is_single(user, made):
                nodes.append(user)
                made.add(user.outputs[0])
                # what waits for another of its inputs is looked at again behind that
                waiting.append(user.outputs[0])
    return nodes


def _is_single(node: ir.Node, made: set[ir.Value]) -> bool:
    if node.domain not in ("", "ai.onnx") or len(node.outputs) != 1:
        return False
    if node.op_type in _KEEP:
        return node.inputs[0] in made
    return node.op_type in _SINGLE and all(v is None or v in made or _is_number(v) for v in node.inputs)


def _is_number(value: ir.Value) -> bool:
    constant = const_of(value)
    return constant is not None and constant.size == 1


def _goes_on(value: ir.Value, nodes: list[ir.Node]) -> ir.Value | None:
    """The one result that others read, or that the graph gives; None where it is not one, or the value itself."""
    inside = set(nodes)
    results = [
        v
        for v in (value, *(node.outputs[0] for node in nodes))
        if v.is_graph_output() or any(user not in inside for user, _ in v.uses())
    ]
    return results[0] if len(results) == 1 and results[0] is not value else None
