"""The slots of a device as a pure state machine: what is seen, what is wanted, and the one step to take next.

A release is a folder `releases/NAME`; `current` is a symbolic link to one of them, replaced by a rename; `state.json`
records which release the device shall run. The machine holds no plan across steps: `next_step` looks at what is there,
so what continues after a crash is what would have run without it.

Rules
1. A folder under `releases/` or `runtimes/` is whole: it is made by renaming one that was verified and synced.
2. The record is written before the link is changed, so that a cut between them says which of the two is meant.
3. Nothing that `current` names, or that a confirmed release needs, is ever removed.
4. A switch is a trial until it is confirmed. An unconfirmed one goes back to the newest confirmed release.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from enum import StrEnum
from itertools import count

RELEASES = "releases"
RUNTIMES = "runtimes"
INCOMING = "incoming"

#: The running release and the one to go back to.
MIN_KEEP = 2


@dataclass(frozen=True, kw_only=True, slots=True)
class State:
    """The device's record: the release it shall run, whether that is a trial, and what it ran before.

    `good` are confirmed releases, the newest last; `bad` were taken back.
    """

    active: str = ""
    trial: bool = False
    good: tuple[str, ...] = ()
    bad: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class Seen:
    """What is on the device, and what this session has found out about it.

    `link` is the release that `current` names; `present` and `incoming` hold paths such as `releases/NAME`.
    The rest is knowledge that ends with the session: `arrived` uploads, verified and synced; `whole` and `damaged`
    folders; `healthy` and `confirmed` the release that is being installed.
    """

    state: State = State()
    link: str = ""
    present: frozenset[str] = frozenset()
    incoming: frozenset[str] = frozenset()
    arrived: frozenset[str] = frozenset()
    whole: frozenset[str] = frozenset()
    damaged: frozenset[str] = frozenset()
    healthy: bool | None = None
    confirmed: bool | None = None

    def has(self, release: str) -> bool:
        """True when the release's folder, and the runtime it names, are there."""
        return f"{RELEASES}/{release}" in self.present and runtime_of(release) in {"", *self.present}


class Act(StrEnum):
    """What a step does."""

    upload = "upload"
    settle = "settle"
    verify = "verify"
    check = "check"
    record = "record"
    switch = "switch"
    unlink = "unlink"
    confirm = "confirm"
    remove = "remove"


@dataclass(frozen=True, kw_only=True, slots=True)
class Step:
    """One step and why. `path` is what it is about; `state` what is to be recorded."""

    act: Act
    path: str = ""
    state: State | None = None
    why: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Install:
    """The wish that the device runs `release`; `keep` confirmed releases stay on it."""

    release: str
    keep: int = MIN_KEEP


@dataclass(frozen=True, kw_only=True, slots=True)
class Rollback:
    """The wish that the device runs `release`, which it has."""

    release: str


Goal = Install | Rollback


def release_name(digest: str, runtime: str = "") -> str:
    """The folder's name: the bundle's digest, and the runtime's where one travels with it."""
    return f"{digest}-{runtime}" if runtime else digest


def runtime_of(release: str) -> str:
    """The path of the runtime that a release brings (`runtimes/…`); empty when it uses the device's own."""
    _, dash, runtime = release.partition("-")
    return f"{RUNTIMES}/{runtime}" if dash else ""


def digest_of(release: str) -> str:
    """The digest of the bundle that a release holds."""
    return release.partition("-")[0].partition(".")[0]


def next_step(seen: Seen, goal: Goal) -> Step | None:
    """The step to take; None when there is nothing left to do, or nothing that would help (see `failure`)."""
    release = goal.release if isinstance(goal, Rollback) else wanted(seen, goal)
    step = _recover(seen, release)
    if step is not None:
        return step
    return _roll_back(seen, release) if isinstance(goal, Rollback) else _install(seen, release, goal.keep)


def wanted(seen: Seen, goal: Install) -> str:
    """The name to install under: another one where the folder of that name was found damaged."""
    names = (goal.release if n == 1 else f"{goal.release}.{n}" for n in count(1))
    return next(name for name in names if not _is_damaged(seen, name))


def rollback_target(seen: Seen) -> str:
    """The newest confirmed release that is there and is not the one running confirmed; empty when there is none."""
    left_out = {"" if seen.state.trial else seen.state.active, *seen.state.bad}
    return next((name for name in reversed(seen.state.good) if name not in left_out and seen.has(name)), "")


def failure(seen: Seen, goal: Goal) -> str:
    """Why the goal was not reached: `damaged`, `unhealthy`, `unconfirmed`, or empty."""
    if isinstance(goal, Rollback) and (_is_damaged(seen, goal.release) or not seen.has(goal.release)):
        return "damaged"
    return "unhealthy" if seen.healthy is False else "unconfirmed" if seen.confirmed is False else ""


def _recover(seen: Seen, release: str) -> Step | None:
    """Bring record and link together; `release` is the one that is wanted, whose trial may go on."""
    state, link = seen.state, seen.link if seen.has(seen.link) else ""
    if state.trial and state.active != release:
        if link != state.active:
            return _record(_settled(state, link or _newest(seen)), "the record announces a switch that did not happen")
        back = _newest(seen, other_than=state.active)
        if back:
            why = "an earlier flash ended before its release was confirmed: back to the last confirmed one"
            return _record(replace(state, active=back, trial=False), why)
        why = "an earlier flash ended before its release was confirmed, and there is no other: it stays"
        return _record(_settled(state, state.active), why)
    if state.trial or link == state.active:
        return None
    if state.active and seen.has(state.active):
        return Step(act=Act.switch, path=state.active, why="the link is not the release that the record names")
    if link in state.bad:
        return Step(act=Act.unlink, why="the only release failed, and there is none to go back to")
    found = link or _newest(seen)
    why = "the record names a release that is not there" if state.active else "the record is missing"
    return _record(_settled(state, found), why)


def _install(seen: Seen, release: str, keep: int) -> Step | None:
    state = seen.state
    if seen.healthy is False or seen.confirmed is False:
        return _give_up(seen, release)
    for garbage in _garbage(seen, release):
        return Step(act=Act.remove, path=garbage, why="nothing needs it")
    for needed in filter(None, (runtime_of(release), f"{RELEASES}/{release}")):
        step = _deliver(seen, needed)
        if step is not None:
            return step
    if seen.healthy is None:
        return Step(act=Act.check, path=release, why="goldens, latency and memory, before anything depends on it")
    if state.active != release:
        announced = replace(state, active=release, trial=True, bad=tuple(n for n in state.bad if n != release))
        return _record(announced, "announce the switch")
    if seen.link != release:
        return Step(act=Act.switch, path=release, why="atomic: one rename of the link `current`")
    if state.trial and seen.confirmed is None:
        return Step(act=Act.confirm, path=release, why="what `current` gives now is what was sent")
    if state.trial:
        return _record(_settled(state, release), "the release is confirmed")
    kept = tuple(name for name in state.good if not _is_damaged(seen, name))[-max(keep, MIN_KEEP) :]
    if kept != state.good:
        return _record(replace(state, good=kept, bad=()), f"keep the last {max(keep, MIN_KEEP)} releases")
    return None


def _give_up(seen: Seen, release: str) -> Step | None:
    """Leave the device as it was: `_recover` has put the link back once the record has gone back here."""
    state = seen.state
    if state.trial and state.active == release:
        back = replace(state, active=_newest(seen, other_than=release), trial=False, bad=(*state.bad, release))
        return _record(back, "the release failed after the switch: automatic rollback")
    path = f"{RELEASES}/{release}"
    if path not in seen.present or release in (seen.link, state.active, *state.good):
        return None
    return Step(act=Act.remove, path=path, why="it failed; the device goes on as before")


def _deliver(seen: Seen, path: str) -> Step | None:
    if path not in seen.present:
        if path not in seen.arrived:
            return Step(act=Act.upload, path=path, why="into incoming/, continued where an earlier one was cut")
        return Step(act=Act.settle, path=path, why="verified and synced: one rename makes it a whole folder")
    if path not in seen.whole:
        return Step(act=Act.verify, path=path, why="it is there already: are its bytes still right?")
    return None


def _roll_back(seen: Seen, release: str) -> Step | None:
    state, path = seen.state, f"{RELEASES}/{release}"
    if _is_damaged(seen, release) or not seen.has(release):
        return None
    if path not in seen.whole:
        return Step(act=Act.verify, path=path, why="are its bytes still right?")
    if state.active != release:
        left = tuple(name for name in (*state.bad, state.active) if name not in ("", release))
        good = tuple(name for name in state.good if name != state.active)
        return _record(_settled(replace(state, good=good, bad=left), release), "announce the way back")
    if seen.confirmed is None:
        return Step(act=Act.confirm, path=release, why="what `current` gives now is what was meant")
    return None


def _newest(seen: Seen, other_than: str = "") -> str:
    return next((name for name in reversed(seen.state.good) if name != other_than and seen.has(name)), "")


def _settled(state: State, release: str) -> State:
    """The record of a device that runs `release`, confirmed; of one that runs nothing when that is empty."""
    good = (*(name for name in state.good if name != release), *((release,) if release else ()))
    return replace(state, active=release, trial=False, good=good, bad=tuple(n for n in state.bad if n != release))


def _is_damaged(seen: Seen, release: str) -> bool:
    return not seen.damaged.isdisjoint({f"{RELEASES}/{release}", runtime_of(release)})


def _record(state: State, why: str) -> Step:
    return Step(act=Act.record, state=state, why=why)


def _garbage(seen: Seen, release: str) -> Iterator[str]:
    """Folders that no confirmed release, no link and not this session needs (rule 3)."""
    names = {*seen.state.good, seen.state.active, seen.link, release} - {""}
    needed = {f"{RELEASES}/{name}" for name in names} | {runtime_of(name) for name in names}
    yield from sorted(seen.present - needed)
    yield from (f"{INCOMING}/{path}" for path in sorted(seen.incoming - needed))


def after(seen: Seen, step: Step, *, good: bool = True) -> Seen:
    """What is seen after a step; `good` is the answer of a step that finds something out."""
    match step.act:
        case Act.upload:
            return replace(seen, incoming=seen.incoming | {step.path}, arrived=seen.arrived | {step.path})
        case Act.settle:
            return replace(
                seen,
                present=seen.present | {step.path},
                whole=seen.whole | {step.path},
                incoming=seen.incoming - {step.path},
                arrived=seen.arrived - {step.path},
            )
        case Act.verify if good:
            return replace(seen, whole=seen.whole | {step.path})
        case Act.verify:
            return replace(seen, damaged=seen.damaged | {step.path})
        case Act.check:
            return replace(seen, healthy=good)
        case Act.confirm:
            return replace(seen, confirmed=good)
        case Act.record:
            assert step.state is not None
            return replace(seen, state=step.state)
        case Act.switch:
            return replace(seen, link=step.path)
        case Act.unlink:
            return replace(seen, link="")
        case Act.remove:
            gone = step.path.removeprefix(f"{INCOMING}/")
            if gone != step.path:
                return replace(seen, incoming=seen.incoming - {gone}, arrived=seen.arrived - {gone})
            return replace(seen, present=seen.present - {gone}, whole=seen.whole - {gone})


def forget(seen: Seen) -> Seen:
    """What the next session sees: the device as it is, and none of what this one found out."""
    return Seen(state=seen.state, link=seen.link, present=seen.present, incoming=seen.incoming)


def steps_of(seen: Seen, goal: Goal) -> tuple[Step, ...]:
    """All steps if each succeeds: what a dry run shows."""
    steps: list[Step] = []
    while (step := next_step(seen, goal)) is not None:
        assert len(steps) < 1000, "the machine does not come to an end"
        steps.append(step)
        seen = after(seen, step)
    return tuple(steps)
