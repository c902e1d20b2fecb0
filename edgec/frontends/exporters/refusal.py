"""How an exporter script answers: one JSON object, in which a refusal is told from a crash."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any


class SourceError(Exception):
    """What is wrong with the source, as it goes to the user."""

    def __init__(self, code: str, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.record = {"code": code, "message": message, "hint": hint}


def answer(argv: list[str], export: Callable[[dict[str, Any]], dict[str, Any]]) -> int:
    """Answer the request in the file argv[1] in the file argv[2]."""
    request = json.loads(Path(argv[1]).read_text())
    try:
        reply = export(request)
    except SourceError as refusal:
        reply = {"error": refusal.record}
    Path(argv[2]).write_text(json.dumps(reply))
    return 0


def essence(error: BaseException) -> str:
    """The first line of an error that says something."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0][:300] if lines else type(error).__name__
