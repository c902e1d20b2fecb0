"""The agreement page: a row below 99 % holds for a stated reason or is a miss, and the page counts both."""

from __future__ import annotations

import pytest

from tools.acceptance import NEARER, OWN, outcome, page, why_below


@pytest.mark.parametrize(
    ("within", "own", "exact", "reason"),
    [
        (0.90, 0.89, None, OWN),
        (0.78, 0.85, (0.80, 0.70), NEARER),
        (0.78, 0.85, (0.70, 0.80), None),
        (0.98, 1.00, None, None),
    ],
)
def test_why_fewer_than_99_percent_hold(
    within: float, own: float, exact: tuple[float, float] | None, reason: str | None
) -> None:
    assert why_below(within, own, exact) == reason


def test_the_page_counts_what_holds_and_what_misses() -> None:
    row = {"model": "net", "target": "t", "precision": "int8", "within 2 steps": 1.0, "misses": []}
    near = {**row, "precision": "int16x8", "within 2 steps": 0.78, "of exact": (0.8, 0.7), "reason": NEARER}
    done = [row, near, {**row, "misses": ["SQNR"]}, {"model": "absent", "misses": ["not run"], "skipped": True}]
    told = " ".join(outcome(done).split())
    assert told.startswith("Of 3 rows 1 hold the bars") and "(1): net int16x8" in told
    assert told.endswith("1 miss. Not run: absent.")
    assert "| 78.00 % |  | 80.00 %, 70.00 % |  |  | hold: nearer to exact arithmetic |" in page(done, "the command")
