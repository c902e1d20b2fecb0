"""A Loop whose condition only counts gets its number of rounds: `while i < 10` becomes ten rounds.

1. What decides is the condition's own computation in the body, and that of the state it reads: single numbers made of
   constants, the round's number and other such state. Everything else in the body is left alone.
2. It is played through here, at most `MAX_ROUNDS` times, and never past the Loop's own limit.
3. Then the condition is always true, and the limit is the count; what is left of the counting dies as dead code.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import onnx_ir as ir

from edgec.graph.edit import Editor, remove_dead
from edgec.graph.model import Model, attr, const_of
from edgec.tensors import Array

MAX_ROUNDS = 65536

_SAME: Callable[..., Any] = lambda x, *_: x  # noqa: E731  a row of the table below
#: Operators that counting is made of, on single numbers.
_OPS: Mapping[str, Callable[..., Any]] = {
    "Add": np.add,
    "And": np.logical_and,
    "Equal": np.equal,
    "Greater": np.greater,
    "GreaterOrEqual": np.greater_equal,
    "Identity": _SAME,
    "Less": np.less,
    "LessOrEqual": np.less_equal,
    "Max": lambda *values: np.max(np.stack(values)),
    "Min": lambda *values: np.min(np.stack(values)),
    "Mul": np.multiply,
    "Not": np.logical_not,
    "Or": np.logical_or,
    "Reshape": _SAME,
    "Squeeze": _SAME,
    "Sub": np.subtract,
    "Unsqueeze": _SAME,
}


class CountRounds:
    """See the module."""

    name = "count-rounds"

    def run(self, model: Model) -> bool:
        """Count what counts; True when a loop got its number."""
        editor, changed = Editor(model), False
        for graph in list(model.ir.graphs()):
            for node in list(graph):
                if node.domain == "" and node.op_type == "Loop":
                    rounds = rounds_of(node)
                    if rounds is not None:
                        _fix(node, rounds, editor)
                        changed = True
        return bool(changed and (remove_dead(model.ir) or changed))


def rounds_of(node: ir.Node) -> int | None:
    """How often a Loop with a condition of its own goes round; None where data decide, or nothing is to be counted."""
    body = node.attributes["body"].as_graph()
    limit, start = const_of(node.inputs[0]), const_of(node.inputs[1]) if len(node.inputs) > 1 else np.asarray(True)
    if node.inputs[0] is not None and (limit is None or limit.size != 1):
        return None
    if start is None and node.inputs[1] is not None:
        return None
    going = True if start is None else bool(start.reshape(()))
    condition = body.outputs[0]
    while (producer := condition.producer()) is not None and producer.op_type == "Identity":
        condition = producer.inputs[0] or condition
    if condition is body.inputs[1] or const_of(condition) is not None or condition.producer() is None:
        return None
    steps = _counting(node, body, condition)
    if steps is None:
        return None
    nodes, state = steps
    most = MAX_ROUNDS if limit is None else min(int(limit.reshape(())), MAX_ROUNDS)
    rounds = 0
    while going and rounds < most:
        known: dict[ir.Value, Array] = {body.inputs[0]: np.asarray(rounds, np.int64), body.inputs[1]: np.asarray(True)}
        known |= state
        for step in nodes:
            known[step.outputs[0]] = _compute(step, known)
        going = bool(known[condition])
        state = {v: _value(body.outputs[list(body.inputs).index(v) - 1], known) for v in state}
        rounds += 1
    if going and (limit is None or rounds < int(limit.reshape(()))):
        return None  # longer than is played through, or for ever
    return rounds


def _counting(node: ir.Node, body: ir.Graph, condition: ir.Value) -> tuple[list[ir.Node], dict[ir.Value, Array]] | None:
    """The body's nodes that decide, in order, and the first values of the state they read; None if others do."""
    inputs = list(body.inputs)
    needed: set[ir.Node] = set()
    state: dict[ir.Value, Array] = {}
    wanted = [condition]
    seen: set[ir.Value] = set()
    while wanted:
        value = wanted.pop()
        if value in seen or value in inputs[:2]:
            continue
        seen.add(value)
        if value in inputs:
            place = inputs.index(value)
            first = const_of(node.inputs[place])
            if first is None or first.size != 1:
                return None
            state[value] = first.reshape(())
            wanted.append(body.outputs[place - 1])
            continue
        constant = const_of(value)
        if constant is not None:
            if constant.size != 1 and value is condition:
                return None
            continue
        producer = value.producer()
        if producer is None or producer.graph is not body or producer.domain != "":
            return None
        if producer.op_type not in _OPS and producer.op_type != "Cast":
            return None
        needed.add(producer)
        # the shape or axes beside a single number decide nothing
        count = 1 if _OPS.get(producer.op_type) is _SAME else len(producer.inputs)
        wanted += [v for v in producer.inputs[:count] if v is not None]
    if any(_too_long(v) for n in needed for v in n.inputs[: 1 if _OPS.get(n.op_type) is _SAME else None]):
        return None
    return [n for n in body if n in needed], state


def _too_long(value: ir.Value | None) -> bool:
    constant = const_of(value)
    return constant is not None and constant.size != 1


def _value(value: ir.Value, known: Mapping[ir.Value, Array]) -> Array:
    if value in known:
        return known[value]
    constant = const_of(value)
    assert constant is not None
    return constant.reshape(())


def _compute(node: ir.Node, known: Mapping[ir.Value, Array]) -> Array:
    values = [_value(v, known) for v in node.inputs[: 1 if _OPS.get(node.op_type) is _SAME else None] if v is not None]
    if node.op_type == "Cast":
        return values[0].astype(ir.DataType(int(attr(node, "to"))).numpy())
    return np.asarray(_OPS[node.op_type](*values))


def _fix(node: ir.Node, rounds: int, editor: Editor) -> None:
    """Rule 3."""
    body = node.attributes["body"].as_graph()
    kept = ir.Node("", "Identity", [body.inputs[1]], num_outputs=1, name=f"{node.name}/going")
    kept.outputs[0].name = editor.unique(f"{node.name}/going")
    kept.outputs[0].type, kept.outputs[0].shape = body.outputs[0].type, body.outputs[0].shape
    body.append(kept)
    body.outputs[0] = kept.outputs[0]
    node.replace_input_with(0, editor.const(np.asarray(rounds, np.int64), f"{node.name}/rounds"))
    node.replace_input_with(1, editor.const(np.asarray(True), f"{node.name}/true"))
