"""`edgec inspect`: what a bundle or a model file holds."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edgec.cli import options
from edgec.cli.session import Answer, Mode, Progress, finish


def run(
    path: Annotated[str, typer.Argument(metavar="BUNDLE|MODEL", help="A .edgec bundle, .onnx, .tflite or IR .xml.")],
    trust_key: Annotated[
        Path | None, typer.Option("--trust-key", metavar="FILE", help="Hold signatures against this ed25519 key (PEM).")
    ] = None,
    json: options.Json = False,
    debug: options.Debug = False,
) -> None:
    """Show what a bundle or model holds.

    Manifest, inputs and outputs, operators, quantization, sizes, and what was proven of a bundle on which device.
    """

    def work(_progress: Progress) -> Answer:
        from edgec.report.inspect import inspect_path

        return inspect_path(path, public_key=trust_key)

    def show(answer: Answer) -> str:
        from edgec.report.render import render_inspect

        return render_inspect(answer)

    finish(work, mode=Mode(json=json, debug=debug), show=show, answer_is_text=True)
