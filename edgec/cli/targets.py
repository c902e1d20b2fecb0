"""`edgec targets`: the hardware profiles, and what each accepts."""

from __future__ import annotations

from typing import Annotated

import typer

from edgec.cli import options
from edgec.cli.session import Answer, Mode, Progress, finish

app = typer.Typer(help="List the hardware profiles, or show one.", rich_markup_mode=None)


@app.callback(invoke_without_command=True)
def default(context: typer.Context, json: options.Json = False, debug: options.Debug = False) -> None:
    """List the hardware profiles, or show one."""
    if context.invoked_subcommand is None:
        list_all(json=json, debug=debug)


@app.command("list")
def list_all(json: options.Json = False, debug: options.Debug = False) -> None:
    """List the profiles."""

    def work(_progress: Progress) -> Answer:
        from edgec.report.targets import describe_targets

        return describe_targets()

    def show(answer: Answer) -> str:
        from edgec.report.render import render_targets

        return render_targets(answer)

    finish(work, mode=Mode(json=json, debug=debug), show=show, answer_is_text=True)


@app.command("show")
def show_one(
    name: Annotated[str, typer.Argument(help="A target, an alias, or a .toml file of your own.")],
    json: options.Json = False,
    debug: options.Debug = False,
) -> None:
    """Show one profile: hardware, backends, precisions, operators, limits."""

    def work(_progress: Progress) -> Answer:
        from edgec.report.targets import describe_target

        return describe_target(name)

    def show(answer: Answer) -> str:
        from edgec.report.render import render_target

        return render_target(answer)

    finish(work, mode=Mode(json=json, debug=debug), show=show, answer_is_text=True)
