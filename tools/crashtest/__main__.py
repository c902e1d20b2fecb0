"""Break flashes at random bytes over real SSH and adb: resets, stalls, full disks, killed clients, power cuts.

    python -m tools.crashtest --count 500                ssh and adb in turn; N of N must leave a whole release
    python -m tools.crashtest --count 500 --power 10     `make crash`: the same, and the power of a whole virtual board
    python -m tools.crashtest --count 4 --devices ssh --faults stall --json out.json
    python -m tools.crashtest --count 0 --power 3        the board alone (make devlab-board first)

Exit code 1 when any trial found a device that did not run a whole release, or could not be flashed again.
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
import tempfile
import time
from dataclasses import asdict
from pathlib import Path

from tools.crashtest.lanes import crash
from tools.crashtest.trials import FAULTS, Outcome, summary
from tools.devlab.common import UnavailableError


def main() -> int:
    """Run the trials; 0 when all were good."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--count", type=int, default=500, metavar="N")
    parser.add_argument("--devices", default="ssh,adb", metavar="LIST")
    parser.add_argument("--faults", default=",".join(FAULTS), metavar="LIST")
    parser.add_argument("--power", type=int, default=0, metavar="N")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--lanes", type=int, default=4, metavar="N", help="rounds at a time; most of one is waiting")
    parser.add_argument("--json", type=Path, metavar="FILE")
    args = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # what is mounted and started is put away
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="edgec-crash-") as folder:
        outcomes = crash(
            Path(folder),
            count=args.count,
            devices=args.devices.split(","),
            faults=args.faults.split(","),
            power=args.power,
            seed=args.seed,
            lanes=args.lanes,
            tell=_tell,
        )
    good = sum(outcome.good for outcome in outcomes)
    for name, row in summary(outcomes).items():
        print(f"{name:<16} {row['good']} of {row['trials']} good; left running: old {row['old']}, new {row['new']}")
    print(f"{good} of {len(outcomes)} in {time.monotonic() - began:.0f} s")
    if args.json:
        answer = {"good": good, "count": len(outcomes), "seed": args.seed, "trials": [asdict(o) for o in outcomes]}
        args.json.write_text(json.dumps(answer, indent=1) + "\n")
    return 0 if good == len(outcomes) > 0 else 1


def _tell(outcome: Outcome) -> None:
    verdict = "good" if outcome.good else f"BAD: {outcome.why}"
    print(
        f"{outcome.number:4} {outcome.device} {outcome.fault:<9} at byte {outcome.offset:>7} of {outcome.of_bytes}: "
        f"{outcome.broken}; left {outcome.left or 'nothing'}; {verdict}",
        file=sys.stderr,
        flush=True,
    )


if __name__ == "__main__":
    try:
        sys.exit(main())
    except UnavailableError as error:
        sys.exit(f"cannot be run here: {error}")
