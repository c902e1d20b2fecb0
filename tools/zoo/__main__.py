"""Build the zoo, a row at a time in a process of its own, and write docs/zoo.md.

python -m tools.zoo                       the rows that are not in the cache yet, and the page
python -m tools.zoo resnet bert           these rows anew
python -m tools.zoo --fresh               all rows anew
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from tools.zoo.models import rows
from tools.zoo.page import counted, page, passes
from tools.zoo.row import COLUMNS

ROOT = Path(__file__).resolve().parents[2]
CACHE = ROOT / ".cache" / "zoo"
LIMIT_S = 900.0


def main() -> int:
    """Exit code 1 when fewer rows than promised are good."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help="rows to run anew; default: those not in the cache")
    parser.add_argument("--fresh", action="store_true", help="run every row anew")
    parser.add_argument("--only-page", action="store_true", help="run nothing: the page of the rows that there are")
    parser.add_argument("--jobs", type=int, default=2, help="rows at a time")
    parser.add_argument("--page", type=Path, default=ROOT / "docs" / "zoo.md")
    parser.add_argument("--json", type=Path, default=CACHE / "zoo.json")
    args = parser.parse_args()
    known = [row.name for row in rows()]
    unknown = set(args.names) - set(known)
    if unknown:
        parser.error(f"no such row: {', '.join(sorted(unknown))}")
    CACHE.mkdir(parents=True, exist_ok=True)
    files = {name: CACHE / f"{name}.json" for name in known}
    anew = (
        []
        if args.only_page
        else [n for n in known if args.fresh or n in args.names or (not args.names and not files[n].exists())]
    )
    with ThreadPoolExecutor(args.jobs) as pool:
        for name, result in zip(anew, pool.map(lambda name: run_row(name, files[name]), anew), strict=True):
            print(f"{name:26}", " ".join(_short(result[column]) for column in COLUMNS), flush=True)
    results = [json.loads(file.read_text()) for file in files.values() if file.exists()]
    args.json.write_text(json.dumps(results, indent=1) + "\n")
    missing = [name for name, file in files.items() if not file.exists()]
    args.page.write_text(page(results, missing))
    print(counted(results))
    return 0 if passes(results) else 1


def run_row(name: str, file: Path) -> dict[str, Any]:
    """One row in a process of its own; a crash or a hang is a result too."""
    file.unlink(missing_ok=True)
    argv = [sys.executable, "-m", "tools.zoo.row", name, str(file)]
    try:
        done = subprocess.run(
            argv, cwd=ROOT, env={"OMP_NUM_THREADS": "1", **os.environ}, capture_output=True, text=True, timeout=LIMIT_S
        )
        said = done.stderr.strip().splitlines()
        why = f"exit code {done.returncode}: {said[-1][:200] if said else 'no message'}"
        file.with_suffix(".log").write_text(done.stderr)
    except subprocess.TimeoutExpired:
        why = f"not done after {LIMIT_S:.0f} s"
    if not file.exists():
        cells = {column: {"finding": f"internal: {why}"} for column in COLUMNS}
        file.write_text(json.dumps({"name": name, "class": "", "part": "", **cells}) + "\n")
    result: dict[str, Any] = json.loads(file.read_text())
    return result


def _short(cell: dict[str, Any]) -> str:
    if "finding" in cell:
        return f"[{cell['finding'][:110]}]"
    db = f"{cell['int8_db']:5.1f} dB" if "int8_db" in cell else f"[{cell.get('int8_finding', '')[:80]}]"
    db = "" if not ({"int8_db", "int8_finding"} & cell.keys()) else db
    return f"{cell['error']:8.1e} {db} {cell['transposes']:3}T {cell['seconds']:5.1f}s |"


if __name__ == "__main__":
    sys.exit(main())
