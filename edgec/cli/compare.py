"""`edgec compare`: float against int8, layer by layer, the worst first."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edgec.cli import options
from edgec.cli.session import Answer, Mode, Progress, finish


def run(
    path: Annotated[str, typer.Argument(metavar="BUNDLE|MODEL", help="A .edgec bundle, or a model to build first.")],
    data: Annotated[str, typer.Option("--data", metavar="PATH", help="What to run both on, as for --calibration.")],
    samples: options.Samples = None,
    limit_db: Annotated[
        float, typer.Option("--limit-db", metavar="DB", help="A layer below this diverges from float.")
    ] = 20.0,
    page: Annotated[
        Path | None, typer.Option("--page", metavar="FILE", help="Write the picture: one HTML page, nothing to fetch.")
    ] = None,
    target: Annotated[
        str | None, typer.Option("--target", metavar="NAME", help="For a model file: what to build for.")
    ] = None,
    calibration: options.Calibration = None,
    precision: Annotated[
        options.Precision | None, typer.Option("--precision", help="For a model file, as for build.")
    ] = None,
    effort: Annotated[
        options.Effort | None, typer.Option("--effort", help="For a model file, as for `edgec build`.")
    ] = None,
    backend: options.BackendName = None,
    inputs: options.Inputs = None,
    source_kind: options.SourceKind = None,
    trust: options.Trust = False,
    custom: options.Custom = None,
    signature: options.Signature = None,
    factory: options.Factory = None,
    json: options.Json = False,
    quiet: options.Quiet = False,
    debug: options.Debug = False,
) -> None:
    """Show where int8 parts from float.

    SQNR, cosine, histogram and repairs of every layer, the worst first, with the source's own layer names.
    """

    def work(progress: Progress) -> Answer:
        from edgec.pipeline import run_compare
        from edgec.report.compare import write_page

        given = options.parse_inputs(inputs)
        reading = options.reading_of(
            given, kind=source_kind, trust=trust, custom=custom, signature=signature, factory=factory
        )
        answer = run_compare(
            path,
            data=data,
            samples=samples,
            limit_db=limit_db,
            target=target,
            calibration=calibration,
            precision=precision.value if precision else None,
            effort=effort.value if effort else None,
            backend=backend.value if backend else None,
            inputs=given.shapes,
            reading=None if reading == type(reading)() else reading,
            progress=progress,
        )
        if page is not None:
            write_page(answer, str(page))
        return answer

    def show(answer: Answer) -> str:
        from edgec.report.compare import render_compare

        return render_compare(answer)

    finish(work, mode=Mode(json=json, quiet=quiet, debug=debug), show=show, answer_is_text=True)
