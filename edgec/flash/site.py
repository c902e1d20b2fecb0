"""The folder on a device that holds the releases: what is there, and the few ways to change it.

```
ROOT/current -> releases/NAME      the release that runs; replaced by a rename
ROOT/releases/NAME/                an unpacked bundle, and `runtime` -> ../../runtimes/ID where one travels with it
ROOT/runtimes/ID/                  Python packages
ROOT/incoming/releases/NAME/       what is being sent
ROOT/state.json                    the record (`slots.State`), and a note on each release
ROOT/lock                          who is at work (`lease`)
```
"""

from __future__ import annotations

import hashlib
import json
import posixpath
import secrets
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from edgec.bundle.manifest import MANIFEST
from edgec.devices.base import EntryKind, Transport
from edgec.errors import EdgecError
from edgec.flash.slots import INCOMING, RELEASES, RUNTIMES, Seen, State, digest_of

CURRENT = "current"
RECORD = "state.json"
RUNTIME = "runtime"
SCHEMA_VERSION = 1
_GONE = ".gone-"

Notes = Mapping[str, Mapping[str, Any]]
Moved = Callable[[int], None]


@dataclass(frozen=True, kw_only=True, slots=True)
class Item:
    """One file to send."""

    name: str
    source: Path
    sha256: str
    size_bytes: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Parcel:
    """Files that become one folder, `path` under the root; `links` by name are made with them."""

    path: str
    items: tuple[Item, ...]
    links: Mapping[str, str]

    @property
    def size_bytes(self) -> int:
        """Of all files."""
        return sum(item.size_bytes for item in self.items)


class Site:
    """A root folder on a device."""

    def __init__(self, device: Transport, root: str = "") -> None:
        self.device = device
        self.root = (root or device.home).rstrip("/") or "/"
        if not posixpath.isabs(self.root):
            message = f"the root folder on the device must be absolute, and {root!r} is not"
            raise EdgecError("flash/bad-root", message, where=device.name, hint="write it as /opt/edgec")

    def at(self, *parts: str) -> str:
        """A path below the root."""
        return posixpath.join(self.root, *parts)

    # ------------------------------------------------------------------------------------------ looking

    def see(self) -> tuple[Seen, Notes]:
        """What is there. A root that does not exist yet is an empty one."""
        if self.device.entry(self.root) is None:
            return Seen(), {}
        state, notes = self._record()
        present = {f"{kind}/{name}" for kind in (RELEASES, RUNTIMES) for name in self._folders(kind)}
        incoming = {f"{kind}/{name}" for kind in (RELEASES, RUNTIMES) for name in self._folders(INCOMING, kind)}
        seen = Seen(state=state, link=self.link(), present=frozenset(present), incoming=frozenset(incoming))
        return seen, notes

    def link(self) -> str:
        """The release that `current` names; empty when there is no such link."""
        entry = self.device.entry(self.at(CURRENT))
        if entry is None:
            return ""
        if entry.kind != EntryKind.link:
            raise EdgecError(
                "flash/foreign-root",
                f"{self.at(CURRENT)} is a {entry.kind}, not a link that edgec made; nothing was changed",
                where=self.device.name,
                hint="give another folder with --root, or move it away",
            )
        return posixpath.basename(self.device.read_link(self.at(CURRENT)))

    def _folders(self, *parts: str) -> list[str]:
        if self.device.entry(self.at(*parts)) is None:
            return []
        entries = self.device.list_folder(self.at(*parts))
        return [e.name for e in entries if e.kind == EntryKind.folder and not e.name.startswith(_GONE)]

    def _record(self) -> tuple[State, Notes]:
        """The record; an unreadable one counts as lost, and is made anew from what is there."""
        if self.device.entry(self.at(RECORD)) is None:
            return State(), {}
        try:
            table = json.loads(self.device.read_bytes(self.at(RECORD)))
            version, notes = table["schema_version"], {name: dict(note) for name, note in table["notes"].items()}
            names = {key: tuple(str(name) for name in table[key]) for key in ("good", "bad")}
            state = State(active=str(table["active"]), trial=bool(table["trial"]), **names)
        except (ValueError, KeyError, TypeError, AttributeError):
            return State(), {}
        if version != SCHEMA_VERSION:
            raise EdgecError(
                "flash/unknown-version",
                f"{self.at(RECORD)} has version {version!r}; this edgec reads version {SCHEMA_VERSION}",
                where=self.device.name,
                hint="use the edgec that wrote it, or give another folder with --root",
            )
        return state, notes

    # ------------------------------------------------------------------------------------------ changing

    def send(self, parcel: Parcel, moved: Moved) -> None:
        """Bring a parcel into `incoming/`, verified and synced; what an earlier attempt left there is continued.

        Raises `flash/damaged-upload` when the device holds other bytes than were sent, twice.
        """
        folder = self.at(INCOMING, parcel.path)
        self.device.make_folder(folder)
        for item in parcel.items:
            remote = posixpath.join(folder, item.name)
            self.device.push(item.source, remote, resume=True)
            if self.device.sha256(remote) != item.sha256:
                # Bytes of another attempt in the middle of the file: once more, from its beginning.
                self.device.remove(remote)
                self.device.push(item.source, remote)
                if self.device.sha256(remote) != item.sha256:
                    message = f"{item.name} arrives with other bytes than were sent"
                    hint = "the device's storage or memory is failing: try another card or device"
                    raise EdgecError("flash/damaged-upload", message, where=f"{self.device.name}:{remote}", hint=hint)
            moved(item.size_bytes)
        for name, target in parcel.links.items():
            self.device.remove(posixpath.join(folder, name))
            self.device.make_link(target, posixpath.join(folder, name))
        self.device.sync(folder)

    def settle(self, path: str) -> None:
        """The incoming folder becomes a whole one, by one rename."""
        self.device.make_folder(posixpath.dirname(self.at(path)))
        self.device.rename(self.at(INCOMING, path), self.at(path))
        self.device.sync(self.at(path))

    def record(self, state: State, notes: Notes) -> None:
        """Replace the record."""
        table = {"schema_version": SCHEMA_VERSION, **asdict(state), "notes": dict(notes)}
        self.device.make_folder(self.root)
        part = self.at(f".{RECORD}.{secrets.token_hex(4)}")
        self.device.write_bytes(part, json.dumps(table, indent=1, sort_keys=True).encode() + b"\n")
        self._replace(part, RECORD)

    def switch(self, release: str) -> None:
        """Point `current` at a release, by one rename."""
        part = self.at(f".{CURRENT}.{secrets.token_hex(4)}")
        self.device.make_link(posixpath.join(RELEASES, release), part)
        self._replace(part, CURRENT)

    def _replace(self, part: str, name: str) -> None:
        """A name of its own for each attempt: a straggler of a broken connection touches nobody else's."""
        self.device.sync(part)
        self.device.rename(part, self.at(name))
        self.device.sync(self.at(name))

    def unlink(self) -> None:
        """No release runs any more."""
        self.device.remove(self.at(CURRENT))

    def remove(self, path: str) -> None:
        """Remove a folder; its name goes first, so that half of it is never taken for a whole one."""
        folder, name = posixpath.split(self.at(path))
        if path.startswith(f"{INCOMING}/"):
            self.device.remove(self.at(path))
            return
        gone = posixpath.join(folder, f"{_GONE}{secrets.token_hex(4)}")
        self.device.rename(posixpath.join(folder, name), gone)
        self.device.sync(gone)
        self.device.remove(gone)

    def tidy(self) -> None:
        """Remove what cut sessions left: parts of records and links, folders that were being removed."""
        for parts, prefixes in (
            ((), (f".{RECORD}.", f".{CURRENT}.", ".lock.")),
            ((RELEASES,), _GONE),
            ((RUNTIMES,), _GONE),
        ):
            if self.device.entry(self.at(*parts)) is None:
                continue
            for entry in self.device.list_folder(self.at(*parts)):
                if entry.name.startswith(prefixes):
                    self.device.remove(self.at(*parts, entry.name))

    # ------------------------------------------------------------------------------------------ verifying

    def manifest(self, release: str) -> dict[str, Any] | None:
        """A release's manifest, if its bytes are those the release is named after."""
        try:
            data = self.device.read_bytes(self.at(RELEASES, release, MANIFEST))
        except EdgecError as error:
            if error.code not in ("device/missing", "device/io"):
                raise
            return None
        if hashlib.sha256(data).hexdigest() != digest_of(release):
            return None
        table: dict[str, Any] = json.loads(data)
        return table

    def is_whole(self, release: str) -> bool:
        """True when every file that the manifest lists has the bytes it says; needs no bundle here."""
        manifest = self.manifest(release)
        if manifest is None:
            return False
        expected = {name: facts["sha256"] for name, facts in manifest["files"].items()}
        return all(self._checksum(self.at(RELEASES, release, name)) == value for name, value in expected.items())

    def _checksum(self, remote: str) -> str:
        try:
            return self.device.sha256(remote)
        except EdgecError as error:
            if error.code not in ("device/missing", "device/io"):
                raise
            return ""
