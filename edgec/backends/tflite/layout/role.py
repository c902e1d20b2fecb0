"""The interface of a role, and what all roles need: which storage orders an operator allows.

A role answers three questions for an operator and a *choice* (a permutation of its main tensor's axes):
`ports`: the order of every input and output; `choices`: which choices give one port a wanted order;
`rewrite`: the operator's axes, paddings and constants under that choice.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from edgec.backends.tflite.layout.perms import Perm, identity
from edgec.backends.tflite.tir import Op, Storage, Tensor

Ports = tuple[list[Perm | None], list[Perm]]


class Role:
    """The opaque role: every tensor in its own order. Others override what they can do better."""

    def default(self, op: Op) -> Perm:
        """The choice under which nothing changes."""
        return identity(self.anchor(op).rank)

    def anchor(self, op: Op) -> Tensor:
        """The tensor whose order the choice is."""
        return op.outputs[0] if op.outputs else next(t for t in op.inputs if t is not None)

    def legal(self, op: Op, choice: Perm) -> bool:
        """Whether the operator works under a choice."""
        return choice == self.default(op)

    def ports(self, op: Op, choice: Perm) -> Ports:
        """Orders of all inputs (None for constants and absent ones) and outputs."""
        inputs = [None if t is None or t.is_const else identity(t.rank) for t in op.inputs]
        return inputs, [identity(t.rank) for t in op.outputs]

    def choices(self, op: Op, side: str, index: int, perm: Perm) -> list[Perm]:
        """Legal choices under which one port has the order `perm`."""
        default = self.default(op)
        inputs, outputs = self.ports(op, default)
        port = inputs[index] if side == "in" else outputs[index]
        return [default] if port == perm else []

    def rewrite(self, op: Op, choice: Perm) -> None:
        """Adapt constants and options; the data inputs and outputs are permuted by the caller."""


def permute_operand(t: Tensor, perm: Perm) -> Tensor:
    """A constant in a new order; a lower rank is first given leading unit axes."""
    assert t.data is not None
    if perm == identity(len(perm)):
        return t
    lead = len(perm) - t.rank
    data = t.data.reshape((1,) * lead + t.shape).transpose(perm)
    storage = t.storage
    if storage is not None and storage.qparams.axis is not None:
        axis = perm.index(storage.qparams.axis + lead)
        storage = Storage(storage.dtype, replace(storage.qparams, axis=axis))
    return Tensor(name=t.name, shape=tuple(data.shape), dtype=t.dtype, data=np.ascontiguousarray(data), storage=storage)
