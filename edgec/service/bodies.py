"""Bodies of requests and answers: JSON, and .npz read without trusting anything it says.

1. An .npz is parsed here, not by np.load: sizes are held against the limit before a byte is unpacked, the array's
   header against the bytes that are there, and objects (pickles) are refused.
2. JSON has no NaN and no infinity: they are answered as null; .npz answers are exact.
"""

from __future__ import annotations

import io
import json
import zipfile
import zlib
from typing import Any

import numpy as np

from edgec.service.problems import ServiceError

JSON, NPZ = "application/json", "application/x-npz"
_MAX_MEMBERS = 256
_MAGIC = b"\x93NUMPY"
_READERS = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}


def parse_json(body: bytes) -> dict[str, Any]:
    """Arrays by name from `{"inputs": {name: nested lists}}`."""
    try:
        table = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise ServiceError(400, "bad-json", f"the body is not JSON: {error}") from error
    given = table.get("inputs") if isinstance(table, dict) else None
    if not isinstance(given, dict):
        raise ServiceError(400, "bad-json", 'the body must be an object like {"inputs": {"NAME": [[…]]}}')
    unknown = sorted(set(table) - {"inputs"})
    if unknown:
        hint = "the kind of input and output is chosen in the address: /v1/infer?io=raw"
        raise ServiceError(400, "bad-json", f"the body has a key {unknown[0]!r}, which is not known", hint)
    return {name: _array(name, value) for name, value in given.items()}


def _array(name: str, value: Any) -> Any:
    try:
        return np.asarray(value)
    except (ValueError, OverflowError, TypeError) as error:  # ragged lists, too deep, too large
        raise ServiceError(400, "bad-input", f"input {name!r} is no array: {error}") from error


def parse_npz(body: bytes, limit_bytes: int) -> dict[str, Any]:
    """Arrays by name (rule 1)."""
    try:
        with zipfile.ZipFile(io.BytesIO(body)) as archive:
            members = archive.infolist()
            if len(members) > _MAX_MEMBERS or sum(m.file_size for m in members) > limit_bytes:
                raise ServiceError(413, "too-large", f"the arrays are larger than the limit of {limit_bytes} bytes")
            arrays = {}
            for member in members:
                with archive.open(member) as stream:
                    data = stream.read(member.file_size + 1)  # what it says and no more
                name = member.filename[:-4] if member.filename.endswith(".npy") else member.filename
                arrays[name] = _npy(name, data)
            return arrays
    # zipfile raises RuntimeError for a password, and a kind of it for a compression that it does not know
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError, RuntimeError, ValueError) as error:
        raise ServiceError(400, "bad-npz", f"the body is no .npz file: {error}") from error


def _npy(name: str, data: bytes) -> Any:
    stream = io.BytesIO(data)
    try:
        version = np.lib.format.read_magic(stream)
        shape, fortran, dtype = _READERS[version](stream)
    except Exception as error:  # numpy evaluates the header as a literal: whatever that raises
        raise ServiceError(400, "bad-npz", f"array {name!r} has no header that can be read") from error
    if dtype.hasobject or dtype.kind not in "biuf":
        raise ServiceError(400, "bad-npz", f"array {name!r} holds {dtype}, not numbers")
    rest = data[stream.tell() :]
    count = 1
    for size in shape:  # Python's integers: a product that overflows would pass
        count *= size
    if min(shape, default=0) < 0 or count * dtype.itemsize != len(rest):
        raise ServiceError(400, "bad-npz", f"array {name!r} does not have the bytes that its header says")
    flat = np.frombuffer(rest, dtype)
    return flat.reshape(shape, order="F" if fortran else "C").astype(dtype.newbyteorder("="))


def write_json(value: Any) -> bytes:
    """JSON with a newline (rule 2)."""
    return json.dumps(value, allow_nan=False, sort_keys=True).encode() + b"\n"


def plain(value: Any) -> Any:
    """An array as nested lists (rule 2)."""
    if value.dtype.kind == "f" and not np.isfinite(value).all():
        value = np.where(np.isfinite(value), value, None)
    return value.tolist()


def write_npz(arrays: dict[str, Any]) -> bytes:
    """The arrays, stored."""
    out = io.BytesIO()
    np.savez(out, **arrays)
    return out.getvalue()
