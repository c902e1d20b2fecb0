"""What one output holds of different kinds: a detector's boxes in pixels, and its scores from 0 to 1.

Together the large drown the small: with every score gone, boxes alone may leave 40 dB. So an output is taken apart:

1. A Concat's output is cut where its pieces meet, also behind operators on single numbers and those that lay out axes
   anew; along another axis where all its pieces are cut alike (the levels of a detector).
2. Blocks are of one kind where none is smaller than a tenth of the largest, by the root of their mean square in float.
   What is zero throughout says nothing by itself, and goes with the smallest of the others.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence

import numpy as np
import onnx_ir as ir

from edgec.graph.model import attr, static_shape
from edgec.tensors import Array, Block, Kind

#: Rule 2.
_APART = 0.1

#: Of so many blocks nobody could say what each is.
_MOST_BLOCKS = 256

#: Operators on single numbers, as stand between a head's Concat and the output; either of two inputs may be the Concat.
_SINGLE = frozenset(
    {
        *(
            "Add",
            "Cast",
            "Clip",
            "Div",
            "Exp",
            "HardSigmoid",
            "Identity",
            "Mul",
            "Neg",
            "Pow",
            "Relu",
            "Sigmoid",
            "Sub",
        ),
        *("Softplus", "Tanh"),
    }
)
_LAID_OUT = frozenset({"Flatten", "Reshape", "Squeeze", "Unsqueeze"})

_Cuts = dict[int, set[int]]


def kinds_in(
    outputs: Sequence[ir.Value], references: Sequence[Mapping[str, Array]], names: Sequence[str] = ()
) -> dict[str, tuple[Kind, ...]]:
    """The kinds of values in each output that has more than one, the largest first, by its name.

    `references` are what float gives, under the outputs' names or the `names` that they have there.
    """
    found = {}
    for value, name in zip(outputs, names or [v.name or "" for v in outputs], strict=True):
        blocks = _blocks(value)
        kinds = _by_size(blocks, [r[name] for r in references]) if blocks and references else ()
        if len(kinds) > 1:
            found[value.name or ""] = kinds
    return found


def _blocks(value: ir.Value) -> Kind:
    """Rule 1; nothing where the value is one block."""
    shape = static_shape(value)
    cuts = {} if shape is None else _cuts(value, {})
    if shape is None or not 1 < math.prod(len(at) + 1 for at in cuts.values()) <= _MOST_BLOCKS:
        return ()
    ends = [[0, *sorted(cuts.get(axis, ())), size] for axis, size in enumerate(shape)]
    slices = [[slice(a, b) for a, b in itertools.pairwise(axis)] for axis in ends]
    return tuple(itertools.product(*slices))


def _by_size(blocks: Sequence[Block], references: Sequence[Array]) -> tuple[Kind, ...]:
    """Rule 2."""
    sizes = [math.sqrt(sum(_power(r[block]) for r in references) / _count(block)) for block in blocks]
    found: list[list[Block]] = []
    largest = 0.0
    for i in sorted(range(len(blocks)), key=lambda i: -sizes[i]):
        if not found or 0 < sizes[i] < _APART * largest:
            found.append([])
            largest = sizes[i]
        found[-1].append(blocks[i])
    return tuple(map(tuple, found))


def _power(values: Array) -> float:
    return float(np.square(values[np.isfinite(values)], dtype=np.float64).sum())


def _count(block: Block) -> int:
    return math.prod(part.stop - part.start for part in block)


def _cuts(value: ir.Value, known: dict[ir.Value, _Cuts]) -> _Cuts:
    """Rule 1: for each axis where pieces meet."""
    if value not in known:
        known[value] = {}  # a cycle would end here
        known[value] = {axis: at for axis, at in _found(value, known).items() if at}
    return known[value]


def _found(value: ir.Value, known: dict[ir.Value, _Cuts]) -> _Cuts:
    node, shape = value.producer(), static_shape(value)
    if node is None or shape is None or node.domain not in ("", "ai.onnx"):
        return {}
    inputs = [v for v in node.inputs if v is not None]
    if node.op_type == "Concat":
        return _joined(inputs, attr(node, "axis", 0) % len(shape), known)
    if node.op_type == "Transpose":
        own = _cuts(inputs[0], known)
        order = attr(node, "perm", tuple(reversed(range(len(shape)))))
        return {axis: own[from_axis] for axis, from_axis in enumerate(order) if from_axis in own}
    if node.op_type in _LAID_OUT:
        return _laid_out(_cuts(inputs[0], known), static_shape(inputs[0]), shape)
    merged: _Cuts = {}
    if node.op_type in _SINGLE:
        for given in inputs:
            if static_shape(given) == shape:
                for axis, at in _cuts(given, known).items():
                    merged.setdefault(axis, set()).update(at)
    return merged


def _joined(pieces: Sequence[ir.Value], axis: int, known: dict[ir.Value, _Cuts]) -> _Cuts:
    """A Concat's own cuts, those of its pieces along its axis, and along others those that all pieces have."""
    along: set[int] = set()
    others: list[_Cuts] = []
    start = 0
    for piece in pieces:
        shape = static_shape(piece)
        if shape is None:
            return {}
        own = _cuts(piece, known)
        along |= {start, *(start + at for at in own.get(axis, ()))}
        others.append(own)
        start += shape[axis]
    axes = set.intersection(*(set(own) for own in others)) - {axis}
    shared = {other: set.intersection(*(own[other] for own in others)) for other in axes}
    return {axis: along - {0, start}, **shared}


def _laid_out(own: Mapping[int, set[int]], before: tuple[int, ...] | None, after: tuple[int, ...]) -> _Cuts:
    """The cuts along axes that are laid out anew and stay as long, with as much in front of them."""
    if before is None:
        return {}
    places = {(math.prod(before[:axis]), before[axis]): at for axis, at in own.items()}
    found = {axis: places.get((math.prod(after[:axis]), after[axis])) for axis in range(len(after))}
    return {axis: at for axis, at in found.items() if at}
