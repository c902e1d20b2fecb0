"""promtool and Prometheus: those on PATH, or the Debian package unpacked into .cache (nothing is installed)."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

_CACHE = Path(__file__).resolve().parents[2] / ".cache" / "prometheus"


def program(name: str) -> str:
    """`promtool` or `prometheus`; skips the test where it cannot be had."""
    found = shutil.which(name)
    if found:
        return found
    kept = _CACHE / "usr" / "bin" / name
    if not kept.is_file():
        _fetch()
    if not kept.is_file():
        pytest.skip(f"{name} is not on PATH, and Debian's package prometheus cannot be fetched here")
    return str(kept)


def _fetch() -> None:
    if shutil.which("apt-get") is None or shutil.which("dpkg-deb") is None:
        return
    _CACHE.parent.mkdir(parents=True, exist_ok=True)
    work = _CACHE.with_name(f"prometheus.{os.getpid()}.new")
    work.mkdir(exist_ok=True)
    try:
        subprocess.run(
            ["apt-get", "download", "-q", "prometheus"], cwd=work, capture_output=True, timeout=300, check=True
        )
        (package,) = work.glob("*.deb")
        subprocess.run(["dpkg-deb", "-x", package.name, "unpacked"], cwd=work, capture_output=True, check=True)
        if not _CACHE.exists():
            (work / "unpacked").rename(_CACHE)
    except (OSError, subprocess.SubprocessError, ValueError):  # no network, no such package; or another was faster
        return
    finally:
        shutil.rmtree(work, ignore_errors=True)
