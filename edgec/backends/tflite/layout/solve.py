"""Choose a storage order for every operator so that transposes cost the least.

Energy = Σ over tensors and their readers of (overhead + elements) where writer and reader disagree. It is
lowered by fusion moves: a proposal carries one order as far through the graph as roles allow, and a minimum
cut decides exactly which operators take their proposed order and which keep the present one. Proposals are
consistent along their own edges, so the cut problem is submodular (Lempitsky et al., Fusion Moves, 2010).
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import Literal

from edgec.backends.tflite.layout.cut import minimum_cut
from edgec.backends.tflite.layout.perms import Perm, channels_last, identity, same_bytes
from edgec.backends.tflite.layout.role import Ports, Role
from edgec.backends.tflite.layout.roles import role_of
from edgec.backends.tflite.tir import Graph, Op, Tensor

IoLayout = Literal["auto", "source", "nhwc"]

#: What any transpose costs beside its elements: dispatch of one more operator, in elements copied.
_OVERHEAD = 20_000
#: A model input or output in another order than the source's costs nothing at run time, but must pay off.
_IO_PENALTY = 1


@dataclass(slots=True, eq=False)
class Node:
    """A variable: an operator, or an input or output of the graph. `choice` is its present order."""

    op: Op | None
    tensor: Tensor
    role: Role | None
    choice: Perm
    options: tuple[Perm, ...] = ()
    edges: list[Edge] = field(default_factory=list)
    ports: dict[Perm, Ports] = field(default_factory=dict)

    def perm(self, side: str, index: int, choice: Perm) -> Perm | None:
        """The order of one port under a choice."""
        if self.op is None or self.role is None:
            return choice
        if choice not in self.ports:  # nothing of an operator changes while its order is sought
            self.ports[choice] = self.role.ports(self.op, choice)
        inputs, outputs = self.ports[choice]
        return inputs[index] if side == "in" else outputs[index]

    def choices(self, side: str, index: int, perm: Perm) -> list[Perm]:
        """Choices that give a port an order."""
        if self.op is None or self.role is None:
            return [perm] if perm in self.options else []
        return self.role.choices(self.op, side, index, perm)

    def unary(self, choice: Perm) -> int:
        """What a choice costs by itself."""
        return _IO_PENALTY if self.op is None and choice != identity(len(choice)) else 0


@dataclass(slots=True, eq=False)
class Edge:
    """`reader` reads at port `read_port` what `writer` writes at `write_port`."""

    tensor: Tensor
    writer: Node
    write_port: int
    reader: Node
    read_port: int

    def cost(self, written: Perm, read: Perm) -> int:
        """Elements moved (plus overhead) when writer and reader have these choices."""
        w = self.writer.perm("out", self.write_port, written)
        r = self.reader.perm("in", self.read_port, read)
        if w is None or r is None or same_bytes(w, r, self.tensor.shape):
            return 0
        return _OVERHEAD + self.tensor.size


@dataclass(slots=True)
class Assignment:
    """The result: the order of every operator, graph input and graph output."""

    ops: dict[Op, Perm]
    inputs: list[Perm]
    outputs: list[Perm]


def io_options(rank: int, mode: IoLayout) -> tuple[Perm, ...]:
    """Orders that an input or output of the graph may have."""
    plain = identity(rank)
    if rank not in (3, 4, 5) or mode == "source":
        return (plain,)
    return (channels_last(rank),) if mode == "nhwc" and rank == 4 else (plain, channels_last(rank))


def solve(graph: Graph, io_layout: IoLayout) -> Assignment:
    """Orders for a whole graph."""
    nodes, inputs, outputs = _build(graph, io_layout)
    edges = [e for n in nodes for e in n.edges if e.writer is n]
    tried: set[tuple[int, int, Perm]] = set()
    improved = True
    while improved:
        improved = False
        for edge in edges:
            if not edge.cost(edge.writer.choice, edge.reader.choice):
                continue
            for proposal in _proposals(edge, tried):
                if _fuse(proposal):
                    improved = True
                if not edge.cost(edge.writer.choice, edge.reader.choice):
                    break
        if improved:
            tried.clear()
    return Assignment(
        ops={n.op: n.choice for n in nodes if n.op is not None},
        inputs=[n.choice for n in inputs],
        outputs=[n.choice for n in outputs],
    )


def _build(graph: Graph, io_layout: IoLayout) -> tuple[list[Node], list[Node], list[Node]]:
    writers: dict[Tensor, tuple[Node, int]] = {}
    inputs = [_io_node(t, io_layout) for t in graph.inputs]
    for node in inputs:
        writers[node.tensor] = (node, 0)
    nodes = list(inputs)
    for op in graph.ops:
        role = role_of(op)
        node = Node(op, op.outputs[0], role, role.default(op))
        nodes.append(node)
        for i, t in enumerate(op.inputs):
            if t is not None and t in writers:
                _connect(t, *writers[t], node, i)
        for i, t in enumerate(op.outputs):
            writers[t] = (node, i)
    outputs = []
    for t in graph.outputs:
        node = _io_node(t, io_layout)
        outputs.append(node)
        if t in writers:
            _connect(t, *writers[t], node, 0)
    return nodes + outputs, inputs, outputs


def _io_node(t: Tensor, io_layout: IoLayout) -> Node:
    options = io_options(t.rank, io_layout)
    return Node(None, t, None, options[0], options)


def _connect(t: Tensor, writer: Node, write_port: int, reader: Node, read_port: int) -> None:
    edge = Edge(t, writer, write_port, reader, read_port)
    writer.edges.append(edge)
    reader.edges.append(edge)


def _proposals(edge: Edge, tried: set[tuple[int, int, Perm]]) -> list[dict[Node, Perm]]:
    """Carry the writer's order to the reader's side, and the reader's to the writer's."""
    result = []
    written = edge.writer.perm("out", edge.write_port, edge.writer.choice)
    read = edge.reader.perm("in", edge.read_port, edge.reader.choice)
    sides = ((edge.reader, "in", edge.read_port, written), (edge.writer, "out", edge.write_port, read))
    for node, side, port, perm in sides:
        if perm is None:
            continue
        for choice in node.choices(side, port, perm)[:3]:
            key = (id(node), port, choice)
            if key not in tried:
                tried.add(key)
                result.append(_carry(node, choice))
    return result


def _carry(start: Node, choice: Perm) -> dict[Node, Perm]:
    """Spread an order from one operator over all that can follow it.

    An operator that is reached again, now by another port, may change its mind once where all that it was reached
    by before still holds: BATCH_MATMUL keeps its left operand's order whichever way its right one is stored.
    """
    proposal = {start: choice}
    queue = deque([start])
    revised: set[Node] = set()
    while queue:
        node = queue.popleft()
        for edge in node.edges:
            forward = edge.writer is node
            other = edge.reader if forward else edge.writer
            side, port = ("out", edge.write_port) if forward else ("in", edge.read_port)
            perm = node.perm(side, port, proposal[node])
            if perm is None:
                continue
            side, port = ("in", edge.read_port) if forward else ("out", edge.write_port)
            wanted = other.choices(side, port, perm)
            if other in proposal:
                better = None if other in revised or other is start else _revision(other, wanted, proposal)
                if better is not None:
                    proposal[other] = better
                    revised.add(other)
                    queue.append(other)
            elif wanted:
                present = other.perm(side, port, other.choice)
                agrees = present is not None and same_bytes(present, perm, edge.tensor.shape)
                proposal[other] = other.choice if agrees and other.choice in wanted else wanted[0]
                queue.append(other)
    return proposal


def _revision(node: Node, wanted: list[Perm], proposal: dict[Node, Perm]) -> Perm | None:
    """A wanted choice that disagrees with fewer of the proposal's operators than the one proposed now."""
    now = proposal[node]
    if not wanted or now in wanted:
        return None

    def disagreements(choice: Perm) -> int:
        count = 0
        for edge in node.edges:
            writer = choice if edge.writer is node else proposal.get(edge.writer)
            reader = choice if edge.reader is node else proposal.get(edge.reader)
            count += writer is not None and reader is not None and edge.cost(writer, reader) > 0
        return count

    best = min(wanted, key=disagreements)
    return best if disagreements(best) < disagreements(now) else None


def _fuse(proposal: dict[Node, Perm]) -> bool:
    """Take the part of a proposal that lowers the energy most; False when none does."""
    moving = {n: c for n, c in proposal.items() if c != n.choice}
    if not moving:
        return False
    order = {n: i for i, n in enumerate(moving)}
    keep_cost = [n.unary(n.choice) for n in moving]
    take_cost = [n.unary(c) for n, c in moving.items()]
    pairs: list[tuple[int, int, int]] = []
    seen: set[int] = set()
    for node in moving:
        for edge in node.edges:
            if id(edge) in seen:
                continue
            seen.add(id(edge))
            w, r = edge.writer, edge.reader
            if w in order and r in order and w is not r:
                i, j = order[w], order[r]
                e00, e01 = edge.cost(w.choice, r.choice), edge.cost(w.choice, moving[r])
                e10, e11 = edge.cost(moving[w], r.choice), edge.cost(moving[w], moving[r])
                # E = e00 + (e10−e00)·i + (e11−e10)·j + (e01+e10−e00−e11)·(1−i)·j
                keep_cost[i] += e00
                take_cost[i] += e10
                take_cost[j] += e11 - e10
                pairs.append((i, j, max(e01 + e10 - e00 - e11, 0)))
            elif w in order:
                i = order[w]
                keep_cost[i] += edge.cost(w.choice, r.choice)
                take_cost[i] += edge.cost(moving[w], r.choice if r is not w else moving[w])
            else:
                j = order[r]
                keep_cost[j] += edge.cost(w.choice, r.choice)
                take_cost[j] += edge.cost(w.choice, moving[r])
    taken = minimum_cut(keep_cost, take_cost, pairs)
    before = {n: n.choice for n in moving}
    old = _local_energy(moving)
    for node, i in order.items():
        if taken[i]:
            node.choice = moving[node]
    if _local_energy(moving) < old:
        return True
    for node, choice in before.items():
        node.choice = choice
    return False


def _local_energy(nodes: dict[Node, Perm]) -> int:
    edges = {id(e): e for n in nodes for e in n.edges}
    energy = sum(e.cost(e.writer.choice, e.reader.choice) for e in edges.values())
    return energy + sum(n.unary(n.choice) for n in nodes)
