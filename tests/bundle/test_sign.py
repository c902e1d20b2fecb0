"""Signatures: the right key opens, everything else is refused."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest

from edgec.bundle.archive import read_index, write_archive
from edgec.bundle.open import open_bundle
from edgec.errors import EdgecError
from tests.support import tiny_bundles as tiny

pytest.importorskip("cryptography", reason="signatures need cryptography: pip install 'edgec[sign]'")


def key_pair(folder: Path, name: str) -> tuple[Path, Path]:
    from cryptography.hazmat.primitives import serialization as s
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    key = Ed25519PrivateKey.generate()
    private, public = folder / f"{name}.pem", folder / f"{name}.pub.pem"
    private.write_bytes(key.private_bytes(s.Encoding.PEM, s.PrivateFormat.PKCS8, s.NoEncryption()))
    public.write_bytes(key.public_key().public_bytes(s.Encoding.PEM, s.PublicFormat.SubjectPublicKeyInfo))
    return private, public


def refusal(path: Path, public: Path) -> str:
    with pytest.raises(EdgecError) as caught:
        open_bundle(path, public_key=public)
    return caught.value.code


def test_signed_bundle_opens_with_its_key_only(tmp_path: Path) -> None:
    private, public = key_pair(tmp_path, "mine")
    _, stranger = key_pair(tmp_path, "other")
    path = tiny.pack(tmp_path / "x.edgec", tiny.tflite_artifact(), sign_key=private)
    with open_bundle(path, public_key=public) as bundle:
        assert bundle.signed
    assert refusal(path, stranger) == "bundle/bad-signature"


def test_signing_is_deterministic(tmp_path: Path) -> None:
    private, _ = key_pair(tmp_path, "mine")
    artifact = tiny.tflite_artifact()
    goldens = tiny.goldens(artifact)
    one, two = (
        tiny.pack(tmp_path / f"{n}.edgec", artifact, goldens=goldens, sign_key=private).read_bytes() for n in "ab"
    )
    assert one == two


def test_unsigned_bundle_is_refused_when_a_key_is_given(tmp_path: Path) -> None:
    _, public = key_pair(tmp_path, "mine")
    assert refusal(tiny.pack(tmp_path / "x.edgec", tiny.tflite_artifact()), public) == "bundle/unsigned"


@pytest.mark.parametrize("signature", [b"", b"{}", b"[]", b'{"signature": 5}', b'{"signature": "zz"}', b"\xff"])
def test_broken_signatures_are_refused(tmp_path: Path, signature: bytes) -> None:
    private, public = key_pair(tmp_path, "mine")
    data = tiny.pack(tmp_path / "x.edgec", tiny.tflite_artifact(), sign_key=private).read_bytes()
    files = {e.name: data[e.data_offset : e.data_offset + e.size] for e in read_index(io.BytesIO(data), "x")}
    stream = io.BytesIO()
    write_archive(stream, {**files, "signature": signature})
    (tmp_path / "bad.edgec").write_bytes(stream.getvalue())
    assert refusal(tmp_path / "bad.edgec", public) == "bundle/bad-signature"


def test_consistently_rewritten_bundle_fails_the_signature(tmp_path: Path) -> None:
    """What digests alone cannot find: another manifest that agrees with other files."""
    private, public = key_pair(tmp_path, "mine")
    artifact = tiny.tflite_artifact()
    signed = tiny.pack(tmp_path / "signed.edgec", artifact, sign_key=private).read_bytes()
    forged = tiny.pack(tmp_path / "forged.edgec", artifact, name="forged").read_bytes()
    files = {e.name: forged[e.data_offset : e.data_offset + e.size] for e in read_index(io.BytesIO(forged), "x")}
    entry = next(e for e in read_index(io.BytesIO(signed), "x") if e.name == "signature")
    stream = io.BytesIO()
    write_archive(stream, {**files, "signature": signed[entry.data_offset : entry.data_offset + entry.size]})
    (tmp_path / "bad.edgec").write_bytes(stream.getvalue())
    with open_bundle(tmp_path / "bad.edgec") as bundle:
        assert bundle.manifest.name == "forged"  # consistent in itself
    assert refusal(tmp_path / "bad.edgec", public) == "bundle/bad-signature"


def test_bad_keys_are_clean_errors(tmp_path: Path) -> None:
    private, public = key_pair(tmp_path, "mine")
    artifact = tiny.tflite_artifact()
    goldens = tiny.goldens(artifact)
    noise = tmp_path / "noise.pem"
    noise.write_text("not a key")
    for key, code in ((noise, "bundle/bad-key"), (public, "bundle/bad-key"), (tmp_path / "none", "io/unreadable")):
        with pytest.raises(EdgecError) as caught:
            tiny.pack(tmp_path / "x.edgec", artifact, goldens=goldens, sign_key=key)
        assert caught.value.code == code
    path = tiny.pack(tmp_path / "x.edgec", artifact, goldens=goldens, sign_key=private)
    assert refusal(path, noise) == "bundle/bad-key"
    assert refusal(path, tmp_path / "none") == "io/unreadable"


def test_signature_names_the_key_for_humans(tmp_path: Path) -> None:
    private, _ = key_pair(tmp_path, "mine")
    with open_bundle(tiny.pack(tmp_path / "x.edgec", tiny.tflite_artifact(), sign_key=private)) as bundle:
        signature = json.loads(bundle.read("signature"))
    assert signature["algorithm"] == "ed25519"
    assert len(signature["public_key"]) == 64
