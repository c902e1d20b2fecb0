"""A device in memory that can lose its connection or its power at any operation, as a journalling file system would.

Power cut: of the metadata operations that no `sync` followed, a prefix survives; of a file that was not synced, a
prefix of its content. Connection cut: the operation in which it happens was done, half done, or not done at all.
"""

from __future__ import annotations

import contextlib
import copy
import hashlib
import posixpath
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from edgec.devices.base import Entry, EntryKind, ExecResult
from edgec.errors import EdgecError


@dataclass(eq=False)
class File:
    """Content now, and as of the last sync (None: never)."""

    data: bytes = b""
    safe: bytes | None = None


@dataclass(frozen=True)
class Link:
    """A symbolic link."""

    target: str


Node = File | Link | None  # None is a folder
Tree = dict[str, Node]
Change = Callable[[Tree], None]


class MemoryDevice:
    """A `Transport`; `operations` counts those that change something."""

    python: Sequence[str] = ("python3",)
    home = "/data/edgec"

    def __init__(self, *, seed: int = 0, space: int = 1 << 30) -> None:
        self.name = "memory"
        self.operations = 0
        self.space = space
        self.boot = 1
        self._random = random.Random(seed)
        self._tree: Tree = {"/": None}
        self._safe: Tree = {"/": None}
        self._journal: list[Change] = []
        self._cut_at = -1
        self._power = False
        self._dead = False

    # ---------------------------------------------------------------------------------------- faults

    def cut_at(self, operation: int, *, power: bool) -> None:
        """Lose connection or power in that operation, counted from now."""
        self._cut_at, self._power = self.operations + operation, power

    def copy(self, seed: int) -> MemoryDevice:
        """The same device once more, with other luck; after `revive`, so that no operation is pending."""
        assert not self._journal
        other = copy.deepcopy(self)
        other._random = random.Random(seed)
        return other

    def revive(self) -> None:
        """The connection is back; after a power cut, with what survived."""
        if self._dead and self._power:
            survivors = self._random.randint(0, len(self._journal))
            for change in self._journal[:survivors]:
                change(self._safe)
            for node in {id(n): n for n in self._safe.values() if isinstance(n, File)}.values():
                if node.safe is None or node.data != node.safe:
                    node.data = node.data[: self._random.randint(0, len(node.data))]
            self._tree = dict(self._safe)
            self.boot += 1
        self._journal.clear()
        self._safe = dict(self._tree)
        self._dead, self._cut_at = False, -1

    def _change(self, change: Change, half: Change | None = None) -> None:
        """Do it, or lose the device on the way."""
        self._alive()
        cut = self.operations == self._cut_at
        self.operations += 1
        done = [change, half, None][self._random.randrange(3)] if cut else change
        if done is not None:
            done(self._tree)
            self._journal.append(done)
        if cut:
            self._dead = True
            self._alive()

    def _alive(self) -> None:
        if self._dead:
            raise EdgecError("device/lost", "the connection broke", where=self.name)

    # ---------------------------------------------------------------------------------------- files

    def push(self, local: Path, remote: str, *, resume: bool = False) -> None:
        """A folder file by file."""
        if local.is_dir():
            for path in sorted(p for p in local.rglob("*") if p.is_file()):
                self.push(path, f"{remote}/{path.relative_to(local).as_posix()}")
            return
        data = local.read_bytes()
        have = self._tree.get(remote)
        if resume and isinstance(have, File) and have.data == data:
            return
        self.write_bytes(remote, data)

    def write_bytes(self, remote: str, data: bytes) -> None:
        """In place: a cut leaves a part of it."""
        if sum(len(n.data) for n in self._tree.values() if isinstance(n, File)) + len(data) > self.space:
            raise EdgecError("device/disk-full", "no space left on device", where=remote)
        self._folders(remote)
        node = self._tree.get(remote)
        whole = node if isinstance(node, File) else File()

        def write(tree: Tree, content: bytes) -> None:
            whole.data = content
            tree[remote] = whole

        part = data[: self._random.randint(0, len(data))]
        self._change(lambda tree: write(tree, data), lambda tree: write(tree, part))

    def read_bytes(self, remote: str) -> bytes:
        """Follows links; the clock is the host's."""
        self._alive()
        if remote == "/proc/sys/kernel/random/boot_id":
            return f"boot-{self.boot}\n".encode()
        if remote == "/proc/uptime":
            return f"{self.operations}.0 0\n".encode()
        node = self._tree.get(self._follow(remote))
        if not isinstance(node, File):
            raise EdgecError("device/missing", f"no such file: {remote}", where=remote)
        return node.data

    def pull(self, remote: str, local: Path) -> None:
        """Only files."""
        local.write_bytes(self.read_bytes(remote))

    def sha256(self, remote: str) -> str:
        """Of the content."""
        return hashlib.sha256(self.read_bytes(remote)).hexdigest()

    def rename(self, source: str, destination: str) -> None:
        """rename(2)."""
        self._alive()
        if source not in self._tree:
            raise EdgecError("device/missing", f"no such file: {source}", where=source)
        if any(path.startswith(destination + "/") for path in self._tree) and self._tree[destination] is None:
            raise EdgecError("device/io", f"folder not empty: {destination}", where=destination)

        def move(tree: Tree) -> None:
            for path in [p for p in tree if p == source or p.startswith(source + "/")]:
                tree[destination + path[len(source) :]] = tree.pop(path)

        self._change(move)

    def sync(self, remote: str) -> None:
        """Commits the journal, and the content of all files below the name."""
        self._alive()
        if remote not in self._tree:
            raise EdgecError("device/missing", f"no such file: {remote}", where=remote)

        def commit(_tree: Tree) -> None:
            for path, node in self._tree.items():
                if (path == remote or path.startswith(remote + "/")) and isinstance(node, File):
                    node.safe = node.data
            self._journal.clear()
            self._safe = dict(self._tree)

        self._change(commit)

    def make_folder(self, remote: str, *, exist_ok: bool = True) -> None:
        """mkdir -p."""
        self._alive()
        if remote in self._tree:
            if not exist_ok or self._tree[remote] is not None:
                raise EdgecError("device/exists", f"it is there: {remote}", where=remote)
            return
        self._folders(remote)
        self._change(lambda tree: tree.__setitem__(remote, None))

    def remove(self, remote: str) -> None:
        """rm -rf: a cut leaves some of it."""
        self._alive()
        doomed = [path for path in self._tree if path == remote or path.startswith(remote + "/")]
        if not doomed:
            return
        inside = [path for path in doomed if path != remote]
        some = self._random.sample(inside, self._random.randint(0, len(inside)))

        def drop(tree: Tree, paths: Sequence[str]) -> None:
            for path in [p for p in tree if any(p == gone or p.startswith(gone + "/") for gone in paths)]:
                del tree[path]

        self._change(lambda tree: drop(tree, doomed), lambda tree: drop(tree, some))

    def entry(self, remote: str) -> Entry | None:
        """lstat."""
        self._alive()
        if remote not in self._tree:
            return None
        node = self._tree[remote]
        if isinstance(node, File):
            return Entry(name=posixpath.basename(remote), kind=EntryKind.file, size_bytes=len(node.data))
        kind = EntryKind.link if isinstance(node, Link) else EntryKind.folder
        return Entry(name=posixpath.basename(remote), kind=kind)

    def list_folder(self, remote: str) -> tuple[Entry, ...]:
        """lstat of all it holds."""
        self._alive()
        if remote not in self._tree:
            raise EdgecError("device/missing", f"no such folder: {remote}", where=remote)
        inside = sorted(path for path in self._tree if posixpath.dirname(path) == remote and path != "/")
        entries = [self.entry(path) for path in inside]
        return tuple(entry for entry in entries if entry is not None)

    def make_link(self, target: str, remote: str) -> None:
        """symlink(2)."""
        self._alive()
        if remote in self._tree:
            raise EdgecError("device/exists", f"it is there: {remote}", where=remote)
        self._folders(remote)
        self._change(lambda tree: tree.__setitem__(remote, Link(target)))

    def read_link(self, remote: str) -> str:
        """readlink(2)."""
        self._alive()
        node = self._tree.get(remote)
        if not isinstance(node, Link):
            raise EdgecError("device/missing", f"no such link: {remote}", where=remote)
        return node.target

    def free_bytes(self, _remote: str) -> int:
        """What is left."""
        self._alive()
        return self.space - sum(len(n.data) for n in self._tree.values() if isinstance(n, File))

    def _folders(self, remote: str) -> None:
        """Folders above a name, as part of making it."""
        parent = posixpath.dirname(remote)
        if parent not in self._tree:
            self.make_folder(parent)

    def _follow(self, remote: str) -> str:
        """The name with the links in it resolved."""
        place = "/"
        for part in remote.strip("/").split("/"):
            place = posixpath.join(place, part)
            node = self._tree.get(place)
            if isinstance(node, Link):
                place = posixpath.normpath(posixpath.join(posixpath.dirname(place), node.target))
        return place

    # ---------------------------------------------------------------------------------------- the rest

    @contextlib.contextmanager
    def scratch(self) -> Iterator[str]:
        """Nothing runs here."""
        yield "/tmp/scratch"

    def exec(
        self, argv: Sequence[str], *, timeout_s: float, env: Mapping[str, str] | None = None, stdin: bytes = b""
    ) -> ExecResult:
        """Nothing runs here."""
        raise EdgecError("device/missing", f"there is no command {argv[0]!r}", where=argv[0])

    def close(self) -> None:
        """Nothing is held."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
