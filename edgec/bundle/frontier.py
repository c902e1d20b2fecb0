"""The mixes of precisions that a build tried as a picture: estimated latency against signal to noise."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

_WIDTH, _HEIGHT = 640, 260
_LEFT, _RIGHT, _TOP, _BOTTOM = 60, 20, 14, 40


def frontier_picture(points: Sequence[Mapping[str, Any]]) -> str:
    """SVG: a dot a mix, filled where it keeps the budget, ringed where it was taken. Empty for fewer than two mixes.

    Without estimates the number of reverted nodes stands in for the latency.
    """
    if len(points) < 2:
        return ""
    timed = all(point.get("estimated_ms") is not None for point in points)
    key, axis = ("estimated_ms", "estimated ms") if timed else ("reverted", "nodes reverted")
    xs, ys = [float(p[key]) for p in points], [float(p["sqnr_db"]) for p in points]
    across = _Axis(xs, _LEFT, _WIDTH - _RIGHT)
    up = _Axis(ys, _HEIGHT - _BOTTOM, _TOP)
    size = f'width="{_WIDTH}" height="{_HEIGHT}" role="img" font-family="system-ui, sans-serif" font-size="12"'
    floor = _HEIGHT - _BOTTOM
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" {size}>',
        f'<path d="M{_LEFT} {_TOP}V{floor}H{_WIDTH - _RIGHT}" fill="none" stroke="#51606e"/>',
        *(
            f'<text x="{across(x):.1f}" y="{floor + 16}" text-anchor="middle">{x:.3g}</text>'
            for x in dict.fromkeys((min(xs), max(xs)))
        ),
        *(
            f'<text x="{_LEFT - 6}" y="{up(y) + 4:.1f}" text-anchor="end">{y:.1f} dB</text>'
            for y in dict.fromkeys((min(ys), max(ys)))
        ),
        f'<text x="{(_LEFT + _WIDTH) / 2:.0f}" y="{_HEIGHT - 6}" text-anchor="middle">{axis}</text>',
    ]
    for point, x, y in zip(points, xs, ys, strict=True):
        fill = "#2f6fb0" if point["met"] else "#ffffff"
        title = f"{point['reverted']} reverted: {point['judged']}"
        lines.append(
            f'<circle cx="{across(x):.1f}" cy="{up(y):.1f}" r="5" fill="{fill}" stroke="#2f6fb0">'
            f"<title>{escape(title)}</title></circle>"
        )
        if point.get("chosen"):
            lines.append(f'<circle cx="{across(x):.1f}" cy="{up(y):.1f}" r="9" fill="none" stroke="#1c2733"/>')
    return "\n".join([*lines, "</svg>"])


class _Axis:
    """From values to pixels, with a little room at both ends."""

    def __init__(self, values: Sequence[float], low: int, high: int) -> None:
        self._least, self._span = min(values), (max(values) - min(values)) or 1.0
        room = 12 if high > low else -12
        self._from, self._length = low + room, high - low - 2 * room

    def __call__(self, value: float) -> float:
        return self._from + self._length * (value - self._least) / self._span
