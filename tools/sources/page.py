"""The table as a page: docs/sources-measured.md."""

from __future__ import annotations

from collections.abc import Sequence

from tools.sources.build import Line

_HEAD = """\
<!-- Written by `make sources` (python -m tools.sources --write). -->
# Real models from every kind of source, as measured

Each model is built with one command, validated on this machine with its goldens, and, where there are labels,
measured on pictures that did not calibrate it. SQNR compares the bundle's answers with the float source model's.

| model | source | target | precision | result | SQNR dB | accuracy | documented | transposes left | seconds |
| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |
"""


def page(lines: Sequence[Line]) -> str:
    """The page's text: a row a build, and below it what stood in the way of those that failed."""
    text = _HEAD + "".join(_row(line) for line in lines)
    failed = [line for line in lines if line.detail]
    if failed:
        text += "\n" + "\n".join(f"`{line.row}` for {line.target}:\n\n```\n{line.detail}\n```\n" for line in failed)
    return text


def _row(line: Line) -> str:
    cells = (
        line.row,
        line.kind,
        line.target,
        line.precision,
        line.result,
        "–" if line.sqnr_db is None else f"{line.sqnr_db:.1f}",
        "–" if line.accuracy is None else f"{100 * line.accuracy:.1f} %",
        line.documented or "–",
        "–" if line.transposes is None else str(line.transposes),
        f"{line.seconds:.0f}",
    )
    return "| " + " | ".join(cells) + " |\n"
