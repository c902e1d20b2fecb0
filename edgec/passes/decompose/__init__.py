"""Take operators apart into smaller ones that every runtime has."""

from __future__ import annotations

from edgec.passes.decompose.expand import can_decompose, decompose

__all__ = ["can_decompose", "decompose"]
