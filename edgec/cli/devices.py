"""`edgec devices`: what the inventory names, and what each device is."""

from __future__ import annotations

from typing import Annotated

import typer

from edgec.cli import options
from edgec.cli.session import Answer, Mode, Progress, finish

app = typer.Typer(help="List devices, or ask what they are.", rich_markup_mode=None)

Group = Annotated[str | None, typer.Option("--group", metavar="NAME", help="The devices of a group.")]


@app.callback(invoke_without_command=True)
def default(context: typer.Context, json: options.Json = False, debug: options.Debug = False) -> None:
    """List devices, or ask what they are."""
    if context.invoked_subcommand is None:
        list_all(inventory=None, group=None, json=json, debug=debug)


@app.command("list")
def list_all(
    inventory: options.InventoryFile = None,
    group: Group = None,
    json: options.Json = False,
    debug: options.Debug = False,
) -> None:
    """List the devices of the inventory."""

    def work(_progress: Progress) -> Answer:
        from edgec.report.devices import describe_devices

        return describe_devices(inventory, group)

    def show(answer: Answer) -> str:
        from edgec.report.render_devices import render_devices

        return render_devices(answer)

    finish(work, mode=Mode(json=json, debug=debug), show=show, answer_is_text=True)


@app.command("show")
def show_one(
    name: Annotated[str, typer.Argument(help="A name of the inventory.", show_default=False)],
    inventory: options.InventoryFile = None,
    json: options.Json = False,
    debug: options.Debug = False,
) -> None:
    """Show what the inventory says of one device."""

    def work(_progress: Progress) -> Answer:
        from edgec.report.devices import describe_device

        return describe_device(name, inventory)

    def show(answer: Answer) -> str:
        from edgec.report.render_devices import render_device

        return render_device(answer)

    finish(work, mode=Mode(json=json, debug=debug), show=show, answer_is_text=True)


@app.command("probe")
def probe(
    names: Annotated[
        list[str] | None, typer.Argument(metavar="[DEVICE]…", help="Names or addresses; default: the whole inventory.")
    ] = None,
    group: Group = None,
    target: Annotated[
        str | None, typer.Option("--target", metavar="NAME", help="Check this profile instead of picking one.")
    ] = None,
    inventory: options.InventoryFile = None,
    json: options.Json = False,
    debug: options.Debug = False,
) -> None:
    """Ask devices what they are.

    Processor, memory, C library, Python, runtimes, temperature; picks or checks the target profile.
    """

    def work(progress: Progress) -> Answer:
        from edgec.report.devices import probe_devices

        return probe_devices(names or [], inventory, group=group, target=target, progress=progress)

    def show(answer: Answer) -> str:
        from edgec.report.render_devices import render_probe

        return render_probe(answer)

    finish(work, mode=Mode(json=json, debug=debug), show=show, answer_is_text=True)
