"""Int8 accuracy against the peers: same model, same calibration samples, same evaluation samples, one run.

`python -m tools.accuracy [--rows NAME…] [--samples N] [--write]` prints the table; `--write` makes docs/accuracy.md of
all rows that are there (`--rows` without a name makes none). Each row is kept in .cache/accuracy/rows as it is done,
so the table can be made in pieces; `--fresh` makes rows again.
Samples are crops of the zoo's pictures, text or speech: the even ones calibrate, the odd ones evaluate, so the crops
are held out but the pictures are not. All peers are given the canonical float model (fixed shapes, a recent opset).
"""

from __future__ import annotations

import argparse
import datetime as dt
import functools
import hashlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from edgec.backends.base import CompileOptions, load_backend
from edgec.errors import EdgecError
from edgec.frontends.base import load_source
from edgec.graph.model import Model
from edgec.metrics import sqnr_db, top1_agreement
from edgec.passes.pipelines import canonicalize
from edgec.pipeline.precision import backend_facts
from edgec.quantization.calibrate import calibrate
from edgec.quantization.even import evener
from edgec.quantization.executor import Executor
from edgec.quantization.ladder import Climb, Effort, climb
from edgec.quantization.plan import make_plan, tensors_to_observe
from edgec.quantization.range_choice import RangeMethod
from edgec.quantization.samples import open_samples
from edgec.quantization.types import QuantPlan, Statistics
from edgec.runners.base import run_artifact
from edgec.targets.load import load_target
from edgec.tensors import Array
from tools.acceptance import CASES, find_data, find_model
from tools.accuracy_page import PEERS, TARGETS, page
from tools.accuracy_rows import LABELLED, Material
from tools.accuracy_wheels import WHEELS

ROOT = Path(__file__).resolve().parent.parent
CACHE = ROOT / ".cache"
CROPS_A_PICTURE = 16
SIZE = 256

MADE = {**LABELLED, **WHEELS}
#: Rows in the order of the page.
NAMES = (*MADE, *(case.name for case in CASES))

_TIMEOUT_S = 900

Feeds = list[dict[str, Array]]
Outputs = Sequence[dict[str, Array]]


def crops(count: int) -> Path:
    """A folder of crops of the zoo's pictures, the same every time."""
    from PIL import Image

    from tests.support import models

    folder = CACHE / "accuracy" / f"crops-{count}"
    if folder.exists():
        return folder
    pictures = sorted(
        p for p in models.zoo("images").iterdir() if p.suffix in (".bmp", ".jpg") and "mask" not in p.stem
    )
    rng = np.random.default_rng(0)
    temporary = folder.with_suffix(".part")
    temporary.mkdir(parents=True, exist_ok=True)
    for i in range(count):
        picture = Image.open(pictures[i % len(pictures)]).convert("RGB")
        side = int(min(picture.size) * rng.uniform(0.35, 1))
        x, y = (int(rng.integers(0, extent - side + 1)) for extent in picture.size)
        crop = picture.crop((x, y, x + side, y + side)).resize((SIZE, SIZE), Image.Resampling.BICUBIC)
        crop.save(temporary / f"{i:04d}.png")
    temporary.rename(folder)
    return folder


class Samples:
    """Feeds in memory, as calibration takes them."""

    findings = ()

    def __init__(self, feeds: Feeds, digest: str) -> None:
        self.feeds, self.digest, self.count = feeds, digest, len(feeds)

    def __len__(self) -> int:
        return len(self.feeds)

    def __iter__(self) -> Any:
        return iter(self.feeds)


def measure(reference: Outputs, outputs: Outputs, labels: Sequence[int] = ()) -> dict[str, Any]:
    """SQNR of the worst output, top-1 agreement where that means something, and the share of labels that is met."""
    names = [name for name, value in reference[0].items() if value.dtype.kind == "f"]
    stacked = {name: (np.stack([r[name] for r in reference]), np.stack([o[name] for o in outputs])) for name in names}
    tops = [t for r, o in stacked.values() if r.ndim == 3 and (t := top1_agreement(r[:, 0], o[:, 0])) is not None]
    return {
        "dB": round(min(sqnr_db(r, o) for r, o in stacked.values()), 1),
        "top-1": round(100 * min(tops), 1) if tops else None,
        "right": _right(outputs, names[0], labels) if labels else None,
    }


def _right(outputs: Outputs, name: str, labels: Sequence[int]) -> float:
    """Percent of the samples whose largest score is the label's."""
    found = [int(o[name].argmax()) for o in outputs]
    return round(100 * float(np.mean([f == label for f, label in zip(found, labels, strict=True)])), 1)


def ours(model: Model, target_name: str, data: Samples, evaluation: Feeds, effort: Effort) -> tuple[Outputs, Climb]:
    """Outputs of our int8 artifact in the target's own runtime."""
    target = load_target(target_name)
    name, facts = backend_facts(target, None)
    backend = load_backend(name)
    legal = backend.legalize(model, target, "int8")
    wanted = tensors_to_observe(legal, facts.scheme, precision="int8", backend=name)
    stats = calibrate(legal, data, tensors=wanted)

    def make(of: Model, seen: Statistics | None, method: RangeMethod) -> QuantPlan:
        return make_plan(of, seen, target, name, "int8", range_method=method)

    even = evener(legal, stats, data)
    bits = facts.scheme.weight_bits
    found = climb(legal, make, stats, data.feeds, effort=effort, weight_bits=bits, even=even)
    artifact = backend.compile(found.model, target, CompileOptions(precision="int8", io_layout="auto"))
    raw = run_artifact(
        artifact, [{b.artifact.name: b.to_artifact(f[b.source.name]) for b in artifact.inputs} for f in evaluation]
    )
    return [{b.source.name: b.to_source(r[b.artifact.name]) for b in artifact.outputs} for r in raw], found


def theirs(peer: str, folder: Path, names: Sequence[str]) -> Outputs:
    """Outputs of a peer's int8 model. Raises RuntimeError with its last line when it fails."""
    python = CACHE / "venvs" / "peers" / "bin" / "python"
    if not python.exists():
        _install(python)
    script = ROOT / "tools" / "peers" / "quantize_one.py"
    files = [str(folder / f) for f in ("model.onnx", "calibration.npz", "evaluation.npz", f"{peer}.npz")]
    environment = {**os.environ, "OMP_NUM_THREADS": "2"}
    done = subprocess.run(
        [str(python), str(script), peer, *files],
        capture_output=True, text=True, check=False, timeout=_TIMEOUT_S, env=environment, cwd=folder,
    )  # fmt: skip
    if done.returncode:
        raise RuntimeError((done.stderr.strip().splitlines() or ["it failed"])[-1][-120:])
    with np.load(folder / f"{peer}.npz") as data:
        stacked = dict(data)
    return [{name: stacked[name][i] for name in names} for i in range(len(stacked[names[0]]))]


def _install(python: Path) -> None:
    subprocess.run([sys.executable, "-m", "venv", str(python.parents[1])], check=True)
    packages = ["nncf", "openvino", "onnx", "onnxruntime"]
    subprocess.run([str(python), "-m", "pip", "install", "--quiet", *packages], check=True)


def material(name: str, count: int) -> Material:
    """A row's model and samples."""
    if name in MADE:
        return MADE[name]()
    case = next(case for case in CASES if case.name == name)
    model = canonicalize(load_source(find_model(case), inputs=case.inputs).model)
    with tempfile.TemporaryDirectory() as scratch:
        pictures = case.calibration.startswith("imagenet")
        data = f"{case.calibration}:{crops(2 * count)}" if pictures else find_data(case.calibration, Path(scratch))
        feeds = list(open_samples(data, model.inputs(), count=2 * count))
    return Material(model, feeds[0::2], feeds[1::2])


def row(name: str, count: int, effort: Effort, peers: Sequence[str]) -> dict[str, Any]:
    """All figures of one model."""
    made = material(name, count)
    model, calibration, evaluation = made.model, made.calibration, made.evaluation
    folder = CACHE / "accuracy" / name
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "model.onnx").write_bytes(model.to_bytes())
    sha = hashlib.sha256()
    for part_name, part in (("calibration", calibration), ("evaluation", evaluation)):
        np.savez(folder / f"{part_name}.npz", **{k: np.stack([f[k] for f in part]) for k in part[0]})  # type: ignore[arg-type]
    for feed in calibration:
        for value in feed.values():
            sha.update(value.tobytes())
    executor = Executor(model)
    reference = [executor.run(feed) for feed in evaluation]
    result: dict[str, Any] = {"model": name, "samples": [len(calibration), len(evaluation)], "effort": effort}
    if made.labels:
        result["float"] = measure(reference, reference, made.labels)["right"]
    for target in TARGETS:
        start = time.perf_counter()
        try:
            outputs, found = ours(model, target, Samples(calibration, sha.hexdigest()), evaluation, effort)
        except EdgecError as error:
            failed = error.render().splitlines()[0]
            result[f"edgec {target}"] = {"dB": None, "top-1": None, "right": None, "error": failed, "ladder": []}
            continue
        seconds = round(time.perf_counter() - start, 1)
        rungs = [rung.as_dict() for rung in found.rungs]
        figures = measure(reference, outputs, made.labels)
        result[f"edgec {target}"] = {**figures, "seconds": seconds, "ladder": rungs}
    for peer in peers:
        start = time.perf_counter()
        try:
            found_outputs = theirs(peer, folder, [o.name for o in model.outputs()])
            figures = measure(reference, found_outputs, made.labels)
            result[peer] = {**figures, "seconds": round(time.perf_counter() - start, 1)}
        except (RuntimeError, subprocess.TimeoutExpired, KeyError) as error:
            result[peer] = {"dB": None, "top-1": None, "right": None, "error": str(error)}
    return result


def _kept_at(name: str) -> Path:
    return CACHE / "accuracy" / "rows" / f"{name}.json"


def kept_row(name: str, make: Callable[[], dict[str, Any]], *, fresh: bool) -> dict[str, Any]:
    """A row from .cache/accuracy/rows, or made and put there."""
    path = _kept_at(name)
    if path.exists() and not fresh:
        kept: dict[str, Any] = json.loads(path.read_text())
        return kept
    made = {**make(), "date": f"{dt.datetime.now(dt.UTC):%Y-%m-%d}"}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(made))
    return made


def main() -> int:
    """Print rows as they come, and the table."""
    import pytest

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", "--only", nargs="*", help="models whose name contains one of these")
    parser.add_argument("--fresh", action="store_true", help="make rows again that are there")
    parser.add_argument("--samples", type=int, default=50, help="to calibrate, and as many to evaluate")
    parser.add_argument("--effort", choices=("fast", "balanced", "max"), default="balanced")
    parser.add_argument("--peers", nargs="*", default=list(PEERS))
    parser.add_argument("--write", action="store_true", help="write docs/accuracy.md")
    arguments = parser.parse_args()
    done: list[dict[str, Any]] = []
    for name in NAMES:
        if arguments.rows is not None and not any(part in name for part in arguments.rows):
            continue
        make = functools.partial(row, name, arguments.samples, arguments.effort, arguments.peers)
        try:
            done.append(kept_row(name, make, fresh=arguments.fresh))
        except (EdgecError, FileNotFoundError, pytest.skip.Exception) as error:
            print(f"{name}: {error}", flush=True)
            continue
        print(json.dumps(done[-1]), flush=True)
    if arguments.write:
        done = [json.loads(path.read_text()) for n in NAMES if (path := _kept_at(n)).exists()]
    text = page(
        done, NAMES, "make accuracy" if arguments.write else "python -m tools.accuracy " + " ".join(sys.argv[1:])
    )
    print(text)
    if arguments.write:
        (ROOT / "docs" / "accuracy.md").write_text(text)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
