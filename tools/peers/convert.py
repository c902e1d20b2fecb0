"""One model through one converter: a .tflite file, or why there is none. Files are kept in `.cache/peers`."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tools.peers.cases import CACHE, ROOT, Case, source
from tools.peers.envs import Peer, PeerMissing, peer_python

_TIMEOUT_S = 1800


@dataclass(slots=True)
class Made:
    """A converter's product: its file, or why there is none; `facts` is what was measured while making it."""

    path: Path | None
    why: str = ""
    facts: dict[str, Any] = field(default_factory=dict)


def ours(case: Case) -> Made:
    """Compile with edgec in a process of its own, which measures itself."""
    path = CACHE / "peers" / "edgec" / f"{case.name}.tflite"
    path.parent.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "tools.peers.compile_one", str(source(case)), json.dumps(case.inputs), str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT, timeout=_TIMEOUT_S)
    if done.returncode:
        return Made(None, _last_line(done.stderr))
    return Made(path, facts=json.loads(done.stdout.splitlines()[-1]))


def theirs(peer: Peer, case: Case) -> Made:
    """The peer's float file of the case; a failure is remembered too, until the cache is cleared."""
    model = source(case)
    digest = hashlib.sha256(model.read_bytes()).hexdigest()[:12]
    path = CACHE / "peers" / f"{peer.name}-{peer.version}" / f"{case.name}-{digest}.tflite"
    failure = path.with_suffix(".txt")
    if path.exists():
        return Made(path)
    if failure.exists():
        return Made(None, failure.read_text())
    if peer.name == "litert-torch" and case.origin != "torch":
        return Made(None, "converts torch modules only")
    try:
        python = peer_python(peer)
    except PeerMissing as missing:
        return Made(None, str(missing))
    path.parent.mkdir(parents=True, exist_ok=True)
    convert = {"onnx2tf": _onnx2tf, "litert-torch": _litert_torch}[peer.name]
    try:
        why = convert(python, case, model, path)
    except subprocess.TimeoutExpired:
        why = f"not done after {_TIMEOUT_S} s"
    if not path.exists():
        failure.write_text(why)
        return Made(None, why)
    return Made(path)


def _onnx2tf(python: Path, case: Case, model: Path, path: Path) -> str:  # noqa: ARG001 # one signature for all
    # it calls onnxsim by name, which writes over the model it is given, and leaves other files beside its product
    environment = {**os.environ, "PATH": f"{python.parent}{os.pathsep}{os.environ['PATH']}"}
    with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryDirectory() as copies:
        copy = shutil.copy(model, copies)
        command = [str(python.parent / "onnx2tf"), "-i", str(copy), "-o", folder]
        done = subprocess.run(
            command, capture_output=True, text=True, check=False, env=environment, cwd=folder, timeout=_TIMEOUT_S
        )
        made = sorted(Path(folder).glob("*_float32.tflite"))
        if made:
            path.write_bytes(made[0].read_bytes())
        return _last_line(done.stdout + done.stderr)


def _litert_torch(python: Path, case: Case, model: Path, path: Path) -> str:  # noqa: ARG001 # one signature for all
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"}
    command = [str(python), "-m", "tools.peers.litert_torch_one", case.name, str(path)]
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, env=environment, cwd=ROOT, timeout=_TIMEOUT_S
    )
    return _last_line(done.stderr)


def _last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1][:200] if lines else "failed without a word"
