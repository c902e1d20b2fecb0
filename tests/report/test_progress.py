"""Progress bars: one a stage, on stderr, gone at the end."""

from __future__ import annotations

import os
import pty
import subprocess
import sys

import pytest

from edgec.report.progress import terminal_progress

SCRIPT = """
import sys
from edgec.cli.session import Mode, finish
finish(lambda progress: progress('calibrate', 3, 7) or {'findings': []}, mode=Mode(json=True), show=lambda a: 'table')
"""


def test_stages_may_repeat_and_totals_may_be_unknown(capsys: pytest.CaptureFixture[str]) -> None:
    with terminal_progress() as report:
        report("load", 0, 0)
        report("load", 1, 1)
        report("calibrate", 3, 7)
        report("load", 0, 1)
    assert capsys.readouterr().out == ""


def test_progress_and_table_are_shown_on_a_terminal_only() -> None:
    main, side = pty.openpty()
    done = subprocess.run([sys.executable, "-c", SCRIPT], stdout=subprocess.PIPE, stderr=side, check=True, timeout=60)
    os.close(side)
    shown = os.read(main, 1 << 16).decode()
    os.close(main)
    assert done.stdout == b'{\n  "findings": []\n}\n'
    assert "calibrate" in shown
    assert "3/7" in shown
    assert "table" in shown

    piped = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, check=True, timeout=60)
    assert piped.stdout == done.stdout
    assert piped.stderr == b""
