"""Everything a `Transport` does, from one primitive: run a command line in the device's shell, bytes in, bytes out.

1. A device needs a POSIX shell and what busybox, toybox or coreutils bring; no SFTP, no Python.
2. Paths and arguments reach scripts as `"$1"`, quoted once for the login shell; scripts are constants.
3. A command is started by `exec` in a shell that leads a process group and first writes its number, with a random
   token, to stderr: so it can be ended with its children, and what the login shell says before is told apart.
4. Files are written by `dd` at a given offset, never appended: a straggler of a broken connection then writes the
   same bytes to the same place, and a full disk is reported in words.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import secrets
import shlex
import tarfile
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from types import TracebackType
from typing import IO, Self

from edgec.devices.base import Entry, EntryKind, ExecResult
from edgec.errors import EdgecError

#: Time for operations that touch little more than names.
SHORT_S = 60.0
#: Time for those that read or flush whole files on slow cards.
LONG_S = 900.0
_BLOCK_BYTES = 1 << 16
#: Where a connection puts a shell around the command, the variable with the number of the process group.
GROUP = "EDGEC_GROUP"

#: What tools say, in every one of the three families, and the code it gets.
_WORDS = {
    "No space left on device": "device/disk-full",
    "Disk quota exceeded": "device/disk-full",
    "No such file or directory": "device/missing",
    "not found": "device/missing",
    "Not a directory": "device/missing",
    "File exists": "device/exists",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Ended:
    """How a command line ended; `returncode` is negative for a signal."""

    returncode: int
    stdout: bytes
    stderr: bytes
    timed_out: bool = False


class PosixDevice(ABC):
    """A device behind a shell. `home` and `scratch` are folders there; empty for the user's own and the system's."""

    def __init__(self, *, name: str, python: Sequence[str], home: str, scratch: str) -> None:
        self._name = name
        self._python = tuple(python)
        self._home = home
        self._scratch = scratch

    @abstractmethod
    def _run(
        self, command: str, *, timeout_s: float | None, stdin: IO[bytes] | None = None, stdout: IO[bytes] | None = None
    ) -> Ended:
        """Run a command line in the login shell; without `timeout_s` only a standstill ends it.

        Raises `EdgecError` (device/…) when the connection cannot be made, or breaks. What timed out may go on there.
        """

    @abstractmethod
    def close(self) -> None:
        """Let go of connections."""

    @property
    def name(self) -> str:
        """How the user names it."""
        return self._name

    @property
    def python(self) -> Sequence[str]:
        """The command that starts the device's Python."""
        return self._python

    @property
    def home(self) -> str:
        """The folder that edgec may fill."""
        if not self._home:
            script = 'printf %s "${XDG_DATA_HOME:-$HOME/.local/share}"'
            self._home = self._ask("find the home folder", script) + "/edgec"
        return self._home

    @contextlib.contextmanager
    def scratch(self) -> Iterator[str]:
        """A temporary folder."""
        script = 'd="${1:-${TMPDIR:-/tmp}}"; mkdir -p "$d" && mktemp -d "$d/edgec-run-XXXXXX"'
        folder = self._ask("make a temporary folder", script, self._scratch).removesuffix("\n")
        try:
            yield folder
        finally:
            # What broke the connection is the news, not that the folder stays behind.
            with contextlib.suppress(EdgecError):
                self.remove(folder)

    def exec(
        self, argv: Sequence[str], *, timeout_s: float, env: Mapping[str, str] | None = None, stdin: bytes = b""
    ) -> ExecResult:
        """Run a command (rule 3)."""
        token = secrets.token_hex(8)
        # A script's own folder must not shadow the modules it imports; older Pythons do not know this.
        exports = {"PYTHONSAFEPATH": "1", **(env or {})}
        script = (
            f'if ! command -v "$1" >/dev/null 2>&1; then echo "{token} missing" >&2; exit 127; fi; '
            + "".join(f"export {key}={shlex.quote(value)}; " for key, value in exports.items())
            + f'echo "{token} ${{{GROUP}:-$$}}" >&2; unset {GROUP}; exec "$@"'
        )
        ended = self._run(_command(script, *argv), timeout_s=timeout_s, stdin=io.BytesIO(stdin))
        _, _, rest = ended.stderr.partition(token.encode() + b" ")
        mark, _, stderr = rest.partition(b"\n")
        if mark == b"missing":
            message = f"there is no command {argv[0]!r} on {self.name}"
            raise EdgecError("device/missing", message, where=argv[0], hint="install it there, or name its path")
        if ended.timed_out and mark.isdigit():
            with contextlib.suppress(EdgecError):
                self._run(_command('kill -9 "-$1"', mark.decode()), timeout_s=SHORT_S)
        return ExecResult(
            returncode=-9 if ended.timed_out else ended.returncode,
            stdout=ended.stdout,
            stderr=(stderr if mark else ended.stderr).decode("utf-8", "replace"),
            timed_out=ended.timed_out,
        )

    def push(self, local: Path, remote: str, *, resume: bool = False) -> None:
        """A folder as a tar stream, a file at its offset (rule 4)."""
        if local.is_dir():
            self._push_folder(local, remote)
            return
        with _here("read", local), local.open("rb") as stream:
            offset = self._offset(stream, remote) if resume else 0
            stream.seek(offset * _BLOCK_BYTES)
            script = 'mkdir -p "${1%/*}/" || exit; '
            script += 'if [ "$2" = 0 ]; then : > "$1" || exit; fi; '
            script += f'dd "of=$1" bs={_BLOCK_BYTES} "seek=$2" conv=notrunc || exit; chmod "$3" "$1"'
            mode = "755" if os.access(local, os.X_OK) else "644"
            self._do("write", script, remote, str(offset), mode, timeout_s=None, stdin=stream)

    def _offset(self, local: IO[bytes], remote: str) -> int:
        """How many blocks are there already, compared by checksum."""
        script = 'if [ -f "$1" ]; then stat -c %s "$1" && sha256sum < "$1"; fi'
        size, _, checksum = self._ask("read", script, remote, timeout_s=LONG_S).partition("\n")
        if not size or int(size) > os.fstat(local.fileno()).st_size:
            return 0
        digest = hashlib.sha256()
        left = int(size)
        while left and (data := local.read(min(left, 1 << 20))):
            digest.update(data)
            left -= len(data)
        return int(size) // _BLOCK_BYTES if checksum.split()[:1] == [digest.hexdigest()] else 0

    def _push_folder(self, local: Path, remote: str) -> None:
        def plain(info: tarfile.TarInfo) -> tarfile.TarInfo:
            info.uid = info.gid = 0
            info.uname = info.gname = "root"
            return info

        with tempfile.TemporaryFile() as stream:
            with _here("read", local), tarfile.open(fileobj=stream, mode="w", format=tarfile.GNU_FORMAT) as archive:
                archive.add(local, arcname=".", filter=plain)
            stream.seek(0)
            script = 'mkdir -p "$1" && tar -x -f - -C "$1"'
            self._do("write", script, remote, timeout_s=None, stdin=stream)

    def pull(self, remote: str, local: Path) -> None:
        """A folder as a tar stream, a file through a temporary name."""
        found = self.entry(remote)
        is_folder = found is not None and (
            found.kind is EntryKind.folder or self._ask("look at", '[ ! -d "$1" ] || printf d', remote) == "d"
        )
        if is_folder:
            with tempfile.TemporaryFile() as stream:
                self._do("read", 'tar -c -f - -C "$1" .', remote, timeout_s=None, stdout=stream)
                stream.seek(0)
                with _here("write", local), tarfile.open(fileobj=stream) as archive:
                    archive.extractall(local, filter="data")
            return
        with _here("write", local):
            local.parent.mkdir(parents=True, exist_ok=True)
            part = local.with_name(f".{local.name}.part")
            try:
                with part.open("wb") as sink:
                    self._do("read", 'cat "$1"', remote, timeout_s=None, stdout=sink)
                part.replace(local)
            finally:
                part.unlink(missing_ok=True)

    def read_bytes(self, remote: str) -> bytes:
        """cat."""
        return self._do("read", 'cat "$1"', remote, timeout_s=None)

    def write_bytes(self, remote: str, data: bytes) -> None:
        """cat, into a file."""
        script = 'mkdir -p "${1%/*}/" && cat > "$1"'
        self._do("write", script, remote, timeout_s=None, stdin=io.BytesIO(data))

    def rename(self, source: str, destination: str) -> None:
        """mv -T; through Python where mv does not know -T and would move into a folder."""
        script = 'if e=$(mv -f -T "$1" "$2" 2>&1); then exit 0; fi; '
        script += 'case "$e" in *nknown*|*nvalid*|*nrecognized*|*sage:*) ;; *) echo "$e" >&2; exit 1;; esac; '
        script += 'if [ ! -d "$2" ]; then mv -f "$1" "$2"; else '
        script += shlex.join(self.python) + ' -c "import os, sys; os.rename(sys.argv[1], sys.argv[2])" "$1" "$2"; fi'
        self._do("rename", script, source, destination)

    def sync(self, remote: str) -> None:
        """The file system that holds it, or all of them."""
        script = _PRESENT + 'sync -f "${1%/*}/" 2>/dev/null || sync'
        self._do("sync", script, remote, timeout_s=LONG_S)

    def make_folder(self, remote: str, *, exist_ok: bool = True) -> None:
        """mkdir."""
        last = 'mkdir -p "$1"' if exist_ok else 'mkdir -p "${1%/*}/" && mkdir "$1"'
        self._do("make the folder", last, remote)

    def remove(self, remote: str) -> None:
        """rm -rf."""
        self._do("remove", 'rm -rf "$1"', remote, timeout_s=LONG_S)

    def entry(self, remote: str) -> Entry | None:
        """Tests of the shell, and stat for the size."""
        answer = self._ask("look at", _LOOK + 'look "$1" || :', remote)
        return _entry(PurePosixPath(remote).name, answer) if answer else None

    def list_folder(self, remote: str) -> tuple[Entry, ...]:
        """The same for all it holds."""
        script = (
            _LOOK
            + _PRESENT
            + 'cd "$1" || exit; for f in * .[!.]* ..?*; do look "$f" && printf "%s\\0" "$f"; done; true'
        )
        fields = self._ask("list", script, remote).split("\0")[:-1]
        pairs = (field.partition("\n")[::2] for field in fields)
        return tuple(sorted((_entry(name, answer) for answer, name in pairs), key=lambda entry: entry.name))

    def make_link(self, target: str, remote: str) -> None:
        """ln -s."""
        script = 'if [ -e "$2" ] || [ -L "$2" ]; then echo "File exists" >&2; exit 1; fi; ln -s -n "$1" "$2"'
        self._do("make a link to", script, target, remote)

    def read_link(self, remote: str) -> str:
        """readlink."""
        return self._ask("read the link", _PRESENT + 'readlink "$1"', remote).removesuffix("\n")

    def sha256(self, remote: str) -> str:
        """sha256sum."""
        return self._ask("read", _PRESENT + 'sha256sum < "$1"', remote, timeout_s=LONG_S).split()[0]

    def free_bytes(self, remote: str) -> int:
        """statfs(2), at the nearest folder that exists; df fails where the root is an initramfs."""
        script = 'd=$1; while [ ! -e "$d" ]; do d=${d%/*}; d=${d:-/}; done; stat -f -c "%a %S" "$d"'
        blocks, size = self._ask("measure the free space at", script, remote).split()
        return int(blocks) * int(size)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _ask(self, action: str, script: str, *arguments: str, timeout_s: float = SHORT_S) -> str:
        return self._do(action, script, *arguments, timeout_s=timeout_s).decode("utf-8", "surrogateescape")

    def _do(
        self,
        action: str,
        script: str,
        *arguments: str,
        timeout_s: float | None = SHORT_S,
        stdin: IO[bytes] | None = None,
        stdout: IO[bytes] | None = None,
    ) -> bytes:
        """Run a constant script; what it says when it fails becomes the error. The first argument is the path."""
        where = arguments[0] if arguments else ""
        command = _command(f"LC_ALL=C; export LC_ALL; {script}", *arguments)
        ended = self._run(command, timeout_s=timeout_s, stdin=stdin, stdout=stdout)
        if ended.timed_out:
            message = f"cannot {action} {where} on {self.name}: not finished within {timeout_s:g} s"
            raise EdgecError("device/timeout", message, where=where)
        if ended.returncode:
            said = ended.stderr.decode("utf-8", "replace").strip() or f"exit code {ended.returncode}"
            code = next((code for words, code in _WORDS.items() if words in said), "device/io")
            raise EdgecError(code, f"cannot {action} {where} on {self.name}: {_reason(said)}", where=where)
        return ended.stdout


#: `look NAME` prints what the name stands for and, of a file, its size; it fails when there is nothing.
_LOOK = (
    'look() { if [ -L "$1" ]; then echo link; elif [ -d "$1" ]; then echo folder; '
    'elif [ -f "$1" ]; then stat -c "file %s" "$1"; elif [ -e "$1" ]; then echo other; else false; fi; }; '
)
#: Says so, in words that are understood here, when the first argument is not there.
_PRESENT = '[ -e "$1" ] || [ -L "$1" ] || { echo "No such file or directory" >&2; exit 1; }; '


def _command(script: str, *arguments: str) -> str:
    """A command line for any login shell; exec makes the script's shell the leader of the group."""
    return shlex.join(["exec", "sh", "-c", script, "sh", *arguments])


def _entry(name: str, answer: str) -> Entry:
    kind, _, size = answer.strip().partition(" ")
    return Entry(name=name, kind=EntryKind(kind), size_bytes=int(size or 0))


def _reason(said: str) -> str:
    """The line that says why: dd adds figures, login shells their own words."""
    lines = said.splitlines()
    return next((line for line in lines if any(words in line for words in _WORDS)), lines[-1])


@contextlib.contextmanager
def _here(action: str, local: Path) -> Iterator[None]:
    """An error of this machine's own files."""
    try:
        yield
    except (OSError, tarfile.TarError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        code = "device/missing" if isinstance(error, FileNotFoundError) else "device/io"
        raise EdgecError(code, f"cannot {action} {local} here: {reason}", where=str(local)) from error
