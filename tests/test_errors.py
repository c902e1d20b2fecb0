"""Errors as the terminal shows them: what, where, what next, each thing once."""

from __future__ import annotations

from edgec.errors import EdgecError, Finding

FIRST = Finding(code="source/malformed", message="one thing", hint="do this")
OTHER = Finding(code="source/malformed", message="another thing", where="there")


def test_a_summary_stands_before_its_findings() -> None:
    shown = EdgecError("source/malformed", "2 faults", findings=(FIRST, OTHER)).render()
    assert [line for line in shown.splitlines() if line.startswith("error")] == [
        "error[source/malformed]: 2 faults",
        "error[source/malformed]: one thing",
        "error[source/malformed]: another thing",
    ]


def test_nothing_is_said_twice() -> None:
    alone = EdgecError(FIRST.code, FIRST.message, where="file", hint=FIRST.hint, findings=(FIRST,)).render()
    assert alone == "error[source/malformed]: one thing\n  at   file\n  hint do this"
    both = EdgecError(FIRST.code, FIRST.message, hint=FIRST.hint, findings=(FIRST, OTHER)).render()
    assert both.count("one thing") == 1 and "another thing" in both and "at   there" in both
