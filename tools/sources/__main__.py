"""`python -m tools.sources [--rows NAME …] [--targets NAME …] [--write]`: build every real model, print the table.

Rows are the `ROWS` of each module `rows_*.py` beside this one.
"""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Iterator
from pathlib import Path

from tools.sources.build import Line, build_row
from tools.sources.files import ROOT
from tools.sources.page import page
from tools.sources.row import Row

TARGETS = ("raspberrypi", "intel-cpu")


def rows() -> Iterator[Row]:
    """Every row of every module."""
    for path in sorted(Path(__file__).parent.glob("rows_*.py")):
        yield from importlib.import_module(f"tools.sources.{path.stem}").ROWS


def main() -> int:
    """Build; exit code 1 when a row fails for another reason than a missing file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", nargs="*", help="only these")
    parser.add_argument("--targets", nargs="*", default=TARGETS)
    parser.add_argument("--write", action="store_true", help="write docs/sources-measured.md")
    options = parser.parse_args()
    wanted = [row for row in rows() if not options.rows or row.name in options.rows]
    lines: list[Line] = []
    for row in wanted:
        for target in options.targets:
            for precision in row.precisions or (("float32", "int8") if row.accuracy else ("float32",)):
                line = build_row(row, target, precision)
                lines.append(line)
                print(f"{line.row} {line.target} {line.precision}: {line.result} {line.detail}", flush=True)
    text = page(lines)
    print(text)
    if options.write:
        (ROOT / "docs" / "sources-measured.md").write_text(text)
    return int(any(line.result not in ("validated", "missing") for line in lines))


if __name__ == "__main__":
    sys.exit(main())
