"""`edgec`: from a trained model to a validated bundle for an edge device."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Annotated

import typer

from edgec import __version__
from edgec.cli import (
    build,
    calibrate,
    check,
    compare,
    devices,
    doctor,
    flash,
    inspect,
    rollback,
    status,
    targets,
    validate,
)
from edgec.cli.session import INTERRUPTED, Mode, report_failure
from edgec.errors import EdgecError

# Plain help: typer's rich one costs as much start-up time as everything else together.
app = typer.Typer(
    name="edgec",
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
for command in (build, check, calibrate, compare, inspect, validate, flash, rollback, status, doctor):
    app.command(command.__name__.rpartition(".")[2])(command.run)
app.add_typer(targets.app, name="targets")
app.add_typer(devices.app, name="devices")


def _version(wanted: bool) -> None:
    if wanted:
        sys.stdout.write(f"edgec {__version__}\n")
        raise typer.Exit


@app.callback()
def options(
    _: Annotated[bool, typer.Option("--version", help="Print the version.", is_eager=True, callback=_version)] = False,
) -> None:
    """From a trained model to a validated bundle for an edge device."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code. Exit codes: docs/errors.md."""
    arguments = list(sys.argv[1:] if argv is None else argv) or ["--help"]
    try:
        return int(app(arguments, prog_name="edgec", standalone_mode=False) or 0)
    except typer.Abort:  # Ctrl-C outside a command's own work
        return INTERRUPTED
    except Exception as error:
        # Usage errors; typer's own classes for them have moved between its versions.
        if not hasattr(error, "format_message"):
            raise
        command = getattr(getattr(error, "ctx", None), "command_path", "") or "edgec"
        usage = EdgecError("cli/usage", error.format_message(), hint=f"{command} --help")
        return report_failure(usage, Mode(json="--json" in arguments))


if __name__ == "__main__":
    sys.exit(main())
