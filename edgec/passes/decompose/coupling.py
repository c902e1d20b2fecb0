"""Probabilities of classes from those of pairs, by libsvm's iteration, as a loop that stops where libsvm stops.

With Q_tt = Σ_j r_jt² and Q_tj = −r_jt · r_tj, it minimises pᵀQp on Σp = 1 by one coordinate at a time. A row that has
converged stays as it is while others go on.
"""

from __future__ import annotations

import itertools

import numpy as np
import onnx_ir as ir

from edgec.graph.build import Builder
from edgec.tensors import Array

_ROUNDS = 100
_TOLERANCE = 0.005


def coupled(b: Builder, pairs: ir.Value, rows: int, classes: int) -> ir.Value:
    """[rows, classes] from [rows, pairs (i < j)]"""
    q = _matrix(b, pairs, classes)
    return _loop(b, q, b.constant(np.full((rows, classes), 1 / classes, np.float32)), classes)


def _matrix(b: Builder, pairs: ir.Value, classes: int) -> ir.Value:
    """Q: [rows, classes, classes]."""
    combinations = list(itertools.combinations(range(classes), 2))
    # r_ij of all i ≠ j, with 0 on the diagonal: a pair p gives r_ij, its complement r_ji
    give, constant = np.zeros((len(combinations), classes * classes), np.float32), np.zeros(classes**2, np.float32)
    for p, (i, j) in enumerate(combinations):
        give[p, i * classes + j], give[p, j * classes + i] = 1, -1
        constant[j * classes + i] = 1
    r = b("Reshape", b("Add", b("MatMul", pairs, give), constant), b.ints(-1, classes, classes))
    back = b("Transpose", r, perm=(0, 2, 1))
    squares = b("ReduceSum", b("Mul", r, r), b.ints(1), keepdims=1)  # Σ_j r_jt²: [rows, 1, classes]
    diagonal = b("Mul", squares, np.eye(classes, dtype=np.float32)[None])
    return b("Sub", diagonal, b("Mul", r, back))


def _loop(b: Builder, q: ir.Value, start: ir.Value, classes: int) -> ir.Value:
    number = ir.Value(name=b.name("round"), type=ir.TensorType(ir.DataType.INT64), shape=ir.Shape(()))
    going = ir.Value(name=b.name("going"), type=ir.TensorType(ir.DataType.BOOL), shape=ir.Shape(()))
    p = ir.Value(name=b.name("p"), type=ir.TensorType(ir.DataType.FLOAT), shape=start.shape)
    inner = b.inside()
    product = inner("MatMul", q, inner("Unsqueeze", p, b.ints(2)))
    qp = inner("Squeeze", product, b.ints(2))
    pqp = inner("ReduceSum", inner("Mul", p, qp), b.ints(1), keepdims=1)
    error = inner("ReduceMax", inner("Abs", inner("Sub", qp, pqp)), b.ints(1), keepdims=1)
    open_ = inner("GreaterOrEqual", error, _float(_TOLERANCE / classes))
    new = _sweep(b, inner, q, p, qp, pqp, classes)
    result = inner("Where", open_, new, p)
    most = inner("ReduceMax", error, b.ints(0, 1), keepdims=0)
    more = inner("GreaterOrEqual", most, _float(_TOLERANCE / classes))
    body = ir.Graph([number, going, p], [more, result], nodes=inner.nodes, name=b.name("body"))
    result.type, result.shape = ir.TensorType(ir.DataType.FLOAT), start.shape
    more.type, more.shape = ir.TensorType(ir.DataType.BOOL), ir.Shape(())
    return b("Loop", np.asarray(_ROUNDS, np.int64), np.asarray(True), start, body=body)


def _sweep(b: Builder, inner: Builder, q: ir.Value, p: ir.Value, qp: ir.Value, pqp: ir.Value, classes: int) -> ir.Value:
    """One update of every coordinate in turn."""
    one = _float(1.0)
    for t in range(classes):
        at = np.asarray([t], np.int64)
        row = inner("Squeeze", inner("Gather", q, at, axis=1), b.ints(1))
        own, here = inner("Gather", row, at, axis=1), inner("Gather", qp, at, axis=1)
        step = inner("Div", inner("Sub", pqp, here), own)
        scale = inner("Add", step, one)
        unit = np.eye(classes, dtype=np.float32)[t : t + 1]
        p = inner("Div", inner("Add", p, inner("Mul", step, unit)), scale)
        grown = inner("Mul", step, inner("Add", inner("Mul", step, own), inner("Mul", here, _float(2.0))))
        pqp = inner("Div", inner("Div", inner("Add", pqp, grown), scale), scale)
        qp = inner("Div", inner("Add", qp, inner("Mul", step, row)), scale)
    return p


def _float(value: float) -> Array:
    return np.asarray(value, np.float32)
