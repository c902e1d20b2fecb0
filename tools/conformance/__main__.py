"""Run ONNX's backend test suite through our backends and write down what passes.

python -m tools.conformance                              everything, and the pages in docs/
python -m tools.conformance --backend tflite --filter 'reduce_' --list
python -m tools.conformance --slice 12 --json out.json --baseline old.json
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import time
from pathlib import Path

from edgec.backends.base import backend_names
from tools.conformance.cases import ROOT, SLICE, all_cases
from tools.conformance.pool import run_all
from tools.conformance.report import html, markdown, per_operator, summary
from tools.conformance.run_case import REFERENCE, Result


def main() -> int:
    """Run what the arguments select. Exit code 1: a case got worse than the baseline."""
    args = _arguments()
    refs = [r for r in all_cases() if re.search(args.filter, r.name) or re.search(args.filter, r.op_type)]
    refs = [r for r in refs if not args.suite or r.suite in args.suite][:: args.slice]
    backends = args.backend or [*backend_names(), REFERENCE]
    start = time.monotonic()
    jobs = [(ref, backend) for backend in backends for ref in refs]
    count = 0

    def done(_result: Result) -> None:
        nonlocal count
        count += 1
        if sys.stderr.isatty() and count % 10 == 0:
            print(f"\r{count}/{len(jobs)}", end="", file=sys.stderr)

    results = run_all(jobs, workers=args.jobs, limit_s=args.limit, done=done)
    if args.list or args.filter:
        for r in results:
            if r.verdict != "pass":
                print(f"{r.verdict:8} {r.backend:11} {r.name}: {r.reason} {r.detail}".rstrip())
    if args.operators:
        print(per_operator(results))
    print(summary(results))
    print(f"{len(results)} cases in {time.monotonic() - start:.0f} s")
    if args.json:
        args.json.parent.mkdir(parents=True, exist_ok=True)
        args.json.write_text(json.dumps([r.as_dict() for r in results], indent=0) + "\n")
    if args.docs:
        (ROOT / "docs" / "conformance.md").write_text(markdown(results))
        folder = ROOT / "build" / "conformance"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "conformance.html").write_text(html(results))
        (folder / "conformance.json").write_text(json.dumps([r.as_dict() for r in results], indent=0) + "\n")
    if args.expected:
        _write_expected(results)
    return _regressions(results, args.baseline) if args.baseline else 0


def _write_expected(results: list[Result]) -> None:
    """What CI's slice must pass from now on."""
    chosen = {(r.suite, r.name) for r in all_cases()[::SLICE]}
    for backend in sorted({r.backend for r in results} - {REFERENCE}):
        own = [r for r in results if r.backend == backend and r.verdict == "pass" and (r.suite, r.name) in chosen]
        path = ROOT / "tests" / "conformance" / f"expected_{backend}.txt"
        path.write_text("".join(f"{r.suite}/{r.name}\n" for r in own))


def _regressions(results: list[Result], baseline: Path) -> int:
    passed = {(r["name"], r["backend"]) for r in json.loads(baseline.read_text()) if r["verdict"] == "pass"}
    worse = [r for r in results if r.verdict != "pass" and (r.name, r.backend) in passed]
    for r in worse:
        print(f"worse than the baseline: {r.backend} {r.name}: {r.verdict} {r.reason} {r.detail}")
    return 1 if worse else 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="conformance", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument(
        "--backend", action="append", choices=[*backend_names(), REFERENCE], help="default: all of them"
    )
    parser.add_argument("--suite", action="append", help="node, preview, ml, training, simple, pytorch-…; default: all")
    parser.add_argument("--filter", default="", help="only cases whose name or operator matches this expression")
    parser.add_argument("--slice", type=int, default=1, help="only every N-th case")
    parser.add_argument("--jobs", type=int, default=2, help="worker processes")
    parser.add_argument("--limit", type=float, default=20.0, help="seconds that a case may take")
    parser.add_argument("--list", action="store_true", help="print every case that does not pass")
    parser.add_argument("--operators", action="store_true", help="print the verdicts for each operator")
    parser.add_argument("--json", type=Path, help="write the results there")
    parser.add_argument("--baseline", type=Path, help="results of an earlier run: exit code 1 when a case got worse")
    parser.add_argument("--docs", action="store_true", help="write docs/conformance.md and the HTML and JSON tables")
    parser.add_argument("--expected", action="store_true", help="write what CI's slice must pass from now on")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
