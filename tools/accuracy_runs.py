"""What the accuracy table runs, each in a process of its own with a time limit, and what is kept of it.

A peer's outputs are kept under its version and the digest of model and samples; edgec's under the digest of the code
that quantizes and emits. The float model's outputs belong to the material and are made with it.
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tools.accuracy_part import folder_of, write_json
from tools.accuracy_samples import CACHE
from tools.peers.convert import _onnx2tf
from tools.peers.envs import PEERS as CONVERTERS
from tools.peers.envs import PeerMissing, peer_python

ROOT = Path(__file__).resolve().parent.parent
SCRIPTS = ROOT / "tools" / "peers"
#: Packages of edgec that a quantized artifact's outputs come from.
CODE = ("backends", "graph", "passes", "pipeline", "quantization", "targets", "tensors.py")
OURS_TIMEOUT_S, PEER_TIMEOUT_S, MATERIAL_TIMEOUT_S = 1800, 1800, 900
LITERT = "litert-quantizer"


@functools.cache
def code_digest() -> str:
    """Changes with the code that quantizes and emits, and with every target."""
    sha = hashlib.sha256()
    for place in CODE:
        found = ROOT / "edgec" / place
        for path in [found] if found.is_file() else sorted(found.rglob("*.py")):
            sha.update(path.read_bytes())
    for path in sorted((ROOT / "targets").rglob("*.toml")):
        sha.update(path.read_bytes())
    return sha.hexdigest()[:12]


def hurried(facts: Mapping[str, Any]) -> bool:
    """Whether a part only ran out of time, which a quieter machine may have more of."""
    return str(facts.get("error", "")).startswith("not done after")


def facts_of(name: str, part: str) -> dict[str, Any] | None:
    """What is kept of a part; None where there is nothing."""
    path = folder_of(name) / f"{part}.json"
    return dict(json.loads(path.read_text())) if path.exists() else None


def make_material(name: str, count: int) -> str:
    """The row's model, samples and float outputs; what went wrong, or nothing."""
    return _run([sys.executable, "-m", "tools.accuracy_part", "material", name, str(count)], MATERIAL_TIMEOUT_S)[1]


def make_ours(name: str, target: str, precision: str, effort: str) -> dict[str, Any]:
    """A build of ours: its facts, kept beside its outputs."""
    start = time.perf_counter()
    command = [sys.executable, "-m", "tools.accuracy_part", "ours", name, target, precision, effort]
    said, why = _run(command, OURS_TIMEOUT_S)
    facts: dict[str, Any] = {"error": why} if why else json.loads(said)
    facts |= {"code": code_digest(), "effort": effort, "seconds": round(time.perf_counter() - start, 1)}
    facts["material"] = material_digest(name)
    write_json(folder_of(name) / f"edgec-{target}-{precision}.json", facts)
    return facts


def make_peer(name: str, peer: str) -> dict[str, Any]:
    """A peer's int8 model of the row's float model: its facts, kept beside its outputs."""
    folder, start = folder_of(name), time.perf_counter()
    try:
        said, why = _litert(folder) if peer == LITERT else _run(_quantize_one(folder, peer), PEER_TIMEOUT_S)
    except (OSError, PeerMissing, subprocess.TimeoutExpired) as error:
        said, why = "", str(error)
    facts: dict[str, Any] = {"error": why} if why else {"quantize_s": json.loads(said.splitlines()[-1])["seconds"]}
    facts |= {"key": peer_key(name, peer), "seconds": round(time.perf_counter() - start, 1)}
    write_json(folder / f"{peer}.json", facts)
    return facts


def seconds_of(name: str, calibration: Path, *, nncf: bool) -> float | None:
    """Seconds to quantize the row's model with these samples, now: by NNCF's default, or by edgec; None if it fails."""
    if nncf:
        model, script = folder_of(name) / "model.onnx", SCRIPTS / "quantize_one.py"
        command = [str(_python("nncf")), str(script), "nncf", str(model), str(calibration), "-", "-"]
    else:
        command = [sys.executable, "-m", "tools.accuracy_part", "seconds", name, str(calibration)]
    said, why = _run(command, PEER_TIMEOUT_S)
    return None if why else float(json.loads(said.splitlines()[-1])["seconds"])


def make_more(name: str, count: int, path: Path) -> int:
    """At most so many samples of a row in one file; how many it has, none where there was no making them."""
    command = [sys.executable, "-m", "tools.accuracy_part", "more", name, str(count), str(path)]
    said, why = _run(command, MATERIAL_TIMEOUT_S)
    return 0 if why else int(json.loads(said.splitlines()[-1])["samples"])


def material_digest(name: str) -> str:
    """Of the model and both sets of samples."""
    return "-".join(_digest(folder_of(name) / f) for f in ("model.onnx", "calibration.npz", "evaluation.npz"))


def peer_key(name: str, peer: str) -> str:
    """Under what a peer's outputs are kept: its version, the model and the samples."""
    return f"{_version(peer)} {material_digest(name)}"


def install(python: Path) -> None:
    """The environment of ONNX Runtime's quantizer and NNCF, under .cache/venvs."""
    subprocess.run([sys.executable, "-m", "venv", str(python.parents[1])], check=True)
    packages = ["nncf", "openvino", "onnx", "onnxruntime"]
    subprocess.run([str(python), "-m", "pip", "install", "--quiet", *packages], check=True)


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()[:8]


def _python(peer: str) -> Path:
    if peer == LITERT:
        return peer_python(next(c for c in CONVERTERS if c.name == "litert-torch"))
    python = CACHE / "venvs" / "peers" / "bin" / "python"
    if not python.exists():
        install(python)
    return python


@functools.cache
def _version(peer: str) -> str:
    """Of the package that quantizes, as its own environment has it."""
    package = {"onnxruntime": "onnxruntime", LITERT: "ai-edge-quantizer"}.get(peer, "nncf")
    script = f"import importlib.metadata as m; print(m.version({package!r}))"
    found = subprocess.run([str(_python(peer)), "-c", script], capture_output=True, text=True, check=False)
    return f"{package} {found.stdout.strip()}"


def _quantize_one(folder: Path, peer: str) -> list[str]:
    files = [str(folder / f) for f in ("model.onnx", "calibration.npz", "evaluation.npz", f"{peer}.npz")]
    return [str(_python(peer)), str(SCRIPTS / "quantize_one.py"), peer, *files]


def _litert(folder: Path) -> tuple[str, str]:
    """LiteRT's quantizer on the float file that onnx2tf makes of the model."""
    python = _python(LITERT)
    plain, quantized = folder / "onnx2tf.tflite", folder / "litert-quantizer.tflite"
    for path in (plain, quantized):
        path.unlink(missing_ok=True)
    converter = next(c for c in CONVERTERS if c.name == "onnx2tf")
    said = _onnx2tf(peer_python(converter), None, folder / "model.onnx", plain)  # type: ignore[arg-type]  # it asks nothing of the case
    if not plain.exists():
        return "", f"onnx2tf: {said}"
    files = [plain, folder / "calibration.npz", quantized, folder / "evaluation.npz", folder / "reference.npz"]
    script = [str(python), str(SCRIPTS / "litert_quantize_one.py"), *map(str, files), str(folder / f"{LITERT}.npz")]
    return _run(script, PEER_TIMEOUT_S)


def _run(command: Sequence[str], timeout_s: float) -> tuple[str, str]:
    """What it said, and what went wrong."""
    environment = {**os.environ, "JAX_PLATFORMS": "cpu", "PYTHONWARNINGS": "ignore"}
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, check=False, timeout=timeout_s, env=environment, cwd=ROOT
        )
    except subprocess.TimeoutExpired:
        return "", f"not done after {timeout_s:.0f} s"
    if done.returncode:
        return "", (done.stderr.strip().splitlines() or [f"it ended with {done.returncode}"])[-1][:300]
    return done.stdout, ""
