"""Roles of TRANSPOSE, which never has to happen, and RESHAPE, which merges and splits axes."""

from __future__ import annotations

from edgec.backends.tflite.layout.perms import Perm, identity, inverse, through_reshape
from edgec.backends.tflite.layout.role import Ports, Role
from edgec.backends.tflite.tir import Op, Tensor

#: TRANSPOSE kernels stop here: data of more axes keeps its order.
_MOVABLE_RANK = 6


class Transpose(Role):
    """A TRANSPOSE never has to happen: its output is its input under another order."""

    def anchor(self, op: Op) -> Tensor:
        x = op.inputs[0]
        assert x is not None
        return x

    def _perm(self, op: Op) -> Perm:
        perm = op.inputs[1]
        assert perm is not None and perm.data is not None
        return tuple(int(p) for p in perm.data)

    def legal(self, op: Op, choice: Perm) -> bool:
        return True

    def ports(self, op: Op, choice: Perm) -> Ports:
        back = inverse(self._perm(op))
        return [choice, None], [tuple(back[p] for p in choice)]

    def choices(self, op: Op, side: str, index: int, perm: Perm) -> list[Perm]:
        if side == "in":
            return [perm]
        forward = self._perm(op)
        return [tuple(forward[p] for p in perm)]


class Reshape(Role):
    """Allowed under every order that keeps merged and split axes together."""

    def anchor(self, op: Op) -> Tensor:
        x = op.inputs[0]
        assert x is not None
        return x

    def legal(self, op: Op, choice: Perm) -> bool:
        return self._through(op, choice) is not None

    def _through(self, op: Op, choice: Perm) -> Perm | None:
        if choice == self.default(op):
            return identity(op.outputs[0].rank)  # also where axes of size 0 leave nothing to group
        if max(self.anchor(op).rank, op.outputs[0].rank) > _MOVABLE_RANK:
            return None
        return through_reshape(self.anchor(op).shape, op.outputs[0].shape, choice)

    def ports(self, op: Op, choice: Perm) -> Ports:
        out = self._through(op, choice)
        if out is None:
            raise ValueError("illegal choice for RESHAPE")
        return [choice, None], [out]

    def choices(self, op: Op, side: str, index: int, perm: Perm) -> list[Perm]:
        if side == "in":
            return [perm] if self.legal(op, perm) else []
        source = through_reshape(op.outputs[0].shape, self.anchor(op).shape, perm)
        return [source] if source is not None and self.legal(op, source) else []
