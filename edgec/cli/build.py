"""`edgec build`: the whole way, from a source model to a validated bundle."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edgec.cli import options
from edgec.cli.session import Answer, Mode, Progress, finish


def run(
    source: options.Source,
    target: options.TargetName,
    calibration: options.Calibration = None,
    samples: options.Samples = None,
    precision: Annotated[
        options.Precision, typer.Option("--precision", help="auto: the target's first that keeps the accuracy.")
    ] = options.Precision.auto,
    effort: Annotated[
        options.Effort | None,
        typer.Option("--effort", help="int8 repairs. fast: none; balanced (default): those that are cheap; max: all."),
    ] = None,
    ranges: Annotated[
        options.Ranges | None,
        typer.Option("--ranges", help="How int8 ranges are chosen; default: auto, or minmax where that is better."),
    ] = None,
    min_sqnr: Annotated[
        float | None,
        typer.Option("--min-sqnr", metavar="DB", help="Accuracy budget: revert nodes from int8 until it holds."),
    ] = None,
    max_drop: Annotated[
        str | None,
        typer.Option("--max-drop", metavar="SHARE", help="Accuracy budget on labelled data, as in 0.5%."),
    ] = None,
    metric: Annotated[
        str | None,
        typer.Option("--metric", metavar="NAME", help="What --max-drop is of: top1, f1, auc, map, module:function."),
    ] = None,
    evaluation: Annotated[
        str | None, typer.Option("--evaluation", metavar="PATH", help="Labelled data; default: the calibration's.")
    ] = None,
    ship_anyway: Annotated[
        bool, typer.Option("--ship-anyway", help="Build even where the accuracy budget cannot be met.")
    ] = False,
    backend: options.BackendName = None,
    output: Annotated[Path, typer.Option("--output", "-o", metavar="DIR", help="Where the bundle goes.")] = Path(),
    inputs: options.Inputs = None,
    source_kind: options.SourceKind = None,
    trust: options.Trust = False,
    custom: options.Custom = None,
    signature: options.Signature = None,
    factory: options.Factory = None,
    io_layout: Annotated[
        options.IoLayout, typer.Option("--io-layout", help="Layout of the artifact's own inputs and outputs.")
    ] = options.IoLayout.auto,
    stop_after: options.StopAfter = None,
    sign_key: Annotated[
        Path | None, typer.Option("--sign-key", metavar="FILE", help="Sign the bundle with this ed25519 private key.")
    ] = None,
    keep_graphs: Annotated[
        bool, typer.Option("--keep-graphs", help="Put the graphs into the bundle, for `edgec compare`.")
    ] = False,
    labels: Annotated[
        Path | None, typer.Option("--labels", metavar="FILE", help="Names of the classes, one a line, for the bundle.")
    ] = None,
    openvino_cache: Annotated[
        bool, typer.Option("--openvino-cache", help="Put OpenVINO's compiled model into the bundle.")
    ] = False,
    json: options.Json = False,
    quiet: options.Quiet = False,
    debug: options.Debug = False,
) -> None:
    """Build a validated bundle for a target.

    Compiles SOURCE, packs the bundle, and runs its goldens on this machine.
    """

    def work(progress: Progress) -> Answer:
        from edgec.pipeline import run_build

        given = options.parse_inputs(inputs)
        return run_build(
            source,
            target=target,
            calibration=calibration,
            samples=samples,
            precision=precision.value,
            effort=effort.value if effort else None,
            ranges=ranges.value if ranges else None,
            min_sqnr=min_sqnr,
            max_drop=max_drop,
            metric=metric,
            evaluation=evaluation,
            ship_anyway=ship_anyway,
            backend=backend.value if backend else None,
            output=str(output),
            inputs=given.shapes,
            reading=options.reading_of(
                given, kind=source_kind, trust=trust, custom=custom, signature=signature, factory=factory
            ),
            io_layout=io_layout.value,
            stop_after=stop_after,
            labels=labels,
            packaging=["openvino_cache"] if openvino_cache else [],
            sign_key=str(sign_key) if sign_key else None,
            keep_graphs=keep_graphs,
            progress=progress,
        ).summary

    def show(answer: Answer) -> str:
        from edgec.report.render import render_build

        return render_build(answer)

    finish(work, mode=Mode(json=json, quiet=quiet, debug=debug), show=show)
