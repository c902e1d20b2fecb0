"""The inventory: `devices.toml`, the devices that a user names, with groups, labels, and how to reach them.

```toml
[devices.kitchen]
address = "ssh:pi@kitchen.local"
groups = ["lab"]
labels = { room = "kitchen" }
target = "raspberrypi4"
identity = "~/.ssh/edge"        # everything else belongs to the kind of device
```

1. It is the file given, else the one that EDGEC_INVENTORY names, else `devices.toml` here, else `edgec/devices.toml` in
   the user's configuration folder.
2. A name has no colon and is not a kind of device, so a device is named without doubt.
3. Files are named relative to the inventory's own folder, or from home with `~`.
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, StringConstraints, ValidationError

from edgec.devices import kinds
from edgec.errors import EdgecError, Finding
from edgec.registry import did_you_mean, plugin_names

FILE_NAME = "devices.toml"


@dataclass(frozen=True, kw_only=True, slots=True)
class Device:
    """One device as the inventory describes it. `path` is the inventory's own file, None for a device named by address.

    `options` are what its kind understands, unchecked.
    """

    name: str
    address: str
    groups: tuple[str, ...] = ()
    labels: Mapping[str, str] = field(default_factory=dict)
    target: str = ""
    options: Mapping[str, Any] = field(default_factory=dict)
    path: Path | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Inventory:
    """All devices of one file, by name, in the file's order."""

    devices: Mapping[str, Device]
    path: Path | None = None

    def group(self, name: str) -> tuple[Device, ...]:
        """The devices of a group. Raises `EdgecError` (`device/unknown-group`) for one that has none."""
        members = tuple(device for device in self.devices.values() if name in device.groups)
        if not members:
            groups = {group for device in self.devices.values() for group in device.groups}
            raise EdgecError(
                "device/unknown-group",
                f"no device is in the group {name!r}",
                where=str(self.path or FILE_NAME),
                hint=did_you_mean(name, groups) if groups else f"give devices groups = [{name!r}] in {FILE_NAME}",
            )
        return members


def find_inventory(path: str | Path | None = None) -> Inventory:
    """The inventory of rule 1; one without devices where there is no file. Raises `EdgecError` (device/…, io/…)."""
    path = path or os.environ.get("EDGEC_INVENTORY")
    if path:
        return read_inventory(Path(path))
    configuration = Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config")
    for place in (Path(FILE_NAME), configuration / "edgec" / FILE_NAME):
        if place.is_file():
            return read_inventory(place)
    return Inventory(devices={})


def read_inventory(path: Path) -> Inventory:
    """Read a file. Raises `EdgecError`: `device/inventory-syntax`, `device/inventory`, or `io/…` for no such file."""
    path = path.expanduser().absolute()
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise EdgecError("device/inventory", f"cannot read the inventory: {error.strerror}", where=str(path)) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise EdgecError("device/inventory-syntax", f"this is not TOML: {error}", where=str(path)) from error
    try:
        parsed = _File.model_validate(table)
    except ValidationError as error:
        raise options_error(error, path=path, prefix=(), known=("devices", *_Entry.model_fields)) from error
    names = plugin_names(kinds)
    findings = [_finding(path, ("devices", name), why) for name in parsed.devices if (why := _bad_name(name, names))]
    for name, entry in parsed.devices.items():
        kind = entry.address.partition(":")[0]
        if kind not in names:
            where = ("devices", name, "address")
            findings.append(_finding(path, where, f"there is no kind of device {kind!r}", did_you_mean(kind, names)))
    if findings:
        raise _refusal(path, findings)
    return Inventory(devices={name: _device(name, entry, path) for name, entry in parsed.devices.items()}, path=path)


def options_error(
    error: ValidationError, *, path: Path | None, prefix: tuple[str, ...], known: Iterable[str]
) -> EdgecError:
    """What pydantic found, as findings with key paths. `known` are the keys there are."""
    findings = []
    for problem in error.errors():
        keys = (*prefix, *map(str, problem["loc"]))
        if problem["type"] == "extra_forbidden":
            findings.append(_finding(path, keys, "there is no such key", did_you_mean(keys[-1], known)))
        else:
            findings.append(_finding(path, keys, problem["msg"].lower()))
    return _refusal(path, findings)


def _refusal(path: Path | None, findings: list[Finding]) -> EdgecError:
    if len(findings) == 1:
        only = findings[0]
        return EdgecError(only.code, only.message, where=only.where, hint=only.hint)
    message = f"{len(findings)} problems in the inventory"
    return EdgecError("device/inventory", message, where=str(path or ""), findings=findings)


def _finding(path: Path | None, keys: Iterable[str], message: str, hint: str = "") -> Finding:
    text = f"{'.'.join(keys)}: {message}"
    return Finding(code="device/inventory", message=text, where=str(path or ""), hint=hint)


def _bad_name(name: str, names: Iterable[str]) -> str:
    """Rule 2."""
    if name in names:
        return "this is the name of a kind of device"
    return "" if name and ":" not in name else "a name has no colon, and at least one character"


def _device(name: str, entry: _Entry, path: Path) -> Device:
    return Device(
        name=name,
        address=entry.address,
        groups=entry.groups,
        labels=entry.labels,
        target=entry.target,
        options=entry.model_extra or {},
        path=path,
    )


class _Entry(BaseModel):
    """A table of the file; what it does not name belongs to the kind of device."""

    model_config = ConfigDict(extra="allow", frozen=True)

    address: Annotated[str, StringConstraints(min_length=1)]
    groups: tuple[str, ...] = ()
    labels: dict[str, str] = {}
    target: str = ""


class _File(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    devices: dict[str, _Entry] = {}
