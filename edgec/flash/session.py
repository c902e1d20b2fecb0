"""A session on one device: take the state machine's steps one by one, under the lock, and tell how it went.

1. A step is taken under the lock, and only the machine (`slots`) says which; what a step finds out goes back into it.
2. A device that is lost in the middle raises; the next session continues from what it then sees.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from edgec.bundle.manifest import MANIFEST
from edgec.devices.base import Transport
from edgec.errors import EdgecError, Finding, Severity
from edgec.flash import slots
from edgec.flash.health import Health
from edgec.flash.lease import Lease
from edgec.flash.site import CURRENT, Site
from edgec.flash.slots import Act, Seen, Step

Progress = Callable[[str, int, int], None]

_HOOK_S = 120.0
#: What runs on the device to unpack a runtime; a file of its own, for the device's Python.
ON_DEVICE = (Path(__file__).parent / "ondevice.py").read_bytes()


@dataclass(frozen=True, kw_only=True, slots=True)
class Options:
    """What a user may ask. `runtime` is auto, always or never; `hook` runs on the device after every switch;
    `service` installs the release's own service there before it."""

    root: str = ""
    keep: int = slots.MIN_KEEP
    runtime: str = "auto"
    hook: tuple[str, ...] = ()
    service: bool = False
    latency_ms: float | None = None
    memory_bytes: int | None = None
    timeout_s: float = 300.0
    dry_run: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class Taken:
    """A step and the seconds it took; `good` is False when it found something wrong."""

    act: str
    path: str
    why: str
    seconds: float = 0.0
    good: bool = True


@dataclass(frozen=True, kw_only=True, slots=True)
class Flashed:
    """How it went. `result`: installed, unchanged, rejected, rolled-back, planned.

    `running` is the release that `current` names.
    """

    device: str
    root: str
    bundle: str
    digest: str
    result: str
    running: str
    previous: str
    steps: tuple[Taken, ...]
    health: Health | None
    findings: tuple[Finding, ...]
    seconds: float

    @property
    def passed(self) -> bool:
        """True when the device runs what was wanted."""
        return self.result in ("installed", "unchanged", "planned", "rolled-back") and all(
            finding.severity != Severity.ERROR for finding in self.findings
        )

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        health = None if self.health is None else {**self.health.note(), "p95_ms": self.health.p95_ms}
        findings = [finding.as_dict() for finding in self.findings]
        return {**asdict(self), "health": health, "findings": findings}


class Session:
    """Steps on one device."""

    def __init__(self, device: Transport, options: Options) -> None:
        self.device = device
        self.options = options
        self.site = Site(device, options.root)
        self._began = time.monotonic()
        self.taken: list[Taken] = []
        self.findings: list[Finding] = []
        self.notes: dict[str, Mapping[str, Any]] = {}
        self.health: Health | None = None
        self.name, self.digest = "", ""
        self.lease: Lease | None = None

    def carry_out(self, goal: slots.Goal) -> Seen:
        """All steps to the goal; in a dry run none of them, and what would be seen after them."""
        seen, notes = self.site.see()
        self.notes = dict(notes)
        if self.options.dry_run:
            planned = slots.steps_of(seen, goal)
            self.taken += [Taken(act=step.act.value, path=step.path, why=step.why) for step in planned]
            return seen
        with Lease(self.device, self.site.root) as lease:
            self.lease = lease
            seen, notes = self.site.see()  # the one before was nobody's
            self.notes = dict(notes)
            self.site.tidy()
            while (step := slots.next_step(seen, goal)) is not None:
                seen = self._take(seen, step)
            if seen.confirmed is False and isinstance(goal, slots.Install):
                self._run_hooks(seen.link)  # the release that is back
        return seen

    def _take(self, seen: Seen, step: Step) -> Seen:
        assert self.lease is not None
        self.lease.renew(self._needs_s(step))
        began = time.monotonic()
        good = self.perform(step)
        seconds = time.monotonic() - began
        self.taken.append(Taken(act=step.act.value, path=step.path, why=step.why, seconds=seconds, good=good))
        return slots.after(seen, step, good=good)

    def _needs_s(self, step: Step) -> float:
        """How long the lock is claimed for a step: a cut session blocks other machines no longer."""
        return {Act.check: 3 * self.options.timeout_s, Act.confirm: _HOOK_S, Act.verify: 300.0}.get(step.act, 30.0)

    def perform(self, step: Step) -> bool:
        """One step on the device; False when what it looked at is not well."""
        site = self.site
        match step.act:
            case Act.settle:
                site.settle(step.path)
            case Act.verify:
                return self._verify(step.path)
            case Act.record:
                assert step.state is not None
                kept = {n: note for n, note in self.notes.items() if n in {*step.state.good, step.state.active}}
                site.record(step.state, kept)
            case Act.switch:
                site.switch(step.path)
            case Act.unlink:
                site.unlink()
            case Act.remove:
                site.remove(step.path)
            case Act.confirm:
                return self._confirm(step.path)
            case Act.upload | Act.check:
                # The session with a bundle does these itself; without one no goal asks for them.
                raise AssertionError(f"{step.act} without a bundle")
        return True

    def _verify(self, path: str) -> bool:
        kind, _, name = path.partition("/")
        if kind == slots.RUNTIMES:
            return self._runtime_digest(self.site.at(path)) == name.partition(".")[0]
        return self.site.is_whole(name)

    def _runtime_digest(self, folder: str) -> str:
        done = self.device.exec(
            [*self.device.python, "-", "digest", folder], timeout_s=self.options.timeout_s, stdin=ON_DEVICE
        )
        return done.stdout.decode("ascii", "replace").strip()

    def _confirm(self, release: str) -> bool:
        """What `current` gives is the release, and the user's own command agrees."""
        data = self.device.read_bytes(self.site.at(CURRENT, MANIFEST))
        if hashlib.sha256(data).hexdigest() != slots.digest_of(release):
            message = "`current` does not lead to the release that was switched to"
            self.findings.append(Finding(code="flash/unconfirmed", message=message, where=self.device.name))
            return False
        return self._run_hooks(release)

    def _run_hooks(self, release: str) -> bool:
        hooks = [self.options.hook] if self.options.hook else []
        if self.options.service and release:
            script = self.site.at(CURRENT, "serve.pyz")
            hooks.insert(0, (*self.device.python, script, "install", "--root", self.site.root))
        return all(self._run_hook(hook, release) for hook in hooks)

    def _run_hook(self, hook: Sequence[str], release: str) -> bool:
        env = {"EDGEC_ROOT": self.site.root, "EDGEC_DIGEST": slots.digest_of(release)}
        try:
            done = self.device.exec(hook, timeout_s=_HOOK_S, env=env)
        except EdgecError as error:
            if error.code != "device/missing":
                raise
            how, said = "is not there", [str(error)]
        else:
            if done.returncode == 0 and not done.timed_out:
                return True
            how = f"was not finished within {_HOOK_S:g} s" if done.timed_out else f"ended with {done.returncode}"
            said = done.stderr.strip().splitlines()
        self.findings.append(
            Finding(
                code="flash/hook-failed",
                message=f"the command after the switch {how}" + (f": {said[-1][:200]}" if said else ""),
                where=f"{self.device.name}: {' '.join(hook)}",
                hint="try the command there by hand; `edgec status` says which release runs",
            )
        )
        return False

    def result(self, result: str, seen: Seen) -> Flashed:
        """What is to be told."""
        return Flashed(
            device=self.device.name,
            root=self.site.root,
            bundle=self.name,
            digest=self.digest,
            result=result,
            running=seen.link,
            previous=slots.rollback_target(seen),
            steps=tuple(self.taken),
            health=self.health,
            findings=tuple(self.findings),
            seconds=time.monotonic() - self._began,
        )
