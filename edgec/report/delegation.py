"""What the delegate takes, in one line, and what breaks the model into pieces."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def delegation_line(found: Mapping[str, Any] | None) -> str:
    """`XNNPACK runs 241 of 245 operators in 2 partitions; outside: GATHER 1, …`; empty where nothing is known."""
    if not found or "partitions" not in found:
        return ""
    inside, outside = found["inside"], found["outside"]
    total = inside + sum(outside.values())
    if not found["partitions"]:
        return f"none: all {total} operators run in the runtime's own kernels"
    parts = "1 partition" if found["partitions"] == 1 else f"{found['partitions']} partitions"
    line = f"{found['delegate']} runs {inside} of {total} operators in {parts}"
    if not outside:
        return line
    kinds = ", ".join(f"{kind} {count}" for kind, count in sorted(outside.items(), key=lambda kv: (-kv[1], kv[0]))[:6])
    first = found["breaks"][0]
    return f"{line}; outside: {kinds} (first: {first['operator']} of {first['tensor']})"
