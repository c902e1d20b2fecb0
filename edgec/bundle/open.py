"""Open a bundle: verify first, read second, and refuse whatever is not exactly what was packed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import BinaryIO

from edgec.bundle.archive import Entry, read_index
from edgec.bundle.bundle import Bundle, verified_chunks
from edgec.bundle.manifest import MANIFEST, SIGNATURE, Manifest, parse_manifest, to_json
from edgec.bundle.sign import verify_manifest
from edgec.errors import EdgecError

__all__ = ["Bundle", "open_bundle"]

_MAX_MANIFEST_BYTES = 1 << 26


def open_bundle(path: str | Path, *, public_key: Path | None = None, threads: int = 1) -> Bundle:
    """The verified bundle at `path`.

    With `public_key` (an ed25519 PEM file) the bundle must carry the signature of that key's holder; without, its
    contents are checked against its own manifest. `threads` is for `Bundle.run`. Raises `EdgecError` (bundle/…, io/…).
    """
    path = Path(path)
    try:
        file = path.open("rb")
    except OSError as error:
        raise EdgecError(
            "io/unreadable", f"cannot open the bundle: {error.strerror or error}", where=str(path)
        ) from error
    try:
        entries = read_index(file, str(path))
        manifest = _verify(file, entries, public_key, str(path))
        return Bundle(path, file, entries, manifest, threads=threads)
    except BaseException:
        file.close()
        raise


def _verify(file: BinaryIO, entries: tuple[Entry, ...], public_key: Path | None, where: str) -> Manifest:
    by_name = {entry.name: entry for entry in entries}
    data = _small_file(file, by_name, MANIFEST, where)
    if public_key is not None:
        if SIGNATURE not in by_name:
            raise EdgecError("bundle/unsigned", "the bundle carries no signature", where=where)
        verify_manifest(data, _small_file(file, by_name, SIGNATURE, where), public_key, where=where)
    manifest = parse_manifest(data, where)
    # The file's own keys, not the model's: a bundle of an earlier edgec lacks those that came later.
    if to_json(json.loads(data)) != data:
        # Keys given twice, other spacing: two readers could take it for two things.
        raise EdgecError("bundle/bad-manifest", "the manifest is not in canonical form", where=where)
    _check_listing(by_name, manifest, where)
    for entry in entries:
        for _ in verified_chunks(file, entry, manifest, where):
            pass
    return manifest


def _check_listing(by_name: dict[str, Entry], manifest: Manifest, where: str) -> None:
    """The manifest lists exactly the files that are there, with their sizes, and the model is among them."""
    present = set(by_name) - {MANIFEST, SIGNATURE}
    listed = set(manifest.files)
    for name in sorted(present ^ listed):
        what = "is not listed in the manifest" if name in present else "is missing"
        raise EdgecError("bundle/tampered", f"file {name!r} {what}", where=where)
    for name, facts in manifest.files.items():
        if facts.size != by_name[name].size:
            raise EdgecError("bundle/tampered", f"file {name!r} has another size than was packed", where=where)
    if manifest.model not in manifest.model_files or not set(manifest.model_files) <= listed:
        raise EdgecError("bundle/bad-manifest", "the manifest names a model that is not in the bundle", where=where)


def _small_file(file: BinaryIO, by_name: dict[str, Entry], name: str, where: str) -> bytes:
    entry = by_name.get(name)
    if entry is None or entry.size > _MAX_MANIFEST_BYTES:
        raise EdgecError("bundle/bad-manifest", f"the bundle has no {name}, or one too large to be one", where=where)
    file.seek(entry.data_offset)
    data = file.read(entry.size)
    if len(data) != entry.size:
        raise EdgecError("bundle/corrupt", f"{name} is cut short", where=where)
    return data
