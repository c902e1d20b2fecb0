"""Round a layer's weights so that its outputs keep closest to float: optimal brain quantization in a fixed order.

With inputs x and H = Σ x·xᵀ, a weight error e adds e·H·eᵀ to the squared output error. Weights are rounded
one input at a time, those that meet the most energy first, and each rounding error is made up for by the inputs that
are still free. With U the upper Cholesky factor of H⁻¹ (H⁻¹ = Uᵀ·U) and column j to round:

    q_j = round(w_j / s),   e = (w_j − s·q_j) / U_jj,   w_k ← w_k − e·U_jk  for k > j

1. H is damped by a share of its mean diagonal, and shrunk towards its diagonal the more, the fewer positions it is
   made from: few samples leave directions unseen, and correlations that are not there.
2. An input that is always zero keeps its nearest rounding.
3. When what the layer reads in int8 (x̂) differs from float (x), the target becomes W·X·X̂ᵀ·Ĥ⁻¹, which makes up for the
   errors of the layers before it as well, as far as the samples are to be trusted.
4. The result is never worse than nearest rounding: rows where it would be fall back to that.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from edgec.tensors import Array

#: Rule 1: the share of the mean diagonal, and the weight of n / (n + positions).
DAMPING = 0.01
SHRINK = 0.5

#: Columns that are updated together: rank-1 updates inside a block, one matrix product for the rest.
_BLOCK = 32

#: Matrices that are small: such triangles are inverted as they are.
_SMALL = 64

#: Of a sum of squares, what float32 may leave where nothing should be.
_ROUNDING = 64 * float(np.finfo(np.float32).eps)

#: Positions that are taken in with one product: fewer passes over a large H. Few samples wait until the end.
_AT_ONCE = 2048


@dataclass(slots=True)
class Moments:
    """Sums over positions: `own` is Σ x̂·x̂ᵀ [groups, n, n], `cross` Σ (x − x̂)·x̂ᵀ or None.

    `total` is Σ x̂ and `apart` Σ (x − x̂) [groups, n], `count` the number of positions.
    """

    own: Array
    cross: Array | None = None
    count: int = 0
    total: Array | float = 0.0
    apart: Array | float = 0.0
    _waiting: list[tuple[Array, Array | None]] = field(default_factory=list)

    @classmethod
    def zeros(cls, groups: int, fan_in: int, *, cross: bool = False) -> Moments:
        """No positions yet."""
        shape = (groups, fan_in, fan_in)
        return cls(np.zeros(shape, np.float32), np.zeros(shape, np.float32) if cross else None)

    def add(self, read: Array, in_float: Array | None = None) -> None:
        """Take in positions: [groups, positions, n] as the layer reads them, and in float."""
        self.count += read.shape[1]
        self._waiting.append((read, in_float))
        if sum(r.shape[1] for r, _ in self._waiting) >= _AT_ONCE:
            self.flush()

    def flush(self) -> Moments:
        """Take in what `add` has put by."""
        for read, in_float in self._batches():
            self.own += _t(read) @ read
            self.total = self.total + _sum(read)
            if self.cross is not None and in_float is not None:
                apart = in_float - read
                self.cross += _t(apart) @ read
                self.apart = self.apart + _sum(apart)
        self._waiting.clear()
        return self

    def _batches(self) -> list[tuple[Array, Array | None]]:
        """What waits: all in one where H is large, and one by one where laying it together is what would cost."""
        if len(self._waiting) < 2 or self.own.shape[1] <= _SMALL:
            return self._waiting
        reads, in_float = zip(*self._waiting, strict=True)
        together = np.concatenate(in_float, axis=1) if self.cross is not None else None
        return [(np.concatenate(reads, axis=1), together)]

    @property
    def mean(self) -> Array:
        """E[x̂]: [groups, n]."""
        return np.asarray(self.total) / max(self.count, 1)

    @property
    def mean_apart(self) -> Array:
        """E[x − x̂]: [groups, n]."""
        return np.broadcast_to(np.asarray(self.apart) / max(self.count, 1), self.mean.shape)

    def joined(self, other: Moments) -> Moments:
        """Over the positions of both."""
        cross = None if self.cross is None or other.cross is None else self.cross + other.cross
        return Moments(
            own=self.own + other.own,
            cross=cross,
            count=self.count + other.count,
            total=self.total + other.total,
            apart=self.apart + other.apart,
        )

    def centred(self) -> Moments:
        """The same about the means: for a layer whose bias takes the mean error in."""
        mean = self.mean[:, None, :].astype(np.float32)
        own = np.asarray(self.total, np.float32)[:, :, None] * mean
        np.subtract(self.own, own, out=own)
        cross = None
        if self.cross is not None:
            cross = np.asarray(self.apart, np.float32)[:, :, None] * mean
            np.subtract(self.cross, cross, out=cross)
        # A constant input leaves nothing but rounding, which is no correlation with anything.
        constant = np.einsum("gii->gi", own) <= _ROUNDING * np.einsum("gii->gi", self.own)
        own[constant[:, :, None] | constant[:, None, :]] = 0.0
        if cross is not None:
            cross[np.broadcast_to(constant[:, None, :], cross.shape)] = 0.0
        return Moments(own=own, cross=cross, count=self.count)


def round_rows(weight: Array, scales: Array, moments: Moments, *, limit: int = 127, trust: float = 1.0) -> Array:
    """Integers in ±`limit` for `weight` [groups, outputs, n] with `scales` [groups, outputs]: int8, same shape.

    `trust` is the share of rule 3's change that is made.
    """
    hessian, alive = _damped(moments)
    target: Array = weight.astype(np.float32)
    if moments.cross is not None and trust > 0:  # rule 3
        target = target + trust * _change(target, hessian, moments.cross)
    step = scales[:, :, None].astype(np.float32)
    nearest = np.clip(np.rint(weight / step), -limit, limit)
    rounded = _in_order(target, step, hessian, limit)
    rounded = np.where(alive[:, None, :], rounded, nearest)  # rule 2
    better = _cost(target - rounded * step, hessian) <= _cost(target - nearest * step, hessian)  # rule 4
    return np.where(better[:, :, None], rounded, nearest).astype(np.int8)


def output_error(difference: Array, moments: Moments) -> Array:
    """e·H·eᵀ of weight errors [groups, outputs, n]: the squared output error of each output."""
    return _cost(difference.astype(np.float32), moments.own)


def target_change(weight: Array, moments: Moments) -> Array:
    """Rule 3's change of the target in whole: W·C·Ĥ⁻¹ with C = Σ (x − x̂)·x̂ᵀ."""
    assert moments.cross is not None
    return _change(weight.astype(np.float32), _damped(moments)[0], moments.cross)


def _change(weight: Array, hessian: Array, cross: Array) -> Array:
    return np.asarray(_t(np.linalg.solve(_t(hessian), _t(cross) @ _t(weight))), np.float32)


def _sum(read: Array) -> Array:
    """Over the positions, by a product: down a column numpy adds slowly. float32 is exact enough for so few."""
    return np.asarray((np.ones((1, read.shape[1]), np.float32) @ read)[:, 0], np.float64)


def _t(matrices: Array) -> Array:
    return matrices.transpose(0, 2, 1)


def _cost(difference: Array, hessian: Array) -> Array:
    return np.asarray(np.sum((difference @ hessian) * difference, axis=2))


def _damped(moments: Moments) -> tuple[Array, Array]:
    """H with rules 1 and 2 applied, and which inputs are ever different from zero."""
    own = moments.own
    n = own.shape[1]
    diagonal = np.einsum("gii->gi", own)
    alive = diagonal > 0
    mean = diagonal.mean(axis=1)
    extra = np.where(mean > 0, DAMPING * mean, 1.0)[:, None] + np.where(alive, 0.0, mean[:, None])
    index = np.arange(n)
    share = SHRINK * n / (n + moments.count)
    hessian = (1 - share) * own
    hessian[:, index, index] += share * diagonal
    hessian[:, index, index] += extra.astype(np.float32)
    return hessian, alive


def _in_order(target: Array, step: Array, hessian: Array, limit: int) -> Array:
    """Round column by column, the ones with the most energy first. Inside, a column's numbers lie side by side."""
    groups, outputs, n = target.shape
    order = np.argsort(-np.einsum("gii->gi", hessian), axis=1, kind="stable")
    one = np.arange(groups)[:, None]
    factor = _inverse_factor(hessian[one[:, :, None], order[:, :, None], order[:, None, :]])
    pivot = np.einsum("gii->gi", factor)
    work = np.ascontiguousarray(np.take_along_axis(target, order[:, None, :], axis=2).transpose(0, 2, 1))
    result = np.empty_like(work)
    scale = step[:, :, 0]
    for start in range(0, n, _BLOCK):
        stop = min(start + _BLOCK, n)
        errors = np.empty((groups, stop - start, outputs), np.float32)
        for j in range(start, stop):
            column = work[:, j]
            result[:, j] = q = np.clip(np.rint(column / scale), -limit, limit)
            errors[:, j - start] = error = (column - q * scale) / pivot[:, j, None]
            if j + 1 < stop:
                work[:, j + 1 : stop] -= factor[:, j, j + 1 : stop, None] * error[:, None, :]
        if stop < n:
            work[:, stop:] -= factor[:, start:stop, stop:].transpose(0, 2, 1) @ errors
    back = np.argsort(order, axis=1, kind="stable")
    return np.take_along_axis(result, back[:, :, None], axis=1).transpose(0, 2, 1)


def _inverse_factor(hessian: Array) -> Array:
    """U with Uᵀ·U = H⁻¹, upper triangular: from the Cholesky factor of H in reverse order."""
    flipped = hessian[:, ::-1, ::-1]
    try:
        lower = np.linalg.cholesky(flipped)  # flipped = L·Lᵀ
    except np.linalg.LinAlgError:  # float32 is too short for what is this ill-conditioned
        try:
            lower = np.linalg.cholesky(flipped.astype(np.float64))
        except np.linalg.LinAlgError:  # small differences of large sums: no correlation in them is to be trusted
            lower = np.sqrt(flipped * np.eye(flipped.shape[-1], dtype=np.float32))
    # H = R·Rᵀ with R = flip(L) upper triangular, so H⁻¹ = R⁻ᵀ·R⁻¹ and U = R⁻¹ = flip(L⁻¹).
    return np.asarray(_inverse_of_lower(lower)[:, ::-1, ::-1], np.float32)


def _inverse_of_lower(lower: Array) -> Array:
    """L⁻¹ of lower triangular matrices, by halves: matrix products do nearly all of it."""
    n = lower.shape[-1]
    if n <= _SMALL:
        return np.tril(np.linalg.inv(lower))
    middle = n // 2
    first, last = _inverse_of_lower(lower[:, :middle, :middle]), _inverse_of_lower(lower[:, middle:, middle:])
    result = np.zeros_like(lower)
    result[:, :middle, :middle], result[:, middle:, middle:] = first, last
    result[:, middle:, :middle] = -(last @ lower[:, middle:, :middle]) @ first
    return result
