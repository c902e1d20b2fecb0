"""Run an exporter script in a process of its own, with whatever Python its framework needs.

A framework's pins, its hours of imports and its crashes stay in that process. The script is one file, run as
`python -P script.py request.json response.json`; it imports nothing of edgec, and answers with JSON: either what
was asked for, or `{"error": {"code": …, "message": …, "hint": …}}`, with `"findings"` where there are several.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from edgec.errors import EdgecError, Finding, Severity

_TAIL_LINES = 12


def run_exporter(
    script: Path,
    request: Mapping[str, Any],
    *,
    where: str,
    python: Sequence[str] = (sys.executable,),
    timeout_s: float = 1800.0,
    environment: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """What the script answers. `where` names the source in errors; `environment` adds variables.

    Raises `EdgecError`: what the script says, `source/exporter-crashed` or `source/exporter-timeout`.
    """
    with tempfile.TemporaryDirectory(prefix="edgec-export-") as folder:
        asked, answered = Path(folder) / "request.json", Path(folder) / "response.json"
        asked.write_text(json.dumps(dict(request)))
        code, log = _run([*python, "-P", str(script), str(asked), str(answered)], timeout_s, environment, where)
        if not answered.exists():
            raise EdgecError(
                "source/exporter-crashed",
                f"the exporter ended with {_how(code)} and no answer",
                where=where,
                hint="its last words:\n" + "\n".join(log.strip().splitlines()[-_TAIL_LINES:]),
            )
        answer: dict[str, Any] = json.loads(answered.read_text())
    if "error" in answer:
        error = answer["error"]
        raise EdgecError(
            error["code"],
            error["message"],
            where=error.get("where", where),
            source=error.get("source", ""),
            hint=error.get("hint", ""),
            findings=[Finding(**{**one, "severity": Severity(one["severity"])}) for one in answer.get("findings", ())],
        )
    return answer


def _run(argv: Sequence[str], timeout_s: float, environment: Mapping[str, str] | None, where: str) -> tuple[int, str]:
    process = subprocess.Popen(
        argv,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env={**os.environ, **(environment or {})},
        start_new_session=True,
        text=True,
        errors="replace",
    )
    with process:
        try:
            log, _ = process.communicate(timeout=timeout_s)
        except BaseException as error:
            os.killpg(process.pid, signal.SIGKILL)
            if not isinstance(error, subprocess.TimeoutExpired):
                raise
            raise EdgecError(
                "source/exporter-timeout",
                f"the exporter was not done after {timeout_s:.0f} s",
                where=where,
                hint="export the model to ONNX with its own framework, and give that file",
            ) from error
    return process.returncode, log


def _how(code: int) -> str:
    return f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
