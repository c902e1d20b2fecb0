"""What a command prints where, and the exit code it leaves with."""

from __future__ import annotations

import json
import os
import sys
import types
from collections.abc import Callable, Mapping
from typing import Any

import pytest

from edgec.cli.app import main
from edgec.errors import EdgecError, Finding

FINDING = {"code": "quant/no-range", "message": "no range", "severity": "warning", "where": "conv"}

Install = Callable[[Callable[..., Mapping[str, Any]]], None]


@pytest.fixture
def pipeline(monkeypatch: pytest.MonkeyPatch) -> Install:
    """Put a pipeline in place whose `run_check` is the given function."""

    def install(run_check: Callable[..., Mapping[str, Any]]) -> None:
        module = types.ModuleType("edgec.pipeline")
        module.run_check = run_check  # type: ignore[attr-defined]  # a stand-in for the real module
        monkeypatch.setitem(sys.modules, "edgec.pipeline", module)

    return install


def check(*options: str) -> int:
    return main(["check", "m.onnx", "--target", "raspberrypi", *options])


def raising(error: BaseException) -> Callable[..., Mapping[str, Any]]:
    def run_check(*_args: object, **_options: object) -> Mapping[str, Any]:
        raise error

    return run_check


def test_json_is_the_only_thing_on_stdout(pipeline: Install, capfd: pytest.CaptureFixture[str]) -> None:
    def noisy(*_args: object, **_options: object) -> Mapping[str, Any]:
        print("python chatter")
        os.write(1, b"native chatter\n")
        return {"target": "raspberrypi4", "findings": [FINDING]}

    pipeline(noisy)
    assert check("--json") == 0
    out, err = capfd.readouterr()
    assert json.loads(out) == {"target": "raspberrypi4", "findings": [FINDING]}
    assert "native chatter" in err


def test_with_json_and_no_terminal_stderr_stays_empty(pipeline: Install, capfd: pytest.CaptureFixture[str]) -> None:
    pipeline(lambda *_a, **_o: {"target": "t", "findings": [FINDING]})
    check("--json")
    assert capfd.readouterr().err == ""


def test_stdout_works_again_after_a_json_command(pipeline: Install, capfd: pytest.CaptureFixture[str]) -> None:
    pipeline(lambda *_a, **_o: {"findings": []})
    check("--json")
    capfd.readouterr()
    os.write(1, b"later\n")
    assert capfd.readouterr().out == "later\n"


def test_without_json_tables_and_findings_go_to_stderr(pipeline: Install, capfd: pytest.CaptureFixture[str]) -> None:
    pipeline(lambda *_a, **_o: {"target": "raspberrypi4", "findings": [FINDING]})
    assert check() == 0
    out, err = capfd.readouterr()
    assert out == ""
    assert "raspberrypi4" in err
    assert "warning[quant/no-range]: no range\n  at   conv" in err


def test_quiet_shows_problems_only(pipeline: Install, capfd: pytest.CaptureFixture[str]) -> None:
    note = {"code": "source/default-shape", "message": "batch is 1", "severity": "info"}
    pipeline(lambda *_a, **_o: {"target": "raspberrypi4", "findings": [FINDING, note]})
    assert check("--quiet") == 0
    err = capfd.readouterr().err
    assert "raspberrypi4" not in err
    assert "batch is 1" not in err
    assert "no range" in err


def test_a_finding_of_severity_error_sets_the_exit_code(pipeline: Install) -> None:
    pipeline(lambda *_a, **_o: {"findings": [FINDING, FINDING | {"severity": "error"}]})
    assert check("--json") == 7


def test_error_as_json(pipeline: Install, capfd: pytest.CaptureFixture[str]) -> None:
    several = [Finding(code="backend/unsupported-op", message=f"no {op}", where=op) for op in ("Foo", "Bar")]
    pipeline(raising(EdgecError("backend/unsupported-op", "2 operators", hint="rewrite them", findings=several)))
    assert check("--json") == 5
    error = json.loads(capfd.readouterr().out)["error"]
    assert (error["code"], error["message"], error["hint"], error["exit_code"]) == (
        "backend/unsupported-op", "2 operators", "rewrite them", 5,
    )  # fmt: skip
    assert [finding["where"] for finding in error["findings"]] == ["Foo", "Bar"]


def test_error_for_a_person(pipeline: Install, capfd: pytest.CaptureFixture[str]) -> None:
    pipeline(raising(EdgecError("source/not-found", "there is no file 'm.onnx'", where="m.onnx", hint="check it")))
    assert check() == 3
    out, err = capfd.readouterr()
    assert (out, err) == (
        "", "error[source/not-found]: there is no file 'm.onnx'\n  at   m.onnx\n  hint check it\n",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("error", "code", "exit_code"),
    [
        (ValueError("first line\nsecond"), "internal/unexpected", 1),
        (ValueError(), "internal/unexpected", 1),
        (MemoryError(), "env/memory", 10),
        (OSError(28, "No space left on device", "/x"), "io/failed", 9),
        (OSError("odd"), "internal/unexpected", 1),
    ],
)
def test_other_exceptions_become_errors_without_traceback(
    pipeline: Install, capfd: pytest.CaptureFixture[str], error: Exception, code: str, exit_code: int
) -> None:
    pipeline(raising(error))
    assert check("--json") == exit_code
    out, err = capfd.readouterr()
    assert json.loads(out)["error"]["code"] == code
    assert "Traceback" not in err
    assert "second" not in out + err


def test_debug_shows_the_traceback(pipeline: Install, capfd: pytest.CaptureFixture[str]) -> None:
    pipeline(raising(EdgecError("source/not-found", "gone")))
    assert check("--debug") == 3
    err = capfd.readouterr().err
    assert err.startswith("Traceback")
    assert err.endswith("error[source/not-found]: gone\n")


def test_interrupt(pipeline: Install, capfd: pytest.CaptureFixture[str]) -> None:
    pipeline(raising(KeyboardInterrupt()))
    assert check("--json") == 130
    out, err = capfd.readouterr()
    assert json.loads(out)["error"]["code"] == "cli/interrupted"
    assert "Traceback" not in err
