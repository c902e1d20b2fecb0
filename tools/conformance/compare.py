"""Compare outputs with what a case expects: count, element type, shape, and values at the case's own tolerance."""

from __future__ import annotations

import re
from typing import Any

import numpy as np

#: Cases whose expected values are random numbers: only type and shape say anything.
RANDOM = re.compile(r"^test_(bernoulli|random_?(normal|uniform)|multinomial)")
#: Cases that need a wider tolerance, with the reason. (pattern, rtol, atol, reason)
WIDER: tuple[tuple[str, float, float, str], ...] = (
    (
        r"^test_dft_inverse",
        1e-3,
        1e-6,
        "results that cancel to about 0: sums of float32 products carry an error of 1e-7 of the largest term",
    ),
    (
        r"_bf16(_expanded)?$",
        2**-7,
        2**-9,
        "one step of bfloat16 is 0.4 to 0.8 %: ours are computed in float32 and rounded once, at the end",
    ),
)


def tolerance(name: str, rtol: float, atol: float) -> tuple[float, float]:
    """The tolerance for a case: the suite's own, or a wider one from the table."""
    for pattern, wide_rtol, wide_atol, _ in WIDER:
        if re.search(pattern, name):
            return max(rtol, wide_rtol), max(atol, wide_atol)
    return rtol, atol


def difference(name: str, expected: list[Any], actual: list[Any], rtol: float, atol: float) -> str:
    """What differs, in words; empty when nothing does."""
    if len(expected) != len(actual):
        return f"{len(actual)} outputs instead of {len(expected)}"
    rtol, atol = tolerance(name, rtol, atol)
    for position, (want, got) in enumerate(zip(expected, actual, strict=True)):
        if isinstance(want, list):
            if not isinstance(got, (list, tuple)):
                return f"output {position} is no sequence"
            inner = difference(name, want, list(got), rtol, atol)
            if inner:
                return f"sequence {position}: {inner}"
            continue
        if want is None or got is None:
            if want is not got:
                return f"output {position} is {'absent' if got is None else 'there'}"
            continue
        text = _array_difference(np.asarray(want), np.asarray(got), rtol, atol, values=not RANDOM.match(name))
        if text:
            return f"output {position}: {text}"
    return ""


def _array_difference(want: Any, got: Any, rtol: float, atol: float, *, values: bool) -> str:
    if want.dtype.kind in "OUS":
        return "" if np.array_equal(want.astype(str), got.astype(str)) else "other strings"
    if want.dtype != got.dtype:
        return f"type {got.dtype} instead of {want.dtype}"
    if want.shape != got.shape:
        return f"shape {got.shape} instead of {want.shape}"
    if not values:
        return ""
    wide = np.complex128 if want.dtype.kind == "c" else np.float64
    w, g = want.astype(wide), got.astype(wide)
    close = np.isclose(g, w, rtol=rtol, atol=atol, equal_nan=True)
    if close.all():
        return ""
    with np.errstate(all="ignore"):
        error = np.abs(g - w)
        worst = float(np.nanmax(np.where(close, 0, error))) if error.size else 0.0
    return f"{int((~close).sum())} of {close.size} values differ, by up to {worst:.3g}"
