"""Carry out a layout assignment: permute tensors, drop transposes that became nothing, insert those that remain."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from edgec.backends.tflite.layout.perms import Perm, between, identity, same_bytes, stored_shape
from edgec.backends.tflite.layout.role import Ports, Role
from edgec.backends.tflite.layout.role_pointwise import BroadcastTo, Elementwise
from edgec.backends.tflite.layout.roles import role_of
from edgec.backends.tflite.layout.solve import IoLayout, solve
from edgec.backends.tflite.tir import Graph, Op, Tensor, int32


@dataclass(slots=True)
class LayoutResult:
    """Orders of the graph's inputs and outputs, and one reason for each transpose that is left."""

    inputs: list[Perm]
    outputs: list[Perm]
    transposes: list[str]


@dataclass(slots=True)
class _Rewriter:
    graph: Graph
    ops: list[Op] = field(default_factory=list)
    #: logical tensor → the stored one, and its order
    stored: dict[Tensor, tuple[Tensor, Perm]] = field(default_factory=dict)
    logical_shape: dict[Tensor, tuple[int, ...]] = field(default_factory=dict)
    cache: dict[tuple[Tensor, Perm], Tensor] = field(default_factory=dict)
    writer: dict[Tensor, Op] = field(default_factory=dict)
    reasons: list[str] = field(default_factory=list)
    reads: dict[Tensor, int] = field(default_factory=dict)

    def fetch(self, t: Tensor, wanted: Perm, reader: str) -> Tensor:
        """The stored form of a tensor in the wanted order, transposed once for all who want it so."""
        have, perm = self.stored[t]
        if perm == wanted:
            return have
        shape = self.logical_shape[t]
        target = stored_shape(shape, wanted)
        if same_bytes(perm, wanted, shape):
            return have if target == have.shape else self.reshape(have, target)
        if (t, wanted) not in self.cache:
            step = between(perm, wanted)
            out = Tensor(
                name=f"{have.name}/{'nchw' if wanted == identity(t.rank) else 'T'}", shape=target, dtype=t.dtype
            )
            out.storage = have.storage
            origin = self.writer[t].origin if t in self.writer else f"input {t.name}"
            self.ops.append(Op("TRANSPOSE", [have, int32("perm", step)], [out], origin=origin))
            self.cache[t, wanted] = out
            self.reasons.append(self._reason(t, perm, wanted, reader))
        return self.cache[t, wanted]

    def _reason(self, t: Tensor, perm: Perm, wanted: Perm, reader: str) -> str:
        source = self.writer.get(t)
        by = f"{source.kind} {source.origin}".strip() if source is not None else "the model's input"
        return f"{t.name} {list(self.logical_shape[t])}: {by} keeps axes as {list(perm)}, {reader} needs {list(wanted)}"

    def reshape(self, t: Tensor, shape: tuple[int, ...]) -> Tensor:
        out = Tensor(name=f"{t.name}/view", shape=shape, dtype=t.dtype, storage=t.storage)
        options = {"newShape": np.asarray(shape, np.int32)}
        self.ops.append(Op("RESHAPE", [t, int32("shape", shape)], [out], options=options))
        return out

    def alias(self, out: Tensor, source: Tensor, perm: Perm) -> None:
        """Let `out` be `source` under another order; where their storages differ, a QUANTIZE stands between."""
        if out.storage is not None and out.storage != source.storage:
            if source.storage is None and self.reads.get(source, 0) <= 1 and source not in self.graph.inputs:
                source.storage = out.storage
            else:
                fresh = Tensor(name=out.name, shape=source.shape, dtype=out.dtype, storage=out.storage)
                self.ops.append(Op("QUANTIZE", [source], [fresh]))
                source = fresh
        if source not in self.graph.inputs:
            source.name = out.name
        self.stored[out] = (source, perm)


def assign_layout(graph: Graph, io_layout: IoLayout) -> LayoutResult:
    """Choose and carry out the layout of a graph, in place."""
    assignment = solve(graph, io_layout)
    work = _Rewriter(graph)
    names = [t.name for t in graph.outputs]  # aliases below rename what they stand for
    for op in graph.ops:
        for t in op.inputs:
            if t is not None:
                work.reads[t] = work.reads.get(t, 0) + 1
    # shapes become stored shapes one by one below: everything that reads logical ones comes first
    roles = {op: role_of(op) for op in graph.ops}
    ports = {op: roles[op].ports(op, assignment.ops[op]) for op in graph.ops}
    for op in graph.ops:
        if assignment.ops[op] != roles[op].default(op):
            roles[op].rewrite(op, assignment.ops[op])
    for t, perm in zip(graph.inputs, assignment.inputs, strict=True):
        _store(work, t, perm)
    for op in graph.ops:
        _rewrite_op(work, op, assignment.ops[op], roles[op], ports[op])
    outputs = []
    for t, name, perm in zip(graph.outputs, names, assignment.outputs, strict=True):
        outputs.append(work.fetch(t, perm, "the model's output"))
        outputs[-1] = _own_output(work, outputs[-1], name, outputs[:-1])
    graph.ops, graph.outputs = work.ops, outputs
    graph.prune()
    return LayoutResult(assignment.inputs, assignment.outputs, work.reasons)


def _own_output(work: _Rewriter, t: Tensor, name: str, taken: list[Tensor]) -> Tensor:
    """A graph output must be computed, and be one output only."""
    if t in work.graph.inputs or t in taken:
        t = work.reshape(t, t.shape)
    t.name = name
    return t


def _store(work: _Rewriter, t: Tensor, perm: Perm) -> None:
    work.logical_shape[t] = t.shape
    t.shape = stored_shape(t.shape, perm)
    work.stored[t] = (t, perm)


def _rewrite_op(work: _Rewriter, op: Op, choice: Perm, role: Role, ports: Ports) -> None:
    wanted, given = ports
    for t in op.outputs:
        work.logical_shape[t] = t.shape
        work.writer[t] = op
    reader = f"{op.kind} {op.origin}".strip()
    sources: list[Tensor | None] = []
    for operand, order in zip(op.inputs, wanted, strict=True):
        fixed = operand is None or operand.is_const or order is None
        sources.append(operand if fixed else work.fetch(operand, order, reader))  # type: ignore[arg-type]
    if op.kind == "TRANSPOSE" and op.inputs[1] is not None and op.inputs[1].is_const:
        assert sources[0] is not None
        work.alias(op.outputs[0], sources[0], given[0])
        return
    if op.kind == "RESHAPE" and op.inputs[1] is not None and op.inputs[1].is_const:
        _rewrite_reshape(work, op, sources[0], given[0])
        return
    rank = op.outputs[0].rank if op.outputs else 0
    for i, operand in enumerate(op.inputs):
        source = sources[i]
        if operand is None or operand.is_const or source is None:
            continue
        if isinstance(role, Elementwise) and not isinstance(role, BroadcastTo) and choice != identity(rank):
            source = _lift(work, source, work.logical_shape.get(operand, operand.shape), choice)
        op.inputs[i] = source
    for t, perm in zip(op.outputs, given, strict=True):
        _store(work, t, perm)
    work.ops.append(op)


def _lift(work: _Rewriter, stored: Tensor, logical: tuple[int, ...], choice: Perm) -> Tensor:
    """An operand of lower rank under a permuted output: its missing axes become unit axes in their places."""
    rank = len(choice)
    if len(logical) == rank or stored.size == 1:
        return stored
    full = (1,) * (rank - len(logical)) + logical
    shape = stored_shape(full, choice)
    while shape and shape[0] == 1 and len(shape) > stored.rank:
        shape = shape[1:]
    return stored if shape == stored.shape else work.reshape(stored, shape)


def _rewrite_reshape(work: _Rewriter, op: Op, source: Tensor | None, perm: Perm) -> None:
    assert source is not None
    out = op.outputs[0]
    shape = stored_shape(out.shape, perm)
    if shape == source.shape:
        work.alias(out, source, perm)
        return
    op.inputs = [source, int32("shape", shape)]
    op.options["newShape"] = np.asarray(shape, np.int32)
    out.shape = shape
    work.stored[out] = (out, perm)
    work.ops.append(op)
