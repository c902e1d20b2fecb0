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
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from edgec.bundle.manifest import MANIFEST
from edgec.devices.base import Entry, EntryKind, Transport
from edgec.errors import EdgecError
from edgec.flash.slots import INCOMING, RELEASES, RUNTIMES, Seen, State, digest_of

CURRENT = "current"
RECORD = "state.json"
RUNTIME = "runtime"
SCHEMA_VERSION = 1
_GONE = ".gone-"
#: Files in one question: their names must fit into a command line.
_AT_ONCE = 200

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
    """Files that become one folder, `path` under the root; `links` by name are made with them.

    The small ones are sent together, as the folder `small`; the `large` ones each by itself, so that a cut one goes on.
    """

    path: str
    items: tuple[Item, ...]
    small: Path | None
    large: tuple[Item, ...]
    links: Mapping[str, str]

    @property
    def size_bytes(self) -> int:
        """Of all files."""
        return sum(item.size_bytes for item in self.items)


class Site:
    """A root folder on a device."""

    def __init__(self, device: Transport, root: str = "") -> None:
        self.device = device
        self._leftovers: list[str] = []
        self.root = (root or device.home).rstrip("/") or "/"
        if not posixpath.isabs(self.root):
            message = f"the root folder on the device must be absolute, and {root!r} is not"
            raise EdgecError("flash/bad-root", message, where=device.name, hint="write it as /opt/edgec")

    def at(self, *parts: str) -> str:
        """A path below the root."""
        return posixpath.join(self.root, *parts)

    # ------------------------------------------------------------------------------------------ looking

    def see(self) -> tuple[Seen, Notes]:
        """What is there, in as few questions as a slow connection likes. No root is an empty one."""
        root = self._list()
        names = {entry.name: entry.kind for entry in root}
        self._leftovers = [name for name in names if name.startswith((f".{RECORD}.", f".{CURRENT}.", ".lock."))]
        state, notes = self._record() if RECORD in names else (State(), {})
        incoming = self._list(INCOMING) if names.get(INCOMING) == EntryKind.folder else ()
        kinds = {entry.name for entry in incoming}
        present = (self._folders(kind) for kind in (RELEASES, RUNTIMES) if kind in names)
        coming = (self._folders(INCOMING, kind) for kind in (RELEASES, RUNTIMES) if kind in kinds)
        seen = Seen(
            state=state,
            link=self._link(names.get(CURRENT)),
            present=frozenset(path for paths in present for path in paths),
            incoming=frozenset(path.partition("/")[2] for paths in coming for path in paths),
        )
        return seen, notes

    def _link(self, kind: EntryKind | None) -> str:
        """The release that `current` names; empty when there is no such link."""
        if kind is None:
            return ""
        if kind != EntryKind.link:
            raise EdgecError(
                "flash/foreign-root",
                f"{self.at(CURRENT)} is a {kind}, not a link that edgec made; nothing was changed",
                where=self.device.name,
                hint="give another folder with --root, or move it away",
            )
        return posixpath.basename(self.device.read_link(self.at(CURRENT)))

    def _list(self, *parts: str) -> tuple[Entry, ...]:
        try:
            return self.device.list_folder(self.at(*parts))
        except EdgecError as error:
            if error.code != "device/missing":
                raise
            return ()

    def _folders(self, *parts: str) -> list[str]:
        """Paths of the folders in a folder; those that were being removed are left over."""
        names = [entry.name for entry in self._list(*parts) if entry.kind == EntryKind.folder]
        self._leftovers += [posixpath.join(*parts, name) for name in names if name.startswith(_GONE)]
        return [posixpath.join(*parts, name) for name in names if not name.startswith(_GONE)]

    def _record(self) -> tuple[State, Notes]:
        """The record; an unreadable one counts as lost, and is made anew from what is there."""
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
        if parcel.small is not None:
            self.device.push(parcel.small, folder)
            moved(parcel.size_bytes - sum(item.size_bytes for item in parcel.large))
        for item in parcel.large:
            self.device.push(item.source, posixpath.join(folder, item.name), resume=True)
            moved(item.size_bytes)
        wrong = self._wrong(folder, parcel.items)
        for item in wrong:
            # Bytes of another attempt in the middle of the file: once more, from its beginning.
            self.device.remove(posixpath.join(folder, item.name))
            self.device.push(item.source, posixpath.join(folder, item.name))
        wrong = self._wrong(folder, wrong)
        if wrong:
            message = f"{wrong[0].name} arrives with other bytes than were sent"
            hint = "the device's storage or memory is failing: try another card or device"
            raise EdgecError("flash/damaged-upload", message, where=f"{self.device.name}:{folder}", hint=hint)
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
        """Remove what cut sessions left, as last seen: parts of records and links, folders that were being removed."""
        while self._leftovers:
            self.device.remove(self.at(self._leftovers.pop()))

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
        expected = {self.at(RELEASES, release, name): facts["sha256"] for name, facts in manifest["files"].items()}
        found = self._checksums(list(expected))
        return all(found.get(path) == value for path, value in expected.items())

    def _wrong(self, folder: str, items: Sequence[Item]) -> tuple[Item, ...]:
        """Those that the device does not hold as they are here."""
        found = self._checksums([posixpath.join(folder, item.name) for item in items])
        return tuple(item for item in items if found.get(posixpath.join(folder, item.name)) != item.sha256)

    def _checksums(self, paths: Sequence[str]) -> dict[str, str]:
        """Checksums of files, many at a time where the device can; files that are not there are left out."""
        found: dict[str, str] = {}
        for start in range(0, len(paths), _AT_ONCE):
            batch = paths[start : start + _AT_ONCE]
            try:
                done = self.device.exec(["sha256sum", *batch], timeout_s=900.0)
                lines = done.stdout.decode("utf-8", "surrogateescape").splitlines()
            except EdgecError as error:
                if error.code not in ("device/missing", "device/io"):
                    raise
                lines = []
            found.update({line[66:]: line[:64] for line in lines if line[64:66] == "  "})
        return found or {path: value for path in paths if (value := self._checksum(path))}

    def _checksum(self, remote: str) -> str:
        try:
            return self.device.sha256(remote)
        except EdgecError as error:
            if error.code not in ("device/missing", "device/io"):
                raise
            return ""
