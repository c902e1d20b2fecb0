"""Build every acceptance model in float32, int8 and 16x8 for two targets, and hold each build against its bars.

`python tools/acceptance.py [--only NAME] [--effort fast] [--page FILE]` prints one row a build and exits 1 when a bar
is missed. Bars: float32 within 1e-4 of ONNX Runtime (or within what ONNX Runtime differs from itself with and without
its optimiser, where that is more: shown as "own spread"); int8 and 16x8 with 99 % of the output values within 2 steps
of the QDQ model (or as many as ONNX Runtime itself has with and without its optimiser, where that is fewer, or 16x8
more of them within 2 steps of exact arithmetic than ONNX Runtime has) and an SQNR to float within 0.5 dB of the QDQ
model's; no transpose left in a convolutional model.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import itertools
import json
import math
import sys
import tempfile
import textwrap
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
WITHIN_BAR = 0.99
#: Samples that show how ONNX Runtime differs from itself: as many as judge a build.
JUDGING = 100
#: Standard error of a noise power in dB, times √(values that it is the mean of): 10/ln 10 · √2.
NOISE_DB = 6.14
#: Why a row with fewer than 99 % holds; these words stand in the page's last column.
OWN, NEARER = "as ONNX Runtime itself", "nearer to exact arithmetic"
#: Whose versions the page names.
RUNTIMES = ("onnxruntime", "ai-edge-litert", "openvino")
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


def find_data(kind: str, folder: Path, count: int | None = None) -> str:
    """Calibration data: the zoo's pictures, scanned lines, or as many as asked for of printed texts or waveforms."""
    from tests.support import models

    if kind == "lines":
        from tools.demo import prepare

        return f"ocr:{prepare()[1]}"
    if kind == "ocr":
        return f"ocr:{printed_text(folder / 'text', count or 32)}"
    if kind != "audio":
        return f"{kind}:{models.zoo('images')}"
    import numpy as np
    import soundfile

    clips = models.zoo("fsdd/fsdd_index.npz")
    sound, rate = soundfile.read(clips.with_name("fsdd_8k_concat.flac"), dtype="float32")
    wanted = np.arange(0, len(sound), rate / 22050)
    resampled = np.interp(wanted, np.arange(len(sound)), sound).astype(np.float32)
    kept = min(count or 16, len(resampled) // 43844)
    windows = resampled[: kept * 43844].reshape(kept, 43844, 1)
    path = folder / "waveforms.npy"
    np.save(path, windows)
    return str(path)


def printed_text(folder: Path, count: int = 32) -> Path:
    """Pictures of three printed lines each, every other one upside down: what an OCR net is for."""
    import numpy as np
    from PIL import Image, ImageDraw, ImageFont

    rng = np.random.default_rng(0)
    folder.mkdir(exist_ok=True)
    words = ["edge", "device", "model", "compiler", "quantize", "float", "layout", "bundle", "runtime", "tensor"]
    for number in range(count):
        image = Image.new("RGB", (384, 96), tuple(int(c) for c in rng.integers(170, 256, 3)))
        draw = ImageDraw.Draw(image)
        for line in range(3):
            text = " ".join(rng.choice(words, 5))
            ink = tuple(int(c) for c in rng.integers(0, 90, 3))
            draw.text((int(rng.integers(2, 12)), 4 + 30 * line), text, fill=ink, font=ImageFont.load_default(22))
        if number % 2:
            image = image.rotate(180)
        image.save(folder / f"{number:03d}.png")
    return folder


def own_spread(model: Path, inputs: dict[str, tuple[int, ...]], feeds: list[dict[str, Any]]) -> float:
    """Largest relative difference between ONNX Runtime with and without its optimiser."""
    from edgec.frontends.base import load_source
    from edgec.metrics import relative_error

    plain, optimised = both_ways(load_source(model, inputs=inputs).model.to_bytes(), feeds)
    return max(relative_error(a[name], b[name]) for a, b in zip(plain, optimised, strict=True) for name in a)


def own_within(bundle: Any, data: str) -> tuple[float, float]:
    """Share of the QDQ model's values that ONNX Runtime gives within 2 steps with and without its optimiser.

    Both compute the same sums in another order; where a sum lies between two steps, they round it apart. The second
    figure is twice the standard error of the share.
    """
    from edgec.pipeline import kept_graphs
    from edgec.pipeline.compare import model_of
    from edgec.pipeline.measure import agreement
    from edgec.quantization.data.samples import open_samples

    content = bundle.read(kept_graphs.QUANTIZED)
    feeds = list(itertools.islice(open_samples(data, model_of(content, "qdq").inputs()), JUDGING))
    steps = {o.source.name: o.step for o in bundle.manifest.outputs if o.step}
    plain, optimised = both_ways(content, feeds)
    share = min((found["within_2"] for found in agreement(plain, optimised, steps).values()), default=1.0)
    count = min((sum(o[name].size for o in plain) for name in plain[0]), default=1)
    return share, 2 * math.sqrt(share * (1 - share) / count)


def to_exact(bundle: Any, data: str) -> tuple[float, float] | None:
    """Shares within 2 steps of exact arithmetic, LiteRT's and ONNX Runtime's; None where that is not known."""
    from tools.exact16 import shares

    try:
        found = shares(bundle, data)
    except (KeyError, ValueError):  # an operator that is not written down there, or several inputs
        return None
    return found["LiteRT / exact"], found["ORT / exact"]


def both_ways(content: bytes, feeds: list[dict[str, Any]]) -> list[list[dict[str, Any]]]:
    """A model's outputs by ONNX Runtime without and with its optimiser, which leaves Q/DQ pairs what they are."""
    import onnxruntime as ort

    found = []
    for level in (ort.GraphOptimizationLevel.ORT_DISABLE_ALL, ort.GraphOptimizationLevel.ORT_ENABLE_ALL):
        options = ort.SessionOptions()
        options.graph_optimization_level, options.log_severity_level = level, 3
        options.add_session_config_entry("session.disable_quant_qdq", "1")
        session = ort.InferenceSession(content, options, providers=["CPUExecutionProvider"])
        names = [o.name for o in session.get_outputs()]
        found.append([dict(zip(names, session.run(None, feed), strict=True)) for feed in feeds])
    return found


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
        data = find_data(case.calibration, Path(folder))
        try:
            result = run_build(
                model,
                target=target,
                calibration=data,
                precision=precision,
                effort=effort,
                inputs=case.inputs,
                output=folder,
                keep_graphs=True,
            )
        except EdgecError as error:
            return {"misses": [error.render().splitlines()[0]]}
        assert result.bundle is not None
        return judge(result.bundle, result.summary, case, precision, model, data)


def judge(bundle: Any, summary: dict[str, Any], case: Case, precision: str, model: Path, data: str) -> Row:
    """Figures of one build and the bars it misses."""
    from edgec.runners.validate import validate_bundle

    fidelity = summary["fidelity"]
    within = min((a["within_2"] for a in summary["agreement"].values()), default=None)
    own, noise, exact = None, 0.0, None
    with bundle:
        goldens = bundle.goldens()
        checks = validate_bundle(bundle, runs=0)
        if within is not None and within < WITHIN_BAR:
            own, noise = own_within(bundle, data)
            exact = to_exact(bundle, data) if precision == "int16x8" else None
    misses = [f"{f.code}: {f.message}" for f in checks.findings if f.severity == "error"]
    error = max(c.relative_error for c in checks.outputs)
    spread = None
    if precision == "float32" and error > 1e-4:
        spread = own_spread(model, case.inputs, [dict(g.inputs) for g in goldens])
        if error > spread:
            misses.append(f"relative error {error:.1e} over 1e-4")
    reason = None
    if precision != "float32":
        count = min(
            (sum(golden.float_outputs[name].size for golden in goldens) for name in goldens[0].float_outputs), default=1
        )
        chance = noise + 2 * math.sqrt((within or 0) * (1 - (within or 0)) / count)
        if within is not None and own is not None:
            reason = why_below(within, own - chance, exact)
            if reason is None:
                misses.append(f"only {100 * within:.2f} % within 2 steps, ONNX Runtime itself {100 * own:.2f} %")
        drop = (fidelity["reference_sqnr_db"] or 0) - (fidelity["sqnr_db"] or 0)
        if drop > 0.5 + 2 * NOISE_DB / math.sqrt(count):
            misses.append(f"SQNR {drop:.2f} dB below the QDQ model's")
    # OpenVINO plans its own layouts: what an IR has are the source model's own transposes
    if case.convolutional and summary["transposes"] and summary["backend"] == "tflite":
        misses.append(f"{summary['transposes']} transposes left")
    return {
        "relative error": f"{error:.1e}",
        "own spread": spread,
        "SQNR dB": fidelity["sqnr_db"],
        "QDQ SQNR dB": fidelity["reference_sqnr_db"],
        "within 2 steps": within,
        "own within 2": own,
        "of exact": exact,
        "reason": reason,
        "transposes": summary["transposes"],
        "operators": summary["operator_count"],
        "median ms": (summary.get("latency") or {}).get("median_ms"),
        "misses": misses,
    }


def why_below(within: float, own: float, exact: tuple[float, float] | None) -> str | None:
    """Why fewer than 99 % within 2 steps are no mistake of the artifact, or None: then they are one."""
    if within >= min(own, WITHIN_BAR):
        return OWN
    return NEARER if exact is not None and exact[0] >= exact[1] else None


_PAGE = """# The same numbers in every runtime

Written in one run by `{command}`,
with {versions}. Nothing here is edited by hand.

Each model is quantized and emitted for LiteRT (int8 by XNNPACK, 16x8 by its own kernels) and OpenVINO, and run there on
judging samples. Bars: 99 % of the output values within 2 steps of the QDQ model in ONNX Runtime, and an SQNR to the
float model within 0.5 dB of the QDQ model's. A step is the output's own scale, or a 255th of its range where it is left
in float.

{outcome}

Operator for operator XNNPACK's int8 kernels give the QDQ model's bits, but for a sum that lies within float rounding
of the middle between two steps; a net that amplifies from layer to layer makes much of one such step, and 16 bit steps
are so fine that every layer has some. So each row below 99 % says two things more. How many values *ONNX Runtime (ORT)
itself* keeps within 2 steps when its optimiser reorders the sums: the QDQ model there is known no better than that.
And for 16x8, where float32 rounds a sum of products before the step is chosen and LiteRT's 64 bit sums do not: how
many values LiteRT and ORT have within 2 steps of *exact arithmetic* on the same integers (`python -m tools.exact16`;
not known for every operator; `--operators` shows that each operator by itself is all but exact in LiteRT: what differs
at the outputs is amplified on the way).

Of few values, as a classifier gives, shares and powers are known no better than two standard errors, by which each bar
is lower.

| model | target | precision | within 2 steps | ORT itself | exact: LiteRT, ORT | SQNR, dB | QDQ model's, dB | bars |
| --- | --- | --- | --- | --- | --- | --- | --- | --- |
"""


def outcome(done: Sequence[Row]) -> str:
    """How many rows keep the bars, and by which, in a sentence or two."""
    judged = [row for row in done if not row.get("skipped")]
    missed = [row for row in judged if row["misses"]]
    plain = sum(not row["misses"] and not row.get("reason") for row in judged)
    told = [f"Of {len(judged)} rows {plain} hold the bars as they stand."]
    for reason, words in (
        (OWN, "as many as ONNX Runtime has against itself"),
        (NEARER, "more of exact arithmetic than ONNX Runtime does"),
    ):
        names = [f"{row['model']} {row['precision']}" for row in judged if row.get("reason") == reason]
        if names:
            told.append(f"Fewer than 99 %, but {words} ({len(names)}): {', '.join(names)}.")
    told.append(f"{len(missed)} miss." if missed else "None misses.")
    skipped = sorted({row["model"] for row in done if row.get("skipped")})
    return textwrap.fill(" ".join([*told, *([f"Not run: {', '.join(skipped)}."] if skipped else [])]), 120)


def page(done: Sequence[Row], command: str) -> str:
    """The quantized builds as a page: how far each runtime is from the QDQ model that it was emitted from."""

    def share(*values: float | None) -> str:
        return ", ".join(f"{100 * value:.2f} %" for value in values if value is not None)

    quantized = [row for row in done if row.get("precision") != "float32"]
    lines = []
    for row in quantized:
        cells = [row.get(k, "") for k in ("model", "target", "precision")]
        cells += [share(row.get("within 2 steps")), share(row.get("own within 2")), share(*(row.get("of exact") or ()))]
        cells += ["" if row.get(k) is None else f"{row[k]:.2f}" for k in ("SQNR dB", "QDQ SQNR dB")]
        verdict = "; ".join(row["misses"]) or (f"hold: {row['reason']}" if row.get("reason") else "hold")
        lines.append("| " + " | ".join([*cells, verdict]) + " |\n")
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in RUNTIMES)
    return _PAGE.format(command=command, versions=versions, outcome=outcome(quantized)) + "".join(lines)


def main() -> int:
    """Print the table as it grows; 1 when a bar is missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", help="models whose name contains this")
    parser.add_argument("--effort", default="balanced", help="fast, balanced or max: how far int8 is repaired")
    parser.add_argument("--quantized", action="store_true", help="leave the float32 builds out")
    parser.add_argument("--json", type=Path, help="write the rows there")
    parser.add_argument("--page", type=Path, help="write the quantized builds there, as Markdown")
    arguments = parser.parse_args()
    command = " ".join(["python tools/acceptance.py", *sys.argv[1:]])
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
            arguments.page.write_text(page(done, command))
    print(f"{len(done)} builds, {missed} with a bar missed")
    return 1 if missed else 0


if __name__ == "__main__":
    raise SystemExit(main())
