"""Build a row for a target and say what came out: never an exception, always a line of the table."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from edgec.errors import EdgecError
from edgec.pipeline import run_build
from tools.sources.files import CACHE, MissingFileError, zoo_folder
from tools.sources.row import Row


@dataclass(frozen=True, kw_only=True, slots=True)
class Line:
    """One build: `result` is `validated`, `missing …` or the error's code; accuracy is a share from 0 to 1."""

    row: str
    kind: str
    target: str
    precision: str
    result: str
    sqnr_db: float | None = None
    transposes: int | None = None
    accuracy: float | None = None
    documented: str = ""
    seconds: float = 0.0
    detail: str = ""


def build_row(row: Row, target: str, precision: str) -> Line:
    """Build, validate and, where there are labels, measure."""
    start = time.monotonic()
    line = partial(Line, row=row.name, kind=row.kind, target=target, precision=precision)
    documented = row.accuracy.documented if row.accuracy else ""
    try:
        with tempfile.TemporaryDirectory(prefix="edgec-sources-") as folder, _environment(row):
            calibration = row.accuracy.calibration(Path(folder)) if row.accuracy and precision == "int8" else None
            done = run_build(
                row.source(),
                target=target,
                precision=precision,
                calibration=calibration,
                inputs=row.inputs,
                reading=row.options,
                output=folder,
            )
            assert done.bundle is not None
            with done.bundle as bundle:
                accuracy = row.accuracy.measure(bundle) if row.accuracy else None
            summary = done.summary
    except MissingFileError as error:
        return line(result="missing", detail=str(error))
    except EdgecError as error:
        return line(result=error.code, detail=_portable(error.render()), seconds=time.monotonic() - start)
    return line(
        result="validated" if summary["validation"]["passed"] else "validation failed",
        sqnr_db=summary["fidelity"].get("sqnr_db"),
        transposes=summary["transposes"],
        accuracy=accuracy,
        documented=documented,
        seconds=time.monotonic() - start,
    )


def _portable(text: str) -> str:
    """Without this machine's folders."""
    for folder in (zoo_folder(), CACHE):
        text = text.replace(f"{folder}/", "")
    return text


@contextmanager
def _environment(row: Row) -> Iterator[None]:
    changes = row.environment()
    before = {name: os.environ.get(name) for name in changes}
    os.environ.update(changes)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
