"""Pack a bundle: the same inputs give the same bytes, and a failure leaves nothing behind."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from edgec.artifact import Artifact
from edgec.bundle.archive import Source, read_chunks, write_archive
from edgec.bundle.golden import Golden, golden_files
from edgec.bundle.manifest import (
    MANIFEST,
    SIGNATURE,
    FileFacts,
    IoFacts,
    Manifest,
    Provenance,
    TargetFacts,
    manifest_bytes,
)
from edgec.bundle.sbom import sbom_bytes
from edgec.bundle.sign import sign_manifest
from edgec.errors import EdgecError, Finding
from edgec.targets.profile import Target
from edgec.tensors import Kind

_RUN_SH = b"""#!/bin/sh
# Check this bundle on the device it is unpacked on: run the goldens and compare.
# ./run.sh            compare, exit code 0 when all is well
# ./run.sh bench      measure latency and memory
# ./run.sh serve      answer inferences over HTTP on this machine (--help: how), and show metrics
here=$(cd "$(dirname "$0")" && pwd)
command=${1:-check}
[ $# -gt 0 ] && shift
# A runtime that edgec flash brought.
if [ -d "$here/runtime" ]; then export PYTHONPATH="$here/runtime${PYTHONPATH:+:$PYTHONPATH}"; fi
if [ "$command" = info ]; then exec "${PYTHON:-python3}" "$here/agent.py" info; fi
if [ "$command" = serve ]; then exec "${PYTHON:-python3}" "$here/serve.pyz" serve --root "$here" "$@"; fi
exec "${PYTHON:-python3}" "$here/agent.py" "$command" "$here" "$@"
"""


def write_bundle(
    path: str | Path,
    *,
    name: str,
    artifact: Artifact,
    target: Target,
    provenance: Provenance,
    goldens: Sequence[Golden],
    agent: bytes,
    output_steps: Mapping[str, float] | None = None,
    output_kinds: Mapping[str, Sequence[Kind]] | None = None,
    labels: Sequence[str] = (),
    preprocessing: Mapping[str, Any] | None = None,
    fidelity: Mapping[str, Any] | None = None,
    packaging: Mapping[str, Any] | None = None,
    findings: Sequence[Finding] = (),
    report_json: bytes | None = None,
    report_html: bytes | None = None,
    sign_key: Path | None = None,
    graphs: Mapping[str, bytes] | None = None,
    packaged: Mapping[str, bytes] | None = None,
) -> Path:
    """Write `path` and return it.

    `output_steps` gives, by source output name, the quantization step of float outputs that come straight from int8,
    `output_kinds` the kinds of values in those that hold several.
    `agent` is the runner script for the device, `graphs` are ONNX files to go along, `packaged` what the target's
    packaging steps made, with `packaging` the facts about it, `sign_key` an ed25519 PEM file. Nothing given here may
    hold times or paths if two builds are to agree. Raises `EdgecError` (io/…) when the file cannot be written.
    """
    files: dict[str, Source] = {
        **artifact.files,
        **golden_files(goldens, artifact.inputs, artifact.outputs),
        **(graphs or {}),
        **(packaged or {}),
    }
    extras = {"agent.py": agent, "run.sh": _RUN_SH, "report.json": report_json, "report.html": report_html}
    reserved = {*extras, MANIFEST, SIGNATURE, "sbom.cdx.json"}
    for taken in artifact.files:
        if taken in reserved or taken.startswith(("golden/", "graphs/")):
            raise EdgecError("internal/duplicate", f"the backend names a file {taken!r}, which the bundle itself has")
    files.update({key: data for key, data in extras.items() if data is not None})
    steps, kinds = output_steps or {}, output_kinds or {}
    try:
        manifest = Manifest(
            name=name,
            target=TargetFacts.of(target, artifact.backend),
            backend=artifact.backend,
            engine=artifact.engine,
            precision=artifact.precision,
            model=artifact.main,
            model_files=tuple(sorted(artifact.files)),
            requirements=dict(artifact.requirements),
            op_versions=dict(artifact.op_versions),
            operators=dict(artifact.operators),
            transposes=artifact.transposes,
            inputs=tuple(IoFacts.of(binding) for binding in artifact.inputs),
            outputs=tuple(
                IoFacts.of(binding, steps.get(binding.source.name), kinds.get(binding.source.name, ()))
                for binding in artifact.outputs
            ),
            labels=tuple(labels),
            preprocessing=dict(preprocessing or {}),
            provenance=provenance,
            fidelity=dict(fidelity or {}),
            packaging=dict(packaging or {}),
            findings=tuple(finding.as_dict() for finding in findings),
            goldens=len(goldens),
            files={key: _facts(source) for key, source in sorted(files.items())},
        )
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        raise EdgecError("internal/bad-manifest", f"the manifest would make no sense: {key}: {first['msg']}") from error
    files["sbom.cdx.json"] = sbom = sbom_bytes(manifest, artifact.digest)
    manifest = manifest.model_copy(update={"files": {**manifest.files, "sbom.cdx.json": _facts(sbom)}})
    files[MANIFEST] = signed = manifest_bytes(manifest)
    if sign_key is not None:
        files[SIGNATURE] = sign_manifest(signed, sign_key)
    return _write_whole(Path(path), files)


def _facts(source: Source) -> FileFacts:
    sha, size = hashlib.sha256(), 0
    for chunk in read_chunks(source):
        sha.update(chunk)
        size += len(chunk)
    return FileFacts(sha256=sha.hexdigest(), size=size)


def _write_whole(path: Path, files: Mapping[str, Source]) -> Path:
    """Write beside the destination, sync, rename: the destination is the old file or the whole new one."""
    temporary: Path | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}.", delete=False) as stream:
            temporary = Path(stream.name)
            write_archive(stream, files)
            stream.flush()
            os.fsync(stream.fileno())
        # mkstemp makes it private; a bundle is as public as any file its owner makes.
        temporary.chmod(0o666 & ~_umask())
        temporary.replace(path)
        temporary = None
    except OSError as error:
        raise _io_error(error, path) from error
    finally:
        if temporary is not None:
            with contextlib.suppress(OSError):
                temporary.unlink()
    _sync_folder(path.parent)
    return path


def _umask() -> int:
    current = os.umask(0)
    os.umask(current)
    return current


def _sync_folder(folder: Path) -> None:
    """Make the rename itself durable; a file system that cannot sync folders is no reason to fail."""
    with contextlib.suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def _io_error(error: OSError, path: Path) -> EdgecError:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return EdgecError(
            "io/disk-full",
            "no space is left for the bundle; nothing was written",
            where=str(path),
            hint="free some space, or give another --output",
        )
    return EdgecError(
        "io/not-writable",
        f"the bundle cannot be written: {error.strerror or error}",
        where=str(path),
        hint="check the folder and its permissions, or give another --output",
    )
