"""One part of a row in a process of its own: `python -m tools.accuracy_part material NAME COUNT`, or
`ours NAME TARGET PRECISION EFFORT`; for timing `more NAME COUNT FILE`, or `seconds NAME FILE`.

Every part leaves outputs (.npz, stacked by name) and facts (.json) in .cache/accuracy/NAME; figures are computed from
them when the page is made, so another figure needs no other run.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from edgec.errors import EdgecError
from edgec.frontends.base import load_source
from edgec.passes.pipelines import canonicalize
from edgec.pipeline import run_build
from edgec.quantization.data.samples import open_samples
from edgec.quantization.run.executor import Executor
from edgec.tensors import Array
from tools.acceptance import CASES, find_data, find_model
from tools.accuracy_more import more
from tools.accuracy_nets import NETS_ROWS
from tools.accuracy_rows import CACHE, LABELLED, Material
from tools.accuracy_samples import crops
from tools.accuracy_trained import TRAINED_ROWS
from tools.accuracy_unseen import UNSEEN
from tools.accuracy_wheels import WHEELS

MADE = {**LABELLED, **WHEELS, **TRAINED_ROWS, **UNSEEN, **NETS_ROWS}
#: Rows in the order of the page.
NAMES = (*LABELLED, *WHEELS, *TRAINED_ROWS, *(case.name for case in CASES), *UNSEEN, *NETS_ROWS)
#: Nets whose weights are drawn from a seed, beside those that say so of themselves.
_SEEDED = ("mobilenet_v2", "mobilenet_v3_small", "vit_tiny")
#: Samples that are upright and upside down by turns: every other pair calibrates, so that both sides have both.
_PAIRED = ("lines", "ocr")
#: Stages that quantize: what a quantizer without a compiler does too.
QUANTIZING = ("calibrate", "quantize", "repair")
#: NNCF's default number of samples; a build of ours asks for it by `--samples`.
MOST_SAMPLES = 300
#: What a build answers for: a net that is too large for the usual number of samples.
_FEWER = {"vit_tiny": 24, "mobilenet_v2": 32, "ocr_det": 16, "basic_pitch": 8}


def folder_of(name: str) -> Path:
    """Where a row's parts are."""
    return CACHE / "accuracy" / name


def save(path: Path, rows: Iterable[Mapping[str, Array]]) -> None:
    """Feeds or outputs as one file, complete or not there."""
    kept = list(rows)
    temporary = path.with_name(f".{os.getpid()}.{path.name}")
    stacked = {name: np.stack([row[name] for row in kept]) for name in kept[0]}
    np.savez(temporary, **stacked)  # type: ignore[arg-type]
    temporary.replace(path)


def load(path: Path) -> list[dict[str, Array]]:
    """What `save` wrote."""
    with np.load(path) as data:
        stacked = dict(data)
    return [{name: value[i] for name, value in stacked.items()} for i in range(len(next(iter(stacked.values()))))]


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """A JSON file, complete or not there."""
    temporary = path.with_name(f".{os.getpid()}.{path.name}")
    temporary.write_text(json.dumps(value))
    temporary.replace(path)


def material(name: str, count: int) -> Material:
    """A row's model and samples."""
    if name in MADE:
        return MADE[name]()
    case, count = next(case for case in CASES if case.name == name), _FEWER.get(name, count)
    model = canonicalize(load_source(find_model(case), inputs=case.inputs).model)
    with tempfile.TemporaryDirectory() as scratch:
        pictures = case.calibration.startswith("imagenet")
        data = f"{case.calibration}:{crops(2 * count)}" if pictures else find_data(case.calibration, Path(scratch))
        feeds = list(open_samples(data, model.inputs(), count=2 * count))
    together = 2 if case.calibration in _PAIRED else 1
    learn, judge = ([feed for i, feed in enumerate(feeds) if i // together % 2 == side] for side in (0, 1))
    return Material(model, learn, judge, trained=name not in _SEEDED)


def make_material(name: str, count: str) -> None:
    """The canonical float model, both sets of samples, and what the float model makes of one of them."""
    made, folder = material(name, int(count)), folder_of(name)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "model.onnx").write_bytes(made.model.to_bytes())
    save(folder / "calibration.npz", made.calibration)
    save(folder / "evaluation.npz", made.evaluation)
    executor = Executor(made.model)
    save(folder / "reference.npz", (executor.run(feed) for feed in made.evaluation))
    facts = {
        "samples": [len(made.calibration), len(made.evaluation)],
        "count": int(count),
        "labels": made.labels,
        "view": made.view,
        "trained": made.trained,
    }
    write_json(folder / "material.json", facts)


def make_ours(name: str, target: str, precision: str, effort: str) -> None:
    """The bundle that `edgec build` makes of the row's model and samples, and its outputs in the target's runtime."""
    folder = folder_of(name)
    with tempfile.TemporaryDirectory() as scratch:
        # statistics are calibrated anew, so that the seconds are all of them
        os.environ.setdefault("EDGEC_CACHE", scratch)
        built = run_build(
            folder / "model.onnx",
            target=target,
            precision=precision,
            calibration=folder / "calibration.npz",
            effort=effort,
            output=scratch,
            stop_after="bundle",
        )
        assert built.bundle is not None
        with built.bundle as bundle:
            outputs = [dict(bundle.run(feed)) for feed in load(folder / "evaluation.npz")]
    save(folder / f"edgec-{target}-{precision}.npz", outputs)
    kept = ("precision", "why", "ladder", "mixed", "nodes", "fidelity", "stages")
    facts = {key: built.summary[key] for key in kept if key in built.summary}
    codes = [f.code for f in built.findings]
    print(json.dumps({**facts, "findings": codes}))


def make_more(name: str, count: str, path: str) -> None:
    """At most so many samples to calibrate with, as one file; how many it has."""
    found = more(name, int(count), load_source(folder_of(name) / "model.onnx").model.inputs())
    save(Path(path), found)
    print(json.dumps({"samples": len(found)}))


def make_seconds(name: str, path: str) -> None:
    """Seconds that calibration with all samples of the file, the plan and the ladder take for OpenVINO."""
    with tempfile.TemporaryDirectory() as scratch:
        os.environ["EDGEC_CACHE"] = scratch
        stages = run_build(
            folder_of(name) / "model.onnx",
            target="intel-cpu",
            precision="int8",
            calibration=Path(path),
            samples=MOST_SAMPLES,
            output=scratch,
            stop_after="quantize",
        ).summary["stages"]
    print(json.dumps({"seconds": sum(stages.get(stage, 0.0) for stage in QUANTIZING)}))


#: What can be asked for: each takes the row's name and words of its own.
PARTS: dict[str, Callable[..., None]] = {
    "material": make_material,
    "ours": make_ours,
    "more": make_more,
    "seconds": make_seconds,
}


def main(part: str, *arguments: str) -> int:
    """Make the part; an error is one line on stderr and exit code 1."""
    import pytest

    try:
        PARTS[part](*arguments)
    except EdgecError as error:
        print(" ".join(error.render().split()), file=sys.stderr)
        return 1
    except (FileNotFoundError, pytest.skip.Exception) as error:
        print(str(error).splitlines()[0], file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main(*sys.argv[1:]))
