"""Build every acceptance model in float32, int8 and 16x8 for two targets, and hold each build against its bars.

`python tools/acceptance.py [--only NAME] [--effort fast] [--page FILE]` prints one row a build and exits 1 when a bar
is missed. Bars: float32 within 1e-4 of ONNX Runtime (or within what ONNX Runtime differs from itself with and without
its optimiser, where that is more: shown as "own spread"); int8 and 16x8 with 99 % of the output values within 2 steps
of the QDQ model and an SQNR to float within 0.5 dB of the QDQ model's; no transpose left in a convolutional model.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Case:
    """A model, its calibration data, input shapes it needs, and whether convolutions are all it has."""

    name: str
    find: tuple[str, str]
    calibration: str
    inputs: dict[str, tuple[int, ...]]
    convolutional: bool = True


CASES = (
    Case("efficientnet_lite0", ("zoo", "efficientnet_lite0/efficientnet_lite0_imagenet.onnx"), "imagenet-tf", {}),
    Case("resnet20_cifar10", ("zoo", "cifar_resnet/resnet20_cifar10.onnx"), "imagenet", {}),
    Case("ulfg_slim", ("zoo", "ulfg_face/version-slim-320.onnx"), "imagenet-tf", {}),
    Case("ulfg_rfb", ("zoo", "ulfg_face/version-RFB-320.onnx"), "imagenet-tf", {}),
    Case("basic_pitch", ("pypi", "basic_pitch"), "audio", {}),
    Case("ocr_cls", ("pypi", "ppocr_cls"), "lines", {"x": (1, 3, 48, 192)}),
    Case("ocr_det", ("pypi", "ppocr_det_v4"), "ocr", {"x": (1, 3, 320, 320)}),
    Case("mobilenet_v2", ("torch", "mobilenet_v2"), "imagenet", {}),
    Case("mobilenet_v3_small", ("torch", "mobilenet_v3_small"), "imagenet", {}),
    Case("vit_tiny", ("torch", "vit_tiny"), "imagenet", {}, convolutional=False),
)
#: (target, precision): LiteRT with XNNPACK, OpenVINO, and LiteRT's 16 bit kernels.
BUILDS = (
    ("raspberrypi", "float32"),
    ("raspberrypi", "int8"),
    ("raspberrypi", "int16x8"),
    ("intel-cpu", "float32"),
    ("intel-cpu", "int8"),
)


def find_model(case: Case) -> Path:
    """The model's file; skips (`pytest.skip.Exception`) naming what is missing."""
    from tests.support import models

    kind, name = case.find
    finders: dict[str, Callable[[str], Path]] = {
        "zoo": models.zoo,
        "pypi": models.pypi_model,
        "torch": models.exported,
    }
    return finders[kind](name)


def find_data(kind: str, folder: Path) -> str:
    """Calibration data: the zoo's pictures, printed text, scanned lines, or spoken digits as waveforms."""
    from tests.support import models

    if kind == "lines":
        from tools.demo import prepare

        return f"ocr:{prepare()[1]}"
    if kind == "ocr":
        return f"ocr:{printed_text(folder / 'text')}"
    if kind != "audio":
        return f"{kind}:{models.zoo('images')}"
    import numpy as np
    import soundfile

    clips = models.zoo("fsdd/fsdd_index.npz")
    sound, rate = soundfile.read(clips.with_name("fsdd_8k_concat.flac"), dtype="float32")
    wanted = np.arange(0, len(sound), rate / 22050)
    resampled = np.interp(wanted, np.arange(len(sound)), sound).astype(np.float32)
    windows = resampled[: 16 * 43844].reshape(16, 43844, 1)
    path = folder / "waveforms.npy"
    np.save(path, windows)
    return str(path)


def printed_text(folder: Path) -> Path:
    """32 pictures of three printed lines each, every other one upside down: what an OCR net is for."""
    import numpy as np
    from PIL import Image, ImageDraw, ImageFont

    rng = np.random.default_rng(0)
    folder.mkdir(exist_ok=True)
    words = ["edge", "device", "model", "compiler", "quantize", "float", "layout", "bundle", "runtime", "tensor"]
    for number in range(32):
        image = Image.new("RGB", (384, 96), tuple(int(c) for c in rng.integers(170, 256, 3)))
        draw = ImageDraw.Draw(image)
        for line in range(3):
            text = " ".join(rng.choice(words, 5))
            ink = tuple(int(c) for c in rng.integers(0, 90, 3))
            draw.text((int(rng.integers(2, 12)), 4 + 30 * line), text, fill=ink, font=ImageFont.load_default(22))
        if number % 2:
            image = image.rotate(180)
        image.save(folder / f"{number:02d}.png")
    return folder


def own_spread(model: Path, inputs: dict[str, tuple[int, ...]], feeds: list[dict[str, Any]]) -> float:
    """Largest relative difference between ONNX Runtime with and without its optimiser."""
    import onnxruntime as ort

    from edgec.frontends.base import load_source
    from edgec.metrics import relative_error

    content = load_source(model, inputs=inputs).model.to_bytes()
    sessions = []
    for level in (ort.GraphOptimizationLevel.ORT_DISABLE_ALL, ort.GraphOptimizationLevel.ORT_ENABLE_ALL):
        options = ort.SessionOptions()
        options.graph_optimization_level, options.log_severity_level = level, 3
        sessions.append(ort.InferenceSession(content, options, providers=["CPUExecutionProvider"]))
    pairs = [zip(*(s.run(None, feed) for s in sessions), strict=True) for feed in feeds]
    return max(relative_error(a, b) for outputs in pairs for a, b in outputs)


def rows(only: str | None, effort: str = "balanced", builds: Sequence[tuple[str, str]] = BUILDS) -> Iterator[Row]:
    """One row a build."""
    import pytest

    for case in CASES:
        if only and only not in case.name:
            continue
        try:
            model = find_model(case)
        except pytest.skip.Exception as error:
            yield {"model": case.name, "misses": [f"not run: {error}"], "skipped": True}
            continue
        for target, precision in builds:
            row = {"model": case.name, "target": target, "precision": precision}
            yield {**row, **built(case, model, target, precision, effort)}


def built(case: Case, model: Path, target: str, precision: str, effort: str) -> Row:
    """What one build and its validation give."""
    from edgec.errors import EdgecError
    from edgec.pipeline import run_build

    with tempfile.TemporaryDirectory() as folder:
        try:
            result = run_build(
                model,
                target=target,
                calibration=find_data(case.calibration, Path(folder)),
                precision=precision,
                effort=effort,
                inputs=case.inputs,
                output=folder,
            )
        except EdgecError as error:
            return {"misses": [error.render().splitlines()[0]]}
        assert result.bundle is not None
        return judge(result.bundle, result.summary, case, precision, model)


def judge(bundle: Any, summary: dict[str, Any], case: Case, precision: str, model: Path) -> Row:
    """Figures of one build and the bars it misses."""
    from edgec.runners.validate import validate_bundle

    with bundle:
        goldens = bundle.goldens()
        checks = validate_bundle(bundle, runs=0)
    misses = [f"{f.code}: {f.message}" for f in checks.findings if f.severity == "error"]
    error = max(c.relative_error for c in checks.outputs)
    fidelity = summary["fidelity"]
    within = [a["within_2"] for a in summary["agreement"].values()]
    spread = None
    if precision == "float32" and error > 1e-4:
        spread = own_spread(model, case.inputs, [dict(g.inputs) for g in goldens])
        if error > spread:
            misses.append(f"relative error {error:.1e} over 1e-4")
    if precision != "float32":
        if within and min(within) < 0.99:
            misses.append(f"only {100 * min(within):.2f} % within 2 steps")
        drop = (fidelity["reference_sqnr_db"] or 0) - (fidelity["sqnr_db"] or 0)
        if drop > 0.5:
            misses.append(f"SQNR {drop:.2f} dB below the QDQ model's")
    # OpenVINO plans its own layouts: what an IR has are the source model's own transposes
    if case.convolutional and summary["transposes"] and summary["backend"] == "tflite":
        misses.append(f"{summary['transposes']} transposes left")
    return {
        "relative error": f"{error:.1e}",
        "own spread": spread,
        "SQNR dB": fidelity["sqnr_db"],
        "QDQ SQNR dB": fidelity["reference_sqnr_db"],
        "within 2 steps": min(within) if within else None,
        "transposes": summary["transposes"],
        "operators": summary["operator_count"],
        "median ms": (summary.get("latency") or {}).get("median_ms"),
        "misses": misses,
    }


def page(done: Sequence[Row], effort: str) -> str:
    """The quantized builds as a page: how far each runtime is from the QDQ model that it was emitted from."""
    lines = [
        "# The same numbers in every runtime",
        "",
        f"Written by `python tools/acceptance.py --effort {effort} --page docs/agreement.md`. Each model is quantized and",
        "emitted for LiteRT (int8 by XNNPACK, 16x8 by its own kernels) and OpenVINO, and run there on judging samples. Bars:",
        "99 % of the output values within 2 steps of the QDQ model in ONNX Runtime, and an SQNR to the float model within",
        "0.5 dB of the QDQ model's. A step is the output's own scale, or a 255th of its range where it is left in float.",
        "",
        "| model | target | precision | within 2 steps | SQNR, dB | of the QDQ model, dB | bars |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for row in done:
        if row.get("skipped"):
            lines.append(f"| {row['model']} | | | | | | {'; '.join(row['misses'])} |")
        elif row["precision"] != "float32":
            within = row.get("within 2 steps")
            cells = [
                *(row[k] for k in ("model", "target", "precision")),
                "" if within is None else f"{100 * within:.2f} %",
                *("" if row.get(k) is None else f"{row[k]:.2f}" for k in ("SQNR dB", "QDQ SQNR dB")),
                "; ".join(row["misses"]) or "hold",
            ]
            lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def main() -> int:
    """Print the table as it grows; 1 when a bar is missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", help="models whose name contains this")
    parser.add_argument("--effort", default="balanced", help="fast, balanced or max: how far int8 is repaired")
    parser.add_argument("--quantized", action="store_true", help="leave the float32 builds out")
    parser.add_argument("--json", type=Path, help="write the rows there")
    parser.add_argument("--page", type=Path, help="write the quantized builds there, as Markdown")
    arguments = parser.parse_args()
    builds = [b for b in BUILDS if not (arguments.quantized and b[1] == "float32")]
    done, missed = [], 0
    for row in rows(arguments.only, arguments.effort, builds):
        done.append(row)
        verdict = "skip" if row.get("skipped") else "MISS" if row["misses"] else "ok"
        missed += verdict == "MISS"
        figures = ", ".join(f"{k} {v}" for k, v in row.items() if k not in ("model", "target", "precision", "misses"))
        where = f"{row['model']:20} {row.get('target', ''):12} {row.get('precision', ''):8}"
        print(f"{verdict:4} {where} {figures}", *row["misses"], sep="  ", flush=True)
    if arguments.json:
        arguments.json.write_text(json.dumps(done, indent=1) + "\n")
    if arguments.page:
        arguments.page.write_text(page(done, arguments.effort))
    print(f"{len(done)} builds, {missed} with a bar missed")
    return 1 if missed else 0


if __name__ == "__main__":
    raise SystemExit(main())
