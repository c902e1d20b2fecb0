"""Flash one device: look, refuse what cannot work, then send, check and switch.

Nothing is touched before everything that stands in the way is known (`compat`).
"""

from __future__ import annotations

import hashlib
import tempfile
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from edgec.bundle.bundle import Bundle
from edgec.devices.base import Facts, Transport
from edgec.errors import EdgecError, Finding, Severity
from edgec.flash import slots
from edgec.flash.compat import examine, python_too_old, runtime_problem
from edgec.flash.health import Limits, check_release, unchecked
from edgec.flash.session import ON_DEVICE, Flashed, Options, Progress, Session
from edgec.flash.site import RUNTIME, Item, Parcel
from edgec.flash.slots import Act, Seen, Step
from edgec.flash.wheels import RuntimeArchive, fetch_runtime

#: What an upload is taken to need at the least, when the lock is claimed for it.
_SLOWEST_BYTES_S = 50_000
_ARCHIVE = "runtime.zip"
#: Smaller files are sent together; sending one again costs less than asking how much of it is there.
_LARGE_BYTES = 1 << 18


def flash_bundle(
    bundle: Bundle,
    device: Transport,
    options: Options,
    *,
    facts: Facts | None = None,
    progress: Progress = lambda _stage, _done, _total: None,
) -> Flashed:
    """Bring a verified bundle onto a device and make it the one that runs, or leave the device as it was.

    `facts` are the device's where they are known; it is asked otherwise. A release that fails its check there, or
    after the switch, comes back as `rejected`, with the device on the release before. Raises `EdgecError` (flash/…,
    device/…) for what is refused, or lost.
    """
    if facts is None:
        from edgec.devices.probe import probe

        facts = probe(device)
    with tempfile.TemporaryDirectory(prefix="edgec-") as folder:
        return _Flash(bundle, device, options, facts, progress, Path(folder)).run()


def _item(name: str, path: Path) -> Item:
    with path.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    return Item(name=name, source=path, sha256=digest, size_bytes=path.stat().st_size)


class _Flash(Session):
    """A session that brings a bundle."""

    def __init__(
        self, bundle: Bundle, device: Transport, options: Options, facts: Facts, progress: Progress, folder: Path
    ) -> None:
        super().__init__(device, options)
        self._bundle = bundle
        self._progress = progress
        self._folder = folder
        self._facts = facts
        self.name, self.digest = bundle.manifest.name, bundle.digest
        self._archive: RuntimeArchive | None = None
        self._moved, self._total = 0, 0

    def run(self) -> Flashed:
        self._progress("prepare", 0, 0)
        self._archive = self._runtime()
        seen, _ = self.site.see()
        self._refuse(seen)
        goal = slots.Install(
            release=slots.release_name(self.digest, self._archive.digest if self._archive else ""),
            keep=self.options.keep,
        )
        before = seen.link
        seen = self.carry_out(goal)
        if self.options.dry_run:
            return self.result("planned", seen)
        failure = slots.failure(seen, goal)
        if failure:
            self.findings.insert(0, self._failed(failure, seen))  # it decides the exit code
            return self.result("rejected", seen)
        return self.result("unchanged" if seen.link == before else "installed", seen)

    def _runtime(self) -> RuntimeArchive | None:
        """The runtime that travels, when the device lacks it or the user says so."""
        manifest, choice = self._bundle.manifest, self.options.runtime
        if not manifest.requirements or choice == "never" or (choice == "auto" and not self._facts.python):
            return None
        if choice == "auto" and (python_too_old(self._facts) or runtime_problem(manifest, self._facts) is None):
            return None
        if python_too_old(self._facts):
            return None  # `examine` says what stands in the way
        self._progress("runtime", 0, 0)
        return fetch_runtime(manifest.requirements, self._facts, preferred=manifest.provenance.tools)

    def _refuse(self, seen: Seen) -> None:
        """Rule 1. Raises with all that stands in the way; what is only worth knowing is kept."""
        found = examine(
            self._bundle.manifest,
            self._facts,
            send_bytes=self._send_bytes(seen),
            free_bytes=self.device.free_bytes(self.site.root),
            brings_runtime=self._archive is not None or self.options.runtime == "always",
        )
        errors = [finding for finding in found if finding.severity == Severity.ERROR]
        if errors:
            first = errors[0]
            more = f" ({len(errors) - 1} more)" if len(errors) > 1 else ""
            where = first.where or self.device.name
            raise EdgecError(first.code, first.message + more, where=where, hint=first.hint, findings=errors)
        self.findings += found

    def _send_bytes(self, seen: Seen) -> int:
        """What will be sent or unpacked there: not what is there already."""
        release = slots.release_name(self.digest, self._archive.digest if self._archive else "")
        bundle = 0 if f"{slots.RELEASES}/{release}" in seen.present else self._bundle.path.stat().st_size
        if self._archive is None or slots.runtime_of(release) in seen.present:
            return bundle
        return bundle + self._archive.path.stat().st_size + self._archive.unpacked_bytes

    def perform(self, step: Step) -> bool:
        match step.act:
            case Act.upload:
                kind, _, name = step.path.partition("/")
                self._upload_runtime(step.path) if kind == slots.RUNTIMES else self._upload_release(name)
                return True
            case Act.check:
                return self._check(step.path)
            case Act.record:
                assert step.state is not None
                if step.state.active and slots.digest_of(step.state.active) == self.digest:
                    self.notes[step.state.active] = self._note()
        return super().perform(step)

    def _note(self) -> dict[str, Any]:
        manifest = self._bundle.manifest
        return {
            "name": manifest.name,
            "target": manifest.target.id,
            "precision": manifest.precision,
            "installed": datetime.now(UTC).isoformat(timespec="seconds"),
            "health": None if self.health is None else self.health.note(),
        }

    def _upload_release(self, release: str) -> None:
        here = self._folder / "release"
        self._bundle.extract(here / "small")
        items, large = [], []
        for name in sorted(self._bundle.names):
            item = _item(name, here / "small" / name)
            if item.size_bytes > _LARGE_BYTES:
                place = here / "large" / name
                place.parent.mkdir(parents=True, exist_ok=True)
                item = replace(item, source=item.source.rename(place))
                large.append(item)
            items.append(item)
        runtime = slots.runtime_of(release)
        self._send(
            Parcel(
                path=f"{slots.RELEASES}/{release}",
                items=tuple(items),
                small=here / "small",
                large=tuple(large),
                links={RUNTIME: f"../../{runtime}"} if runtime else {},
            )
        )

    def _send(self, parcel: Parcel) -> None:
        self._moved, self._total = 0, parcel.size_bytes
        assert self.lease is not None
        self.lease.renew(parcel.size_bytes / _SLOWEST_BYTES_S + 60.0)
        self._progress("upload", 0, self._total)

        def moved(size: int) -> None:
            self._moved += size
            self._progress("upload", self._moved, self._total)

        self.site.send(parcel, moved)

    def _upload_runtime(self, path: str) -> None:
        """The archive goes beside the folder it is unpacked into; the folder is verified as a whole."""
        assert self._archive is not None
        archive = self._archive
        size = archive.path.stat().st_size
        item = Item(name=_ARCHIVE, source=archive.path, sha256=archive.sha256, size_bytes=size)
        packed, folder = f"archives/{archive.digest}", self.site.at(slots.INCOMING, path)
        self._send(Parcel(path=packed, items=(item,), small=None, large=(item,), links={}))
        self._progress("unpack", 0, 0)
        self.device.remove(folder)
        command = [*self.device.python, "-", "unpack", self.site.at(slots.INCOMING, packed, _ARCHIVE), folder]
        done = self.device.exec(command, timeout_s=3 * self.options.timeout_s, stdin=ON_DEVICE)
        if done.stdout.decode("ascii", "replace").strip() != archive.digest:
            said = done.stderr.strip().splitlines()
            raise EdgecError(
                "flash/runtime-unpack",
                "the runtime could not be unpacked there" + (f": {said[-1][:200]}" if said else ""),
                where=f"{self.device.name}:{folder}",
                hint="check the space on the device; or install the runtime there and use --with-runtime never",
            )
        self.device.remove(self.site.at(slots.INCOMING, packed))
        self.device.sync(folder)

    def _check(self, release: str) -> bool:
        self._progress("check", 0, 0)
        if python_too_old(self._facts):
            self.health = unchecked(self.device.name)
        else:
            folder = self.site.at(slots.RELEASES, release)
            runtime = slots.runtime_of(release)
            limits = Limits.of(self._bundle, self.options.latency_ms, self.options.memory_bytes)
            self.health = check_release(
                self._bundle,
                self.device,
                folder,
                limits,
                env={"PYTHONPATH": self.site.at(runtime)} if runtime else {},
                emulated=bool(self._facts.emulated),
                timeout_s=self.options.timeout_s,
            )
        self.findings += self.health.findings
        return self.health.good

    def _failed(self, failure: str, seen: Seen) -> Finding:
        after = f"it runs {slots.digest_of(seen.link)[:12]}" if seen.link else "it runs no release"
        code, what = {
            "unhealthy": (
                "flash/unhealthy",
                f"the release failed its health check on the device and was not switched to; {after}",
            ),
            "unconfirmed": (
                "flash/unconfirmed",
                f"the release failed after the switch and was taken back; {after}",
            ),
        }[failure]
        return Finding(
            code=code,
            message=what,
            where=self.device.name,
            hint="the findings beside it say what is wrong with it there",
        )
