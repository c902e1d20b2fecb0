"""`edgec validate`: run a bundle's goldens where they count, and compare."""

from __future__ import annotations

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
    threads: Annotated[int, typer.Option("--threads", min=1, metavar="N", help="Threads of the runtime.")] = 1,
    inventory: options.InventoryFile = None,
    json: options.Json = False,
    quiet: options.Quiet = False,
    debug: options.Debug = False,
) -> None:
    """Run a bundle's goldens and compare.

    They must give what the host expects; latency and memory are measured on the way.
    """

    def work(_progress: Progress) -> Answer:
        from edgec.bundle.open import open_bundle
        from edgec.devices.inventory import find_inventory
        from edgec.devices.open import open_device
        from edgec.runners.validate import validate_bundle

        with open_bundle(bundle) as opened, open_device(device, inventory=find_inventory(inventory)) as transport:
            return validate_bundle(opened, device=transport, threads=(threads,)).as_dict()

    def show(answer: Answer) -> str:
        from edgec.report.render import render_validation

        return render_validation(answer)

    finish(work, mode=Mode(json=json, quiet=quiet, debug=debug), show=show)
