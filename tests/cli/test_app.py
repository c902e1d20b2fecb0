"""The commands and their options: what scripts rely on."""

from __future__ import annotations

import json
import subprocess
import sys
import types
from typing import Any

import pytest

from edgec.cli.app import main
from edgec.cli.options import parse_inputs
from edgec.errors import EdgecError
from edgec.frontends.base import SourceOptions

HEAVY = ("numpy", "onnx", "onnx_ir", "onnxruntime", "openvino", "ai_edge_litert", "pydantic", "rich", "torch")


def edgec(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "edgec", *arguments], capture_output=True, text=True, timeout=60)


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys; from edgec.cli.app import main; main(['--help']); "
        "print([name for name in sys.argv[1:] if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code, *HEAVY], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.splitlines()[-1] == "[]"


def test_help_lists_the_commands(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 0
    out = capsys.readouterr().out
    for command in ("build", "check", "calibrate", "compare", "inspect", "validate", "targets", "doctor"):
        assert f"\n  {command} " in out


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    import edgec as package

    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"edgec {package.__version__}\n"


@pytest.mark.parametrize(
    "arguments",
    [
        ["nothing"],
        ["build"],
        ["build", "m.onnx"],
        ["build", "m.onnx", "--target"],
        ["build", "m.onnx", "--target", "raspberrypi", "--precision", "int7"],
        ["build", "m.onnx", "--target", "raspberrypi", "--samples", "0"],
        ["build", "m.onnx", "--target", "raspberrypi", "--backend", "onnx"],
        ["build", "m.onnx", "--target", "raspberrypi", "--unknown"],
        ["targets", "nothing"],
    ],
)
def test_usage_errors(arguments: list[str], capfd: pytest.CaptureFixture[str]) -> None:
    assert main([arguments[0], "--json", *arguments[1:]]) == 2
    error = json.loads(capfd.readouterr().out)["error"]
    assert error["code"] == "cli/usage"
    assert error["exit_code"] == 2


def test_build_hands_its_options_to_the_pipeline(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    seen: dict[str, Any] = {}

    def run_build(source: str, **options: Any) -> Any:
        seen.update(options, source=source)
        return types.SimpleNamespace(summary={"bundle": "dist/m.edgec", "findings": []})

    module = types.ModuleType("edgec.pipeline")
    module.run_build = run_build  # type: ignore[attr-defined]  # a stand-in for the real module
    monkeypatch.setitem(sys.modules, "edgec.pipeline", module)
    given = "build m.onnx --target raspberrypi --calibration images --samples 7 --precision int16x8 --backend openvino"
    more = "--output dist --input a:0:1x3x8 --input b:4:int64 --io-layout source --stop-after plan --sign-key key.pem"
    more += " --json --source torch --trust"
    assert main([*given.split(), *more.split()]) == 0
    assert json.loads(capfd.readouterr().out)["bundle"] == "dist/m.edgec"
    seen.pop("progress")(("calibrate"), 1, 2)
    assert seen == {
        "source": "m.onnx",
        "target": "raspberrypi",
        "calibration": "images",
        "samples": 7,
        "precision": "int16x8",
        "effort": None,
        "ranges": None,
        "min_sqnr": None,
        "max_drop": None,
        "metric": None,
        "evaluation": None,
        "ship_anyway": False,
        "backend": "openvino",
        "output": "dist",
        "inputs": {"a:0": (1, 3, 8), "b": (4,)},
        "reading": SourceOptions(kind="torch", trust=True, dtypes={"b": "int64"}),
        "io_layout": "source",
        "stop_after": "plan",
        "sign_key": "key.pem",
        "keep_graphs": False,
        "labels": None,
        "packaging": [],
    }


def test_build_defaults(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: dict[str, Any] = {}

    def run_build(_source: str, **options: Any) -> Any:
        seen.update(options)
        return types.SimpleNamespace(summary={"bundle": "m.edgec"})

    module = types.ModuleType("edgec.pipeline")
    module.run_build = run_build  # type: ignore[attr-defined]  # a stand-in for the real module
    monkeypatch.setitem(sys.modules, "edgec.pipeline", module)
    assert main(["build", "m.onnx", "--target", "raspberrypi"]) == 0
    del seen["progress"]
    assert seen.pop("precision") == "auto"
    assert seen.pop("output") == "."
    assert seen.pop("io_layout") == "auto"
    assert seen.pop("target") == "raspberrypi"
    assert seen.pop("keep_graphs") is False
    assert seen.pop("ship_anyway") is False
    assert seen.pop("packaging") == []
    assert (seen.pop("inputs"), seen.pop("reading")) == ({}, SourceOptions())
    assert set(seen.values()) == {None}


def test_inputs() -> None:
    given = parse_inputs(["ids:1x128:int64", "x:2"])
    assert (given.shapes, given.dtypes) == ({"ids": (1, 128), "x": (2,)}, {"ids": "int64"})
    assert parse_inputs(None).shapes == {}
    assert parse_inputs(["x:1x3x224x224", "serving:0:2", "s:"]).shapes == {
        "x": (1, 3, 224, 224), "serving:0": (2,), "s": (),
    }  # fmt: skip


@pytest.mark.parametrize("texts", [["x"], [":1x2"], ["x:1x"], ["x:axb"], ["x:-1x2"], ["x:1", "x:2"]])
def test_inputs_that_cannot_be_read(texts: list[str]) -> None:
    with pytest.raises(EdgecError) as caught:
        parse_inputs(texts)
    assert caught.value.code == "cli/input-shape"


def test_targets_list_as_json_and_as_text(capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["targets", "list", "--json"]) == 0
    listed = json.loads(capfd.readouterr().out)["targets"]
    assert main(["targets"]) == 0
    text = capfd.readouterr().out
    assert {"raspberrypi4", "intel-cpu"} <= {row["name"] for row in listed}
    for row in listed:
        assert row["name"] in text


def test_targets_show(capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["targets", "show", "raspberrypi", "--json"]) == 0
    assert json.loads(capfd.readouterr().out)["id"] == "raspberrypi4"
    assert main(["targets", "show", "raspberrypi"]) == 0
    assert "Cortex-A72" in capfd.readouterr().out


def test_unknown_target(capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["targets", "show", "raspberypi"]) == 6
    assert "did you mean 'raspberrypi'?" in capfd.readouterr().err


def test_a_closed_pipe_is_no_error() -> None:
    command = f"{sys.executable} -m edgec.cli.app targets list | true"
    done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, timeout=60)
    assert "Traceback" not in done.stderr


def test_module_and_entry_point_agree() -> None:
    assert edgec("--version").stdout.startswith("edgec ")
    assert edgec("targets", "show", "nothing").returncode == 6


def test_help_names_the_stages_of_the_pipeline() -> None:
    from edgec.cli.options import STAGES
    from edgec.pipeline import STAGES as REAL

    assert ", ".join(REAL) == STAGES
