"""edgec: a trained model in, a validated TFLite or OpenVINO bundle for an edge device out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from edgec.bundle.open import Bundle, open_bundle
    from edgec.errors import EdgecError, Finding
    from edgec.pipeline import build, calibrate, check

__version__ = "0.1.0"

__all__ = ["Bundle", "EdgecError", "Finding", "build", "calibrate", "check", "open_bundle"]

_HOMES = {
    "build": "edgec.pipeline",
    "check": "edgec.pipeline",
    "calibrate": "edgec.pipeline",
    "open_bundle": "edgec.bundle.open",
    "Bundle": "edgec.bundle.open",
    "EdgecError": "edgec.errors",
    "Finding": "edgec.errors",
}


def __getattr__(name: str) -> Any:
    """Import on first use, so that `import edgec` and `edgec --help` stay instant."""
    if name not in _HOMES:
        raise AttributeError(f"module 'edgec' has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(_HOMES[name]), name)
