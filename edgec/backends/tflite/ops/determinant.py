"""Det: the product of the pivots of Gaussian elimination, unrolled, with the largest pivot taken in each step."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from edgec.backends.tflite.context import Context, Lowering, Refusal
from edgec.backends.tflite.ops.dtypes import FLOAT, computed
from edgec.backends.tflite.ops.expr import Expr, expr, iota
from edgec.backends.tflite.tir import Tensor

_LARGEST = 16


def determinant(m: Expr) -> Expr:
    """Determinants of [batch, n, n]: by formula up to 2, else by elimination."""
    n = m.shape[-1]
    if n == 0:
        return m.reshape(m.shape[0], 0).sum(1) + 1.0
    if n == 1:
        return m.reshape(m.shape[0])
    if n == 2:
        return _at(m, 0, 0) * _at(m, 1, 1) - _at(m, 0, 1) * _at(m, 1, 0)
    rows = iota(m.ctx, n).reshape(1, n, 1)
    column = m.slice(2, 0, 1)  # [batch, n, 1]
    size = column.abs()
    largest = size.max(1, keep=True)
    place = size.equals(largest).where(rows, n).min(1, keep=True)  # the first of the largest
    chosen = rows.equals(place)
    pivot_row = chosen.where(m, 0.0).sum(1, keep=True)
    # the pivot's row and row 0 change places: row 0 is written where the pivot was
    swapped = chosen.where(m.slice(1, 0, 1), m).slice(1, 1, n - 1)
    pivot = pivot_row.slice(2, 0, 1)
    singular = pivot.equals(0.0)
    safe = singular.where(1.0, pivot)
    factors = swapped.slice(2, 0, 1) / safe
    rest = swapped.slice(2, 1, n - 1) - factors * pivot_row.slice(2, 1, n - 1)
    sign = place.equals(0).where(1.0 + 0.0 * pivot, -1.0)
    return (pivot * sign).reshape(m.shape[0]) * determinant(rest)


def _at(m: Expr, row: int, column: int) -> Expr:
    return m.slice(1, row, 1).slice(2, column, 1).reshape(m.shape[0])


def _det(ctx: Context, node: ir.Node) -> Tensor:
    """See the module."""
    x = ctx.tensor(node.inputs[0])
    n = x.shape[-1]
    if n > _LARGEST:
        raise Refusal("size", f"Det of {n} × {n} matrices: the unrolled elimination goes to {_LARGEST}")
    batch = int(np.prod(x.shape[:-2]))

    def run(t: Tensor) -> Tensor:
        return ctx.reshape(determinant(expr(ctx, ctx.reshape(t, (batch, n, n)))).t, x.shape[:-2])

    return computed(ctx, "Det", [x], FLOAT, run)


LOWERINGS: dict[str, Lowering] = {"Det": _det}
