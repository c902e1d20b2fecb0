"""Validation records: written, found, refused when another bundle's, changed, or not signed by the right key."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from edgec.bundle.manifest import to_json
from edgec.bundle.open import open_bundle
from edgec.bundle.proofs import proofs_folder, read_proofs, write_proof
from edgec.report.inspect import inspect_path
from tests.support import tiny_bundles as tiny


def keys(folder: Path, name: str) -> tuple[Path, Path]:
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    key = Ed25519PrivateKey.generate()
    private, public = folder / f"{name}.pem", folder / f"{name}.pub"
    private.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    public.write_bytes(
        key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    )
    return private, public


VALIDATION: dict[str, Any] = {
    "runtime": "ai-edge-litert 2.3.0",
    "kernel_set": "XNNPACK",
    "bit_exact": True,
    "latency": [{"median_ms": 2.0}, {"median_ms": 1.5}],
    "emulated": "",
}


def written(bundle: Path, *, device: str = "kitchen", sign_key: Path | None = None, **changes: Any) -> Path:
    with open_bundle(bundle) as opened:
        return write_proof(
            opened,
            device=device,
            date="2026-01-02T03:04:05+00:00",
            verdict="proven",
            facts={"cpu": "Cortex-A76"},
            validation={**VALIDATION, **changes},
            sign_key=sign_key,
        )


def codes(bundle: Path, public_key: Path | None = None) -> tuple[int, list[str]]:
    with open_bundle(bundle) as opened:
        good, findings = read_proofs(opened, public_key=public_key)
    return len(good), [finding.code for finding in findings]


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return tiny.pack(tmp_path / "tiny.edgec", tiny.tflite_artifact())


def test_a_record_lies_beside_the_bundle_and_inspect_lists_it(bundle: Path) -> None:
    before = bundle.read_bytes()
    path = written(bundle, device="ssh:pi@kitchen")
    assert path.parent == proofs_folder(bundle) == bundle.parent / "tiny.proofs"
    assert path.name.startswith("ssh-pi-kitchen-")
    assert bundle.read_bytes() == before
    (row,) = inspect_path(str(bundle))["proofs"]
    assert row["device"] == "ssh:pi@kitchen"
    assert row["verdict"] == "proven"
    assert row["median_ms"] == 1.5
    assert row["signature"] == "none"


def test_times_of_an_emulator_are_not_shown(bundle: Path) -> None:
    written(bundle, emulated="qemu-user")
    (row,) = inspect_path(str(bundle))["proofs"]
    assert row["median_ms"] is None
    assert row["emulated"] == "qemu-user"


def test_signed_records_hold_with_the_right_key_only(bundle: Path, tmp_path: Path) -> None:
    private, public = keys(tmp_path, "mine")
    _, foreign = keys(tmp_path, "foreign")
    written(bundle, sign_key=private)
    assert codes(bundle) == (1, [])
    assert codes(bundle, public) == (1, [])
    assert codes(bundle, foreign) == (0, ["bundle/forged-proof"])
    written(bundle, device="unsigned")
    assert codes(bundle) == (2, [])
    assert codes(bundle, public) == (1, ["bundle/forged-proof"])


def test_a_record_of_another_bundle_is_refused(bundle: Path, tmp_path: Path) -> None:
    other = tiny.pack(tmp_path / "other.edgec", tiny.tflite_artifact(), name="other")
    record = written(other)
    proofs_folder(bundle).mkdir()
    (proofs_folder(bundle) / record.name).write_bytes(record.read_bytes())
    assert codes(bundle) == (0, ["bundle/other-proof"])
    described = inspect_path(str(bundle))
    assert "proofs" not in described
    assert [f["code"] for f in described["findings"]] == ["bundle/other-proof"]


def test_a_changed_record_is_refused(bundle: Path, tmp_path: Path) -> None:
    private, public = keys(tmp_path, "mine")
    path = written(bundle, sign_key=private)
    whole = json.loads(path.read_bytes())
    whole["record"]["validation"]["latency"] = [{"median_ms": 0.1}]
    path.write_bytes(to_json(whole))
    assert codes(bundle) == (0, ["bundle/forged-proof"])
    # Renamed to fit: only the signature tells.
    digest = hashlib.sha256(to_json(whole["record"])).hexdigest()[:12]
    path.rename(path.with_name(f"kitchen-{digest}.json"))
    assert codes(bundle) == (1, [])
    assert codes(bundle, public) == (0, ["bundle/forged-proof"])


def test_a_bundle_signature_is_no_record_signature(bundle: Path, tmp_path: Path) -> None:
    """The contexts differ: signing a record must not sign a manifest of the same bytes."""
    from edgec.bundle.sign import sign_bytes, verify_bytes
    from edgec.errors import EdgecError

    private, public = keys(tmp_path, "mine")
    signature = sign_bytes(b"text", private, context=b"one\0")
    verify_bytes(b"text", signature, public, context=b"one\0")
    with pytest.raises(EdgecError) as caught:
        verify_bytes(b"text", signature, public, context=b"other\0")
    assert caught.value.code == "bundle/bad-signature"


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"record": 1, "signature": null}', '{"record": {"bundle": {}}}'])
def test_files_that_are_no_records_are_refused(bundle: Path, text: str) -> None:
    proofs_folder(bundle).mkdir()
    (proofs_folder(bundle) / "x.json").write_text(text)
    assert codes(bundle) == (0, ["bundle/bad-proof"])


@pytest.mark.parametrize("change", [{"schema_version": 2}, {"validation": []}, {"date": None}])
def test_records_of_another_form_are_refused(bundle: Path, change: dict[str, Any]) -> None:
    path = written(bundle)
    whole = json.loads(path.read_bytes())
    for key, value in change.items():
        if value is None:
            del whole["record"][key]
        else:
            whole["record"][key] = value
    path.write_bytes(to_json(whole))
    assert codes(bundle) == (0, ["bundle/bad-proof"])
