"""Go back to an earlier release that is still on the device; needs no bundle."""

from __future__ import annotations

from edgec.devices.base import Transport
from edgec.errors import EdgecError
from edgec.flash import slots
from edgec.flash.session import Flashed, Options, Session
from edgec.flash.slots import Seen


def roll_back(device: Transport, options: Options, *, to: str = "") -> Flashed:
    """Make the release before the running one, or the newest whose digest starts with `to`, the one that runs.

    Its files are verified first. Raises `EdgecError`: flash/no-previous, flash/damaged-release, flash/busy, device/….
    """
    session = Session(device, options)
    seen, notes = session.site.see()
    release = _chosen(seen, to) if to else slots.rollback_target(seen)
    if not release:
        raise EdgecError(
            "flash/no-previous",
            "there is no release to go back to" + (f" whose digest starts with {to!r}" if to else ""),
            where=f"{device.name}:{session.site.root}",
            hint="`edgec status` lists the releases that are there; any bundle can be flashed",
        )
    goal = slots.Rollback(release=release)
    session.digest, session.name = slots.digest_of(release), str(notes.get(release, {}).get("name", ""))
    seen = session.carry_out(goal)
    if slots.failure(seen, goal) == "damaged":
        raise EdgecError(
            "flash/damaged-release",
            "the release to go back to is not whole any more; the device goes on as before",
            where=f"{device.name}:{session.site.at(slots.RELEASES, release)}",
            hint="flash the bundle again, or take another release with --to",
        )
    return session.result("planned" if options.dry_run else "rolled-back", seen)


def _chosen(seen: Seen, prefix: str) -> str:
    """The release there whose digest starts with `prefix`; the newest, when there are several of one digest."""
    names = [name.partition("/")[2] for name in sorted(seen.present) if name.startswith(f"{slots.RELEASES}/")]
    return next((name for name in reversed(names) if name.startswith(prefix) and seen.has(name)), "")
