"""Trials in rounds, several rounds at a time: each on devices of its own, so that no trial can disturb another.

1. What trial N does depends on the seed and on N alone, whoever runs it.
2. A round's devices are thrown away after it. Debian's adbd stops answering anybody after about a hundred connections
   broken half-way (seen once: 92 good trials, then every shell hung, also past the proxy), and that is not tested here.
"""

from __future__ import annotations

import contextlib
import itertools
import random
import threading
from collections.abc import Callable, Generator
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from pathlib import Path

from edgec.devices.base import Facts
from edgec.devices.probe import probe
from tools.crashtest.benches import BENCHES, Bench
from tools.crashtest.power import power_cuts
from tools.crashtest.trials import Outcome, run_trial

#: Rule 2. Every fault meets every device equally often in a round.
ROUND = 40

Tell = Callable[[Outcome], None]
Trials = Generator[Outcome, None, None]


def crash(
    folder: Path,
    *,
    count: int,
    devices: list[str],
    faults: list[str],
    power: int = 0,
    seed: int = 1,
    lanes: int = 1,
    tell: Tell | None = None,
) -> list[Outcome]:
    """All trials, `tell` hears of each as it ends. Raises `UnavailableError` where a device cannot be made."""
    over = threading.Event()
    outcomes: list[Outcome] = []

    def run(trials: Trials) -> None:
        with contextlib.closing(trials):
            for outcome in trials:
                outcomes.append(outcome)
                if tell:
                    tell(outcome)
                if over.is_set():
                    return

    work: list[Trials] = []
    if power:  # first, because it takes longest
        (folder / "power").mkdir()
        work.append(power_cuts(power, folder / "power", random.Random(seed)))
    for begin in range(0, count, ROUND):
        place = folder / str(begin)
        place.mkdir()
        work.append(_round(place, range(begin, min(begin + ROUND, count)), devices, faults, seed))
    with ThreadPoolExecutor(max_workers=lanes) as pool:
        jobs: list[Future[None]] = [pool.submit(run, trials) for trials in work]
        try:
            for job in as_completed(jobs):
                job.result()
        except BaseException:
            over.set()
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return sorted(outcomes, key=lambda outcome: (outcome.fault == "power", outcome.number))


def _round(folder: Path, numbers: range, devices: list[str], faults: list[str], seed: int) -> Trials:
    """Some trials on devices of their own; devices and faults take turns."""
    with contextlib.ExitStack() as stack:
        benches: list[tuple[Bench, Facts]] = []
        for name in devices:
            (folder / name).mkdir()
            bench = stack.enter_context(BENCHES[name](folder / name))
            with bench.open(impatient=False) as device:
                benches.append((bench, probe(device)))
        turns = list(itertools.product(faults, benches))
        for number in numbers:
            fault, (bench, facts) = turns[number % len(turns)]
            chance = random.Random(f"{seed}/{number}")  # rule 1
            yield run_trial(number, bench, fault, folder / bench.name, facts, chance)
