"""Open a device: `kind`, `kind:address`, or a name of the inventory."""

from __future__ import annotations

from typing import Any

from pydantic import ValidationError

from edgec.devices import kinds
from edgec.devices.base import Transport
from edgec.devices.inventory import Device, Inventory, find_inventory, options_error
from edgec.errors import EdgecError
from edgec.registry import did_you_mean, load_plugin, plugin_names


def device_kinds() -> tuple[str, ...]:
    """Kinds of devices, without importing them."""
    return plugin_names(kinds)


def resolve_device(spec: str, *, inventory: Inventory | None = None) -> Device:
    """What `spec` stands for: an inventory's entry, or one made from `kind` or `kind:address`.

    Without `inventory` the one that `find_inventory` finds is used. Raises `EdgecError` (`cli/unknown-device`).
    """
    if spec.partition(":")[0] in device_kinds():
        return Device(name=spec, address=spec)
    known = inventory if inventory is not None else find_inventory()
    if spec in known.devices:
        return known.devices[spec]
    raise EdgecError(
        "cli/unknown-device",
        f"there is no device named {spec!r}",
        where=str(known.path or ""),
        hint=did_you_mean(spec.partition(":")[0], [*known.devices, *device_kinds()]),
    )


def open_device(spec: str | Device, *, inventory: Inventory | None = None) -> Transport:
    """The device; nothing is connected before its first call. Raises `EdgecError` for a name, address or option."""
    device = resolve_device(spec, inventory=inventory) if isinstance(spec, str) else spec
    kind, _, address = device.address.partition(":")
    plugin = load_plugin(kinds, kind, kind="device")
    transport: Transport = plugin.open_device(address, _options(plugin.Options, device), device.name)
    return transport


def check_options(device: Device) -> None:
    """Raise `EdgecError` (device/inventory) for options that the device's kind does not have."""
    _options(load_plugin(kinds, device.address.partition(":")[0], kind="device").Options, device)


def _options(model: Any, device: Device) -> Any:
    """The options as the kind's own record."""
    context = {"folder": device.path.parent if device.path else None}
    try:
        return model.model_validate(dict(device.options), context=context)
    except ValidationError as error:
        known = (*model.model_fields, "address", "groups", "labels", "target")
        prefix = ("devices", device.name)
        raise options_error(error, path=device.path, prefix=prefix, known=known) from error
