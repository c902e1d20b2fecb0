"""Prometheus and promtool as Debian has them, unpacked: to scrape the agent and to check its alert rules."""

from __future__ import annotations

import platform
from pathlib import Path

from tools.devlab import debs
from tools.devlab.common import existing, prepared

#: Change it with whatever is made here.
RECIPE = "1"


def prepare() -> Path:
    """The folder `prometheus`, with usr/bin/prometheus and usr/bin/promtool."""
    return prepared("prometheus", RECIPE, _make)


def existing_prometheus() -> Path:
    """The prepared folder. Raises `UnavailableError`."""
    return existing("prometheus", RECIPE)


def _make(folder: Path) -> None:
    native = "arm64" if platform.machine() == "aarch64" else "amd64"
    debs.unpack(["prometheus"], folder, arch=native, release="bookworm", only=True)
