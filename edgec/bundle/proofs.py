"""Records of what was proven where: a file for each validation of a bundle, beside it, signed where there is a key.

    model.edgec                       the bundle, which never changes
    model.proofs/kitchen-3f2a…c1.json one record: this bundle, on this device, with this runtime, at this time

1. A record names its bundle by digest; beside another bundle it is refused.
2. The signature covers the record's canonical bytes, under a context of its own. Opening checks it with the key of the
   holder that one trusts: the key a record names proves nothing.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgec.bundle.bundle import Bundle
from edgec.bundle.manifest import to_json
from edgec.bundle.sign import sign_bytes, verify_bytes
from edgec.errors import EdgecError, Finding

#: Keeps a signature made here from meaning anything for another kind of document.
_CONTEXT = b"edgec validation record v1\0"
_SCHEMA = 1
_NEEDED = ("schema_version", "bundle", "device", "date", "verdict", "validation")


@dataclass(frozen=True, kw_only=True, slots=True)
class Proof:
    """One record as it was found. `signature` is verified, not checked (no key was given), or none."""

    path: Path
    record: Mapping[str, Any]
    signature: str

    def line(self) -> dict[str, Any]:
        """One row for a table."""
        record = self.record
        return {
            "device": record["device"],
            "date": record["date"],
            "verdict": record["verdict"],
            "runtime": record["validation"].get("runtime", ""),
            "kernels": record["validation"].get("kernel_set", ""),
            "bit_exact": record["validation"].get("bit_exact"),
            "median_ms": _median(record["validation"]),
            "emulated": record["validation"].get("emulated") or None,
            "signature": self.signature,
            "file": self.path.name,
        }


def _median(validation: Mapping[str, Any]) -> float | None:
    """The latency that counts: none of an emulator's."""
    rows = validation.get("latency") or ()
    return None if validation.get("emulated") or not rows else min(float(row["median_ms"]) for row in rows)


def proofs_folder(bundle: Path) -> Path:
    """Where a bundle's records are."""
    return bundle.with_name(f"{bundle.stem}.proofs")


def write_proof(
    bundle: Bundle,
    *,
    device: str,
    date: str,
    verdict: str,
    facts: Mapping[str, Any],
    validation: Mapping[str, Any],
    sign_key: Path | None = None,
) -> Path:
    """Write a record beside the bundle and return its path.

    `date` is UTC in ISO 8601, `facts` what the device said of itself, `validation` what was found.
    """
    record = {
        "schema_version": _SCHEMA,
        "bundle": {"name": bundle.manifest.name, "digest": bundle.digest, "precision": bundle.manifest.precision},
        "device": device,
        "date": date,
        "verdict": verdict,
        "facts": dict(facts),
        "validation": dict(validation),
    }
    body = to_json(record)
    whole = {"record": record, "signature": None if sign_key is None else sign_bytes(body, sign_key, context=_CONTEXT)}
    name = f"{_slug(device)}-{hashlib.sha256(body).hexdigest()[:12]}.json"
    folder = proofs_folder(bundle.path)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        temporary = folder / f".{name}.part"
        temporary.write_bytes(to_json(whole))
        return temporary.replace(folder / name)
    except OSError as error:
        raise EdgecError(
            "io/not-writable", f"the record cannot be written: {error.strerror or error}", where=str(folder),
            hint="records lie beside the bundle: check that folder",
        ) from error  # fmt: skip


def read_proofs(bundle: Bundle, *, public_key: Path | None = None) -> tuple[list[Proof], list[Finding]]:
    """The bundle's records that hold, by date, and what is wrong with the others.

    With `public_key` only records signed by its holder hold.
    """
    good: list[Proof] = []
    findings: list[Finding] = []
    for path in sorted(proofs_folder(bundle.path).glob("*.json")):
        try:
            good.append(read_proof(path, bundle.digest, public_key=public_key))
        except EdgecError as error:
            findings.append(error.finding)
    return sorted(good, key=lambda proof: str(proof.record["date"])), findings


def read_proof(path: Path, digest: str, *, public_key: Path | None = None) -> Proof:
    """One record, checked. Raises `EdgecError`: bundle/bad-proof, bundle/other-proof, bundle/forged-proof."""
    where = str(path)
    try:
        whole = json.loads(path.read_bytes())
        record, signature = whole["record"], whole["signature"]
        body = to_json(record)
        missing = [key for key in _NEEDED if key not in record]
        told = record["bundle"]["digest"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise EdgecError("bundle/bad-proof", f"not a validation record: {error}", where=where, hint=_HINT) from error
    if missing or record["schema_version"] != _SCHEMA or not isinstance(record["validation"], dict):
        what = f"it has no {missing[0]}" if missing else "it is of another version"
        raise EdgecError("bundle/bad-proof", f"not a validation record of this edgec: {what}", where=where, hint=_HINT)
    if told != digest:  # rule 1
        raise EdgecError(
            "bundle/other-proof", f"the record is of another bundle ({str(told)[:12]}…)", where=where, hint=_HINT
        )
    if hashlib.sha256(body).hexdigest()[:12] not in path.stem:
        raise EdgecError("bundle/forged-proof", "the record was changed after it was written", where=where, hint=_HINT)
    if public_key is None:
        return Proof(path=path, record=record, signature="not checked" if signature else "none")
    if signature is None:
        raise EdgecError("bundle/forged-proof", "the record carries no signature", where=where, hint=_HINT)
    try:
        verify_bytes(body, signature, public_key, context=_CONTEXT)
    except EdgecError as error:
        if error.code != "bundle/bad-signature":
            raise
        message = "the signature does not belong to this record and this key"
        raise EdgecError("bundle/forged-proof", message, where=where, hint=_HINT) from error
    return Proof(path=path, record=record, signature="verified")


_HINT = "do not rely on it: validate the bundle again with --record"


def _slug(name: str) -> str:
    """A device's name as part of a file's."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-.")[:60] or "device"


def proof_lines(proofs: Sequence[Proof]) -> list[dict[str, Any]]:
    """Rows for a table."""
    return [proof.line() for proof in proofs]
