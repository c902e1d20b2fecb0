"""Roles of operators that work value by value, or along the last axis only."""

from __future__ import annotations

from dataclasses import dataclass

from edgec.backends.tflite.layout.perms import Perm, identity, stored_shape
from edgec.backends.tflite.layout.role import Ports, Role, permute_operand
from edgec.backends.tflite.tir import Op, int32


class Elementwise(Role):
    """Operands broadcast to the output; constants are permuted, lower ranks get leading unit axes."""

    def legal(self, op: Op, choice: Perm) -> bool:
        return True

    def ports(self, op: Op, choice: Perm) -> Ports:
        rank = op.outputs[0].rank
        inputs: list[Perm | None] = []
        for t in op.inputs:
            if t is None or t.is_const:
                inputs.append(None)
            elif t.size == 1:
                inputs.append(identity(t.rank))
            else:
                offset = rank - t.rank
                inputs.append(tuple(a - offset for a in choice if a >= offset))
        return inputs, [choice for _ in op.outputs]

    def choices(self, op: Op, side: str, index: int, perm: Perm) -> list[Perm]:
        rank = op.outputs[0].rank
        if len(perm) == rank:
            return [perm]
        # a lower rank says nothing of the leading axes: keep them in front
        offset = rank - len(perm)
        return [(*range(offset), *(a + offset for a in perm))]

    def rewrite(self, op: Op, choice: Perm) -> None:
        for i, t in enumerate(op.inputs):
            if t is not None and t.is_const and t.size > 1:
                op.inputs[i] = permute_operand(t, choice)


class BroadcastTo(Elementwise):
    """Elementwise, with the target shape as a constant."""

    def rewrite(self, op: Op, choice: Perm) -> None:
        op.inputs[1] = int32("shape", stored_shape(op.outputs[0].shape, choice))


@dataclass
class LastAxis(Role):
    """The last axis stays last; the others may move (`leading` False: nothing may)."""

    leading: bool = True

    def legal(self, op: Op, choice: Perm) -> bool:
        movable = self.leading and (op.kind != "FULLY_CONNECTED" or bool(op.options.get("keepNumDims")))
        if not movable:
            return choice == self.default(op)
        return not choice or choice[-1] == len(choice) - 1

    def ports(self, op: Op, choice: Perm) -> Ports:
        inputs: list[Perm | None] = [None] * len(op.inputs)
        inputs[0] = choice
        for i, t in enumerate(op.inputs[1:], 1):
            inputs[i] = None if t is None or t.is_const else identity(t.rank)
        return inputs, [choice for _ in op.outputs]

    def choices(self, op: Op, side: str, index: int, perm: Perm) -> list[Perm]:
        if side == "in" and index != 0:
            return [self.default(op)] if perm == identity(len(perm)) else []
        return [perm] if self.legal(op, perm) else []
