"""What a file that may be a pickle says of itself, without running any of it: the names that it would import.

joblib's files are pickles with arrays in between, perhaps packed; the names come before the first array.
"""

from __future__ import annotations

import bz2
import gzip
import lzma
import pickletools
import zlib
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

_HEAD_BYTES = 1 << 16

_Open = Callable[[Path], bytes]


def _plain(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(_HEAD_BYTES)


def _zlib(path: Path) -> bytes:
    return zlib.decompressobj().decompress(_plain(path), _HEAD_BYTES)


def _gzip(path: Path) -> bytes:
    with gzip.open(path) as file:
        return file.read(_HEAD_BYTES)


def _bz2(path: Path) -> bytes:
    with bz2.open(path) as file:
        return file.read(_HEAD_BYTES)


def _lzma(path: Path) -> bytes:
    with lzma.open(path) as file:
        return file.read(_HEAD_BYTES)


#: First bytes of what joblib packs with, and how to read the start of it.
_PACKERS: tuple[tuple[bytes, _Open], ...] = (
    (b"\x1f\x8b", _gzip),
    (b"BZh", _bz2),
    (b"\xfd7zXZ", _lzma),
    (b"\x5d\x00", _lzma),
    (b"\x78", _zlib),
)


def names_in_pickle(path: Path) -> frozenset[str] | None:
    """`module.name` of what the pickle would import, as far as its start tells; None for what is no pickle."""
    try:
        data = _plain(path)
        for magic, unpack in _PACKERS:
            if data.startswith(magic):
                data = unpack(path)
                break
    except (OSError, EOFError, zlib.error, lzma.LZMAError):
        return None
    if not _starts_like_pickle(data):
        return None
    return frozenset(_names(data))


def _starts_like_pickle(data: bytes) -> bool:
    """PROTO and its number; of protocols 0 and 1, a first opcode that makes an object."""
    if len(data) > 2 and data[0] == 0x80:
        return 2 <= data[1] <= 5
    if not data.startswith((b"c", b"(", b"]", b"}")):
        return False
    with suppress(Exception):
        for count, _ in enumerate(pickletools.genops(data)):
            if count > 3:
                return True
        return True
    return False


def _names(data: bytes) -> list[str]:
    """Names by GLOBAL and STACK_GLOBAL up to the first byte that is no opcode."""
    found: list[str] = []
    texts: list[str] = []
    memo: list[str] = []
    try:
        for opcode, argument, _ in pickletools.genops(data):
            if opcode.name in ("GLOBAL", "INST"):
                found.append(str(argument).replace(" ", "."))
            elif opcode.name == "STACK_GLOBAL" and len(texts) > 1:
                found.append(f"{texts[-2]}.{texts[-1]}")
            elif isinstance(argument, str):
                texts.append(argument)
            elif opcode.name == "MEMOIZE":
                memo.append(texts[-1] if texts else "")
            elif opcode.name in ("BINGET", "LONG_BINGET") and isinstance(argument, int) and argument < len(memo):
                texts.append(memo[argument])
    except Exception:  # noqa: BLE001  pickletools raises whatever it likes on what is no opcode
        return found
    return found
