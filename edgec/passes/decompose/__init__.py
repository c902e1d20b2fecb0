"""Take operators apart into smaller ones that every runtime has."""

from __future__ import annotations

from edgec.passes.decompose.expand import decompose

__all__ = ["decompose"]
