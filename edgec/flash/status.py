"""What a device runs, and what else is on it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from edgec.devices.base import Transport
from edgec.errors import Finding, Severity
from edgec.flash import slots
from edgec.flash.site import Site


@dataclass(frozen=True, kw_only=True, slots=True)
class Release:
    """One release on a device. `state`: running, trial, good, taken-back, unused."""

    digest: str
    name: str
    state: str
    target: str = ""
    precision: str = ""
    installed: str = ""
    runtime: str = ""
    whole: bool | None = None


def read_status(device: Transport, *, root: str = "", verify: bool = False) -> dict[str, Any]:
    """What `edgec status` says, JSON-ready; `verify` compares the running release's files with its manifest."""
    site = Site(device, root)
    seen, notes = site.see()
    names = sorted(path.partition("/")[2] for path in seen.present if path.startswith(f"{slots.RELEASES}/"))
    order = {name: place for place, name in enumerate(seen.state.good)}
    names.sort(key=lambda name: (name != seen.link, -order.get(name, -1), name))
    releases = [_release(seen, name, notes.get(name, {}), site, verify=verify) for name in names]
    running = next((release for release in releases if release.state in ("running", "trial")), None)
    return {
        "device": device.name,
        "root": site.root,
        "running": running.digest if running else "",
        "bundle": running.name if running else "",
        "previous": slots.digest_of(slots.rollback_target(seen)),
        "free_bytes": device.free_bytes(site.root),
        "releases": [{key: getattr(r, key) for key in Release.__dataclass_fields__} for r in releases],
        "findings": [finding.as_dict() for finding in _findings(device.name, seen, releases)],
    }


def _release(seen: slots.Seen, name: str, note: Any, site: Site, *, verify: bool) -> Release:
    state = seen.state
    if name == seen.link:
        how = "trial" if state.trial and state.active == name else "running"
    else:
        how = "good" if name in state.good else "taken-back" if name in state.bad else "unused"
    health = note.get("health") or {}
    return Release(
        digest=slots.digest_of(name),
        name=str(note.get("name", "")),
        state=how,
        target=str(note.get("target", "")),
        precision=str(note.get("precision", "")),
        installed=str(note.get("installed", "")),
        runtime=str(health.get("runtime", "")) + (" (brought)" if slots.runtime_of(name) else ""),
        whole=site.is_whole(name) if verify and name == seen.link else None,
    )


def _findings(device: str, seen: slots.Seen, releases: list[Release]) -> list[Finding]:
    findings = []
    if seen.link and not seen.has(seen.link):
        message = "`current` names a release that is not there, or whose runtime is not"
        findings.append(Finding(code="flash/dangling", message=message, where=device, hint="flash a bundle"))
    if any(release.whole is False for release in releases):
        message = "files of the running release are not what its manifest says"
        hint = "flash the bundle again: it is installed anew beside the damaged one"
        findings.append(Finding(code="flash/damaged-release", message=message, where=device, hint=hint))
    if seen.state.active != seen.link or seen.state.trial:
        message = "the last flash was cut; the device runs a whole release, and the next flash tidies up"
        findings.append(Finding(code="flash/interrupted", message=message, severity=Severity.WARNING, where=device))
    return findings
