"""What the commands do: open the bundle, find the devices, and flash one of them or roll out to many."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from edgec.bundle.open import open_bundle
from edgec.devices.inventory import Device, Inventory, find_inventory
from edgec.devices.open import open_device, resolve_device
from edgec.errors import EdgecError, Finding, Severity
from edgec.flash.fleet import Policy, Told, roll_out
from edgec.flash.install import flash_bundle
from edgec.flash.journal import Journal, journal_path, read_journal
from edgec.flash.rollback import roll_back
from edgec.flash.session import Flashed, Options, Progress
from edgec.flash.status import read_status

TRUST_KEY = "EDGEC_TRUST_KEY"


def chosen_devices(names: Sequence[str], group: str | None, inventory: Inventory) -> tuple[Device, ...]:
    """The devices of a group and those that are named, each once. Raises `EdgecError` (`cli/no-device`, device/…)."""
    members = inventory.group(group) if group else ()
    found = {device.name: device for device in (*members, *(resolve_device(n, inventory=inventory) for n in names))}
    if not found:
        raise EdgecError("cli/no-device", "no device is given", hint="name one with --device, or some with --group")
    return tuple(found.values())


def run_flash(
    bundle: str | Path,
    *,
    devices: Sequence[str] = (),
    group: str | None = None,
    inventory: str | Path | None = None,
    options: Options | None = None,
    policy: Policy | None = None,
    trust_key: Path | None = None,
    journal: Path | None = None,
    resume: bool = False,
    progress: Progress = lambda _stage, _done, _total: None,
    told: Told = lambda _device, _what, _done, _total: None,
) -> dict[str, Any]:
    """Flash one device, or roll out to several. Returns `Flashed` or `Rollout` as JSON-ready facts.

    `trust_key`, or the file that the environment's EDGEC_TRUST_KEY names, must have signed the bundle.
    """
    options, policy = options or Options(), policy or Policy()
    key = trust_key or (Path(os.environ[TRUST_KEY]) if os.environ.get(TRUST_KEY) else None)
    found = find_inventory(inventory)
    chosen = chosen_devices(devices, group, found)

    def flash(device: Device, tell: Progress) -> Flashed:
        # A bundle of its own for each: they read at the same time.
        with open_bundle(bundle, public_key=key) as opened, open_device(device) as transport:
            return flash_bundle(opened, transport, options, progress=tell)

    if len(chosen) == 1 and not group:
        return flash(chosen[0], progress).as_dict()
    with open_bundle(bundle, public_key=key) as opened:
        name, digest = opened.manifest.name, opened.digest
    if options.dry_run:
        return _planned(chosen, lambda device: flash(device, _silent))
    selection = f"group {group}" if group else " ".join(device.name for device in chosen)
    path = journal or journal_path(digest, selection, options.root)
    history = read_journal(path)
    if resume and history is None:
        raise EdgecError(
            "flash/no-journal",
            "there is no rollout of this bundle to these devices to go on with",
            where=str(path),
            hint="run it without --resume, or name its file with --journal",
        )
    by_name = {device.name: device for device in chosen}
    with Journal(path, resume=resume) as log:
        rollout = roll_out(
            list(by_name),
            lambda device: flash(by_name[device], _silent),
            policy,
            log,
            bundle=name,
            digest=digest,
            history=history if resume else None,
            told=told,
        ).as_dict()
    if not resume and history is not None and not history.finished:
        message = "an earlier rollout of this bundle was not finished; this one began anew"
        hint = "--resume leaves out the devices that are done"
        note = Finding(code="flash/began-anew", message=message, severity=Severity.INFO, where=str(path), hint=hint)
        rollout["findings"].append(note.as_dict())
    return rollout


def run_rollback(
    *,
    devices: Sequence[str],
    group: str | None = None,
    inventory: str | Path | None = None,
    options: Options | None = None,
    to: str = "",
) -> dict[str, Any]:
    """Take devices back, one after the other; a device that cannot be is a finding when there are several."""
    chosen = chosen_devices(devices, group, find_inventory(inventory))
    return _each(
        chosen, group, lambda device: _with(device, lambda t: roll_back(t, options or Options(), to=to).as_dict())
    )


def run_status(
    *,
    devices: Sequence[str],
    group: str | None = None,
    inventory: str | Path | None = None,
    root: str = "",
    verify: bool = False,
) -> dict[str, Any]:
    """What devices run."""
    chosen = chosen_devices(devices, group, find_inventory(inventory))
    return _each(chosen, group, lambda device: _with(device, lambda t: read_status(t, root=root, verify=verify)))


def _with(device: Device, ask: Callable[[Any], dict[str, Any]]) -> dict[str, Any]:
    with open_device(device) as transport:
        return ask(transport)


def _each(devices: Sequence[Device], group: str | None, ask: Callable[[Device], dict[str, Any]]) -> dict[str, Any]:
    """One device's answer, or those of all with every problem among the findings."""
    if len(devices) == 1 and not group:
        return ask(devices[0])
    answers, findings = [], []
    for device in devices:
        try:
            answer = ask(device)
        except EdgecError as error:
            findings.append({**error.finding.as_dict(), "where": device.name})
            answers.append({"device": device.name, "error": error.code})
            continue
        findings += answer.pop("findings", [])
        answers.append(answer)
    return {"devices": answers, "findings": findings}


def _planned(devices: Sequence[Device], flash: Callable[[Device], Flashed]) -> dict[str, Any]:
    """A dry run of many: what stands in the way anywhere, and each device's steps."""
    return _each(devices, "all", lambda device: flash(device).as_dict())


def _silent(_stage: str, _done: int, _total: int) -> None:
    """Progress of one device among many is not shown."""
