"""Einsum as sums, products and one matrix product for each further operand.

1. A letter that an operand repeats is its diagonal.
2. Operands are joined two at a time: letters are shared batch (kept), contracted, left only or right only.
   Letters that only one side has and nobody needs are summed before.
3. Each pair is transposed to [batch, left, contracted] and [batch, contracted, right]: one matrix product.
"""

from __future__ import annotations

import string
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from edgec.backends.tflite.context import Context, Lowering, Refusal
from edgec.backends.tflite.ops.dtypes import ARITHMETIC, computed
from edgec.backends.tflite.ops.elementwise import arithmetic
from edgec.backends.tflite.ops.linear import batch_matmul, expand
from edgec.backends.tflite.ops.reduce import reduce
from edgec.backends.tflite.tir import Tensor
from edgec.graph.model import attr


@dataclass(frozen=True, slots=True)
class _Term:
    """A tensor whose axes are named by letters, no letter twice."""

    t: Tensor
    letters: str

    def size(self, letter: str) -> int:
        return self.t.shape[self.letters.index(letter)]


def parse(equation: str, ranks: list[int]) -> tuple[list[str], str]:
    """Letters of the operands and of the result, with capital stand-ins for what `...` covers."""
    left, arrow, right = equation.replace(" ", "").partition("->")
    terms = left.split(",")
    if len(terms) != len(ranks):
        raise Refusal("equation", f"Einsum {equation!r} has {len(terms)} terms and {len(ranks)} operands")
    free = [c for c in string.ascii_uppercase + string.ascii_lowercase if c not in equation]
    covered = [rank - len(t.replace("...", "")) for t, rank in zip(terms, ranks, strict=True)]
    widest = max((n for n, t in zip(covered, terms, strict=True) if "..." in t), default=0)
    stand = "".join(free[:widest])
    named = [t.replace("...", stand[widest - n :] if n else "") for t, n in zip(terms, covered, strict=True)]
    if any(len(t) != rank for t, rank in zip(named, ranks, strict=True)):
        raise Refusal("equation", f"Einsum {equation!r} does not fit operands of ranks {ranks}")
    if arrow:
        return named, right.replace("...", stand)
    joined = "".join(terms).replace("...", "")
    return named, stand + "".join(sorted(c for c in set(joined) if joined.count(c) == 1))


def _diagonals(ctx: Context, t: Tensor, letters: str) -> _Term:
    """Rule 1: GATHER of every (n + 1)th element of the two axes taken as one."""
    for letter in dict.fromkeys(letters):
        while letters.count(letter) > 1:
            first = letters.index(letter)
            second = letters.index(letter, first + 1)
            rest = [i for i in range(t.rank) if i not in (first, second)]
            size = t.shape[first]
            moved = ctx.transpose(t, [*rest, first, second])
            flat = ctx.reshape(moved, (*moved.shape[:-2], size * size))
            index = ctx.int32(np.arange(size) * (size + 1))
            t = ctx.emit("GATHER", [flat, index], (*flat.shape[:-1], size), t.dtype, axis=flat.rank - 1, batchDims=0)
            letters = "".join(letters[i] for i in rest) + letter
    return _Term(t, letters)


def _summed(ctx: Context, term: _Term, keep: str) -> _Term:
    axes = [i for i, c in enumerate(term.letters) if c not in keep]
    if not axes:
        return term
    t = reduce(ctx, "SUM", term.t, axes, keep=False)
    return _Term(t, "".join(c for c in term.letters if c in keep))


def _arranged(ctx: Context, term: _Term, order: str) -> Tensor:
    return ctx.transpose(term.t, [term.letters.index(c) for c in order])


def _join(ctx: Context, a: _Term, b: _Term, needed: str) -> _Term:
    """Rules 2 and 3."""
    a = _summed(ctx, a, needed + b.letters)
    b = _summed(ctx, b, needed + a.letters)
    shared = [c for c in a.letters if c in b.letters]
    # an axis of size 1 on one side only broadcasts: it belongs to the other side
    for c in list(shared):
        if a.size(c) != b.size(c):
            shared.remove(c)
            if a.size(c) == 1:
                a = _without(ctx, a, c)
            else:
                b = _without(ctx, b, c)
    batch = "".join(c for c in shared if c in needed)
    inner = "".join(c for c in shared if c not in needed)
    left = "".join(c for c in a.letters if c not in shared)
    right = "".join(c for c in b.letters if c not in shared)
    sizes = {c: term.size(c) for term in (a, b) for c in term.letters}
    lead = tuple(sizes[c] for c in batch)
    rows, columns, depth = (int(np.prod([sizes[c] for c in part])) for part in (left, right, inner))
    if not inner:  # an outer product needs no sum
        x = ctx.reshape(_arranged(ctx, a, batch + left), (*lead, rows, 1))
        y = ctx.reshape(_arranged(ctx, b, batch + right), (*lead, 1, columns))
        product = arithmetic(ctx, "MUL", x, y)
    else:
        x = ctx.reshape(_arranged(ctx, a, batch + left + inner), (*lead, rows, depth))
        y = ctx.reshape(_arranged(ctx, b, batch + inner + right), (*lead, depth, columns))
        product = batch_matmul(ctx, x, y)
    shape = (*lead, *(sizes[c] for c in left), *(sizes[c] for c in right))
    return _Term(ctx.reshape(product, shape), batch + left + right)


def _without(ctx: Context, term: _Term, letter: str) -> _Term:
    axis = term.letters.index(letter)
    shape = term.t.shape[:axis] + term.t.shape[axis + 1 :]
    return _Term(ctx.reshape(term.t, shape), term.letters.replace(letter, ""))


def _einsum(ctx: Context, node: ir.Node) -> Tensor:
    """See the module."""
    tensors = [ctx.tensor(v) for v in node.inputs]
    operands, result = parse(attr(node, "equation"), [t.rank for t in tensors])
    _, shape, _ = ctx.out_spec(node)

    def run(*parts: Tensor) -> Tensor:
        terms = [_diagonals(ctx, t, letters) for t, letters in zip(parts, operands, strict=True)]
        total = terms[0]
        for i, term in enumerate(terms[1:], 1):
            later = "".join(t.letters for t in terms[i + 1 :])
            total = _join(ctx, total, term, result + later)
        total = _summed(ctx, total, result)
        return expand(ctx, _arranged(ctx, total, result), shape)

    return computed(ctx, "Einsum", tensors, ARITHMETIC, run, modular=True)


LOWERINGS: dict[str, Lowering] = {"Einsum": _einsum}
