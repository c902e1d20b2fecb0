"""Along which axis a value's channels lie: what shares a feature, and so a range of its own.

1. Images and volumes: axis 1. Values of convolutions along one axis have three axes as sequences of vectors do; what
   reads and writes them says which they are, across operators that leave the axes alone.
2. Everything else: the last axis.
"""

from __future__ import annotations

import onnx_ir as ir

from edgec.graph.model import shape_of
from edgec.graph.traits import TRAITS, Kind

#: Operators on images of one, two or three axes behind batch and channels.
_ON_IMAGES = frozenset(
    {
        *("Conv", "ConvTranspose", "AveragePool", "MaxPool", "LpPool", "GlobalAveragePool", "GlobalMaxPool"),
        *("BatchNormalization", "InstanceNormalization", "GroupNormalization"),
    }
)
_SAME_AXES = frozenset(
    {op for op, trait in TRAITS.items() if trait.kind is Kind.LIGHT and not op.startswith(("Reduce", "Global"))}
    | {"Concat", "Identity", "Pad", "Resize", "Slice", "Split"}
) - {"AveragePool"}
_IMAGE_RANK = 4


def like_image(value: ir.Value) -> bool:
    """Whether the channels lie along axis 1, behind the batch (rule 1)."""
    rank = len(shape_of(value))
    return rank >= _IMAGE_RANK or (rank == _IMAGE_RANK - 1 and (_written_as_image(value) or _read_as_image(value)))


def channel_axis(value: ir.Value) -> int | None:
    """The axis; None for scalars and vectors."""
    rank = len(shape_of(value))
    if rank < 2:
        return None
    return 1 if like_image(value) else rank - 1


def _written_as_image(value: ir.Value) -> bool:
    known: ir.Value | None = value
    while known is not None and (node := known.producer()) is not None:
        if node.op_type in _ON_IMAGES:
            return True
        before = node.inputs if node.op_type in _SAME_AXES else ()
        known = next((v for v in before if v is not None and v.shape is not None and len(shape_of(v)) == 3), None)
    return False


def _read_as_image(value: ir.Value) -> bool:
    known: ir.Value | None = value
    while known is not None:
        users = [user for user, index in known.uses() if index == 0 or user.op_type not in _ON_IMAGES]
        if any(user.op_type in _ON_IMAGES for user in users):
            return True
        after = [v for user in users if user.op_type in _SAME_AXES for v in user.outputs]
        known = next((v for v in after if v.shape is not None and len(shape_of(v)) == 3), None)
    return False
