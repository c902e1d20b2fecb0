"""Round a layer's weights so that its outputs keep closest to float: optimal brain quantization in a fixed order.

With inputs x and H = Σ x·xᵀ, a weight error e adds e·H·eᵀ to the squared output error. With H = L·Lᵀ, L lower
triangular, that is |e·L|², and what stands at j depends on the errors from j on alone. So weights are rounded one
input at a time from the last to the first, those that meet the most energy first, each to make up for those behind it:

    q_j = round((w_j + Σ e_i·L_ij / L_jj) / s)  over i > j,   e_j = w_j − s·q_j

1. H is damped by a share of its mean diagonal, and shrunk towards its diagonal the more, the fewer positions it is
   made from: few samples leave directions unseen, and correlations that are not there.
2. An input that is always zero keeps its nearest rounding.
3. When what the layer reads in int8 (x̂) differs from float (x), its output is off by W·(x − x̂), of which G·Ĥ⁻¹ with
   G = Σ W·(x − x̂)·x̂ᵀ can be had back by a change Δ of the weights: as much as the samples are to be trusted.
4. With Δ = Δ₁ + Δ₂ of the halves of the samples, t·Δ changes the error on as many others by t²·Δ·H·Δᵀ − 2t·G·Δᵀ.
   A half knows nothing of the other's G, so 4·G₁·Δ₂ᵀ is what to expect of G·Δᵀ: t = 4·G₁·Δ₂ᵀ / Δ·H·Δᵀ, in 0..1.
5. The result is never worse than nearest rounding: rows where it would be fall back to that.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from edgec.quantization.repair.triangular import SMALL, cholesky, solve_lower, solve_upper
from edgec.tensors import Array

#: Rule 1: the share of the mean diagonal, and the weight of n / (n + positions).
DAMPING = 0.01
SHRINK = 0.5

#: Columns that are updated together: rank-1 updates inside a block, one matrix product for the rest.
_BLOCK = 32

#: Of a sum of squares, what float32 may leave where nothing should be.
_ROUNDING = 64 * float(np.finfo(np.float32).eps)

#: Positions that are taken in with one product: fewer passes over a large H. Few samples wait until the end.
_AT_ONCE = 2048


@dataclass(slots=True)
class Moments:
    """Sums over positions: `own` is Σ x̂·x̂ᵀ [groups, n, n], `cross` Σ P·(x − x̂)·x̂ᵀ [groups, rows, n] or None.

    P is `through` [groups, rows, n], or 1 where that is None. `total` is Σ x̂ [groups, n] and `apart` Σ P·(x − x̂)
    [groups, rows], `count` the number of positions.
    """

    own: Array
    cross: Array | None = None
    count: int = 0
    total: Array | float = 0.0
    apart: Array | float = 0.0
    through: Array | None = None
    _waiting: list[tuple[Array, Array | None]] = field(default_factory=list)

    @classmethod
    def zeros(cls, groups: int, fan_in: int) -> Moments:
        """No positions yet."""
        return cls(np.zeros((groups, fan_in, fan_in), np.float32))

    @classmethod
    def against_float(cls, weight: Array) -> Moments:
        """The same for what `weight` [groups, outputs, n] is to make up for: through it, where that is less."""
        groups, outputs, fan_in = weight.shape
        found = cls.zeros(groups, fan_in)
        found.through = weight.astype(np.float32) if outputs < fan_in else None
        found.cross = np.zeros((groups, min(outputs, fan_in), fan_in), np.float32)
        return found

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
                if self.through is not None:
                    apart = apart @ _t(self.through)
                self.cross += _t(apart) @ read
                self.apart = self.apart + _sum(apart)
        self._waiting.clear()
        return self

    def _batches(self) -> list[tuple[Array, Array | None]]:
        """What waits: all in one where H is large, and one by one where laying it together is what would cost."""
        if len(self._waiting) < 2 or self.own.shape[1] <= SMALL:
            return self._waiting
        reads, in_float = zip(*self._waiting, strict=True)
        together = np.concatenate(in_float, axis=1) if self.cross is not None else None
        return [(np.concatenate(reads, axis=1), together)]

    @property
    def mean(self) -> Array:
        """E[x̂]: [groups, n]."""
        return np.asarray(self.total) / max(self.count, 1)

    def pull(self, weight: Array) -> Array:
        """Σ W·(x − x̂)·x̂ᵀ: [groups, outputs, n], of the weight that these moments are for."""
        assert self.cross is not None
        return self.cross if self.through is not None else weight.astype(np.float32) @ self.cross

    def mean_pull(self, weight: Array) -> Array:
        """E[W·(x − x̂)]: [groups, outputs]; 0 without float."""
        if self.cross is None:
            return np.zeros(weight.shape[:2])
        apart = np.asarray(self.apart) / max(self.count, 1)
        return apart if self.through is not None else np.einsum("gon,gn->go", weight, apart)

    def join(self, other: Moments) -> Moments:
        """Take in the positions of another."""
        self.own += other.own
        self.cross = None if self.cross is None or other.cross is None else self.cross + other.cross
        self.count += other.count
        self.total = self.total + other.total
        self.apart = self.apart + other.apart
        return self

    def centre(self) -> None:
        """Hold the squares and products about the means, for a layer whose bias takes the mean error in."""
        mean, before = self.mean.astype(np.float32), np.einsum("gii->gi", self.own).copy()
        _less(self.own, self.total, mean)
        # A constant input leaves nothing but rounding, which is no correlation with anything.
        constant = np.einsum("gii->gi", self.own) <= _ROUNDING * before
        group, place = np.nonzero(constant)
        self.own[group, place] = self.own[group, :, place] = 0.0
        if self.cross is not None:
            _less(self.cross, self.apart, mean)
            self.cross[group, :, place] = 0.0


def _less(sums: Array, total: Array | float, mean: Array) -> None:
    """Take total·meanᵀ off, some rows at a time: in one it would be a matrix as large again."""
    rows = np.asarray(total, np.float32)[:, :, None]
    for start in range(0, sums.shape[1], SMALL):
        part = slice(start, start + SMALL)
        sums[:, part] -= rows[:, part] * mean[:, None, :]


def round_rows(
    weight: Array, scales: Array, moments: Moments, *, limit: int = 127, pulls: Sequence[Array] = ()
) -> Array:
    """Integers in ±`limit` for `weight` [groups, outputs, n] with `scales` [groups, outputs]: int8, same shape.

    `pulls` are rule 3's G of all samples, or of each half, [groups, outputs, n].
    """
    curvature = Curvature(moments)
    target: Array = weight.astype(np.float32)
    if pulls:
        target = target + curvature.change(pulls)
    step = scales[:, :, None].astype(np.float32)
    nearest = np.clip(np.rint(weight / step), -limit, limit)
    rounded, cost = curvature.round_in_order(target, step, limit)
    rounded = np.where(curvature.alive[:, None, :], rounded, nearest)  # rule 2
    better = cost <= curvature.cost(target - nearest * step)  # rule 5
    return np.where(better[:, :, None], rounded, nearest).astype(np.int8)


class Curvature:
    """What errors in the weights cost at a layer's output: its H, damped, with the inputs in the order of rounding.

    Inside, an input's numbers lie side by side, [groups, n, outputs], and the first to be rounded is the last.
    `alive` [groups, n] are inputs that are not always zero.
    """

    def __init__(self, moments: Moments) -> None:
        diagonal = np.einsum("gii->gi", moments.own)
        self.alive = diagonal > 0
        self._order = np.argsort(diagonal, axis=1, kind="stable")
        self._back = np.argsort(self._order, axis=1, kind="stable")
        one = np.arange(len(diagonal))[:, None, None]
        hessian = moments.own[one, self._order[:, :, None], self._order[:, None, :]]
        self._kept, self._added = _damping(np.take_along_axis(diagonal, self._order, axis=1), moments.count)
        index = np.arange(hessian.shape[1])
        hessian *= self._kept
        hessian[:, index, index] += self._added
        self._root = cholesky(hessian)

    def change(self, pulls: Sequence[Array]) -> Array:
        """Rule 3: how the weights change, [groups, outputs, n], by what the halves of the samples agree on (rule 4)."""
        pushed = [solve_lower(self._root, self._ordered(pull)) for pull in pulls]
        both = np.asarray(sum(pushed), np.float32)
        whole = solve_upper(_t(self._root), both)
        if len(pulls) == 2:
            # As the samples have it: what damps H says nothing of how they agree.
            squares = float(np.square(both).sum()) - float(np.vdot(whole, self._added[:, :, None] * whole))
            agreed = 4 * self._kept * float(np.vdot(*pushed))
            whole *= np.float32(np.clip(agreed / squares, 0.0, 1.0) if squares > 0 else 0.0)
        return np.asarray(self._unordered(whole))

    def cost(self, difference: Array) -> Array:
        """e·H·eᵀ of weight errors [groups, outputs, n]: one number an output."""
        return np.asarray(np.sum(np.square(_t(self._root) @ self._ordered(difference)), axis=1))

    def round_in_order(self, target: Array, step: Array, limit: int) -> tuple[Array, Array]:
        """Integers for `target` [groups, outputs, n], and what each output's errors cost."""
        root, scale = self._root, step[:, :, 0]
        pivot = np.einsum("gii->gi", root)
        work = self._ordered(target)
        result, felt = np.empty_like(work), np.zeros_like(work)  # felt: e·L of the errors so far
        for start in reversed(range(0, work.shape[1], _BLOCK)):
            stop = min(start + _BLOCK, work.shape[1])
            for j in reversed(range(start, stop)):
                column = work[:, j]
                result[:, j] = q = np.clip(np.rint((column + felt[:, j] / pivot[:, j, None]) / scale), -limit, limit)
                work[:, j] = error = column - q * scale
                felt[:, start : j + 1] += root[:, j, start : j + 1, None] * error[:, None, :]
            if start:
                felt[:, :start] += _t(root[:, start:stop, :start]) @ work[:, start:stop]
        return self._unordered(result), np.sum(np.square(felt), axis=1)

    def _ordered(self, rows: Array) -> Array:
        return np.ascontiguousarray(_t(np.take_along_axis(rows, self._order[:, None, :], axis=2)))

    def _unordered(self, columns: Array) -> Array:
        return _t(np.take_along_axis(columns, self._back[:, :, None], axis=1))


def _sum(read: Array) -> Array:
    """Over the positions, by a product: down a column numpy adds slowly. float32 is exact enough for so few."""
    return np.asarray((np.ones((1, read.shape[1]), np.float32) @ read)[:, 0], np.float64)


def _t(matrices: Array) -> Array:
    return matrices.transpose(0, 2, 1)


def _damping(diagonal: Array, count: int) -> tuple[float, Array]:
    """Rules 1 and 2: the share of H that stays, and what its diagonal gets, [groups, n]; dead inputs get the mean."""
    n = diagonal.shape[1]
    mean = diagonal.mean(axis=1)
    extra = np.where(mean > 0, DAMPING * mean, 1.0)[:, None] + np.where(diagonal > 0, 0.0, mean[:, None])
    share = SHRINK * n / (n + count)
    return 1 - share, np.asarray(share * diagonal + extra, np.float32)
