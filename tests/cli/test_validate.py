"""`edgec validate` on the command line: one JSON object, tables on stderr, exit codes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from edgec.cli.app import main
from edgec.report.validation import render_validation
from tests.support import tiny_bundles as tiny


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return tiny.pack(tmp_path / "tiny.edgec", tiny.tflite_artifact(int8=True))


def test_a_validation_with_threads_a_long_run_and_a_record(bundle: Path, capfd: pytest.CaptureFixture[str]) -> None:
    code = main(["validate", str(bundle), "--threads", "1,2", "--sustained", "1", "--record", "--json"])
    answer = json.loads(capfd.readouterr().out)
    assert code == 0
    assert [row["threads"] for row in answer["latency"]] == [1, 2]
    assert answer["sustained"]["duration_s"] >= 1
    assert answer["bit_exact"] is True
    assert Path(answer["record"]).is_file()
    shown = render_validation(answer)
    for piece in ("passed", "bit for bit", "p99", "too short for MLPerf", "XNNPACK"):
        assert piece in shown
    assert main(["inspect", str(bundle), "--json"]) == 0
    (row,) = json.loads(capfd.readouterr().out)["proofs"]
    assert row["file"] == Path(answer["record"]).name


def test_what_failed_is_told_in_table_and_exit_code(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path = tiny.pack(tmp_path / "x.edgec", tiny.tflite_artifact(), goldens=[])
    assert main(["validate", str(path)]) == 8
    told = capfd.readouterr().err
    assert "validate/no-goldens" in told
    assert "failed" in told


@pytest.mark.parametrize(
    ("options", "code"),
    [
        (["--threads", "two"], "cli/count"),
        (["--threads", "0"], "cli/count"),
        (["--metric", "top1"], "cli/validate-options"),
        (["--app", "app.py"], "cli/validate-options"),
        (["--sign-key", "key.pem"], "cli/validate-options"),
    ],
)
def test_options_that_make_no_sense(
    bundle: Path, capfd: pytest.CaptureFixture[str], options: list[str], code: str
) -> None:
    assert main(["validate", str(bundle), *options, "--json"]) == 2
    assert json.loads(capfd.readouterr().out)["error"]["code"] == code


def test_stages_and_task_are_shown() -> None:
    stage = {
        "stage": "preprocessing",
        "passed": False,
        "samples": 4,
        "why": "it is mirrored",
        "facts": {"worst_db": 1.5},
    }
    task = {
        "data": "8 samples", "samples": 8, "metric": "top1", "device": 0.5, "host": 0.75, "float_model": None,
        "equal_share": 0.25, "top1_agreement": None, "sqnr_db": 3.0,
    }  # fmt: skip
    shown = render_validation(
        {"passed": False, "device": "kitchen", "emulated": "qemu-user", "guilty": ["preprocessing"], "stages": [stage],
         "task": task, "hardware": {"cpu": "Cortex-A72"}}
    )  # fmt: skip
    for piece in ("GUILTY", "it is mirrored", "emulated: qemu-user", "device 0.5000, host 0.7500", "25.00 %"):
        assert piece in shown
    assert "float model" not in shown
