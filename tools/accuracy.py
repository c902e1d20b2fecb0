"""Int8 accuracy against the peers: same model, same calibration samples, same evaluation samples, one run.

`python -m tools.accuracy [--only NAME] [--samples N] [--write]` prints the table; `--write` makes it docs/accuracy.md.
Samples are crops of the zoo's pictures, text or speech: the even ones calibrate, the odd ones evaluate, so the crops
are held out but the pictures are not. All peers are given the canonical float model (fixed shapes, a recent opset).
"""

from __future__ import annotations

import argparse
import datetime as dt
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
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
from tools.acceptance import CASES, Case, find_data, find_model

ROOT = Path(__file__).resolve().parent.parent
CACHE = ROOT / ".cache"
CROPS_A_PICTURE = 16
SIZE = 256

PEERS = ("onnxruntime", "nncf", "nncf-transformer")
TARGETS = ("raspberrypi", "intel-cpu")
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


def measure(reference: Outputs, outputs: Outputs) -> dict[str, Any]:
    """SQNR of the worst output, and top-1 agreement where that means something."""
    names = [name for name, value in reference[0].items() if value.dtype.kind == "f"]
    stacked = {name: (np.stack([r[name] for r in reference]), np.stack([o[name] for o in outputs])) for name in names}
    tops = [t for r, o in stacked.values() if r.ndim == 3 and (t := top1_agreement(r[:, 0], o[:, 0])) is not None]
    return {
        "dB": round(min(sqnr_db(r, o) for r, o in stacked.values()), 1),
        "top-1": round(100 * min(tops), 1) if tops else None,
    }


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


def row(case: Case, count: int, effort: Effort, peers: Sequence[str]) -> dict[str, Any]:
    """All figures of one model."""
    model = canonicalize(load_source(find_model(case), inputs=case.inputs).model)
    with tempfile.TemporaryDirectory() as scratch:
        pictures = case.calibration.startswith("imagenet")
        data = f"{case.calibration}:{crops(2 * count)}" if pictures else find_data(case.calibration, Path(scratch))
        source = open_samples(data, model.inputs(), count=2 * count)
        feeds, digest = list(source), source.digest
    calibration, evaluation = feeds[0::2], feeds[1::2]
    folder = CACHE / "accuracy" / case.name
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "model.onnx").write_bytes(model.to_bytes())
    for name, part in (("calibration", calibration), ("evaluation", evaluation)):
        np.savez(folder / f"{name}.npz", **{k: np.stack([f[k] for f in part]) for k in part[0]})  # type: ignore[arg-type]
    executor = Executor(model)
    reference = [executor.run(feed) for feed in evaluation]
    result: dict[str, Any] = {"model": case.name}
    for target in TARGETS:
        start = time.perf_counter()
        outputs, found = ours(model, target, Samples(calibration, digest + "even"), evaluation, effort)
        seconds = round(time.perf_counter() - start, 1)
        rungs = [rung.as_dict() for rung in found.rungs]
        result[f"edgec {target}"] = {**measure(reference, outputs), "seconds": seconds, "ladder": rungs}
    for peer in peers:
        start = time.perf_counter()
        try:
            found_outputs = theirs(peer, folder, [o.name for o in model.outputs()])
            result[peer] = {**measure(reference, found_outputs), "seconds": round(time.perf_counter() - start, 1)}
        except (RuntimeError, subprocess.TimeoutExpired, KeyError) as error:
            result[peer] = {"dB": None, "top-1": None, "error": str(error)}
    return result


def page(rows: Sequence[dict[str, Any]], command: str) -> str:
    """The table as Markdown."""
    columns = [f"edgec {t}" for t in TARGETS] + list(PEERS)
    lines = [
        "# Int8 accuracy against the peers",
        "",
        f"Written by `{command}` on {dt.datetime.now(dt.UTC):%Y-%m-%d}; do not edit.",
        "",
        "SQNR in dB to the float model in ONNX Runtime, then top-1 agreement in percent where the output is classes.",
        "Crops of the zoo's pictures, text or speech: the even ones calibrate, the odd ones evaluate. edgec's",
        "figures are of the artifact's outputs in the target's runtime (LiteRT with XNNPACK, OpenVINO);",
        "`nncf` is its default, `nncf-transformer` needs a flag of the user's.",
        "",
        "| model | " + " | ".join(columns) + " |",
        "|---" * (len(columns) + 1) + "|",
    ]
    lines += [f"| {r['model']} | " + " | ".join(_cell(r.get(c)) for c in columns) + " |" for r in rows]
    lines += [
        "",
        "## What the repair ladder did",
        "",
        "dB on the judging samples after each rung; (…) was not kept.",
        "",
    ]
    for r in rows:
        for target in TARGETS:
            rungs = r.get(f"edgec {target}", {}).get("ladder", [])
            said = [f"{x['rung']} {x['after_db']}" for x in rungs]
            kept = [text if x["kept"] else f"({text})" for text, x in zip(said, rungs, strict=True)]
            lines.append(f"- {r['model']}, {target}: {', '.join(kept)}; {r[f'edgec {target}']['seconds']} s in all")
    return "\n".join(lines) + "\n"


def _cell(entry: dict[str, Any] | None) -> str:
    if entry is None:
        return "–"
    if entry["dB"] is None:
        return f"fails: {entry['error'][:60]}"
    return f"{entry['dB']}" + (f" / {entry['top-1']}" if entry["top-1"] is not None else "")


def main() -> int:
    """Print rows as they come, and the table."""
    import pytest

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", nargs="*", help="models whose name contains one of these")
    parser.add_argument("--samples", type=int, default=50, help="to calibrate, and as many to evaluate")
    parser.add_argument("--effort", choices=("fast", "balanced", "max"), default="balanced")
    parser.add_argument("--peers", nargs="*", default=list(PEERS))
    parser.add_argument("--write", action="store_true", help="write docs/accuracy.md")
    arguments = parser.parse_args()
    done: list[dict[str, Any]] = []
    for case in CASES:
        if arguments.only and not any(part in case.name for part in arguments.only):
            continue
        try:
            done.append(row(case, arguments.samples, arguments.effort, arguments.peers))
        except (EdgecError, pytest.skip.Exception) as error:
            print(f"{case.name}: {error}", flush=True)
            continue
        print(json.dumps(done[-1]), flush=True)
    text = page(done, "python -m tools.accuracy " + " ".join(sys.argv[1:]))
    print(text)
    if arguments.write:
        (ROOT / "docs" / "accuracy.md").write_text(text)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
