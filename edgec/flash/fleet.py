"""Flash many devices: a few first, then the others side by side, and no further than failures allow.

1. The canaries, one after the other or side by side, before any other device; one failure among them ends the rollout.
2. After them, a rollout ends when more than `max_failures` devices have failed; what runs then is let finish.
3. Every start and end is in the journal before anything follows from it. A resumed run leaves out what has succeeded.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import asdict, dataclass, field
from typing import Any

from edgec.errors import EdgecError, Finding, Severity
from edgec.flash.journal import History, Journal, passed
from edgec.flash.session import Flashed

GOOD = ("installed", "unchanged")
UNTOUCHED = "untouched"

#: Flash the device of that name.
FlashOne = Callable[[str], Flashed]
#: Device, what happened, devices done, devices in all.
Told = Callable[[str, str, int, int], None]


@dataclass(frozen=True, kw_only=True, slots=True)
class Policy:
    """How careful a rollout is."""

    canary: int = 1
    max_failures: int = 0
    parallel: int = 8


@dataclass(frozen=True, kw_only=True, slots=True)
class Outcome:
    """How one device came through: a result of `Flashed`, `failed` for an error, `untouched`."""

    device: str
    result: str
    code: str = ""
    message: str = ""
    seconds: float = 0.0
    median_ms: float | None = None
    earlier: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class Rollout:
    """How all came through. `stopped` says why it ended early; empty when it did not."""

    bundle: str
    digest: str
    outcomes: tuple[Outcome, ...]
    stopped: str
    journal: str
    findings: tuple[Finding, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready, with how many devices had each result."""
        counts: dict[str, int] = {}
        for outcome in self.outcomes:
            counts[outcome.result] = counts.get(outcome.result, 0) + 1
        findings = [finding.as_dict() for finding in self.findings]
        return {**asdict(self), "counts": counts, "findings": findings}


@dataclass(slots=True)
class _Board:
    """What is known so far."""

    outcomes: dict[str, Outcome]
    failures: int = 0
    stopped: str = ""
    lock: threading.Lock = field(default_factory=threading.Lock)


def roll_out(
    devices: Sequence[str],
    flash: FlashOne,
    policy: Policy,
    journal: Journal,
    *,
    bundle: str,
    digest: str,
    history: History | None = None,
    told: Told = lambda _device, _what, _done, _total: None,
) -> Rollout:
    """Flash all devices as far as the policy allows. Never raises for a device: its error is in its outcome."""
    done = passed(history, GOOD) & set(devices)
    board = _Board(
        outcomes={
            name: Outcome(device=name, result=str(history.ended[name]["result"]), earlier=True)
            if history and name in done
            else Outcome(device=name, result=UNTOUCHED)
            for name in devices
        }
    )
    journal.write("plan", bundle=bundle, digest=digest, devices=list(devices), policy=asdict(policy))
    canaries = [name for name in devices[: policy.canary] if name not in done]
    others = [name for name in devices[policy.canary :] if name not in done]
    for wave, names, allowed in (("canary", canaries, 0), ("all", others, policy.max_failures)):
        if names and not board.stopped:
            journal.write("wave", wave=wave, devices=names)
            _run_wave(wave, names, allowed, flash, policy.parallel, journal, board, told)
    journal.write("stop", why=board.stopped) if board.stopped else journal.write("finish")
    return Rollout(
        bundle=bundle,
        digest=digest,
        outcomes=tuple(board.outcomes.values()),
        stopped=board.stopped,
        journal=str(journal.path),
        findings=tuple(_findings(board)),
    )


def _run_wave(
    wave: str,
    names: Sequence[str],
    allowed: int,
    flash: FlashOne,
    parallel: int,
    journal: Journal,
    board: _Board,
    told: Told,
) -> None:
    """Keep `parallel` devices busy until all are done or too many have failed."""

    def one(name: str) -> None:
        journal.write("start", device=name)
        told(name, "started", _finished(board), len(board.outcomes))
        outcome = _attempt(name, flash)
        journal.write("end", **asdict(outcome))
        with board.lock:
            board.outcomes[name] = outcome
        told(name, outcome.result, _finished(board), len(board.outcomes))

    waiting = list(reversed(names))
    running: dict[Future[None], str] = {}
    failed = 0
    with ThreadPoolExecutor(max_workers=max(1, parallel), thread_name_prefix="edgec-flash") as pool:
        try:
            while waiting or running:
                while waiting and len(running) < parallel and not board.stopped:
                    name = waiting.pop()
                    running[pool.submit(one, name)] = name
                if not running:
                    return
                ended, _ = wait(running, return_when=FIRST_COMPLETED)
                for future in ended:
                    name = running.pop(future)
                    future.result()  # a fault of the journal, which ends the rollout
                    failed += board.outcomes[name].result not in GOOD
                if failed > allowed and not board.stopped:
                    which = "a canary" if wave == "canary" else f"{failed} devices, {allowed} allowed,"
                    board.stopped = f"{which} failed"
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _attempt(name: str, flash: FlashOne) -> Outcome:
    """Flash one device; whatever goes wrong is its outcome."""
    try:
        flashed = flash(name)
    except EdgecError as error:
        return Outcome(device=name, result="failed", code=error.code, message=str(error))
    except Exception as error:  # noqa: BLE001  one device's trouble must not end the others' flash
        return Outcome(
            device=name, result="failed", code="internal/unexpected", message=f"{type(error).__name__}: {error}"
        )
    # The first says that the release was rejected, those after it why.
    errors = [f for f in flashed.findings if f.severity == Severity.ERROR][:2]
    return Outcome(
        device=name,
        result=flashed.result,
        code=errors[-1].code if errors else "",
        message=errors[-1].message if errors else "",
        seconds=flashed.seconds,
        median_ms=flashed.health.median_ms if flashed.health else None,
    )


def _finished(board: _Board) -> int:
    return sum(outcome.result != UNTOUCHED for outcome in board.outcomes.values())


def _findings(board: _Board) -> list[Finding]:
    """Each failure, and whether the rollout ended because of them."""
    findings = []
    if board.stopped:
        left = sum(outcome.result == UNTOUCHED for outcome in board.outcomes.values())
        findings.append(
            Finding(
                code="flash/rollout-stopped",
                message=f"the rollout was stopped: {board.stopped}; {left} devices were not touched",
                hint="mend what is wrong and run the same command with --resume",
            )
        )
    findings += [
        Finding(
            code=outcome.code or "flash/unhealthy",
            message=outcome.message,
            severity=Severity.ERROR if board.stopped else Severity.WARNING,
            where=outcome.device,
        )
        for outcome in board.outcomes.values()
        if outcome.result not in (*GOOD, UNTOUCHED)
    ]
    return findings
