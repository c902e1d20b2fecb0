"""An opened, verified bundle: its manifest, its files, and its model ready to run."""

from __future__ import annotations

import functools
import hashlib
import shutil
import tempfile
import weakref
import zlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

import numpy as np

from edgec.artifact import IoBinding
from edgec.bundle.archive import CHUNK_BYTES, Entry
from edgec.bundle.golden import Golden, read_golden
from edgec.bundle.manifest import MANIFEST, SIGNATURE, Manifest
from edgec.bundle.worker import Worker
from edgec.errors import EdgecError
from edgec.registry import did_you_mean
from edgec.tensors import Array, TensorSpec


class Bundle:
    """Open with `open_bundle`; close it, or use it in a `with` statement, to free the runtime and temporary files."""

    def __init__(
        self, path: Path, file: BinaryIO, entries: Iterable[Entry], manifest: Manifest, *, threads: int
    ) -> None:
        self.path = path
        self.manifest = manifest
        self.inputs: tuple[IoBinding, ...] = tuple(facts.binding() for facts in manifest.inputs)
        self.outputs: tuple[IoBinding, ...] = tuple(facts.binding() for facts in manifest.outputs)
        self._file = file
        self._entries = {entry.name: entry for entry in entries}
        self._threads = threads
        self._folder: Path | None = None
        self._worker: Worker | None = None
        #: The JSON summary of the build that made it; empty for a bundle opened from a file.
        self.summary: dict[str, Any] = {}
        self._removals: list[weakref.finalize[..., Any]] = [weakref.finalize(self, file.close)]

    @property
    def names(self) -> tuple[str, ...]:
        """Names of all files in the bundle."""
        return tuple(self._entries)

    @property
    def digest(self) -> str:
        """sha256 of the manifest, which holds the digests of all other files."""
        return hashlib.sha256(self.read(MANIFEST)).hexdigest()

    @property
    def signed(self) -> bool:
        """True when a signature is there; only `open_bundle(…, public_key=…)` says whether it is the right one."""
        return SIGNATURE in self._entries

    @property
    def model_path(self) -> Path:
        """The model on disk, in a private folder that lives until the bundle is closed."""
        if self._folder is None:
            self._folder = Path(tempfile.mkdtemp(prefix="edgec-"))
            remove = functools.partial(shutil.rmtree, self._folder, ignore_errors=True)
            self._removals.append(weakref.finalize(self, remove))
            self.extract(self._folder, self.manifest.model_files)
        return self._folder / self.manifest.model

    def read(self, name: str) -> bytes:
        """One file's contents, verified again. Raises `bundle/no-such-file`."""
        return b"".join(self._verified_chunks(name))

    def extract(self, folder: Path, names: Iterable[str] | None = None) -> None:
        """Write files (all of them by default) into `folder`, verified while they are written."""
        for name in self._entries if names is None else names:
            target = folder / name
            try:
                target.parent.mkdir(parents=True, exist_ok=True)
                with target.open("wb") as stream:
                    for chunk in self._verified_chunks(name):
                        stream.write(chunk)
                if name.endswith(".sh"):
                    target.chmod(0o755)
            except OSError as error:
                raise EdgecError(
                    "io/not-writable", f"cannot unpack: {error.strerror or error}", where=str(target)
                ) from error

    def goldens(self) -> tuple[Golden, ...]:
        """Inputs with their expected outputs."""
        count = range(self.manifest.goldens)
        return tuple(read_golden(self._read_or_none, i, self.inputs, self.outputs) for i in count)

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """Run the model in the source model's terms: its names, shapes, layout and dtypes in and out."""
        arrays = _checked(feeds, [binding.source for binding in self.inputs], cast=True)
        raw = {b.artifact.name: b.to_artifact(arrays[b.source.name]) for b in self.inputs}
        outputs = self._run(raw)
        return {b.source.name: b.to_source(outputs[b.artifact.name]) for b in self.outputs}

    def run_raw(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """Run the model in the artifact's own terms."""
        return self._run(_checked(feeds, [binding.artifact for binding in self.inputs], cast=False))

    def close(self) -> None:
        """End the runtime process and remove temporary files."""
        if self._worker is not None:
            self._worker.close()
            self._worker = None
        self._folder = None
        for removal in self._removals:
            removal()

    def __enter__(self) -> Bundle:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        m = self.manifest
        return f"<Bundle {m.name}: {m.backend} {m.precision} for {m.target.id}>"

    def _run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        if self._file.closed:
            raise EdgecError("bundle/closed", "the bundle is closed", where=str(self.path))
        if self._worker is None:
            self._worker = Worker(self.model_path, self.manifest.runner, threads=self._threads)
            weakref.finalize(self, self._worker.close)
        outputs = self._worker.run(feeds)
        missing = [b.artifact.name for b in self.outputs if b.artifact.name not in outputs]
        if missing:
            raise EdgecError("validate/io-mismatch", f"the model has no output {missing[0]!r}", where=str(self.path))
        return {b.artifact.name: outputs[b.artifact.name] for b in self.outputs}

    def _read_or_none(self, name: str) -> bytes | None:
        return self.read(name) if name in self._entries else None

    def _verified_chunks(self, name: str) -> Iterable[bytes]:
        """The contents, then the check: what comes before the end may be wrong, but never goes unnoticed."""
        entry = self._entries.get(name)
        if entry is None:
            hint = did_you_mean(name, self._entries)
            raise EdgecError("bundle/no-such-file", f"the bundle has no file {name!r}", where=str(self.path), hint=hint)
        if self._file.closed:
            raise EdgecError("bundle/closed", "the bundle is closed", where=str(self.path))
        yield from verified_chunks(self._file, entry, self.manifest, str(self.path))


def verified_chunks(file: BinaryIO, entry: Entry, manifest: Manifest, where: str) -> Iterable[bytes]:
    """An entry's contents a piece at a time; raises `bundle/tampered` at the end when they are not what was packed."""
    facts = manifest.files.get(entry.name)
    sha, crc, left = hashlib.sha256(), 0, entry.size
    position = entry.data_offset
    while left:
        file.seek(position)
        chunk = file.read(min(left, CHUNK_BYTES))
        if not chunk:
            break
        sha.update(chunk)
        crc = zlib.crc32(chunk, crc)
        position, left = position + len(chunk), left - len(chunk)
        yield chunk
    # The manifest and the signature are not listed in the manifest: the CRC finds accidents, the signature the rest.
    if left or crc != entry.crc or (facts is not None and sha.hexdigest() != facts.sha256):
        raise EdgecError(
            "bundle/tampered",
            f"file {entry.name!r} is not what was packed",
            where=where,
            hint="the bundle was damaged or changed: get it again, or build it again",
        )


def _checked(feeds: Mapping[str, Array], specs: Iterable[TensorSpec], *, cast: bool) -> dict[str, Array]:
    """Feeds as arrays that fit the specs; `cast` allows conversions that keep the kind of number."""
    wanted = {spec.name: spec for spec in specs}
    for name in feeds:
        if name not in wanted:
            raise EdgecError("bundle/wrong-feed", f"there is no input {name!r}", hint=did_you_mean(name, wanted))
    arrays = {}
    for name, spec in wanted.items():
        if name not in feeds:
            raise EdgecError("bundle/wrong-feed", f"input {name!r} is missing", hint="inputs: " + ", ".join(wanted))
        value = np.asarray(feeds[name])
        fits = len(value.shape) == len(spec.shape) and all(
            want in (-1, have) for want, have in zip(spec.shape, value.shape, strict=True)
        )
        if not fits:
            raise EdgecError("bundle/wrong-feed", f"input {name!r} has shape {value.shape}, not {spec.shape}")
        allowed = np.can_cast(value.dtype, spec.dtype.numpy, "same_kind") if cast else value.dtype == spec.dtype.numpy
        if not allowed:
            raise EdgecError("bundle/wrong-feed", f"input {name!r} has element type {value.dtype}, not {spec.dtype}")
        arrays[name] = value
    return arrays
