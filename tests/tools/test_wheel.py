"""The wheel is complete: what it installs has the data that the checkout has."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from edgec.targets.load import list_targets

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.slow
@pytest.mark.network
def test_targets_and_recipes_are_inside_the_wheel(tmp_path: Path) -> None:
    pip = [sys.executable, "-m", "pip", "--quiet"]
    subprocess.run([*pip, "wheel", "--no-deps", "--wheel-dir", str(tmp_path), str(ROOT)], check=True, timeout=300)
    (wheel,) = tmp_path.glob("edgec-*.whl")
    site = tmp_path / "site"
    subprocess.run([*pip, "install", "--no-deps", "--target", str(site), str(wheel)], check=True, timeout=300)

    recipes = {path.name for path in (ROOT / "calibration").glob("*.toml")}
    assert {path.name for path in (site / "edgec/_data/calibration").glob("*.toml")} == recipes
    listed = subprocess.run(
        [sys.executable, "-m", "edgec.cli.app", "targets", "list", "--json"],
        capture_output=True, check=True, timeout=60, cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(site)},
    )  # fmt: skip
    assert [row["name"] for row in json.loads(listed.stdout)["targets"]] == list(list_targets())
