"""Run `edgetpu_compiler` where it is on the PATH, and read what it says.

It is a program of Google's for Debian on x86-64 that no package index carries, so that a build without it is the rule:
`compile_model` returns None then.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from edgec.errors import EdgecError

PROGRAM = "edgetpu_compiler"
_TIMEOUT_S = 600.0
_TAIL = 1500
_UNITS = {"B": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30}


@dataclass(frozen=True, kw_only=True, slots=True)
class Compiled:
    """The compiled file and the compiler's own figures. `off_chip_bytes` of weights are streamed at each run."""

    model: bytes
    version: str
    subgraphs: int
    on_chip_bytes: int
    off_chip_bytes: int
    mapped: int
    operators: int
    unmapped: Mapping[str, str]

    @property
    def share(self) -> float:
        """The share of the operators that is mapped."""
        return self.mapped / self.operators if self.operators else 0.0


def compile_model(model: bytes) -> Compiled | None:
    """Compile, or None where the compiler is not installed. Raises `EdgecError` (backend/npu-compiler)."""
    program = shutil.which(PROGRAM)
    if program is None:
        return None
    with tempfile.TemporaryDirectory(prefix="edgec-") as name:
        folder = Path(name)
        (folder / "model.tflite").write_bytes(model)
        command = [program, "-s", "-o", str(folder), str(folder / "model.tflite")]
        try:
            done = subprocess.run(
                command, capture_output=True, text=True, timeout=_TIMEOUT_S, check=False, errors="replace"
            )
        except (subprocess.TimeoutExpired, OSError) as error:
            raise EdgecError("backend/npu-compiler", f"{PROGRAM} does not run: {error}", where=program) from error
        compiled = folder / "model_edgetpu.tflite"
        if done.returncode != 0 or not compiled.is_file():
            said = (done.stderr.strip() or done.stdout.strip())[-_TAIL:]
            raise EdgecError(
                "backend/npu-compiler",
                f"{PROGRAM} ended with exit code {done.returncode} and no compiled model: {said}",
                where=program,
                hint="the compiler names the rule; `edgec check` lists those that can be told without it",
            )
        return read_log(done.stdout, compiled.read_bytes())


def read_log(text: str, model: bytes) -> Compiled:
    """The figures in what the compiler prints with `-s`. Raises `EdgecError` (backend/npu-compiler) for other text."""
    rows = re.findall(r"^([A-Z][A-Z0-9_]*)\s+(\d+)\s+(\S.*?)\s*$", text, re.MULTILINE)
    if not rows:
        raise EdgecError(
            "backend/npu-compiler",
            f"{PROGRAM} prints another report than expected: {text.strip()[-_TAIL:]}",
            hint=f"versions 14 to 16 of {PROGRAM} are understood",
        )
    mapped = sum(int(count) for _, count, status in rows if status.startswith("Mapped"))
    return Compiled(
        model=model,
        version=_first(r"Edge TPU Compiler version (\S+)", text) or "unknown",
        subgraphs=int(_first(r"Number of Edge TPU subgraphs: (\d+)", text) or 0),
        on_chip_bytes=_bytes(_first(r"On-chip memory used for caching model parameters: (\S+)", text)),
        off_chip_bytes=_bytes(_first(r"Off-chip memory used for streaming uncached model parameters: (\S+)", text)),
        mapped=mapped,
        operators=sum(int(count) for _, count, _ in rows),
        unmapped={kind: status for kind, _, status in rows if not status.startswith("Mapped")},
    )


def _first(pattern: str, text: str) -> str:
    match = re.search(pattern, text)
    return match.group(1) if match else ""


def _bytes(text: str) -> int:
    match = re.fullmatch(r"([\d.]+)([KMG]?i?B)", text)
    return round(float(match.group(1)) * _UNITS.get(match.group(2), 1)) if match else 0
