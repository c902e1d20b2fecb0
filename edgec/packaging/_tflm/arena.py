"""How much memory a model needs in TensorFlow Lite Micro: asked of its own interpreter, in a process of its own.

1. The reference kernels of the PyPI wheel are measured on this machine. Its pointers have 64 bits, so a 32-bit
   microcontroller needs a little less (3 to 10 % were seen): the figure is safe there.
2. Kernels of CMSIS-NN and ESP-NN ask for scratch memory on top, which the wheel cannot know. The largest request of one
   operator is computed from its shape; the planner gives scratch memory back after each operator.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from edgec.artifact import OpWork
from edgec.bundle.worker import AGENT
from edgec.devices.open import open_device
from edgec.errors import Finding
from edgec.runners.base import call_agent
from edgec.targets.profile import Target

#: CMSIS-NN's depthwise kernel for Helium works on blocks of this many channels.
_CHANNEL_BLOCK = 124


@dataclass(frozen=True, kw_only=True, slots=True)
class Arena:
    """The smallest arena that works, by use, and what other kernels may want on top."""

    smallest_bytes: int
    allocations: dict[str, int]
    scratch_bytes: int
    runtime: str


def measure_arena(model: bytes, work: Sequence[OpWork], *, timeout_s: float = 300.0) -> Arena:
    """Rules 1 and 2. Raises `EdgecError` (validate/…) when TFLM is missing, refuses the model or crashes on it."""
    with tempfile.TemporaryDirectory(prefix="edgec-") as folder:
        path = Path(folder, "model.tflite")
        path.write_bytes(model)
        answer = call_agent(
            open_device("local"), str(AGENT), ["arena", str(path)], timeout_s=timeout_s, where="model.tflite"
        )
    return Arena(
        smallest_bytes=int(answer["arena_bytes"]),
        allocations={str(key): int(value) for key, value in answer["allocations"].items()},
        scratch_bytes=scratch_bytes(work),
        runtime=str(answer["runtime"]),
    )


def scratch_bytes(work: Sequence[OpWork]) -> int:
    """Rule 2: the largest scratch buffer that an optimised kernel of one of the operators asks for."""
    return max((_scratch(op) for op in work), default=0)


def _scratch(op: OpWork) -> int:
    if op.dtype not in ("int8", "int16"):
        return 0  # no optimised float kernels with scratch memory
    width = 1 if op.dtype == "int8" else 2
    if op.kind == "CONV_2D":
        return 4 * width * (-(-op.window // 8) * 8)  # two columns as int16, or four as int8
    if op.kind == "DEPTHWISE_CONV_2D":
        return max(2 * op.channels * op.window, 4 * _CHANNEL_BLOCK * op.window) * width
    if op.kind == "FULLY_CONNECTED":
        return 4 * op.channels  # sums of the weights
    return 0


def budget_findings(arena: Arena, target: Target, *, where: str) -> list[Finding]:
    """The arena beside the target's memory."""
    limit = target.limits.max_arena_bytes
    if limit is None or arena.smallest_bytes <= limit:
        return []
    return [
        Finding(
            code="backend/arena-too-large",
            message=f"the arena takes {arena.smallest_bytes:,} bytes, {target.id} has {limit:,}",
            where=where,
            rule="limits.max_arena_bytes",
            hint="take smaller inputs or fewer channels, or --precision int8; for a board with more memory write "
            f'a profile that extends "{target.id}" and gives limits.max_arena_bytes',
        )
    ]


def arena_facts(arena: Arena, peak_bytes: int) -> dict[str, object]:
    """What manifest and report say about memory. `activation_bytes` cannot be undercut by any planner."""
    return {
        "arena_bytes": arena.smallest_bytes,
        "scratch_estimate_bytes": arena.scratch_bytes,
        "activation_bytes": peak_bytes,
        "allocations": dict(sorted(arena.allocations.items())),
        "runtime": arena.runtime,
    }
