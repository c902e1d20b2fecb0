"""Devices as plain data: the inventory, one of its entries, and what devices say of themselves."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import Any

from edgec.devices.fit import check_device, check_target, fit_target
from edgec.devices.inventory import Device, Inventory, find_inventory
from edgec.devices.open import check_options, device_kinds, open_device, resolve_device
from edgec.devices.probe import probe
from edgec.errors import EdgecError, Finding
from edgec.targets.load import load_target

Progress = Callable[[str, int, int], None]


def describe_devices(inventory: str | Path | None, group: str | None = None) -> dict[str, Any]:
    """The inventory in one row a device, its options checked. Raises `EdgecError` (device/…)."""
    found = find_inventory(inventory)
    devices = found.group(group) if group else tuple(found.devices.values())
    return {
        "inventory": str(found.path or ""),
        "kinds": list(device_kinds()),
        "devices": [_row(device) for device in devices],
    }


def describe_device(name: str, inventory: str | Path | None) -> dict[str, Any]:
    """One entry with its options, nothing connected."""
    device = resolve_device(name, inventory=find_inventory(inventory))
    return {**_row(device), "options": dict(device.options)}


def probe_devices(
    names: Sequence[str], inventory: str | Path | None, *, group: str | None, target: str | None, progress: Progress
) -> dict[str, Any]:
    """Ask devices, eight at a time: facts, the fitting profile, findings. One that fails does not stop the others."""
    found = find_inventory(inventory)
    devices = [resolve_device(name, inventory=found) for name in names]
    devices += found.group(group) if group else ()
    if not devices:
        devices = list(found.devices.values()) or [resolve_device("local", inventory=found)]
    chosen = load_target(target).id if target else ""
    with ThreadPoolExecutor(8) as pool:
        rows = []
        for row in pool.map(lambda device: _probed(device, found, chosen), devices):
            rows.append(row)
            progress("probe", len(rows), len(devices))
    return {"devices": rows, "findings": [finding for row in rows for finding in row.pop("findings")]}


def _row(device: Device) -> dict[str, Any]:
    check_options(device)
    return {
        "name": device.name,
        "address": device.address,
        "groups": list(device.groups),
        "labels": dict(device.labels),
        "target": device.target,
    }


def _probed(device: Device, inventory: Inventory, chosen: str) -> dict[str, Any]:
    try:
        with open_device(device, inventory=inventory) as opened:
            facts = probe(opened)
        name = chosen or device.target
        fit = fit_target(facts)
        target = load_target(name or fit.target) if name or fit.target else None
        findings = check_target(facts, target) if name and target else []
        findings += check_device(facts, target)
    except EdgecError as error:
        return {"name": device.name, "findings": [_located(finding, device.name) for finding in error.findings]}
    return {
        "name": device.name,
        "facts": {**asdict(facts), "features": list(facts.features)},
        "target": {"name": name or fit.target, "chosen": bool(name), "fits": fit.target, "why": fit.why},
        "others": list(fit.others),
        "findings": [_located(finding, device.name) for finding in findings],
    }


def _located(finding: Finding, name: str) -> dict[str, str]:
    where = name if finding.where in name else f"{name}  {finding.where}"
    return {**finding.as_dict(), "where": where}
