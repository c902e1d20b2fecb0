"""Ed25519 over the manifest's bytes. The manifest holds the digest of every other file, so this signs them all."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from edgec.bundle.manifest import to_json
from edgec.errors import EdgecError

#: Keeps a signature made here from meaning anything for another kind of document.
_CONTEXT = b"edgec bundle manifest v1\0"


def sign_manifest(manifest: bytes, private_key: Path) -> bytes:
    """The contents of the archive's `signature` file; the key is a PEM file without a password."""
    return to_json(sign_bytes(manifest, private_key, context=_CONTEXT))


def verify_manifest(manifest: bytes, signature: bytes, public_key: Path, *, where: str) -> None:
    """Raise `bundle/bad-signature` unless the holder of the key signed exactly this manifest."""
    try:
        told = json.loads(signature)
    except ValueError:
        told = None
    try:
        verify_bytes(manifest, told, public_key, context=_CONTEXT)
    except EdgecError as error:
        if error.code != "bundle/bad-signature":
            raise
        raise EdgecError(
            "bundle/bad-signature",
            "the signature does not belong to this manifest and this key",
            where=where,
            hint="do not install it: get the bundle from its builder again, and check the key",
        ) from error


def sign_bytes(data: bytes, private_key: Path, *, context: bytes) -> dict[str, str]:
    """A signature as JSON has it; `context` keeps it from meaning anything for another kind of document."""
    serialization = _serialization()
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    try:
        key = serialization.load_pem_private_key(_read_key(private_key), password=None)
    except (ValueError, TypeError) as error:
        raise EdgecError("bundle/bad-key", f"not an ed25519 private key: {error}", where=str(private_key)) from error
    if not isinstance(key, Ed25519PrivateKey):
        raise EdgecError("bundle/bad-key", "the key is not of the ed25519 kind", where=str(private_key))
    public = key.public_key().public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)
    return {"algorithm": "ed25519", "public_key": public.hex(), "signature": key.sign(context + data).hex()}


def verify_bytes(data: bytes, signature: Any, public_key: Path, *, context: bytes) -> None:
    """Raise `bundle/bad-signature` unless the holder of the key signed exactly this, in this context.

    The key comes from the caller; the one named in the signature proves nothing and is not read.
    """
    serialization = _serialization()
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    try:
        key = serialization.load_pem_public_key(_read_key(public_key))
    except ValueError as error:
        raise EdgecError("bundle/bad-key", f"not a public key: {error}", where=str(public_key)) from error
    if not isinstance(key, Ed25519PublicKey):
        raise EdgecError("bundle/bad-key", "the key is not of the ed25519 kind", where=str(public_key))
    try:
        key.verify(bytes.fromhex(str(signature["signature"])), context + data)
    except (InvalidSignature, ValueError, KeyError, TypeError) as error:
        raise EdgecError("bundle/bad-signature", "the signature does not belong to this and this key") from error


def _serialization() -> Any:
    try:
        from cryptography.hazmat.primitives import serialization
    except ImportError as error:
        raise EdgecError(
            "env/missing-extra", "signatures need the cryptography package", hint="pip install 'edgec[sign]'"
        ) from error
    return serialization


def _read_key(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise EdgecError("io/unreadable", f"cannot read the key: {error.strerror}", where=str(path)) from error
