"""`edgec doctor`: what is installed, what works, what is missing and how to get it."""

from __future__ import annotations

from typing import Annotated

import typer

from edgec.cli import options
from edgec.cli.session import Answer, Mode, Progress, finish


def run(
    install: Annotated[
        str | None,
        typer.Option("--install", metavar="NAME", help="Make the private environment that a framework runs in."),
    ] = None,
    json: options.Json = False,
    debug: options.Debug = False,
) -> None:
    """Say what is installed, missing, working.

    Each runtime is tried on a small model; for what is missing, how to get it.
    """

    def work(_progress: Progress) -> Answer:
        from edgec.report.doctor import examine, set_up

        return examine() if install is None else set_up(install)

    def show(answer: Answer) -> str:
        from edgec.report.render import render_doctor

        return render_doctor(answer)

    finish(work, mode=Mode(json=json, debug=debug), show=show, answer_is_text=True)
