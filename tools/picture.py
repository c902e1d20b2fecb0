"""The picture of the README, drawn from a real run of the demo: `python -m tools.picture` (needs network once).

Left what the bundle says about lines it has not seen, right what the build measured.
"""

from __future__ import annotations

import base64
import io
import json
import subprocess
import sys
from collections.abc import Mapping
from html import escape
from pathlib import Path
from typing import Any

from edgec.bundle.report import bars
from edgec.report.tables import cell
from tools import demo

TARGET = demo.ROOT / "docs" / "img" / "demo.svg"
SHOWN = 6
ROW, LEFT, WIDTH = 58, 470, 1010


def summary(model: Path, photos: Path, output: Path) -> dict[str, Any]:
    """The build of the demo, as --json gives it."""
    command = [sys.executable, "-m", "edgec.cli.app", "build", str(model), "--target", "raspberrypi", "--json"]
    command += ["--input", f"x:1x3x{demo.HEIGHT}x{demo.WIDTH}", "--calibration", f"ocr:{photos}"]
    done = subprocess.run([*command, "--output", str(output)], capture_output=True, check=True)
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


def draw(shown: list[tuple[demo.Line, float, float]], facts: Mapping[str, str], stages: Mapping[str, float]) -> str:
    """The SVG: lines with their verdicts, facts, seconds a stage."""
    height = max(60 + ROW * len(shown), 110 + 22 * len(facts) + 20 * len(stages))
    size = f'width="{WIDTH}" height="{height}" viewBox="0 0 {WIDTH} {height}"'
    font = 'font-family="system-ui, sans-serif" font-size="13" fill="#1c2733"'
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} {font}>',
        f'<rect width="{WIDTH}" height="{height}" rx="8" fill="#ffffff" stroke="#d5dbe1"/>',
        '<text x="20" y="32" font-weight="600">Which way up? The bundle on lines that calibration has not seen</text>',
        f'<text x="{LEFT}" y="32" font-weight="600">What the build measured</text>',
    ]
    for index, (line, exact, ours) in enumerate(shown):
        top = 50 + index * ROW
        word = "upside down" if ours > 0.5 else "upright"
        parts += [
            f'<image x="20" y="{top}" width="192" height="48" href="{_png(line)}"/>',
            f'<text x="228" y="{top + 21}" font-weight="600">{word}</text>',
            f'<text x="228" y="{top + 39}" fill="#51606e">p = {ours:.3f}, float model {exact:.3f}</text>',
        ]
    for index, (name, value) in enumerate(facts.items()):
        top = 62 + index * 22
        parts.append(f'<text x="{LEFT}" y="{top}" fill="#51606e">{escape(name)}</text>')
        parts.append(f'<text x="{LEFT + 110}" y="{top}">{escape(value)}</text>')
    chart_top = 62 + len(facts) * 22 + 4
    parts.append(f'<text x="{LEFT}" y="{chart_top + 8}" font-weight="600">Seconds a stage</text>')
    parts.append(f'<g transform="translate({LEFT - 90} {chart_top + 16})">{bars(stages, unit=" s", width=560)}</g>')
    return "\n".join([*parts, "</svg>\n"])


def _png(line: demo.Line) -> str:
    stream = io.BytesIO()
    line.image.convert("L").resize((192, 48)).save(stream, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(stream.getvalue()).decode()


def main() -> None:
    """Build, look at the unseen lines, draw."""
    model, photos, test = demo.prepare()
    built = summary(model, photos, demo.DEMO / "out")
    exact, ours = demo.turned_probability(model, Path(built["bundle"]), test)
    step = max(1, len(test) // SHOWN) | 1  # odd, so that upright and turned lines take turns
    shown = [(test[i], float(exact[i]), float(ours[i])) for i in range(0, len(test), step)][:SHOWN]
    right = demo.compare(test, exact, ours)["bundle_is_right_share"]
    fidelity, latency = built["fidelity"], built["latency"]
    facts = {
        "target": f"{built['target']}, {built['backend']}, {built['precision']}",
        "size": cell("size_bytes", built["size_bytes"]),
        "transposes left": str(built["transposes"]),
        "fidelity": f"{fidelity['sqnr_db']:.1f} dB to the float model, same class for {fidelity['top1_agreement']:.0%}",
        "unseen lines": f"{right:.0%} of {len(test)} right",
        "latency here": f"{latency['median_ms']:.2f} ms, {latency['threads']} thread, LiteRT with XNNPACK",
    }
    TARGET.parent.mkdir(parents=True, exist_ok=True)
    TARGET.write_text(draw(shown, facts, {k: v for k, v in built["stages"].items() if v >= 0.005}), "utf-8")
    print(f"wrote {TARGET.relative_to(demo.ROOT)}")


if __name__ == "__main__":
    main()
