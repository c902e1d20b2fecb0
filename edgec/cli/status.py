"""`edgec status`: what runs on a device."""

from __future__ import annotations

from typing import Annotated

import typer

from edgec.cli import options
from edgec.cli.session import Answer, Mode, Progress, finish


def run(
    device: options.Devices = None,
    group: options.Group = None,
    inventory: options.InventoryFile = None,
    root: options.Root = "",
    verify: Annotated[
        bool, typer.Option("--verify", help="Compare the running release's files with its manifest.")
    ] = False,
    json: options.Json = False,
    quiet: options.Quiet = False,
    debug: options.Debug = False,
) -> None:
    """Say which release runs on a device, and which others are there."""

    def work(_progress: Progress) -> Answer:
        from edgec.flash.run import run_status

        return run_status(devices=device or (), group=group, inventory=inventory, root=root, verify=verify)

    def show(answer: Answer) -> str:
        from edgec.report.flash import render_status

        return render_status(answer)

    finish(work, mode=Mode(json=json, quiet=quiet, debug=debug), show=show, answer_is_text=True)
