"""How far one tensor is from another: signal to noise, cosine, top-1 agreement, quantization steps.

Every result is a finite number, so that it can be written as JSON: decibels end at ±`MAX_DB`, differences
at the largest float32. A value that is NaN or infinite where the reference is not, or the other way round, counts
as the worst; where both are the same infinity, or both NaN, they agree.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from edgec.tensors import Array

#: What `sqnr_db` gives for equal tensors: more than float64 noise can ever leave.
MAX_DB = 300.0
_WORST = float(np.finfo(np.float32).max)


@dataclass(frozen=True, kw_only=True, slots=True)
class StepDifferences:
    """Differences of quantized values in steps: how many values, which share lies within 0, 1, 2 steps, the largest."""

    values: int
    equal: float
    within_1: float
    within_2: float
    largest: int


def sqnr_db(reference: Array, value: Array) -> float:
    """10·log10(Σ reference² / Σ (reference − value)²), at most `MAX_DB`; −`MAX_DB` when `value` is not finite."""
    expected, actual = _pair(reference, value)
    with np.errstate(all="ignore"):
        signal = float(np.sum(expected * expected))
        noise = float(np.sum((expected - actual) ** 2))
    if noise == 0:
        return MAX_DB
    if not math.isfinite(noise) or signal == 0:
        return -MAX_DB
    return max(-MAX_DB, min(MAX_DB, 10 * math.log10(signal / noise)))


def cosine(reference: Array, value: Array) -> float:
    """Cosine of the angle between two tensors; 1 for two zero tensors, 0 for one of them or one not finite."""
    expected, actual = _pair(reference, value)
    with np.errstate(all="ignore"):
        norms = float(np.linalg.norm(expected)) * float(np.linalg.norm(actual))
        dot = float(np.dot(expected, actual))
    if norms == 0:
        return 1.0 if not expected.any() and not actual.any() else 0.0
    return max(-1.0, min(1.0, dot / norms)) if math.isfinite(dot / norms) else 0.0


def max_abs(reference: Array, value: Array) -> float:
    """Largest absolute difference; the largest float32 when `value` is not finite."""
    expected, actual = _pair(reference, value)
    if expected.size == 0:
        return 0.0
    with np.errstate(all="ignore"):
        largest = float(np.max(np.abs(expected - actual)))
    return min(largest, _WORST) if math.isfinite(largest) else _WORST


def relative_error(reference: Array, value: Array) -> float:
    """Largest absolute difference over the largest absolute value of the reference."""
    expected, _ = _pair(reference, value)
    difference = max_abs(reference, value)
    peak = float(np.max(np.abs(expected))) if expected.size else 0.0
    if difference == 0 or peak == 0 or not math.isfinite(peak):
        return 0.0 if difference == 0 else _WORST
    return min(difference / peak, _WORST)


def looks_like_scores(reference: Array) -> bool:
    """True when a largest value along the last axis means something.

    Either one row of at least two values a sample (logits, probabilities), or rows of any rank that are
    probabilities: no negatives, each summing to 1 within 1e-3. Rows of length 1 with negatives are none: directions,
    as an encoder gives them to be compared with each other.
    """
    if not np.issubdtype(reference.dtype, np.floating) or reference.ndim < 2 or reference.shape[-1] < 2:
        return False
    if reference.ndim == 2:
        lengths = np.linalg.norm(reference.astype(np.float64), axis=-1)
        return not (reference.min(initial=0) < 0 and bool(np.all(np.abs(lengths - 1) <= 1e-3)))
    sums = reference.astype(np.float64).sum(axis=-1)
    return bool(reference.min() >= 0 and np.all(np.abs(sums - 1) <= 1e-3))


def top1_agreement(reference: Array, value: Array) -> float | None:
    """Share of rows (last axis) whose largest value stands at the same place; None where that means nothing."""
    if reference.size == 0 or not looks_like_scores(reference):
        return None
    return float(np.mean(np.argmax(reference, axis=-1) == np.argmax(value.reshape(reference.shape), axis=-1)))


def step_differences(expected: Array, actual: Array, *, step: float | None = None) -> StepDifferences:
    """Differences in quantization steps.

    Integers count as they are; dequantized values need the `step` (the scale) that they are multiples of.
    """
    if step is not None:
        with np.errstate(all="ignore"):
            difference = np.abs(expected.astype(np.float64) - actual.reshape(expected.shape).astype(np.float64)) / step
        # A NaN where a number belongs is as far off as can be.
        steps = np.rint(np.nan_to_num(difference, nan=_WORST, posinf=_WORST))
    else:
        steps = np.abs(expected.astype(np.int64) - actual.reshape(expected.shape).astype(np.int64)).astype(np.float64)
    if steps.size == 0:
        return StepDifferences(values=0, equal=1.0, within_1=1.0, within_2=1.0, largest=0)
    return StepDifferences(
        values=int(steps.size),
        equal=float(np.mean(steps == 0)),
        within_1=float(np.mean(steps <= 1)),
        within_2=float(np.mean(steps <= 2)),
        largest=int(min(steps.max(), 2**62)),
    )


def _pair(reference: Array, value: Array) -> tuple[Array, Array]:
    if reference.size != value.size:
        raise ValueError(f"cannot compare shapes {reference.shape} and {value.shape}")
    return without_agreed(reference.astype(np.float64).ravel(), value.astype(np.float64).ravel())


def without_agreed(expected: Array, actual: Array) -> tuple[Array, Array]:
    """Both with 0 where both are the same infinity, as a mask makes it, or both NaN: there they agree."""
    if np.isfinite(expected).all():
        return expected, actual
    same = ~np.isfinite(expected) & ((expected == actual) | (np.isnan(expected) & np.isnan(actual)))
    return np.where(same, 0.0, expected), np.where(same, 0.0, actual)
