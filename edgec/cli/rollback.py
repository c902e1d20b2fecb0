"""`edgec rollback`: the release before becomes the one that runs."""

from __future__ import annotations

import shlex
from typing import Annotated

import typer

from edgec.cli import options
from edgec.cli.session import Answer, Mode, Progress, finish


def run(
    device: options.Devices = None,
    group: options.Group = None,
    inventory: options.InventoryFile = None,
    root: options.Root = "",
    to: Annotated[str, typer.Option("--to", metavar="DIGEST", help="A release's digest, or how it begins.")] = "",
    after_switch: Annotated[
        str, typer.Option("--after-switch", metavar="COMMAND", help="Runs on the device after the switch.")
    ] = "",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print each step and why; change nothing.")] = False,
    json: options.Json = False,
    quiet: options.Quiet = False,
    debug: options.Debug = False,
) -> None:
    """Go back to the release before, which is still on the device.

    Its files are verified first; `edgec status` lists what is there.
    """

    def work(_progress: Progress) -> Answer:
        from edgec.flash.run import run_rollback
        from edgec.flash.session import Options

        wishes = Options(root=root, hook=tuple(shlex.split(after_switch)), dry_run=dry_run)
        return run_rollback(devices=device or (), group=group, inventory=inventory, options=wishes, to=to)

    def show(answer: Answer) -> str:
        from edgec.report.flash import render_flash

        return render_flash(answer)

    finish(work, mode=Mode(json=json, quiet=quiet, debug=debug), show=show)
