"""`edgec validate`: run a bundle's goldens where they count, and compare; then the application around the model."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edgec.cli import options
from edgec.cli.session import Answer, Mode, Progress, finish


def run(
    bundle: Annotated[str, typer.Argument(help="The .edgec file.", show_default=False)],
    device: Annotated[
        str,
        typer.Option(
            "--device",
            metavar="NAME",
            help="Where to run it: a name of the inventory, or ssh:user@host, adb:SERIAL, local.",
        ),
    ] = "local",
    inventory: options.InventoryFile = None,
    threads: Annotated[
        str, typer.Option("--threads", metavar="N,…", help="Threads of the runtime, as in 1,2,4.")
    ] = "1",
    kernels: Annotated[
        options.Kernels, typer.Option("--kernels", help="Of TFLite: what the device would do without XNNPACK, say.")
    ] = options.Kernels.default,
    sustained: Annotated[
        float, typer.Option("--sustained", min=0, metavar="SECONDS", help="Run for so long: heat, clock, throttling.")
    ] = 0,
    data: Annotated[
        str | None,
        typer.Option("--data", metavar="PATH", help="A (labelled) set to run there, or the application's samples."),
    ] = None,
    metric: options.Metric = None,
    samples: options.Samples = None,
    app: Annotated[
        Path | None,
        typer.Option("--app", metavar="FILE.py", help="Your preprocess(path) and postprocess(outputs), run there."),
    ] = None,
    dump: Annotated[
        str | None,
        typer.Option("--dump", metavar="FOLDER", help="Tensors your application wrote, here or device:/a/folder."),
    ] = None,
    record: Annotated[bool, typer.Option("--record", help="Write what was proven beside the bundle.")] = False,
    sign_key: Annotated[
        Path | None, typer.Option("--sign-key", metavar="FILE", help="Sign the record with an ed25519 key (PEM).")
    ] = None,
    timeout: Annotated[float, typer.Option("--timeout", min=1, metavar="SECONDS", help="For each run there.")] = 300,
    json: options.Json = False,
    quiet: options.Quiet = False,
    debug: options.Debug = False,
) -> None:
    """Run a bundle's goldens on a device and compare.

    They must give what the host expects, to the bit where the kernels are the same; latency and memory are measured on
    the way. With --app or --dump your application is judged stage by stage, and the guilty one named.
    """

    def work(progress: Progress) -> Answer:
        from edgec.pipeline.prove import Wishes, run_validate

        wishes = Wishes(
            threads=options.parse_counts(threads, "--threads"),
            kernels=kernels.value,
            sustained_s=sustained,
            data=data,
            metric=metric,
            samples=samples,
            app=app,
            dump=dump,
            record=record,
            sign_key=sign_key,
            timeout_s=timeout,
        )
        return run_validate(bundle, device=device, inventory=inventory, wishes=wishes, progress=progress)

    def show(answer: Answer) -> str:
        from edgec.report.validation import render_validation

        return render_validation(answer)

    finish(work, mode=Mode(json=json, quiet=quiet, debug=debug), show=show)
