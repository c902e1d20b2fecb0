"""`edgec calibrate`: a calibration run alone; what it saw, and kept for the next build."""

from __future__ import annotations

from typing import Annotated

import typer

from edgec.cli import options
from edgec.cli.session import Answer, Mode, Progress, finish


def run(
    source: options.Source,
    calibration: Annotated[str, typer.Option("--calibration", metavar="PATH", help="Real data, as for `edgec build`.")],
    samples: options.Samples = None,
    inputs: options.Inputs = None,
    source_kind: options.SourceKind = None,
    trust: options.Trust = False,
    custom: options.Custom = None,
    signature: options.Signature = None,
    factory: options.Factory = None,
    target: Annotated[
        str | None, typer.Option("--target", metavar="NAME", help="Observe what this target would quantize.")
    ] = None,
    json: options.Json = False,
    quiet: options.Quiet = False,
    debug: options.Debug = False,
) -> None:
    """Run calibration data through a model.

    Shows statistics, coverage, saturation, and doubts about the data; `edgec build` uses the same run again.
    """

    def work(progress: Progress) -> Answer:
        from edgec.pipeline import run_calibrate

        given = options.parse_inputs(inputs)
        return run_calibrate(
            source,
            calibration=calibration,
            samples=samples,
            inputs=given.shapes,
            reading=options.reading_of(
                given, kind=source_kind, trust=trust, custom=custom, signature=signature, factory=factory
            ),
            target=target,
            progress=progress,
        )

    def show(answer: Answer) -> str:
        from edgec.report.render import render_calibrate

        return render_calibrate(answer)

    finish(work, mode=Mode(json=json, quiet=quiet, debug=debug), show=show)
