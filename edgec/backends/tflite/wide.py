"""Join many tensors in steps where the target's runtime joins only so many at once."""

from __future__ import annotations

from collections.abc import Mapping

from edgec.backends.tflite.tir import Graph, Op, Tensor


def join_in_steps(graph: Graph, most: Mapping[str, int]) -> None:
    """Split CONCATENATIONs of more than `most` inputs into a tree, in place and in subgraphs too.

    Types and storage must be assigned: what is joined on the way is stored as the whole is.
    """
    limit = most.get("CONCATENATION")
    if limit is None:
        return
    for part in graph.graphs():
        part.ops[:] = [step for op in part.ops for step in _steps(op, limit)]


def _steps(op: Op, limit: int) -> list[Op]:
    """The operator, and before it what joins its inputs until they are few enough."""
    made: list[Op] = []
    while op.kind == "CONCATENATION" and len(op.inputs) > limit:
        joined: list[Tensor | None] = []
        for start in range(0, len(op.inputs), limit):
            several = op.inputs[start : start + limit]
            joined.append(several[0] if len(several) == 1 else _join(op, several, made))
        op.inputs = joined
    return [*made, op]


def _join(op: Op, parts: list[Tensor | None], made: list[Op]) -> Tensor:
    whole, axis = op.outputs[0], op.options.get("axis", 0) % op.outputs[0].rank
    shape = list(whole.shape)
    shape[axis] = sum(t.shape[axis] for t in parts if t is not None)
    name = f"{whole.name}/part{len(made)}"
    result = Tensor(name, tuple(shape), whole.dtype, storage=whole.storage)
    made.append(Op("CONCATENATION", list(parts), [result], dict(op.options), op.origin))
    return result
