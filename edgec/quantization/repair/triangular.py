"""Cholesky factors and triangular systems, block by block: LAPACK's work on one core is done by matrix products.

numpy has no triangular solver, and its Cholesky on one thread is several times as slow as its products.
"""

from __future__ import annotations

import numpy as np

from edgec.tensors import Array

#: Matrices that are small are factored and solved as they are.
SMALL = 64


def cholesky(matrices: Array) -> Array:
    """Lower triangular L with L·Lᵀ = H [groups, n, n]; of the diagonal alone where H is not positive definite.

    Column by column of blocks, so that matrix products do nearly all of it: several times as fast as LAPACK's.
    """
    for dtype in (np.float32, np.float64):  # float32 is too short for what is ill-conditioned
        try:
            return _blocks(matrices.astype(dtype)).astype(np.float32, copy=False)
        except np.linalg.LinAlgError:
            continue
    # Small differences of large sums: no correlation in them is to be trusted.
    return np.asarray(np.sqrt(matrices * np.eye(matrices.shape[-1], dtype=np.float32)))


def _blocks(matrices: Array) -> Array:
    n = matrices.shape[1]
    for start in range(0, n, SMALL):
        stop = min(start + SMALL, n)
        part = slice(start, stop)
        if start:
            matrices[:, start:, part] -= matrices[:, start:, :start] @ matrices[:, part, :start].transpose(0, 2, 1)
        matrices[:, part, part] = corner = np.linalg.cholesky(matrices[:, part, part])
        matrices[:, part, stop:] = 0.0
        if stop < n:
            matrices[:, stop:, part] = matrices[:, stop:, part] @ np.linalg.inv(corner).transpose(0, 2, 1)
    return matrices


def solve_lower(lower: Array, right: Array) -> Array:
    """X with L·X = B, from the first block to the last."""
    result = right.copy()
    for start in range(0, lower.shape[1], SMALL):
        part = slice(start, start + SMALL)
        if start:
            result[:, part] -= lower[:, part, :start] @ result[:, :start]
        result[:, part] = np.linalg.solve(lower[:, part, part], result[:, part])
    return result


def solve_upper(upper: Array, right: Array) -> Array:
    """X with U·X = B, from the last block to the first."""
    result = right.copy()
    for start in reversed(range(0, upper.shape[1], SMALL)):
        part, behind = slice(start, start + SMALL), slice(start + SMALL, None)
        result[:, part] -= upper[:, part, behind] @ result[:, behind]
        result[:, part] = np.linalg.solve(upper[:, part, part], result[:, part])
    return result
