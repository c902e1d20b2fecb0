"""The zoo's results as a page."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from tools.zoo.row import COLUMNS, INT8

#: The promise: this share of the rows builds for the first column's target, each within this relative error.
SHARE = 0.95
ERROR = 1e-3

_HEAD = """# Transformers architectures

Every row is a model of [Transformers](https://github.com/huggingface/transformers) made from its configuration at a
small size with random weights, saved to disk, read through the Hugging Face frontend, and built as float and as int8.
`make zoo` runs the rows that are not cached yet and writes this page; `python -m tools.zoo NAME` runs one anew.

- **error**: largest difference between the bundle's float output and torch itself, relative to the output's largest
  value, over 8 random inputs; the worst output counts.
- **int8**: SQNR of the int8 bundle against torch, in dB, calibrated with the same 8 inputs, repairs off. Weights are
  random, so it says how well the graph is covered and nothing about the accuracy of a trained model.
- **T**: transposes left in the graph; **ops**: its operators; **s**: seconds of the float build.

"""


def page(results: list[dict[str, Any]], missing: Sequence[str] = ()) -> str:
    """The whole page; `missing` are rows of the table that were not run."""
    titles = {"tflite": "TFLite, `linux-x86_64`", "openvino": "OpenVINO, `intel-cpu`"}
    lines = [_HEAD + counted(results) + "\n"]
    heads = [f"{titles[c]}: error | {'int8 dB | ' if c in INT8 else ''}T | ops | s" for c in COLUMNS]
    lines.append("| architecture | " + " | ".join(heads) + " |")
    lines.append("| --- |" + " ---: |" * (4 * len(COLUMNS) + len(INT8)))
    for result in sorted(results, key=lambda r: r["name"]):
        cells = [_cells(result[column], int8=column in INT8) for column in COLUMNS]
        lines.append(f"| {result['name']} ({_class(result)}) | " + " | ".join(cells) + " |")
    notes = [
        f"- {result['name']}, {column}{what}: {result[column][key]}"
        for result in sorted(results, key=lambda r: r["name"])
        for column in COLUMNS
        for key, what in (("finding", ""), ("int8_finding", ", int8"))
        if key in result[column]
    ]
    if notes:
        lines += ["", "## Not built", "", *notes]
    if missing:
        lines += ["", f"Not run yet: {', '.join(sorted(missing))}."]
    return "\n".join(lines) + "\n"


def counted(results: list[dict[str, Any]]) -> str:
    """The totals in a sentence or two."""
    parts = []
    for column in COLUMNS:
        built = [r[column] for r in results if "finding" not in r[column]]
        exact = [cell for cell in built if cell["error"] < ERROR]
        quantized = [cell for cell in built if "int8_db" in cell]
        more = f", {len(quantized)} in int8" if column in INT8 else ""
        parts.append(f"{column}: {len(built)} of {len(results)} built, {len(exact)} within {ERROR:g}{more}")
    return "; ".join(parts) + "."


def passes(results: list[dict[str, Any]]) -> bool:
    """Whether the promise holds for the first column."""
    first = next(iter(COLUMNS))
    good = [r for r in results if "finding" not in r[first] and r[first]["error"] < ERROR]
    return bool(results) and len(good) >= SHARE * len(results)


def _class(result: dict[str, Any]) -> str:
    return f"{result['class']}, {result['part']}" if result["part"] else str(result["class"])


def _cells(cell: dict[str, Any], *, int8: bool) -> str:
    if "finding" in cell:
        return "not built" + " |" * (4 if int8 else 3)
    error = "∞" if math.isinf(cell["error"]) else f"{cell['error']:.1e}"
    db = f"{cell['int8_db']:.1f}" if "int8_db" in cell else "not built"
    columns = [error, *([db] if int8 else []), cell["transposes"], cell["operators"], f"{cell['seconds']:.1f}"]
    return " | ".join(map(str, columns))
