"""Run one command: its answer to stdout or stderr, its failure as what, where, what next, and an exit code.

1. With --json stdout carries one JSON object, whatever happens and whatever a native library prints there.
2. Progress and tables go to stderr. Progress needs a terminal there; with --json so do tables.
3. An `EdgecError` exits with its family's code, a finding of severity error does too, Ctrl-C with 130.
4. Anything else is a fault of edgec itself: `internal/unexpected`, exit code 1, a traceback only with --debug.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import typer

from edgec.errors import EXIT_CODES, EdgecError, Finding

Progress = Callable[[str, int, int], None]
Answer = Mapping[str, Any]

INTERRUPTED = 130


@dataclass(frozen=True, kw_only=True, slots=True)
class Mode:
    """How a command was asked to speak."""

    json: bool = False
    debug: bool = False
    quiet: bool = False


def finish(
    work: Callable[[Progress], Answer],
    *,
    mode: Mode,
    show: Callable[[Answer], str],
    answer_is_text: bool = False,
) -> None:
    """Do the work, show its answer, and leave with the exit code (`typer.Exit`) when it is not 0.

    `show` renders the answer for a person. It goes to stderr, beside the progress; of a command that is a
    question (`answer_is_text`) it is the product, and goes to stdout.
    """
    with _json_channel(mode) as emit:
        try:
            with _progress(mode) as progress:
                answer = work(progress)
        except Exception as error:  # noqa: BLE001  the one place where a fault of ours becomes a message
            raise typer.Exit(_fail(error, mode, emit)) from None
        except KeyboardInterrupt:
            emit({"error": {"code": "cli/interrupted", "message": "interrupted", "exit_code": INTERRUPTED}})
            sys.stderr.write("interrupted\n")
            raise typer.Exit(INTERRUPTED) from None
        emit(answer)
    _show(answer, mode, show, answer_is_text)
    code = exit_code(answer)
    if code:
        raise typer.Exit(code)


def exit_code(answer: Answer) -> int:
    """0, or the code of the first finding that is an error."""
    errors = [f for f in answer.get("findings", ()) if f.get("severity") == "error"]
    return family_exit_code(errors[0]["code"]) if errors else 0


def family_exit_code(code: str) -> int:
    """The exit code of an error code's family."""
    return EXIT_CODES.get(code.partition("/")[0], 1)


def error_answer(error: EdgecError) -> dict[str, Any]:
    """An error as the JSON object that --json prints."""
    findings = [finding.as_dict() for finding in error.findings]
    return {"error": {**error.finding.as_dict(), "exit_code": error.exit_code, "findings": findings}}


def as_edgec_error(error: Exception) -> EdgecError:
    """Any exception as an error with a code."""
    if isinstance(error, EdgecError):
        return error
    if isinstance(error, MemoryError):
        return EdgecError(
            "env/memory", "there is not enough memory", hint="close other programs, or use fewer --samples"
        )
    if isinstance(error, OSError) and error.strerror:
        return EdgecError("io/failed", error.strerror.lower(), where=str(error.filename or ""))
    name = type(error).__name__
    return EdgecError(
        "internal/unexpected",
        f"edgec itself failed: {name}: {str(error).splitlines()[0] if str(error) else 'no message'}",
        hint="run the same command with --debug and report what it prints",
    )


def report_failure(error: Exception, mode: Mode) -> int:
    """Show an error that came before any command's work began; returns the exit code."""
    with _json_channel(mode) as emit:
        return _fail(error, mode, emit)


def _fail(error: Exception, mode: Mode, emit: Callable[[Answer], None]) -> int:
    if mode.debug:
        traceback.print_exception(error)
    known = as_edgec_error(error)
    emit(error_answer(known))
    sys.stderr.write(known.render() + "\n")
    return known.exit_code


def _show(answer: Answer, mode: Mode, show: Callable[[Answer], str], answer_is_text: bool) -> None:
    if not mode.quiet and (not mode.json or sys.stderr.isatty()):  # rule 2
        text = show(answer)
        stream = sys.stdout if answer_is_text and not mode.json else sys.stderr
        with contextlib.suppress(BrokenPipeError):
            stream.write(text if text.endswith("\n") else text + "\n")
            stream.flush()
    for entry in answer.get("findings", ()):
        if mode.json and not sys.stderr.isatty():
            break  # they are in the JSON
        if mode.quiet and entry.get("severity") == "info":
            continue
        sys.stderr.write(Finding(**entry).render() + "\n")


@contextlib.contextmanager
def _json_channel(mode: Mode) -> Iterator[Callable[[Answer], None]]:
    """With --json, everything that anybody prints to file descriptor 1 goes to stderr, the answer alone to stdout."""
    if not mode.json:
        yield lambda _answer: None
        return
    sys.stdout.flush()
    kept = os.dup(1)
    os.dup2(2, 1)

    def emit(answer: Answer) -> None:
        data = (json.dumps(answer, indent=2, allow_nan=False, default=str) + "\n").encode()
        with contextlib.suppress(BrokenPipeError), os.fdopen(os.dup(kept), "wb") as stdout:
            stdout.write(data)

    try:
        with contextlib.redirect_stdout(sys.stderr):
            yield emit
    finally:
        os.dup2(kept, 1)
        os.close(kept)


@contextlib.contextmanager
def _progress(mode: Mode) -> Iterator[Progress]:
    if mode.quiet or not sys.stderr.isatty():
        yield lambda _stage, _done, _total: None
        return
    from edgec.report.progress import terminal_progress

    with terminal_progress() as progress:
        yield progress
