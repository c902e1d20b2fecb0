"""The container: a zip of stored entries of which every byte is determined by names and contents.

Rules
1. Entries are stored (no compression, no encryption), sorted by name, no name twice, names plain relative ASCII paths.
2. No gap between entries, nothing before the first and nothing after the end record.
3. Timestamps, permissions and versions are constants, so the headers follow from name, size, CRC and offset alone.

Any unzip tool reads it. `read_index` rebuilds all headers and compares them with the file: an archive that
says the same in other bytes is refused.
"""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, BinaryIO

from edgec.errors import EdgecError

Source = bytes | Path

CHUNK_BYTES = 1 << 20
MAX_ENTRIES = 10_000
_LIMIT = 0xFFFFFFFF  # zip32 fields hold less than this; beyond it zip64 takes over
_NAME = re.compile(r"(?!\.\.?(/|$))[A-Za-z0-9._+-]+(/(?!\.\.?(/|$))[A-Za-z0-9._+-]+)*\Z")
_DATE = 0x0021  # 1980-01-01, the first day a zip knows
_UNIX = 3 << 8

_LOCAL = struct.Struct("<4sHHHHHIIIHH")
_CENTRAL = struct.Struct("<4sHHHHHHIIIHHHHHII")
_END = struct.Struct("<4sHHHHIIH")
_END64 = struct.Struct("<4sQHHIIQQQQ")
_LOCATOR64 = struct.Struct("<4sIQI")


@dataclass(frozen=True, kw_only=True, slots=True)
class Entry:
    """One file of the archive; `offset` is where its local header starts."""

    name: str
    size: int
    crc: int
    offset: int

    @property
    def data_offset(self) -> int:
        """Where its contents start."""
        return self.offset + len(self.local_header())

    def local_header(self) -> bytes:
        """The header before the contents (rule 3)."""
        big = self.size >= _LIMIT
        extra = struct.pack("<HHQQ", 1, 16, self.size, self.size) if big else b""
        size = _LIMIT if big else self.size
        name = self.name.encode("ascii")
        fields = (b"PK\3\4", 45 if big else 20, 0, 0, 0, _DATE, self.crc, size, size, len(name), len(extra))
        return _LOCAL.pack(*fields) + name + extra

    def central_header(self) -> bytes:
        """The entry's record in the central directory (rule 3)."""
        sizes = (self.size, self.size) if self.size >= _LIMIT else ()
        offsets = (self.offset,) if self.offset >= _LIMIT else ()
        long = sizes + offsets
        extra = struct.pack(f"<HH{len(long)}Q", 1, 8 * len(long), *long) if long else b""
        size = min(self.size, _LIMIT)
        name = self.name.encode("ascii")
        version = 45 if long else 20
        mode = 0o100755 if self.name.endswith(".sh") else 0o100644
        head = (b"PK\1\2", _UNIX | version, version, 0, 0, 0, _DATE, self.crc, size, size, len(name), len(extra))
        return _CENTRAL.pack(*head, 0, 0, 0, mode << 16, min(self.offset, _LIMIT)) + name + extra


def check_name(name: str) -> None:
    """Raise `bundle/bad-name` unless the name is a plain relative path (rule 1)."""
    if len(name) > 200 or not _NAME.match(name):
        raise EdgecError("bundle/bad-name", f"{name!r} cannot be the name of a file in a bundle")


def read_chunks(source: Source) -> Iterator[bytes]:
    """The contents of a source, a piece at a time."""
    if isinstance(source, bytes):
        yield source
        return
    with source.open("rb") as file:
        while chunk := file.read(CHUNK_BYTES):
            yield chunk


def write_archive(stream: IO[bytes], sources: Mapping[str, Source]) -> None:
    """Write all sources; files are streamed, never held whole."""
    offset = 0
    entries: list[Entry] = []
    for name in sorted(sources):
        check_name(name)
        size, crc = 0, 0
        for chunk in read_chunks(sources[name]):
            size, crc = size + len(chunk), zlib.crc32(chunk, crc)
        entry = Entry(name=name, size=size, crc=crc, offset=offset)
        entries.append(entry)
        stream.write(entry.local_header())
        for chunk in read_chunks(sources[name]):
            stream.write(chunk)
        offset = entry.data_offset + size
    directory = b"".join(entry.central_header() for entry in entries)
    stream.write(directory + _end_records(len(entries), offset, len(directory)))


def read_index(file: BinaryIO, where: str) -> tuple[Entry, ...]:
    """All entries of an archive that keeps the rules. Raises `EdgecError` (bundle/…) for any other file."""
    size = file.seek(0, 2)
    count, offset, length = _read_end(file, size, where)
    file.seek(offset)
    directory = file.read(length)
    entries = tuple(_parse_directory(directory, count, where))
    position = 0
    for entry, following in zip(entries, [*entries[1:], None], strict=True):
        if following is not None and following.name <= entry.name:
            raise _bad("bundle/duplicate-entry", f"entry {following.name!r} is there twice or out of order", where)
        file.seek(position)
        if entry.offset != position or file.read(len(entry.local_header())) != entry.local_header():
            raise _bad("bundle/corrupt", f"the header of {entry.name!r} is not what was packed", where)
        position = entry.data_offset + entry.size
    rebuilt = b"".join(entry.central_header() for entry in entries)
    if position != offset or rebuilt != directory:
        raise _bad("bundle/corrupt", "the directory of the archive is not what was packed", where)
    return entries


def _end_records(count: int, offset: int, length: int) -> bytes:
    end = _END.pack(b"PK\5\6", 0, 0, count, count, min(length, _LIMIT), min(offset, _LIMIT), 0)
    if max(offset, length) < _LIMIT:
        return end
    end64 = _END64.pack(b"PK\6\6", 44, _UNIX | 45, 45, 0, 0, count, count, length, offset)
    return end64 + _LOCATOR64.pack(b"PK\6\7", 0, offset + length, 1) + end


def _read_end(file: BinaryIO, size: int, where: str) -> tuple[int, int, int]:
    """Count of entries, offset and length of the directory (rule 2: the end record ends the file)."""
    file.seek(0)
    if file.read(4) != b"PK\3\4":
        raise _bad("bundle/not-a-bundle", "this is not an edgec bundle", where)
    file.seek(max(0, size - _END.size))
    tail = file.read(_END.size)
    if len(tail) != _END.size or tail[:4] != b"PK\5\6":
        raise _bad("bundle/corrupt", "the end record is missing: truncated, or something was appended", where)
    _, _, _, _, count, length, offset, _ = _END.unpack(tail)
    if _LIMIT in (length, offset):
        fixed = _END64.size + _LOCATOR64.size + _END.size
        file.seek(max(0, size - fixed))
        _, _, _, _, _, _, _, count, length, offset = _END64.unpack(file.read(_END64.size))
    file.seek(min(offset + length, size))
    # The exact tail: also catches sizes that point outside the file.
    if count > MAX_ENTRIES or file.read() != _end_records(count, offset, length):
        raise _bad("bundle/corrupt", "the end record is not what was packed", where)
    return count, offset, length


def _parse_directory(directory: bytes, count: int, where: str) -> Iterable[Entry]:
    position = 0
    for _ in range(count):
        if position + _CENTRAL.size > len(directory):
            raise _bad("bundle/corrupt", "the directory of the archive is cut short", where)
        fields = _CENTRAL.unpack_from(directory, position)
        _, _, _, flags, method, _, _, crc, packed, size, name_len, extra_len, comment_len, *_, offset = fields
        start = position + _CENTRAL.size
        raw = directory[start : start + name_len]
        name = raw.decode("ascii", "replace")
        if flags & 1:
            raise _bad("bundle/encrypted-entry", f"entry {name!r} is encrypted", where)
        if method != 0 or (packed != size):
            raise _bad("bundle/compressed-entry", f"entry {name!r} is compressed; bundles store", where)
        try:
            check_name(name)
        except EdgecError as error:
            raise _bad(error.code, str(error), where) from None
        extra = directory[start + name_len : start + name_len + extra_len]
        long = list(struct.unpack(f"<{len(extra[4:]) // 8}Q", extra[4 : 4 + len(extra[4:]) // 8 * 8]))
        if size == _LIMIT and len(long) >= 2:
            size, _ = long.pop(0), long.pop(0)
        if offset == _LIMIT and long:
            offset = long.pop(0)
        yield Entry(name=name, size=size, crc=crc, offset=offset)
        position = start + name_len + extra_len + comment_len


def _bad(code: str, message: str, where: str) -> EdgecError:
    return EdgecError(code, message, where=where, hint="get the bundle again, or build it again with this edgec")
