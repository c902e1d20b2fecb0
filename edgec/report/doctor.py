"""What is installed here, whether it works, what is missing, and how to get it."""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from edgec import __version__
from edgec.errors import Finding, Severity
from edgec.frontends import _environments as environments

#: What every build needs.
CORE = (
    "numpy",
    "onnx",
    "onnx-ir",
    "onnxscript",
    "onnxruntime",
    "ai-edge-litert",
    "openvino",
    "flatbuffers",
    "pydantic",
)
#: Optional packages, one for each extra: the extra that brings it, and what it is for.
EXTRAS = {
    "pillow": ("image", "calibration with images"),
    "soundfile": ("audio", "calibration with audio files"),
    "cryptography": ("sign", "signed bundles"),
    "asyncssh": ("ssh", "devices over SSH"),
    "skl2onnx": ("sklearn", "scikit-learn models"),
    "torch": ("torch", "PyTorch models"),
    "transformers": ("huggingface", "Hugging Face folders"),
    "tflite-micro": ("micro", "microcontrollers: the model run here"),
    "ethos-u-vela": ("vela", "Ethos-U"),
}
#: Runtimes that are tried, and the package each comes from.
RUNTIMES = {"onnxruntime": "onnxruntime", "tflite": "ai-edge-litert", "openvino": "openvino"}
#: CPU flags that decide which kernels run: int8 dot products, half precision.
FLAGS = ("avx2", "avx512f", "avx512_vnni", "avx_vnni", "avx512_bf16", "amx_int8", "asimd", "asimddp", "asimdhp", "i8mm")
TIMEOUT_S = 120
LOW_DISK_BYTES = 1 << 30


def examine() -> dict[str, Any]:
    """A JSON-ready answer; what is broken stands in its findings."""
    runtimes = [try_runtime(name) for name in RUNTIMES]
    # What is missing explains what does not run.
    faults = _missing() or _broken(runtimes)
    return {
        "edgec": __version__,
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.release()}, {platform.machine()}",
        "cpu_cores": os.cpu_count(),
        "cpu_features": cpu_features(),
        "memory_bytes": memory_bytes(),
        "free_disk_bytes": shutil.disk_usage(Path.cwd()).free,
        "packages": [{"package": name, "version": version(name)} for name in CORE],
        "extras": [extra(name) for name in EXTRAS],
        "environments": environments.describe(),
        "runtimes": runtimes,
        "findings": [finding.as_dict() for finding in (*faults, *_disk())],
    }


def set_up(name: str) -> dict[str, Any]:
    """Make a framework's private environment. Raises `EdgecError` (`cli/unknown-environment`, `env/install-failed`)."""
    folder = environments.install(name)
    return {"environment": name, "folder": str(folder), "findings": []}


def version(package: str) -> str | None:
    """The installed version, or None."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def extra(package: str) -> dict[str, Any]:
    """An optional package: there, or how to get it."""
    name, purpose = EXTRAS[package]
    found = version(package)
    return {"package": package, "for": purpose, "version": found or f"missing: pip install 'edgec[{name}]'"}


def try_runtime(name: str) -> dict[str, Any]:
    """Run a tiny model in a runtime, in a process of its own."""
    command = [sys.executable, "-m", "edgec.report.selftest", name]
    try:
        done = subprocess.run(command, capture_output=True, timeout=TIMEOUT_S, check=False)
        answer = json.loads(done.stdout) if done.stdout else {"ok": False, "why": _death(done)}
    except subprocess.TimeoutExpired:
        answer = {"ok": False, "why": f"no answer within {TIMEOUT_S} s"}
    return {"runtime": name, "package": RUNTIMES[name], "version": version(RUNTIMES[name]), **answer}


def _death(done: subprocess.CompletedProcess[bytes]) -> str:
    lines = done.stderr.decode(errors="replace").strip().splitlines()
    return f"the process ended with {done.returncode}" + (f": {lines[-1]}" if lines else "")


def cpu_features() -> list[str]:
    """The flags of `FLAGS` that this CPU has; empty where the system does not tell."""
    try:
        info = Path("/proc/cpuinfo").read_text("utf-8")
    except OSError:
        return []
    words = {word for line in info.splitlines() if line.startswith(("flags", "Features")) for word in line.split()}
    return [flag for flag in FLAGS if flag in words]


def memory_bytes() -> int | None:
    """Physical memory, where the system tells."""
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (ValueError, OSError, AttributeError):
        return None


def _missing() -> list[Finding]:
    return [
        Finding(
            code="env/missing-package",
            message=f"package {name} is not installed",
            where=name,
            hint=f"pip install '{name}', or install edgec again",
        )
        for name in CORE
        if version(name) is None
    ]


def _broken(runtimes: list[dict[str, Any]]) -> list[Finding]:
    return [
        Finding(
            code="env/runtime-broken",
            message=f"{runtime['runtime']} does not run a small model: {runtime['why']}",
            where=runtime["package"],
            hint=f"pip install --force-reinstall {runtime['package']}",
        )
        for runtime in runtimes
        if not runtime["ok"]
    ]


def _disk() -> list[Finding]:
    free = shutil.disk_usage(Path.cwd()).free
    if free >= LOW_DISK_BYTES:
        return []
    return [
        Finding(
            code="env/disk-low",
            message=f"only {free >> 20} MiB are free here",
            severity=Severity.WARNING,
            where=str(Path.cwd()),
            hint="free some space, or build with --output on another disk",
        )
    ]
