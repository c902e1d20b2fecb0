"""Convert scikit-learn estimators on real data, run them on both backends, and write the table of docs/sklearn.md.

python -m tools.sklearn_table            all, and the table in the page
python -m tools.sklearn_table wine       one data set, printed
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from edgec.errors import EdgecError
from tools import sklearn_cases

PAGE = Path(__file__).parents[1] / "docs" / "sklearn.md"
START, END = "<!-- table -->", "<!-- end of table -->"
BACKENDS = ("tflite", "openvino")


def row(dataset: str, name: str, folder: Path) -> str:
    """One line of the table."""
    estimator = sklearn_cases.fitted(sklearn_cases.estimators()[name], dataset)
    _, features, _, _ = sklearn_cases.data(dataset)
    cells = [dataset, name]
    try:
        loaded = sklearn_cases.read(estimator, folder / "m.skops", len(features))
        for backend in BACKENDS:
            answer = sklearn_cases.compare(estimator, sklearn_cases.built(loaded, backend), features)
            equal = "" if answer.labels_equal is None else f"{100 * answer.labels_equal:.1f} %"
            cells += [equal, f"{answer.worst:.1e}", f"{answer.size_bytes / 1024:.0f}"]
    except EdgecError as error:
        cells.append(f"{error.code}: {error}")
    return "| " + " | ".join(cells) + " |"


def main(argv: list[str]) -> int:
    """Run."""
    lines = [
        "| data | estimator | TFLite: labels equal | worst float | KiB | OpenVINO: labels equal | worst float | KiB |",
        "|---|---|---:|---:|---:|---:|---:|---:|",
    ]
    with tempfile.TemporaryDirectory() as folder:
        for dataset, name in sklearn_cases.every_case():
            if not argv or dataset in argv:
                lines.append(row(dataset, name, Path(folder)))
                print(lines[-1], flush=True)
    if not argv:
        before, _, rest = PAGE.read_text().partition(START)
        _, _, after = rest.partition(END)
        PAGE.write_text(before + START + "\n\n" + "\n".join(lines) + "\n\n" + END + after)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
