"""Hold files for a device whose files are this machine's: the file half of a `Transport`."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Self

from edgec.devices.base import Entry, EntryKind
from edgec.errors import EdgecError

_CODES = {
    errno.ENOENT: "device/missing",
    errno.ENOTDIR: "device/missing",
    errno.EEXIST: "device/exists",
    errno.ENOSPC: "device/disk-full",
    errno.EDQUOT: "device/disk-full",
}
_CHUNK_BYTES = 1 << 20


class LocalFiles:
    """Files in place: a remote path is a path here. Temporary folders are made in `temporary`, or the system's own."""

    def __init__(self, *, name: str, home: Path, temporary: Path | None = None) -> None:
        self._name = name
        self._home = home
        self._temporary = temporary

    @property
    def name(self) -> str:
        """How the user names it."""
        return self._name

    @property
    def home(self) -> str:
        """The folder that edgec may fill."""
        return str(self._home)

    @contextlib.contextmanager
    def scratch(self) -> Iterator[str]:
        """A temporary folder."""
        place = self._temporary or Path(tempfile.gettempdir())
        with self._failing("make a temporary folder in", str(place)):
            if self._temporary:
                place.mkdir(parents=True, exist_ok=True)
            folder = tempfile.mkdtemp(prefix="edgec-run-", dir=place)
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def push(self, local: Path, remote: str, *, resume: bool = False) -> None:
        """Copy; with `resume` only what is missing."""
        with self._failing("copy", str(local)):
            if local.is_dir():
                shutil.copytree(local, remote, dirs_exist_ok=True, symlinks=True)
                return
            destination = Path(remote)
            destination.parent.mkdir(parents=True, exist_ok=True)
            if resume and destination.is_file() and _continue(local, destination):
                return
            shutil.copy2(local, destination)

    def pull(self, remote: str, local: Path) -> None:
        """Copy; a file through a temporary name."""
        source = Path(remote)
        with self._failing("copy", remote):
            if source.is_dir():
                shutil.copytree(source, local, dirs_exist_ok=True, symlinks=True)
                return
            local.parent.mkdir(parents=True, exist_ok=True)
            part = local.with_name(f".{local.name}.part")
            try:
                shutil.copy2(source, part)
                part.replace(local)
            finally:
                part.unlink(missing_ok=True)

    def read_bytes(self, remote: str) -> bytes:
        """The content."""
        with self._failing("read", remote):
            return Path(remote).read_bytes()

    def write_bytes(self, remote: str, data: bytes) -> None:
        """The content."""
        with self._failing("write", remote):
            Path(remote).parent.mkdir(parents=True, exist_ok=True)
            Path(remote).write_bytes(data)

    def rename(self, source: str, destination: str) -> None:
        """rename(2)."""
        with self._failing("rename", source):
            Path(source).replace(destination)

    def sync(self, remote: str) -> None:
        """fsync what is there, all below it, and the folder that holds its name."""
        with self._failing("sync", remote):
            path = Path(remote)
            if path.is_dir() and not path.is_symlink():
                for folder, _, files in os.walk(path):
                    for place in (*(Path(folder, file) for file in files), Path(folder)):
                        if not place.is_symlink():
                            _fsync(place)
            elif not path.is_symlink():
                _fsync(path)
            _fsync(path.parent)

    def make_folder(self, remote: str, *, exist_ok: bool = True) -> None:
        """mkdir -p, or mkdir(2) for the last of them."""
        with self._failing("make the folder", remote):
            Path(remote).mkdir(parents=True, exist_ok=exist_ok)

    def remove(self, remote: str) -> None:
        """rm -rf."""
        with self._failing("remove", remote):
            path = Path(remote)
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)

    def entry(self, remote: str) -> Entry | None:
        """lstat."""
        with self._failing("look at", remote):
            try:
                status = Path(remote).lstat()
            except (FileNotFoundError, NotADirectoryError):
                return None
            return _entry(Path(remote).name, status)

    def list_folder(self, remote: str) -> tuple[Entry, ...]:
        """lstat of all it holds."""
        with self._failing("list", remote), os.scandir(remote) as found:
            entries = [_entry(item.name, item.stat(follow_symlinks=False)) for item in found]
        return tuple(sorted(entries, key=lambda entry: entry.name))

    def make_link(self, target: str, remote: str) -> None:
        """symlink(2)."""
        with self._failing("make the link", remote):
            Path(remote).symlink_to(target)

    def read_link(self, remote: str) -> str:
        """readlink(2)."""
        with self._failing("read the link", remote):
            return str(Path(remote).readlink())

    def sha256(self, remote: str) -> str:
        """Of the content."""
        with self._failing("read", remote), Path(remote).open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()

    def free_bytes(self, remote: str) -> int:
        """Free space for an ordinary user, at the nearest folder that exists."""
        path = Path(remote)
        with self._failing("measure the free space at", remote):
            while not path.exists() and path != path.parent:
                path = path.parent
            status = os.statvfs(path)
            return status.f_bavail * status.f_frsize

    def close(self) -> None:
        """Nothing is held."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @contextlib.contextmanager
    def _failing(self, action: str, where: str) -> Iterator[None]:
        """An error of the operating system, as one of the device."""
        try:
            yield
        except (OSError, shutil.Error) as error:
            # shutil.Error lists (source, destination, why); the first one is what to mend.
            first = error.args[0][0] if isinstance(error, shutil.Error) and error.args else None
            reason = str(first[2]) if first else getattr(error, "strerror", None) or str(error)
            code = _CODES.get(getattr(error, "errno", None) or 0, "device/io")
            message = f"cannot {action} {where} on {self._name}: {reason}"
            raise EdgecError(code, message, where=where) from error


def _entry(name: str, status: os.stat_result) -> Entry:
    tests = {EntryKind.file: stat.S_ISREG, EntryKind.folder: stat.S_ISDIR, EntryKind.link: stat.S_ISLNK}
    kind = next((kind for kind, test in tests.items() if test(status.st_mode)), EntryKind.other)
    return Entry(name=name, kind=kind, size_bytes=status.st_size if kind == EntryKind.file else 0)


def _continue(local: Path, destination: Path) -> bool:
    """Append what is missing; False when what is there is not the beginning of `local`."""
    with local.open("rb") as source, destination.open("r+b") as sink:
        while have := sink.read(_CHUNK_BYTES):
            if source.read(len(have)) != have:
                return False
        shutil.copyfileobj(source, sink, _CHUNK_BYTES)
    shutil.copymode(local, destination)
    return True


def _fsync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
