"""TensorFlow for tests: the private environment that `make tensorflow` makes, and nets saved by it."""

from __future__ import annotations

import hashlib
import os
import subprocess
import tempfile
from pathlib import Path

import pytest

from edgec.frontends import _environments as environments

ROOT = Path(__file__).resolve().parents[2]
HOME = ROOT / ".cache" / "edgec"
SCRIPT = Path(__file__).with_name("keras_nets.py")


def use_tensorflow(monkeypatch: pytest.MonkeyPatch) -> str:
    """Let this test find TensorFlow's Python; returns its path. Skips where there is none."""
    if not os.environ.get("EDGEC_HOME"):
        monkeypatch.setenv("EDGEC_HOME", str(HOME))
    state = environments.state_of("tensorflow")
    if state not in ("here", "installed"):
        pytest.skip(f"TensorFlow is {state}: run `make tensorflow`")
    return environments.python_of("tensorflow", where="tests")[0]


def keras_nets(python: str, version: str) -> Path:
    """The folder with the nets of `keras_nets.py` as Keras 2 or 3 saves them; made once and kept."""
    stamp = hashlib.sha256(SCRIPT.read_bytes() + (environments._LISTS / "tensorflow.txt").read_bytes()).hexdigest()
    folder = ROOT / ".cache" / "keras-nets" / f"{stamp[:16]}-{version}"
    if not folder.is_dir():
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent) as beside:
            made = Path(beside) / "nets"
            made.mkdir()
            done = subprocess.run([python, "-P", str(SCRIPT), str(made), version], capture_output=True, text=True)
            assert done.returncode == 0, done.stderr[-2000:]
            try:
                made.rename(folder)
            except OSError:  # another worker was first
                assert folder.is_dir()
    return folder
